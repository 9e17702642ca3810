use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use testkit::braze::faults::{self, RateLimit};
use testkit::braze::{Endpoint, InputArray, Rejection};
use testkit::fault::{Answer, Fault};
use testkit::time::start;

use super::house::House;

#[tokio::test]
async fn whatever_passes_is_survived_and_applied_once() {
    let passing = [
        faults::unavailable(500),
        faults::unavailable(502),
        faults::unavailable(503),
        faults::unavailable(504),
        faults::rate_limited(RateLimit::RetryAfter(7)),
        faults::rate_limited(RateLimit::ResetAt(start() + SignedDuration::from_secs(60))),
        faults::rate_limited(RateLimit::ResetIn(60)),
        faults::rate_limited(RateLimit::Silent),
        Fault::CutBeforeProcessing,
        Fault::CutAfterProcessing,
    ];
    let house = House::start().await;
    for (n, fault) in passing.into_iter().enumerate() {
        let psid = format!("70{n:02}");
        house.braze.script(Endpoint::Track, fault.clone());
        house.receive(&[house.message(&psid)]).await;
        let report = house.tick().await;
        assert_eq!(report["retried"], 1, "{fault:?}: {report}");
        house.drain().await;
        assert_eq!(house.alias_messenger_id(&psid), Some(json!(psid)), "{fault:?}");
    }
    assert_eq!(house.rows("dead").await, 0);
}

#[tokio::test]
async fn brazes_own_wait_is_kept_to() {
    let house = House::start().await;
    house
        .braze
        .script(Endpoint::Track, faults::rate_limited(RateLimit::RetryAfter(600)));
    house.receive(&[house.message("7001")]).await;
    house.tick().await;
    house.later(SignedDuration::from_secs(500));
    house.tick().await;
    assert_eq!(
        house.braze.track_requests().len(),
        1,
        "not before the 600 s are over"
    );
    house.later(SignedDuration::from_secs(100));
    house.tick().await;
    assert_eq!(house.alias_messenger_id("7001"), Some(json!("7001")));
}

#[tokio::test]
async fn brazes_own_wait_is_kept_to_whatever_the_status() {
    for status in [400, 401, 403, 404, 408, 413, 422, 425, 429, 500, 502, 503, 504] {
        for name in ["retry-after", "x-ratelimit-retry-after"] {
            let house = House::start().await;
            let answer = Answer::html(status, "<html></html>").header(name, 600);
            house.braze.script(Endpoint::Track, Fault::Answer(answer));
            house.receive(&[house.message("7001")]).await;
            house.tick().await;
            let asked = house.braze.track_requests().len();
            house.later(SignedDuration::from_secs(560));
            house.tick().await;
            assert_eq!(house.braze.track_requests().len(), asked, "{status} {name}");
            house.later(SignedDuration::from_secs(10));
            house.tick().await;
            assert_eq!(
                house.alias_messenger_id("7001"),
                Some(json!("7001")),
                "{status} {name}"
            );
        }
    }
}

#[tokio::test]
async fn odd_successes_count_as_taken() {
    for fault in [faults::unexpected_message("queued"), faults::not_json()] {
        let house = House::start().await;
        house.braze.script(Endpoint::Track, fault);
        house.receive(&[house.message("7001")]).await;
        house.tick().await;
        assert_eq!(
            (house.pending().await, house.braze.track_requests().len()),
            (0, 1)
        );
    }
}

#[tokio::test]
async fn a_wrong_key_is_waited_for_and_not_given_up() {
    for fault in [faults::unauthorized(), faults::forbidden(), faults::not_found()] {
        let house = House::start().await;
        house.braze.script(Endpoint::Track, fault);
        house.receive(&[house.message("7001")]).await;
        house.tick().await;
        assert_eq!((house.pending().await, house.rows("dead").await), (1, 0));
        house.drain().await;
        assert_eq!(house.alias_messenger_id("7001"), Some(json!("7001")));
    }
}

#[tokio::test]
async fn one_object_at_fault_costs_only_itself() {
    let house = House::start().await;
    let items: Vec<_> = (0..60).map(|n| house.message(&format!("70{n:02}"))).collect();
    house.receive(&items).await;
    house.braze.script_rejections([Rejection {
        array: InputArray::Attributes,
        index: 7,
        kind: "BLACKLISTED_EXTERNAL_USER_ID".into(),
    }]);
    house.tick().await;
    assert_eq!((house.rows("dead").await, house.rows("done").await), (1, 59));
    assert_eq!(house.braze.profiles().len(), 59);
}

#[tokio::test]
async fn a_poisoned_batch_is_halved_until_the_poison_stands_alone() {
    let house = House::start().await;
    house.braze.poison("7033");
    let items: Vec<_> = (0..70).map(|n| house.message(&format!("70{n:02}"))).collect();
    house.receive(&items).await;
    house.tick().await;
    assert_eq!((house.rows("dead").await, house.rows("done").await), (1, 69));
    assert_eq!(house.alias_messenger_id("7033"), None);
    assert!(
        house.braze.track_requests().len() <= 15,
        "{}",
        house.braze.track_requests().len()
    );
    drop(house.braze.take_refusals());
}

