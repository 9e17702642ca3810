//! Stored items that another version has written.

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;
use shared::outbox::Outbox;
use shared::outbox::{Kind, Lane, OutboxItem};

use super::fbe::house::{House as Business, SHOP};
use super::messenger::house::House;

fn outbox(house: &House) -> Outbox {
    Outbox::new(
        house.aws.dynamodb(),
        house.outbox_table.clone(),
        house.clock.clone(),
    )
}

/// Adds an item of a kind that only the next version knows.
async fn add_unknown(house: &House, subject: &str, event_key: &str) {
    let item = OutboxItem {
        subject: subject.to_owned(),
        event_key: event_key.to_owned(),
        kind: Kind::ContactSync,
        payload: json!({}),
        not_before: None,
    };
    assert!(outbox(house).add(&item).await.unwrap());
    let update = house.aws.dynamodb().update_item().table_name(&house.outbox_table);
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let updated = update
        .key("subject", text(subject))
        .key("event_key", text(event_key))
        .update_expression("SET kind = :kind")
        .expression_attribute_values(":kind", text("of_the_next_version"))
        .send();
    updated.await.unwrap();
}

#[tokio::test]
async fn an_item_of_an_unknown_kind_holds_up_nothing() {
    let house = House::start().await;
    add_unknown(&house, "messenger#1#2", "a").await;
    house.receive(&[house.message("7001")]).await;
    let report = house.tick().await;
    assert_eq!(report["done"], 1, "{report}");
    assert_eq!(house.alias_messenger_id("7001"), Some(json!("7001")));
    assert_eq!(
        (house.pending().await, house.rows("dead").await),
        (1, 0),
        "it waits"
    );
}

#[tokio::test]
async fn many_that_cannot_be_read_do_not_hide_the_others() {
    let house = House::start().await;
    // One shard, for they have one subject.
    for n in 0..5 {
        add_unknown(&house, "messenger#1#2", &format!("a{n}")).await;
    }
    house.later(jiff::SignedDuration::from_secs(1));
    let item = OutboxItem {
        subject: "messenger#1#2".to_owned(),
        event_key: "b".to_owned(),
        kind: Kind::ContactSync,
        payload: json!({}),
        not_before: None,
    };
    let outbox = outbox(&house);
    assert!(outbox.add(&item).await.unwrap());
    house.later(jiff::SignedDuration::from_mins(1));
    let due = outbox.due(Lane::Sync, 8, None).await.unwrap();
    assert_eq!(
        due.entries
            .iter()
            .map(|entry| entry.event_key.as_str())
            .collect::<Vec<_>>(),
        ["b"]
    );
    assert_eq!(
        due.oldest.unwrap().to_string(),
        "2026-11-21T10:00:30Z",
        "the alarm counts them"
    );
}

#[tokio::test]
async fn dead_ones_can_be_listed_beside_one_that_cannot_be_read() {
    let house = House::start().await;
    house
        .receive(&[house.message("7001"), house.message("7002")])
        .await;
    house.braze.script(
        testkit::braze::Endpoint::Track,
        testkit::braze::faults::unauthorized(),
    );
    house.tick().await;
    house.braze.clear_script();
    let outbox = outbox(&house);
    house.later(jiff::SignedDuration::from_hours(1));
    for entry in outbox.due(Lane::Sync, 8, None).await.unwrap().entries {
        outbox.dead(&entry, "a test").await.unwrap();
    }
    let dead = outbox.list_dead(Lane::Sync, 10).await.unwrap();
    assert_eq!(dead.len(), 2);
    let update = house.aws.dynamodb().update_item().table_name(&house.outbox_table);
    let (subject, event_key) = dead[0].key();
    let updated = update
        .key("subject", AttributeValue::S(subject))
        .key("event_key", AttributeValue::S(event_key))
        .update_expression("SET kind = :kind")
        .expression_attribute_values(":kind", AttributeValue::S("of_the_next_version".to_owned()))
        .send();
    updated.await.unwrap();
    assert_eq!(outbox.list_dead(Lane::Sync, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_install_that_cannot_be_read_costs_the_others_no_comparison() {
    let house = Business::start().await;
    house.happen("install").await;
    house.drain().await;
    let other = house.installs.read(SHOP).await.unwrap().unwrap();
    let table = house.aws.dynamodb().list_tables().send().await.unwrap();
    let table = table.table_names().iter().find(|name| name.contains("Installs"));
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let facts = [("status".to_owned(), text("of_the_next_version"))];
    let put = house
        .aws
        .dynamodb()
        .put_item()
        .table_name(table.unwrap())
        .item("external_business_id", text("another-shop"))
        .item("status", text("active"))
        .item(
            "pixel_id",
            text(other.install.assets.pixel_id.as_deref().unwrap()),
        )
        .item("facts", AttributeValue::M(facts.into()))
        .send();
    put.await.unwrap();
    assert_eq!(house.plan_the_day().await["planned"], 1);
    let pixel = other.install.assets.pixel_id.unwrap();
    assert_eq!(house.installs.by_pixel(&pixel).await.unwrap().len(), 1);
}
