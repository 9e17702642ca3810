//! Of a request to Braze each object has its own fate.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::braze::{Endpoint, InputArray, Rejection, faults};
use testkit::fault::{Answer, Fault};

use super::house::House;

const WITH_EVENTS: [(&str, &str); 1] = [("MESSENGER_EVENTS", "message")];

/// 201 that names an object in a way nobody has documented.
fn taken_but(error: &Value) -> Fault {
    Fault::Answer(Answer::json(
        201,
        &json!({"message": "success", "errors": [error]}),
    ))
}

#[tokio::test]
async fn a_refused_event_costs_neither_the_profile_nor_other_events() {
    let house = House::with(&WITH_EVENTS).await;
    house
        .receive(&[house.message("7001"), house.message("7001")])
        .await;
    house.braze.script_rejections([Rejection {
        array: InputArray::Events,
        index: 0,
        kind: "EXTERNAL_USER_ID_TOO_LARGE".into(),
    }]);
    house.tick().await;
    assert_eq!((house.rows("dead").await, house.rows("done").await), (1, 2));
    assert_eq!(house.braze.events().len(), 1);
    assert_eq!(
        house.reason().await,
        "braze_object_rejected: EXTERNAL_USER_ID_TOO_LARGE"
    );

    // What Braze was told is noted: it is not told again.
    house.receive(&[house.message("7001")]).await;
    house.drain().await;
    let last = house.braze.track_requests().pop().unwrap();
    assert_eq!(last.body.get("attributes"), None, "{}", last.body);
}

#[tokio::test]
async fn a_refused_profile_costs_no_event() {
    let house = House::with(&WITH_EVENTS).await;
    house.receive(&[house.message("7001")]).await;
    house.drain().await;
    house.receive(&[house.referral("7001", "user-1")]).await;
    house.receive(&[house.message("7001")]).await;
    house.braze.script_rejections([Rejection {
        array: InputArray::Attributes,
        index: 0,
        kind: "BLACKLISTED_EXTERNAL_USER_ID".into(),
    }]);
    house.tick().await;
    assert_eq!(house.rows("dead").await, 1);
    assert_eq!(house.braze.events().len(), 2);
}

#[tokio::test]
async fn the_events_of_a_request_that_was_taken_are_not_sent_again_with_the_next() {
    let house = House::with(&WITH_EVENTS).await;
    let items: Vec<_> = (0..200).map(|_| house.message("7001")).collect();
    house.receive(&items).await;
    house.braze.script(Endpoint::Track, Fault::Late(Duration::ZERO));
    house.braze.script(Endpoint::Track, faults::unavailable(503));
    house.tick().await;
    assert_eq!(
        house.braze.track_requests().len(),
        2,
        "the third must not overtake the second"
    );
    assert_eq!((house.rows("done").await, house.braze.events().len()), (70, 70));
    house.drain().await;
    assert_eq!(house.braze.events().len(), 200);
}

#[tokio::test]
async fn a_poisoned_event_dies_alone_though_braze_does_not_name_it() {
    let house = House::with(&WITH_EVENTS).await;
    let mut items: Vec<_> = (0..4).map(|_| house.message("7001")).collect();
    items[2]["timestamp"] = json!(house.clock.now().as_millisecond() - 3_000);
    house.receive(&items).await;
    house.braze.poison("T09:59:57");
    house.tick().await;
    assert_eq!((house.rows("dead").await, house.rows("done").await), (1, 4));
    assert_eq!(house.alias_messenger_id("7001"), Some(json!("7001")));
    assert_eq!(house.braze.events().len(), 3);
}

