//! Braze refuses everything alike: a fault of the configuration, of which nothing dies.

use jiff::SignedDuration;
use serde_json::json;
use testkit::braze::{Endpoint, faults};
use testkit::fault::{Answer, Fault};

use super::house::{House, deadline};

/// What may stand between us and Braze, or be wrong with every request, and names no object.
fn refusals() -> [Fault; 8] {
    [
        faults::bad_request("Bad syntax"),
        faults::bad_request("Max Input Length Exceeded"),
        Fault::Answer(Answer::html(400, "<html>blocked by the proxy</html>")),
        Fault::Answer(Answer::json(422, &json!({}))),
        Fault::Answer(Answer::json(
            400,
            &json!({"errors": [{"message": "bad request"}]}),
        )),
        Fault::Answer(Answer::json(
            400,
            &json!({"errors": ["BLACKLISTED_EXTERNAL_USER_ID"]}),
        )),
        Fault::Answer(Answer::html(413, "<html>too large for the proxy</html>")),
        Fault::Answer(Answer::html(413, "")),
    ]
}

/// A minute in which whatever is due is tried every four seconds, as streams and schedules of a busy stack do.
async fn a_minute(house: &House) {
    house.later(SignedDuration::from_secs(31));
    for _ in 0..15 {
        house
            .dispatch
            .handle_until(json!({}), deadline(&house.clock))
            .await
            .unwrap();
        house.later(SignedDuration::from_secs(4));
    }
}

async fn everybody(house: &House, people: usize) {
    let items: Vec<_> = (0..people).map(|n| house.message(&format!("7{n:03}"))).collect();
    house.receive(&items).await;
}

#[tokio::test]
async fn nothing_dies_and_few_requests_are_made() {
    for (refusal, people) in refusals().into_iter().zip([120, 4, 2, 30, 40, 150, 150, 3]) {
        let house = House::with(&[("RETRY_BASE_SECONDS", "1")]).await;
        everybody(&house, people).await;
        house.braze.begin_outage(refusal.clone());
        a_minute(&house).await;
        let first = house.braze.request_count();
        assert!(first < 20, "{first} requests for {refusal:?}");
        a_minute(&house).await;
        let later = house.braze.request_count() - first;
        assert!(later <= 5, "{later} requests a minute later for {refusal:?}");
        assert_eq!((house.rows("dead").await, house.pending().await), (0, people));

        house.braze.end_outage();
        house.drain().await;
        assert_eq!((house.rows("dead").await, house.rows("done").await), (0, people));
        assert_eq!(house.braze.profiles().len(), people);
    }
}

/// A setting may make every object bad, and each is named: in one answer, also one of success, or one after the other.
#[tokio::test]
async fn objects_that_are_all_named_are_no_bad_ones() {
    let error = |index: usize| json!({"type": "invalid", "input_array": "attributes", "index": index});
    let all: Vec<_> = (0..75).map(error).collect();
    for (status, errors, most_dead) in [(400, &all[..], 0), (201, &all[..], 0), (400, &all[..1], 9)] {
        let house = House::with(&[("RETRY_BASE_SECONDS", "1")]).await;
        everybody(&house, 150).await;
        let refusal = Answer::json(status, &json!({"message": "no", "errors": errors}));
        house.braze.begin_outage(Fault::Answer(refusal));
        for _ in 0..3 {
            a_minute(&house).await;
        }
        assert!(
            house.braze.request_count() < 40,
            "{}",
            house.braze.request_count()
        );
        let dead = house.rows("dead").await;
        assert!(dead <= most_dead, "{dead}");

        house.braze.end_outage();
        house.drain().await;
        assert_eq!(
            (house.rows("dead").await, house.rows("done").await),
            (dead, 150 - dead)
        );
    }
}

#[tokio::test]
async fn after_days_of_it_everything_is_still_there() {
    let house = House::start().await;
    everybody(&house, 20).await;
    house.braze.begin_outage(faults::bad_request("Bad syntax"));
    house.tick().await;
    for _ in 0..40 {
        house.later(SignedDuration::from_hours(1));
        house.tick().await;
    }
    assert_eq!((house.rows("dead").await, house.pending().await), (0, 20));
    house.braze.end_outage();
    house.drain().await;
    assert_eq!(house.rows("done").await, 20);
}

#[tokio::test]
async fn one_after_the_other_they_are_few_requests_too() {
    let house = House::with(&[("RETRY_BASE_SECONDS", "1")]).await;
    let names_nobody = json!({"errors": [{"message": "bad request"}]});
    house
        .braze
        .begin_outage(Fault::Answer(Answer::json(400, &names_nobody)));
    for n in 0..15 {
        house.receive(&[house.message(&format!("7{n:03}"))]).await;
        house
            .dispatch
            .handle_until(json!({}), deadline(&house.clock))
            .await
            .unwrap();
        house.later(SignedDuration::from_secs(4));
    }
    assert!(house.braze.request_count() > 0);
    assert!(
        house.braze.request_count() <= 6,
        "{}",
        house.braze.request_count()
    );
    assert_eq!(house.rows("dead").await, 0);
    house.braze.end_outage();
    house.drain().await;
    assert_eq!(house.braze.profiles().len(), 15);
}

#[tokio::test]
async fn identify_alone_may_be_refused() {
    let house = House::with(&[("RETRY_BASE_SECONDS", "1")]).await;
    everybody(&house, 60).await;
    house.drain().await;
    let links: Vec<_> = (0..60)
        .map(|n| house.referral(&format!("7{n:03}"), &format!("user-{n}")))
        .collect();
    house.receive(&links).await;
    for _ in 0..200 {
        house
            .braze
            .script(Endpoint::Identify, faults::bad_request("Bad syntax"));
    }
    let before = house.braze.request_count();
    a_minute(&house).await;
    let asked = house.braze.request_count() - before;
    assert!(asked < 20, "{asked}");
    assert_eq!(house.rows("dead").await, 0);
    house.braze.clear_script();
    house.drain().await;
    assert_eq!(house.messenger_id("user-59"), Some(json!("7059")));
}

/// The first halving of a batch with a bad object on either side looks like a refusal of everything.
#[tokio::test]
async fn two_bad_objects_of_one_batch_die_alone() {
    let house = House::start().await;
    everybody(&house, 75).await;
    house.braze.poison("x-bad");
    let bad = ["7003x-bad", "7999x-bad"];
    let items: Vec<_> = bad.iter().map(|psid| house.message(psid)).collect();
    house.receive(&items).await;
    house.drain().await;
    assert_eq!((house.rows("dead").await, house.rows("done").await), (2, 75));
    for psid in bad {
        assert_eq!(house.alias_messenger_id(psid), None);
    }
}

#[tokio::test]
async fn who_is_refused_alone_waits_until_somebody_else_is_taken() {
    let house = House::start().await;
    house.braze.poison("7001");
    house.receive(&[house.message("7001")]).await;
    for _ in 0..3 {
        house.tick().await;
        house.later(SignedDuration::from_mins(10));
    }
    assert_eq!((house.rows("dead").await, house.pending().await), (0, 1));
    house.receive(&[house.message("7002")]).await;
    house.drain().await;
    assert_eq!((house.rows("dead").await, house.rows("done").await), (1, 1));
}
