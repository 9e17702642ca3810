//! What waits: for somebody to mend a setting, and for time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::SignedDuration;
use serde_json::{Value, json};
use shared::digest::Digest;
use shared::messenger::table::Contacts;
use shared::outbox::{Kind, Outbox, OutboxItem, SHARDS};
use shared::store::Claim;
use testkit::braze::{Endpoint, faults};
use testkit::fault::{Answer, Fault};
use testkit::graph::{self, Edge, GraphError};

use super::fbe::house::House as Business;
use super::messenger::house::House;
use super::whatsapp::house::House as Conversation;

fn outbox(house: &House) -> Outbox {
    let table = house.outbox_table.clone();
    Outbox::new(house.aws.dynamodb(), table, house.clock.clone())
}

/// Longer than `RETRY_FOR_HOURS`.
const HOURS: usize = 48;

#[tokio::test]
async fn what_waits_for_a_key_does_not_die_of_it() {
    let house = House::start().await;
    house.braze.begin_outage(faults::unauthorized());
    house.receive(&[house.message("7001")]).await;
    for _ in 0..HOURS {
        house.tick().await;
        house.later(SignedDuration::from_hours(1));
    }
    assert_eq!((house.pending().await, house.rows("dead").await), (1, 0));
    let tries = house.braze.request_count();
    assert!((HOURS - 5..=2 * HOURS).contains(&tries), "{tries} tries");

    // It is mended, and Braze is down: now the item has its time before it.
    house.braze.begin_outage(faults::unavailable(503));
    for _ in 0..30 {
        house.tick().await;
        house.later(SignedDuration::from_hours(1));
    }
    assert_eq!((house.pending().await, house.rows("dead").await), (1, 0));
    house.braze.end_outage();
    house.drain().await;
    assert_eq!(house.alias_messenger_id("7001"), Some(json!("7001")));
}

#[tokio::test]
async fn a_key_that_is_rotated_under_many_requests_fails_none_of_them() {
    let house = House::start().await;
    house.receive(&[house.message("6999")]).await;
    house.drain().await;
    house.braze.rotate_api_key("the next key");
    let key = json!({"api_key": "the next key"});
    house.aws.put_secret("local/braze", &key).await.unwrap();
    let items: Vec<_> = (0..600).map(|n| house.message(&format!("7{n:03}"))).collect();
    house.receive(&items).await;
    house.aws.reset_calls();
    // The old key is still held: this is within five minutes.
    let report = house.tick().await;
    assert_eq!(
        (&report["done"], &report["retried"]),
        (&json!(600), &json!(0)),
        "{report}"
    );
    assert_eq!(house.aws.secrets_manager_calls().of("GetSecretValue"), 1);
    assert!(house.braze.take_refusals().len() > 1, "many met the old key");
}

#[tokio::test]
async fn another_hosts_redirect_is_a_wrong_setting() {
    let house = House::start().await;
    let elsewhere = Answer::html(301, "").header("location", "https://example.com/");
    house.braze.begin_outage(Fault::Answer(elsewhere));
    let items: Vec<_> = (0..20).map(|n| house.message(&format!("70{n:02}"))).collect();
    house.receive(&items).await;
    house.tick().await;
    assert_eq!((house.pending().await, house.rows("dead").await), (20, 0));
    assert_eq!(house.braze.request_count(), 1);
    house.braze.end_outage();
    house.drain().await;
    assert_eq!(house.braze.profiles().len(), 20);
}

#[tokio::test]
async fn a_missing_permission_may_take_days() {
    let house = Business::start().await;
    let refused = GraphError::new(200, "(#200) Permissions error");
    house.graph.begin_outage(graph::faults::error(&refused));
    house.happen("install").await;
    for _ in 0..HOURS {
        house.tick().await;
        let planned = house.plan_the_day().await;
        assert_eq!(planned, json!({"planned": 0}), "one comparison waits already");
        house.later(SignedDuration::from_hours(1));
    }
    assert_eq!(house.rows("dead").await, 0, "{:?}", house.reasons().await);
    house.graph.end_outage();
    house.drain().await;
    assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-1"));
    assert_eq!(house.plan_the_day().await, json!({"planned": 1}));
    assert!(house.graph.calls_of(Edge::AccessToken).len() > HOURS / 2);
}

#[tokio::test]
async fn a_reply_that_waits_for_a_key_ends_with_its_window() {
    let house = Conversation::start().await;
    house.knows("42");
    house.braze.begin_outage(faults::unauthorized());
    house.says("42", "hi").await;
    for _ in 0..23 {
        house.tick().await;
        house.later(SignedDuration::from_hours(1));
    }
    assert_eq!(
        (house.rows("pending").await.len(), house.rows("dead").await.len()),
        (1, 0)
    );
    for _ in 0..3 {
        house.tick().await;
        house.later(SignedDuration::from_hours(1));
    }
    assert_eq!(house.rows("pending").await, []);
    assert_eq!(house.rows("dead").await[0].1, "window_closed");
    house.braze.end_outage();
}