#[tokio::test]
async fn a_refusal_that_names_nothing_we_know_is_no_success() {
    // An index that cannot be is a name all the same; the others may be about whoever sends the request.
    for (error, dead) in [
        (json!({"type": "x"}), 0),
        (json!({"message": "bad request"}), 0),
        (json!("x"), 0),
        // Codes for bad objects, without a place.
        (json!("BLACKLISTED_EXTERNAL_USER_ID"), 0),
        (json!({"type": "EXTERNAL_USER_ID_TOO_LARGE"}), 0),
        (
            json!({"type": "EXTERNAL_USER_ID_TOO_LARGE", "input_array": "attributes"}),
            0,
        ),
        (json!({"index": 99, "input_array": "purchases"}), 1),
    ] {
        let refused = Fault::Answer(Answer::json(400, &json!({"errors": [error]})));
        let house = House::start().await;
        house.braze.script(Endpoint::Track, refused.clone());
        house.receive(&[house.message("7001")]).await;
        house.tick().await;
        assert_eq!(
            (house.rows("dead").await, house.rows("done").await),
            (dead, 0),
            "{error}"
        );

        let items: Vec<_> = (0..3).map(|n| house.message(&format!("71{n:02}"))).collect();
        house.receive(&items).await;
        house.braze.script(Endpoint::Track, refused);
        house.drain().await;
        assert_eq!(
            (house.rows("dead").await, house.rows("done").await),
            (dead, 4 - dead),
            "{error}"
        );
        assert_eq!(house.braze.profiles().len(), 4 - dead, "{error}");
    }
}

#[tokio::test]
async fn a_success_with_an_odd_error_does_not_tell_everything() {
    for error in [
        json!({"type": "x", "input_array": "attributes", "index": null}),
        json!("x"),
        json!({"type": "x", "input_array": "purchases", "index": 0}),
    ] {
        let house = House::with(&WITH_EVENTS).await;
        let items: Vec<_> = (0..3).map(|n| house.message(&format!("70{n:02}"))).collect();
        house.receive(&items).await;
        house.braze.script(Endpoint::Track, taken_but(&error));
        house.tick().await;
        // Attributes are written again; whether an event was taken, somebody has to find out.
        assert_eq!(
            (house.rows("dead").await, house.rows("done").await),
            (3, 3),
            "{error}"
        );
        assert_eq!(house.braze.profiles().len(), 3, "{error}");
        assert_eq!(house.braze.events().len(), 0, "{error}");
    }
}

#[tokio::test]
async fn an_index_that_is_a_text_is_understood() {
    let house = House::start().await;
    let items: Vec<_> = (0..3).map(|n| house.message(&format!("70{n:02}"))).collect();
    house.receive(&items).await;
    let error = json!({"type": "x", "input_array": "attributes", "index": "1"});
    house.braze.script(Endpoint::Track, taken_but(&error));
    house.tick().await;
    assert_eq!((house.rows("dead").await, house.rows("done").await), (1, 2));
    assert_eq!(house.braze.track_requests().len(), 1);
}

#[tokio::test]
async fn one_bad_link_costs_only_itself() {
    let house = House::start().await;
    let psids: Vec<String> = (0..10).map(|n| format!("70{n:02}")).collect();
    let items: Vec<_> = psids.iter().map(|psid| house.message(psid)).collect();
    house.receive(&items).await;
    house.drain().await;
    house.braze.poison("user-7003");
    let items: Vec<_> = psids
        .iter()
        .map(|psid| house.referral(psid, &format!("user-{psid}")))
        .collect();
    house.receive(&items).await;
    let done = house.rows("done").await;
    house.tick().await;
    assert_eq!(
        (house.rows("dead").await, house.rows("done").await),
        (1, done + 9)
    );
    for psid in &psids {
        let id = house.messenger_id(&format!("user-{psid}"));
        assert_eq!(id.is_some(), psid != "7003", "{psid}");
    }
}

#[tokio::test]
async fn links_that_braze_names_go_alone_and_the_others_in_the_same_tick() {
    for status in [201, 400] {
        let house = House::start().await;
        let psids: Vec<String> = (0..4).map(|n| format!("70{n:02}")).collect();
        let items: Vec<_> = psids.iter().map(|psid| house.message(psid)).collect();
        house.receive(&items).await;
        house.drain().await;
        let errors = json!({"errors": [{"type": "x", "input_array": "aliases_to_identify", "index": 2}]});
        let answer = Answer::json(status, &errors);
        let fault = match status {
            201 => Fault::ProcessedThen(answer),
            _ => Fault::Answer(answer),
        };
        house.braze.script(Endpoint::Identify, fault);
        let items: Vec<_> = psids
            .iter()
            .map(|psid| house.referral(psid, &format!("user-{psid}")))
            .collect();
        house.receive(&items).await;
        house.tick().await;
        assert_eq!(
            (house.rows("dead").await, house.pending().await),
            (1, 0),
            "{status}"
        );
    }
}
