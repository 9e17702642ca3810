use jiff::SignedDuration;
use serde_json::json;
use shared::erase::{Erasures, Order, Source, Target};
use shared::outbox::Outbox;
use shared::personal::Personal;

use super::house::{House, PAGE, deadline};

#[tokio::test]
async fn a_stranger_becomes_an_alias_profile() {
    let house = House::start().await;
    assert_eq!(house.receive(&[house.message("7001")]).await, 200);
    house.drain().await;
    assert_eq!(
        house.alias_messenger_id("7001"),
        Some(json!("7001")),
        "a JSON string"
    );
    assert_eq!(house.braze.track_requests().len(), 1);
}

#[tokio::test]
async fn a_link_moves_the_profile_to_the_user() {
    let house = House::start().await;
    house.receive(&[house.message("7001")]).await;
    house.drain().await;
    house.receive(&[house.referral("7001", "user-42")]).await;
    house.drain().await;
    assert_eq!(house.messenger_id("user-42"), Some(json!("7001")));
    assert_eq!(
        house
            .braze
            .alias_profile(&format!("messenger:{PAGE}"), "7001")
            .unwrap()
            .external_id
            .as_deref(),
        Some("user-42")
    );
    assert_eq!(house.braze.profiles().len(), 1, "one person, one profile");
}

#[tokio::test]
async fn linked_before_the_first_sync_there_is_never_an_alias() {
    let house = House::start().await;
    house
        .receive(&[house.message("7001"), house.referral("7001", "user-42")])
        .await;
    house.drain().await;
    assert_eq!(house.messenger_id("user-42"), Some(json!("7001")));
    assert_eq!(house.alias_messenger_id("7001"), None);
}

#[tokio::test]
async fn linked_to_another_user_the_first_one_loses_the_id() {
    let house = House::start().await;
    house.receive(&[house.referral("7001", "user-1")]).await;
    house.drain().await;
    house.later(SignedDuration::from_mins(1));
    house.receive(&[house.referral("7001", "user-2")]).await;
    house.drain().await;
    assert_eq!(house.messenger_id("user-1"), None);
    assert_eq!(house.messenger_id("user-2"), Some(json!("7001")));
}

#[tokio::test]
async fn unlinked_the_user_loses_the_id_and_nothing_more_is_sent() {
    let house = House::start().await;
    house.receive(&[house.referral("7001", "user-1")]).await;
    house.drain().await;
    house.later(SignedDuration::from_mins(1));
    house
        .receive(&[house.item("7001", "account_linking", json!({"status": "unlinked"}))])
        .await;
    house.drain().await;
    assert_eq!(house.messenger_id("user-1"), None);
    let before = house.braze.request_count();
    house.later(SignedDuration::from_hours(5));
    house.receive(&[house.message("7001")]).await;
    house.drain().await;
    assert_eq!(house.braze.request_count(), before);
    house.receive(&[house.referral("7001", "user-1")]).await;
    house.drain().await;
    assert_eq!(house.messenger_id("user-1"), Some(json!("7001")));
}

#[tokio::test]
async fn ten_messages_in_an_hour_cost_one_request() {
    let house = House::start().await;
    for _ in 0..10 {
        house.receive(&[house.message("7001")]).await;
        house.tick().await;
        house.later(SignedDuration::from_mins(5));
    }
    house.drain().await;
    assert_eq!(house.braze.track_requests().len(), 1);
}

#[tokio::test]
async fn a_known_contact_within_the_window_costs_one_round_trip_and_a_new_one_two() {
    let house = House::start().await;
    house.receive(&[house.message("7000")]).await; // secrets are cached from here on
    house.aws.reset_calls();
    house.receive(&[house.message("7001")]).await;
    assert_eq!(house.aws.dynamodb_calls().total(), 2);
    house.drain().await;
    let requests = house.braze.request_count();
    house.aws.reset_calls();
    house.receive(&[house.message("7001")]).await;
    assert_eq!(house.aws.dynamodb_calls().total(), 1);
    assert_eq!(house.pending().await, 0);
    house.drain().await;
    assert_eq!(house.braze.request_count(), requests);
}

#[tokio::test]
async fn a_redelivery_and_a_late_event_change_nothing() {
    let house = House::with(&[("MESSENGER_EVENTS", "message")]).await;
    let early = house.message("7001");
    house.later(SignedDuration::from_mins(1));
    let late = [house.message("7001"), house.referral("7001", "user-1")];
    house.receive(&late).await;
    house.drain().await;
    let profile = house.braze.profile("user-1").unwrap();
    house.later(SignedDuration::from_hours(30));
    house.receive(&late).await;
    house.drain().await;
    assert_eq!(house.braze.profile("user-1").unwrap(), profile);
    house.receive(&[early]).await;
    house.drain().await;
    let after = house.braze.profile("user-1").unwrap();
    assert_eq!(after.attributes, profile.attributes);
    assert_eq!(
        (profile.events.len(), after.events.len()),
        (1, 2),
        "the late message is an event of its own"
    );
}

