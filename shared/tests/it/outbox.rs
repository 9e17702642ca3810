use std::time::Duration;

use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use serde_json::json;
use shared::digest::Digest;
use shared::outbox::{Kind, Lane, OutboxItem};
use shared::outbox::{Outbox, Quarantined, Reason, Status};
use testkit::aws::Fault;

use super::Tables;

fn item(subject: &str, event_key: &str) -> OutboxItem {
    OutboxItem {
        subject: subject.into(),
        event_key: event_key.into(),
        kind: Kind::ContactSync,
        payload: json!({"n": 1}),
        not_before: None,
    }
}

#[tokio::test]
async fn an_item_is_added_once() {
    let tables = Tables::create().await;
    assert!(tables.outbox.add(&item("a", "1")).await.unwrap());
    assert!(!tables.outbox.add(&item("a", "1")).await.unwrap());
    assert!(tables.outbox.add(&item("a", "2")).await.unwrap());
}

#[tokio::test]
async fn the_schedule_leaves_new_items_to_the_stream() {
    let tables = Tables::create().await;
    tables.outbox.add(&item("a", "1")).await.unwrap();
    assert!(
        tables
            .outbox
            .due(Lane::Sync, 100, None)
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    tables.later(31);
    let due = tables.outbox.due(Lane::Sync, 100, None).await.unwrap();
    assert_eq!((due.entries.len(), due.next.is_none()), (1, true));
    assert_eq!(due.oldest.unwrap().to_string(), "2026-11-21T10:00:30Z");
    assert!(
        tables
            .outbox
            .due(Lane::Relay, 100, None)
            .await
            .unwrap()
            .entries
            .is_empty()
    );
}

#[tokio::test]
async fn a_settled_item_is_not_due_and_is_still_found() {
    let tables = Tables::create().await;
    tables.outbox.add(&item("a", "1")).await.unwrap();
    let entry = tables.outbox.get("a", "1").await.unwrap().unwrap();
    tables.outbox.done(&[entry]).await.unwrap();
    tables.later(3600);
    assert!(
        tables
            .outbox
            .due(Lane::Sync, 100, None)
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    assert!(
        !tables.outbox.add(&item("a", "1")).await.unwrap(),
        "a redelivery must find it"
    );
    let entry = tables.outbox.get("a", "1").await.unwrap().unwrap();
    assert_eq!((entry.status, entry.payload()), (Status::Done, Ok(json!(null))));
}

#[tokio::test]
async fn a_failed_item_comes_back_when_it_is_due() {
    let tables = Tables::create().await;
    tables.outbox.add(&item("a", "1")).await.unwrap();
    let entry = tables.outbox.get("a", "1").await.unwrap().unwrap();
    let due = tables.house.clock.now() + jiff::SignedDuration::from_mins(5);
    tables.outbox.retry(&entry, "braze_503", due).await.unwrap();
    tables.later(299);
    assert!(
        tables
            .outbox
            .due(Lane::Sync, 100, None)
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    tables.later(1);
    let due = tables.outbox.due(Lane::Sync, 100, None).await.unwrap().entries;
    assert_eq!(
        (due[0].attempts, due[0].reason.as_deref()),
        (1, Some("braze_503"))
    );
}

#[tokio::test]
async fn a_dead_item_can_be_listed_and_redriven() {
    let tables = Tables::create().await;
    tables.outbox.add(&item("a", "1")).await.unwrap();
    let entry = tables.outbox.get("a", "1").await.unwrap().unwrap();
    tables.outbox.dead(&entry, "braze_400").await.unwrap();
    tables.later(3600);
    assert!(
        tables
            .outbox
            .due(Lane::Sync, 100, None)
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    let dead = tables.outbox.list_dead(Lane::Sync, 10).await.unwrap();
    assert_eq!(dead[0].reason.as_deref(), Some("braze_400"));
    assert!(tables.outbox.redrive(&dead[0]).await.unwrap());
    assert!(
        !tables.outbox.redrive(&dead[0]).await.unwrap(),
        "it is not dead any more"
    );
    let due = tables.outbox.due(Lane::Sync, 100, None).await.unwrap().entries;
    assert_eq!((due[0].attempts, due[0].payload()), (0, Ok(json!({"n": 1}))));
    assert!(tables.outbox.list_dead(Lane::Sync, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_fails_is_known_since_its_first_failure() {
    let tables = Tables::create().await;
    let outbox = &tables.outbox;
    let since = async || {
        let since = outbox.failing_since(Lane::Sync).await.unwrap();
        since.map(|at| at.duration_since(testkit::time::start()).as_secs())
    };
    for subject in ["a", "b"] {
        outbox.add(&item(subject, "1")).await.unwrap();
    }
    let entry = async |subject| outbox.get(subject, "1").await.unwrap().unwrap();
    let due = tables.house.clock.now() + jiff::SignedDuration::from_hours(1);
    assert_eq!(since().await, None, "nothing has been tried");
    outbox.retry(&entry("a").await, "braze_503", due).await.unwrap();
    tables.later(60);
    outbox.wait(&entry("b").await, "braze_401", due).await.unwrap();
    tables.later(60);
    outbox.retry(&entry("a").await, "braze_503", due).await.unwrap();
    assert_eq!(since().await, Some(0));
    assert_eq!(outbox.failing_since(Lane::Relay).await.unwrap(), None);
    outbox.done(&[entry("a").await]).await.unwrap();
    assert_eq!(since().await, Some(60));
    outbox.dead(&entry("b").await, "braze_400").await.unwrap();
    assert_eq!(since().await, None, "another alarm has it");
    assert!(outbox.redrive(&entry("b").await).await.unwrap());
    outbox.retry(&entry("b").await, "braze_503", due).await.unwrap();
    assert_eq!(since().await, Some(120), "it began anew");
    outbox.hold(&entry("b").await, "older_notice", due).await.unwrap();
    assert_eq!(since().await, None, "to wait is not to fail");
}

#[tokio::test]
async fn a_flood_of_what_is_dead_or_not_understood_meets_no_hot_partition() {
    let tables = Tables::create().await;
    let bodies = (0..100).map(|n| Quarantined {
        source: "messenger",
        reason: Reason::NotJson,
        raw: bytes::Bytes::from(format!("{{{n}")).into(),
    });
    tables
        .outbox
        .quarantine(&bodies.collect::<Vec<_>>())
        .await
        .unwrap();
    for n in 0..100 {
        let item = item(&format!("s{n}"), "1");
        tables.outbox.add(&item).await.unwrap();
        let entry = tables.outbox.get(&item.subject, "1").await.unwrap().unwrap();
        tables.later(1);
        tables.outbox.dead(&entry, "braze_400").await.unwrap();
    }
    let rows = tables.house.items("OutboxTable").await.unwrap();
    let partitions = |attribute: &str, of: &str| {
        let values = rows.iter().filter_map(|row| row.get(attribute)?.as_s().ok());
        let values: std::collections::BTreeSet<_> = values.filter(|value| value.starts_with(of)).collect();
        values.len()
    };
    assert_eq!(
        (
            partitions("subject", "quarantine#"),
            partitions("dead_shard", "sync#")
        ),
        (8, 8)
    );
    assert_eq!(tables.outbox.quarantined(100).await.unwrap().len(), 100);
    let dead = tables.outbox.list_dead(Lane::Sync, 60).await.unwrap();
    let oldest: Vec<String> = (0..60).map(|n| format!("s{n}")).collect();
    assert!(
        dead.iter().map(|entry| &entry.subject).eq(&oldest),
        "the oldest first"
    );
}

#[tokio::test]
async fn what_is_due_is_read_page_by_page_to_its_end() {
    let tables = Tables::create().await;
    // One shard, for they have one subject.
    for n in 0..5 {
        tables.outbox.add(&item("a", &n.to_string())).await.unwrap();
        tables.later(1);
    }
    tables.later(31);
    let (mut position, mut keys) = (None, Vec::new());
    loop {
        let due = tables.outbox.due(Lane::Sync, 8, position).await.unwrap();
        keys.extend(due.entries.into_iter().map(|entry| entry.event_key));
        position = due.next;
        if position.is_none() {
            break;
        }
    }
    assert_eq!(keys, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn what_was_not_understood_is_kept_once() {
    let tables = Tables::create().await;
    let one = Quarantined {
        source: "messenger",
        reason: Reason::NotJson,
        raw: bytes::Bytes::from("{").into(),
    };
    tables
        .outbox
        .quarantine(std::slice::from_ref(&one))
        .await
        .unwrap();
    tables.outbox.quarantine(&[one]).await.unwrap();
    let scan = tables
        .house
        .aws
        .dynamodb()
        .scan()
        .table_name(tables.house.table("OutboxTable"))
        .send()
        .await
        .unwrap();
    assert_eq!(scan.count(), 1);
    assert_eq!(scan.items()[0]["status"].as_s().unwrap(), "quarantined");
    tables.later(3600);
    assert!(
        tables
            .outbox
            .due(Lane::Sync, 100, None)
            .await
            .unwrap()
            .entries
            .is_empty(),
        "nobody dispatches it"
    );
}

#[tokio::test]
async fn the_same_thing_twice_in_one_body_is_kept_once() {
    let tables = Tables::create().await;
    let one = Quarantined {
        source: "messenger",
        reason: Reason::NotAnObject,
        raw: bytes::Bytes::from("7").into(),
    };
    tables.outbox.quarantine(&[one.clone(), one]).await.unwrap();
    let scan = tables
        .house
        .aws
        .dynamodb()
        .scan()
        .table_name(tables.house.table("OutboxTable"))
        .send()
        .await;
    assert_eq!(scan.unwrap().count(), 1);
}

#[tokio::test]
async fn a_thousand_due_items_are_read_in_few_calls() {
    let tables = Tables::create().await;
    let items: Vec<_> = (0..1000).map(|n| item(&format!("s{n}"), "1")).collect();
    for chunk in items.chunks(50) {
        futures_util::future::join_all(chunk.iter().map(|item| tables.outbox.add(item))).await;
    }
    tables.later(31);
    tables.house.aws.reset_calls();
    let due = tables.outbox.due(Lane::Sync, 3000, None).await.unwrap().entries;
    assert_eq!(due.len(), 1000);
    let calls = tables.house.aws.dynamodb_calls();
    assert_eq!(
        (calls.of("Query"), calls.of("BatchGetItem")),
        (8, 10),
        "{calls:?}"
    );
}

#[tokio::test]
async fn what_a_batch_leaves_out_is_asked_for_again_but_not_for_ever() {
    let tables = Tables::create().await;
    let timeouts = TimeoutConfig::builder()
        .operation_timeout(Duration::from_millis(300))
        .build();
    let config = aws_sdk_dynamodb::config::Builder::from(&tables.house.aws.sdk_config())
        .timeout_config(timeouts)
        .build();
    let client = aws_sdk_dynamodb::Client::from_conf(config);
    let outbox = Outbox::new(
        client,
        tables.house.table("OutboxTable").to_owned(),
        tables.house.clock.clone(),
    );
    outbox.add(&item("a", "1")).await.unwrap();
    tables.later(31);

    tables.house.aws.fail_next("BatchGetItem", 2, Fault::Unprocessed);
    let due = outbox.due(Lane::Sync, 100, None).await.unwrap().entries;
    assert_eq!(due.len(), 1);
    tables
        .house
        .aws
        .fail_next("BatchWriteItem", 2, Fault::Unprocessed);
    outbox.done(&due).await.unwrap();

    for operation in ["BatchGetItem", "BatchWriteItem"] {
        outbox.add(&item("a", operation)).await.unwrap();
        tables.later(31);
        tables.house.aws.fail_next(operation, 1_000, Fault::Unprocessed);
        let failed = match operation {
            "BatchGetItem" => outbox.due(Lane::Sync, 100, None).await.is_err(),
            _ => outbox.done(&due).await.is_err(),
        };
        let tries = 1_000 - tables.house.aws.clear_faults();
        assert!(failed && tries < 50, "{operation}: {tries} tries");
    }
}

#[tokio::test]
async fn a_transaction_that_is_under_way_is_waited_for() {
    let tables = Tables::create().await;
    let conflicts = |operation: &str| tables.house.aws.fail_next(operation, 2, Fault::Conflict);
    conflicts("PutItem");
    assert!(tables.outbox.add(&item("a", "1")).await.unwrap());
    let entry = tables.outbox.get("a", "1").await.unwrap().unwrap();
    conflicts("UpdateItem");
    let due = tables.house.clock.now() + jiff::SignedDuration::from_mins(5);
    tables.outbox.retry(&entry, "braze_503", due).await.unwrap();
    conflicts("UpdateItem");
    tables.outbox.dead(&entry, "braze_400").await.unwrap();
    conflicts("UpdateItem");
    assert!(tables.outbox.redrive(&entry).await.unwrap());
    conflicts("UpdateItem");
    tables.outbox.done_key("a", "1").await.unwrap();
    assert_eq!(tables.house.aws.clear_faults(), 0);
    let entry = tables.outbox.get("a", "1").await.unwrap().unwrap();
    assert_eq!(entry.status, Status::Done);
}

#[tokio::test]
async fn a_kept_body_is_found_by_its_key_and_erased_by_an_id_in_it() {
    let tables = Tables::create().await;
    let outbox = &tables.outbox;
    // Of all shards, and one in several parts.
    let large: Vec<u8> = (0..40_000_u32)
        .flat_map(|n| Digest::of(n.to_le_bytes()).to_string().into_bytes())
        .collect();
    let large = [large, b"\"70000000000000042\"".to_vec()].concat();
    let bodies: Vec<Vec<u8>> = (0..30_u64)
        .map(|n| format!(r#"{{"sender":{{"id":"{}"}}}}"#, 70_000_000_000_000_020 + n).into_bytes())
        .chain([large])
        .collect();
    let kept = bodies.iter().map(|body| Quarantined {
        source: "messenger",
        reason: Reason::UnknownKind,
        raw: bytes::Bytes::from(body.clone()).into(),
    });
    outbox.quarantine(&kept.collect::<Vec<_>>()).await.unwrap();

    let found = async || {
        let mut found = Vec::new();
        for one in outbox.quarantined(100).await.unwrap() {
            let body = outbox.quarantined_body(one.source, &one.key).await.unwrap();
            found.push(body.unwrap());
        }
        found.sort();
        found
    };
    let sorted = |mut bodies: Vec<Vec<u8>>| {
        bodies.sort();
        bodies
    };
    assert!(found().await == sorted(bodies.clone()));
    assert_eq!(outbox.erase_quarantined("70000000000000042").await.unwrap(), 2);
    let rest = bodies
        .into_iter()
        .filter(|body| !body.windows(17).any(|window| window == b"70000000000000042"));
    assert!(found().await == sorted(rest.collect()));
    assert_eq!(
        outbox.quarantined_body("messenger", "7#no#such").await.unwrap(),
        None
    );
}