#[tokio::test]
async fn a_dead_item_can_be_redriven_to_success() {
    let house = House::start().await;
    house
        .braze
        .script(Endpoint::Track, faults::bad_request("Mismatched Message Type"));
    house.receive(&[house.message("7001")]).await;
    house.tick().await;
    assert_eq!(house.rows("dead").await, 1);
    let outbox = shared::outbox::Outbox::new(
        house.aws.dynamodb(),
        house.outbox_table.clone(),
        house.clock.clone(),
    );
    let dead = outbox.list_dead(shared::outbox::Lane::Sync, 10).await.unwrap();
    assert!(outbox.redrive(&dead[0]).await.unwrap());
    house.tick().await;
    assert_eq!(house.alias_messenger_id("7001"), Some(json!("7001")));
}

#[tokio::test]
async fn after_36_hours_it_is_given_up() {
    let house = House::start().await;
    house.braze.begin_outage(faults::unavailable(503));
    house.receive(&[house.message("7001")]).await;
    house.tick().await;
    for _ in 0..37 {
        house.later(SignedDuration::from_hours(1));
        house.tick().await;
    }
    assert_eq!((house.pending().await, house.rows("dead").await), (0, 1));
    house.braze.end_outage();
}

#[tokio::test]
async fn a_failed_identify_writes_no_attribute() {
    let house = House::start().await;
    house.receive(&[house.message("7001")]).await;
    house.drain().await;
    house.braze.script(Endpoint::Identify, faults::unavailable(503));
    house.receive(&[house.referral("7001", "user-1")]).await;
    house.tick().await;
    assert_eq!(
        house.braze.profile("user-1"),
        None,
        "it would be a second profile of one person"
    );
    house.drain().await;
    assert_eq!(house.messenger_id("user-1"), Some(json!("7001")));
    assert_eq!(house.braze.profiles().len(), 1);
}

#[tokio::test]
async fn a_dispatcher_that_died_after_the_call_does_no_harm() {
    let house = House::with(&[("MESSENGER_EVENTS", "message")]).await;
    house.receive(&[house.message("7001")]).await;
    // The process dies between Braze's answer and the settling: the answer never arrives.
    house
        .braze
        .script(Endpoint::Track, Fault::Silence(Duration::from_mins(1)));
    house.later(SignedDuration::from_secs(31));
    let died = tokio::time::timeout(
        Duration::from_secs(2),
        house
            .dispatch
            .handle_until(json!({}), super::house::deadline(&house.clock)),
    )
    .await;
    assert!(died.is_err());
    house.tick().await;
    assert_eq!(
        house.pending().await,
        2,
        "the lease keeps a second dispatcher away"
    );
    house.drain().await;
    assert_eq!(house.alias_messenger_id("7001"), Some(json!("7001")));
    assert_eq!(house.braze.events().len(), 1);
}

#[tokio::test]
async fn two_dispatchers_at_once_send_an_event_once() {
    let house = House::with(&[("MESSENGER_EVENTS", "message")]).await;
    let items: Vec<_> = (0..20).map(|n| house.message(&format!("70{n:02}"))).collect();
    house.receive(&items).await;
    house.later(SignedDuration::from_secs(31));
    let until = super::house::deadline(&house.clock);
    let runs = (0..4).map(|_| house.dispatch.handle_until(json!({}), until));
    futures_util::future::join_all(runs)
        .await
        .into_iter()
        .for_each(|run| drop(run.unwrap()));
    house.drain().await;
    assert_eq!(house.braze.events().len(), 20);
}

#[tokio::test]
async fn a_table_that_cannot_be_written_is_a_503_and_the_retry_completes_it() {
    use testkit::aws::Fault;
    for fault in [Fault::ServiceUnavailable, Fault::Throttle, Fault::AnswerLost] {
        let house = House::start().await;
        let delivery = [house.message("7001")];
        house.aws.fail_next("TransactWriteItems", 3, fault);
        let first = house.receive(&delivery).await;
        assert!(first == 503 || fault == Fault::AnswerLost, "{fault:?}: {first}");
        house.aws.clear_faults();
        assert_eq!(house.receive(&delivery).await, 200);
        house.drain().await;
        assert_eq!(house.alias_messenger_id("7001"), Some(json!("7001")));
        assert_eq!(house.braze.track_requests().len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn brazes_wait_holds_for_other_people_too() {
    let house = House::start().await;
    let wait = Fault::Answer(Answer::json(503, &json!({})).header("retry-after", "90"));
    house.braze.script(Endpoint::Track, wait);
    house.receive(&[house.message("7001")]).await;
    house.tick().await;
    assert_eq!(house.braze.request_count(), 1);
    house.receive(&[house.message("7002")]).await;
    house.tick().await;
    assert_eq!(house.braze.request_count(), 1, "Braze was asked before its time");
    house.later(SignedDuration::from_secs(60));
    house.receive(&[house.message("7003")]).await;
    house.tick().await;
    assert!(house.braze.request_count() > 1);
    house.drain().await;
    assert_eq!(house.braze.profiles().len(), 3);
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let house = House::start().await;
    let endless = Answer::json(
        201,
        &json!({"message": "success", "filler": "x".repeat(2 * 1024 * 1024)}),
    );
    house.braze.script(Endpoint::Track, Fault::ProcessedThen(endless));
    house.receive(&[house.message("7001")]).await;
    let report = house.tick().await;
    assert_eq!(report["done"], 1, "the status says that it was taken: {report}");
    assert_eq!(house.braze.track_requests().len(), 1);
}