#[tokio::test]
async fn custom_events_follow_their_attributes_in_one_request() {
    let house = House::with(&[("MESSENGER_EVENTS", "message,referral")]).await;
    house
        .receive(&[house.message("7001"), house.referral("7001", "user-1")])
        .await;
    house.drain().await;
    let profile = house.braze.profile("user-1").unwrap();
    let names: Vec<&str> = profile.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&"messenger_message") && names.contains(&"messenger_referral"));
    let requests = house.braze.track_requests();
    assert_eq!(requests.len(), 1);
    assert!(
        !requests[0].body.to_string().contains("hello"),
        "message texts stay here"
    );
}

#[tokio::test]
async fn stop_and_start_are_written_down() {
    let house = House::start().await;
    house
        .receive(&[house.item("7001", "message", json!({"mid": "m_a", "text": " stop "}))])
        .await;
    house.drain().await;
    let opted_out = |house: &House| {
        let profile = house
            .braze
            .alias_profile(&format!("messenger:{PAGE}"), "7001")
            .unwrap();
        profile.attribute("messenger_opted_out").cloned()
    };
    assert_eq!(opted_out(&house), Some(json!(true)));
    house.later(SignedDuration::from_mins(1));
    house
        .receive(&[house.item("7001", "message", json!({"mid": "m_b", "text": "START"}))])
        .await;
    house.drain().await;
    assert_eq!(opted_out(&house), Some(json!(false)));
}

#[tokio::test]
async fn held_contacts_wait_for_their_link() {
    let house = House::with(&[("UNLINKED_CONTACTS", "hold")]).await;
    house.receive(&[house.message("7001")]).await;
    house.drain().await;
    assert_eq!(house.braze.request_count(), 0);
    house.receive(&[house.referral("7001", "user-1")]).await;
    house.drain().await;
    assert_eq!(house.messenger_id("user-1"), Some(json!("7001")));
}

#[tokio::test]
async fn the_checkbox_plugin_links_in_either_order() {
    for swapped in [false, true] {
        let house = House::start().await;
        let referral = house.referral("7001", "user-1");
        let optin = json!({
            "recipient": {"id": PAGE}, "timestamp": house.clock.now().as_millisecond(),
            "optin": {"ref": referral["referral"]["ref"], "user_ref": "form-1"},
        });
        let mut message = house.message("7001");
        message["prior_message"] = json!({"source": "checkbox_plugin", "identifier": "form-1"});
        let mut deliveries = [optin, message];
        if swapped {
            deliveries.reverse();
        }
        for delivery in deliveries {
            assert_eq!(house.receive(&[delivery]).await, 200);
            house.later(SignedDuration::from_secs(1));
        }
        house.drain().await;
        assert_eq!(
            house.messenger_id("user-1"),
            Some(json!("7001")),
            "swapped: {swapped}"
        );
    }
}

#[tokio::test]
async fn the_stream_settles_an_item_within_the_second() {
    let house = House::start().await;
    house.receive(&[house.message("7001")]).await;
    let event = house.stream().await;
    assert_eq!(event["Records"].as_array().unwrap().len(), 1);
    let answer = house
        .dispatch
        .handle_until(event, deadline(&house.clock))
        .await
        .unwrap();
    assert_eq!(answer, json!({"batchItemFailures": []}));
    assert_eq!(house.alias_messenger_id("7001"), Some(json!("7001")));
    assert_eq!(house.pending().await, 0);
}

/// A stream tells it again for up to a day.
#[tokio::test]
async fn what_the_stream_tells_of_somebody_who_was_erased_since_leaves_nothing() {
    let house = House::start().await;
    house
        .receive(&[house.message("7001"), house.message("7002")])
        .await;
    let told = house.stream().await;
    house.drain().await;
    assert_eq!(house.rows("done").await, 2);
    let outbox = Outbox::new(
        house.aws.dynamodb(),
        house.outbox_table.clone(),
        house.clock.clone(),
    );
    let target = Target::Scoped {
        id: Personal("7001".to_owned()),
        accounts: vec![PAGE.to_owned()],
    };
    let order = Order::new(target, Source::Operator, house.clock.now());
    let ordered = Erasures::new(outbox).order(&"0".repeat(32), &order).await;
    assert!(ordered.unwrap());
    for _ in 0..3 {
        house.tick().await;
        house.later(SignedDuration::from_mins(11));
    }
    let rows = async || (house.rows("done").await, house.rows("pending").await);
    let before = rows().await;
    house
        .dispatch
        .handle_until(told, deadline(&house.clock))
        .await
        .unwrap();
    assert_eq!(rows().await, before);
}