#[tokio::test]
async fn a_message_waits_for_your_system_to_be_mended() {
    let house = Conversation::with(&[("TEMPLATE_CAMPAIGN_ID", "template-campaign")]).await;
    house.knows("42");
    house
        .external_system
        .begin_outage(Fault::Answer(Answer::html(401, "")));
    house.says("42", "hi").await;
    for _ in 0..HOURS {
        house.tick().await;
        house.later(SignedDuration::from_hours(1));
    }
    assert_eq!(
        (house.rows("pending").await.len(), house.rows("dead").await.len()),
        (1, 0)
    );
    house.external_system.end_outage();
    house.drain().await;
    assert_eq!(house.got("42"), ["You said: hi"]);
}

#[tokio::test]
async fn no_round_begins_that_could_not_end() {
    let house = House::with(&[("RETRY_FOR_HOURS", "1")]).await;
    let items: Vec<_> = (0..100).map(|n| house.message(&format!("70{n:02}"))).collect();
    house.receive(&items).await;
    house.later(SignedDuration::from_hours(2));
    let until = house.clock.now() + SignedDuration::from_secs(20);
    let report = house.dispatch.handle_until(json!({}), until).await.unwrap();
    assert_eq!(
        (&report["retried"], &report["dead"]),
        (&json!(0), &json!(0)),
        "{report}"
    );
    assert_eq!((house.pending().await, house.braze.request_count()), (100, 0));
    house.tick().await;
    assert_eq!(house.rows("done").await, 100);
}

#[tokio::test]
async fn what_a_batch_has_no_time_for_is_left_as_it_was() {
    let house = House::with(&[("MESSENGER_EVENTS", "message")]).await;
    house.receive(&[house.message("7001")]).await;
    let batch = house.stream().await;
    // Enough to claim, too little for a request.
    let until = house.clock.now() + SignedDuration::from_secs(35);
    house.dispatch.handle_until(batch, until).await.unwrap();
    assert_eq!((house.pending().await, house.braze.request_count()), (2, 0));
    let report = house.tick().await;
    assert_eq!(
        report["done"], 2,
        "neither the contact nor its event is held: {report}"
    );
    assert_eq!(house.braze.events().len(), 1);
}

#[tokio::test]
async fn a_wait_that_is_over_already_is_a_second() {
    let house = House::start().await;
    house.braze.script(
        Endpoint::Track,
        faults::rate_limited(faults::RateLimit::RetryAfter(0)),
    );
    house.receive(&[house.message("7001")]).await;
    house.tick().await;
    assert_eq!(house.braze.request_count(), 1);
    house.later(SignedDuration::from_secs(1));
    house.tick().await;
    assert_eq!(house.alias_messenger_id("7001"), Some(json!("7001")));
}

#[tokio::test]
async fn a_contact_that_is_worked_on_hides_nobody_behind_it() {
    let house = House::start().await;
    house.receive(&[house.message("7001")]).await;
    house.drain().await;
    let busy = format!("messenger#{}#7001", super::messenger::house::PAGE);
    let contacts = Contacts::new("local-ContactsTable".to_owned(), outbox(&house));
    let lease = contacts.claim(&busy, Duration::from_hours(1)).await.unwrap();
    assert!(matches!(lease, Claim::Leased(..)), "another worker has it");
    // More than a round takes of one shard.
    for n in 0..400 {
        let item = OutboxItem {
            subject: busy.clone(),
            event_key: format!("{n:04}"),
            kind: Kind::ContactSync,
            payload: json!({}),
            not_before: None,
        };
        assert!(outbox(&house).add(&item).await.unwrap());
    }
    house.later(SignedDuration::from_secs(1));
    let shard = |subject: &str| Digest::of(subject).shard(SHARDS);
    let mut psids = (8000..9000).map(|psid| psid.to_string());
    let neighbour = psids
        .find(|psid| shard(&format!("messenger#{}#{psid}", super::messenger::house::PAGE)) == shard(&busy));
    let neighbour = neighbour.unwrap();
    house.receive(&[house.message(&neighbour)]).await;
    let report = house.tick().await;
    assert_eq!(report["done"], 1, "{report}");
    assert!(
        report["left"].as_u64().unwrap() >= 400,
        "they are still another's: {report}"
    );
    assert_eq!(house.alias_messenger_id(&neighbour), Some(json!(neighbour)));
}

#[tokio::test]
async fn what_waits_for_a_token_is_written_down_before_its_business_is_let_go() {
    let house = Business::start().await;
    let dead = GraphError::new(190, "Error validating access token: The session is invalid.");
    house.graph.begin_outage(graph::faults::error(&dead));
    house.happen("install").await;
    let updated = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..100 {
        let updated = updated.clone();
        let note = move |request: Value| {
            let table = request["TableName"].as_str().unwrap_or_default().to_owned();
            updated.lock().unwrap().push(table);
            std::future::ready(()).boxed()
        };
        house.aws.before_next("UpdateItem", note);
    }
    house.tick().await;
    house.aws.clear_faults();
    house.graph.end_outage();
    let reasons = house.reasons().await;
    assert!(
        reasons.iter().any(|(.., reason)| reason == "token_invalid"),
        "{reasons:?}"
    );
    let updated = updated.lock().unwrap();
    let last = |table: &str| updated.iter().rposition(|name| name.contains(table)).unwrap();
    assert!(last("Outbox") < last("Installs"), "{updated:?}");
}
