//! How the work grows: people a second, and calls for a thousand of them, in requests and batches of 1, 10 and 100.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use shared::outbox::SHARDS;
use testkit::external_system::Behaviour;

use super::{BACKLOG, RuntimeApi, Stack, peak_megabytes, post_event};

const PEOPLE: usize = 1_000;
const SIZES: [usize; 3] = [1, 10, 100];

type Item = HashMap<String, AttributeValue>;

fn print(what: &str, size: usize, took: Duration, calls: &[(&str, u64)]) {
    let a_second = f64::from(u32::try_from(PEOPLE).unwrap()) / took.as_secs_f64();
    let calls: Vec<String> = calls
        .iter()
        .map(|(to, number)| format!("{number} calls to {to}"))
        .collect();
    println!(
        "{what}, {size} at a time: {a_second:.0} a second, for a thousand {}",
        calls.join(", ")
    );
}

fn people(of: usize) -> Vec<String> {
    (0..PEOPLE).map(|n| format!("44{of:02}{n:04}")).collect()
}

/// New people, several in a POST.
pub(super) async fn webhook() {
    for size in SIZES {
        let stack = Stack::start().await;
        let (mut api, _child) = stack.warm("messenger-events").await;
        api.invoke(post_event(&["1".to_owned()], 10)).await;
        stack.aws.reset_calls();
        let began = Instant::now();
        for some in people(size).chunks(size) {
            let (answer, _) = api.invoke(post_event(some, 11)).await;
            assert_eq!(answer["statusCode"], 200);
        }
        let calls = stack.aws.dynamodb_calls().total();
        print(
            "new people in a webhook",
            size,
            began.elapsed(),
            &[("DynamoDB", calls)],
        );
    }
}

async fn pending(stack: &Stack) -> Vec<Item> {
    let scan = stack
        .aws
        .dynamodb()
        .scan()
        .table_name(&stack.settings["OUTBOX_TABLE"]);
    let items: Vec<_> = scan.into_paginator().items().send().collect().await;
    let items: Vec<Item> = items.into_iter().collect::<Result<_, _>>().unwrap();
    items
        .into_iter()
        .filter(|item| item["status"].as_s().unwrap() == "pending")
        .collect()
}

/// Their syncs, several in a batch of the stream.
pub(super) async fn sync() {
    for size in SIZES {
        let stack = Stack::start().await;
        let (mut events, _child) = stack.warm("messenger-events").await;
        events.invoke(post_event(&people(size), 12)).await;
        let items = pending(&stack).await;
        assert_eq!(items.len(), PEOPLE);
        let (mut dispatch, _child) = stack.warm("outbox-dispatch").await;
        dispatch.invoke(json!({"Records": []})).await;
        stack.aws.reset_calls();
        let began = Instant::now();
        for some in items.chunks(size) {
            let (answer, _) = dispatch.invoke(records(some)).await;
            assert_eq!(answer["batchItemFailures"], json!([]), "{answer}");
        }
        let took = began.elapsed();
        let calls = [
            ("DynamoDB", stack.aws.dynamodb_calls().total()),
            ("Braze", stack.braze.track_requests().len() as u64),
        ];
        print("syncs of new people", size, took, &calls);
    }
}

/// A batch of the stream with these items.
fn records(items: &[Item]) -> Value {
    let record = |(number, item): (usize, &Item)| {
        let image: serde_json::Map<String, Value> = item
            .iter()
            .map(|(name, value)| {
                let value = match value.as_n() {
                    Ok(number) => json!({"N": number}),
                    Err(_) => json!({"S": value.as_s().unwrap()}),
                };
                (name.clone(), value)
            })
            .collect();
        json!({
            "eventID": "1", "eventName": "INSERT", "eventVersion": "1.1", "eventSource": "aws:dynamodb",
            "awsRegion": "us-east-1",
            "dynamodb": {
                "ApproximateCreationDateTime": 1_763_719_200.0, "SequenceNumber": number.to_string(),
                "SizeBytes": 1, "StreamViewType": "NEW_IMAGE",
                "Keys": {"subject": image["subject"], "event_key": image["event_key"]}, "NewImage": image,
            },
        })
    };
    json!({"Records": items.iter().enumerate().map(record).collect::<Vec<_>>()})
}

/// WhatsApp messages, several conversations in a batch of wake-ups; the external system answers at once.
pub(super) async fn relay() {
    for size in SIZES {
        let mut stack = Stack::start().await;
        stack.system.set_behaviour(Behaviour::Echo);
        let (mut relay, _child) = stack.warm("whatsapp-relay").await;
        for user in people(size) {
            stack.braze.add_user(&user, &json!({}));
            write(&mut relay, &user).await;
        }
        let items = pending(&stack).await;
        assert_eq!(items.len(), PEOPLE);
        stack.settings.insert("LANE", "relay".to_owned());
        let (mut dispatch, _child) = stack.warm("outbox-dispatch").await;
        stack.aws.reset_calls();
        let began = Instant::now();
        for some in items.chunks(size) {
            let (answer, _) = dispatch.invoke(wake_ups(some)).await;
            assert_eq!(answer["batchItemFailures"], json!([]), "{answer}");
        }
        let took = began.elapsed();
        let calls = [
            ("DynamoDB", stack.aws.dynamodb_calls().total()),
            ("the external system", stack.system.handover_count() as u64),
            ("Braze", stack.braze.sent_messages().len() as u64),
        ];
        print("WhatsApp messages", size, took, &calls);
    }
}

async fn write(relay: &mut RuntimeApi, user: &str) {
    let body = json!({"user_id": user, "phone_number": "", "message": "hello"}).to_string();
    let headers = [
        ("authorization", "Bearer t"),
        ("content-type", "application/json"),
    ];
    let event =
        testkit::signer::gateway_event("POST", "/whatsapp/inbound", "", &headers, body.as_bytes(), false);
    let (answer, _) = relay.invoke(event).await;
    assert_eq!(answer["statusCode"], 202, "{answer}");
}

fn wake_ups(items: &[Item]) -> Value {
    let wake_up = |item: &Item| {
        let text = |name: &str| item[name].as_s().unwrap();
        let body = json!({"subject": text("subject"), "event_keys": [text("event_key")]});
        json!({"messageId": text("subject"), "body": body.to_string(), "eventSource": "aws:sqs"})
    };
    json!({"Records": items.iter().map(wake_up).collect::<Vec<_>>()})
}

/// A tick over [`BACKLOG`] contacts that wait. What a tick holds is bounded, so its memory does not grow with what waits.
pub(super) async fn backlog() {
    let stack = Stack::start().await;
    let (mut events, _child) = stack.warm("messenger-events").await;
    events.invoke(post_event(&["99999999".to_owned()], 13)).await;
    let contacts = stack
        .aws
        .dynamodb()
        .scan()
        .table_name(&stack.settings["CONTACTS_TABLE"]);
    let contact = contacts.send().await.unwrap().items()[0].clone();
    let item = pending(&stack).await.remove(0);
    let copies = (0..BACKLOG).map(|n| format!("{n:08}"));
    let batches = stream::iter(copies.collect::<Vec<_>>()).chunks(12).map(|psids| {
        let [contacts, items] = [("CONTACTS_TABLE", &contact), ("OUTBOX_TABLE", &item)].map(|(table, of)| {
            let puts = psids.iter().map(|psid| put(of, psid)).collect::<Vec<_>>();
            (stack.settings[table].clone(), puts)
        });
        let write = stack.aws.dynamodb().batch_write_item();
        write.set_request_items(Some([contacts, items].into())).send()
    });
    batches
        .buffer_unordered(16)
        .for_each(|written| async move { drop(written.unwrap()) })
        .await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    let (mut dispatch, child) = stack.warm("outbox-dispatch").await;
    let (answer, took) = dispatch.invoke(json!({"task": "due"})).await;
    println!(
        "a tick over {BACKLOG} contacts that wait: {:.0} s, {} calls of /users/track, peak memory {:.1} MB, {answer}",
        took.as_secs_f64(),
        stack.braze.track_requests().len(),
        peak_megabytes(&child),
    );
}

/// The same of another person, in all of its texts.
fn put(item: &Item, psid: &str) -> WriteRequest {
    let copy = item
        .iter()
        .map(|(name, value)| (name.clone(), replaced(value, psid)));
    let mut copy: Item = copy.collect();
    if let Some(shard) = copy.get_mut("due_shard") {
        let number = psid.parse::<usize>().unwrap() % usize::from(SHARDS);
        *shard = AttributeValue::S(format!("sync#{number}"));
    }
    let put = PutRequest::builder().set_item(Some(copy)).build().unwrap();
    WriteRequest::builder().put_request(put).build()
}

fn replaced(value: &AttributeValue, psid: &str) -> AttributeValue {
    match value {
        AttributeValue::S(text) => AttributeValue::S(text.replace("99999999", psid)),
        AttributeValue::M(members) => {
            let members = members
                .iter()
                .map(|(name, value)| (name.clone(), replaced(value, psid)));
            AttributeValue::M(members.collect())
        }
        other => other.clone(),
    }
}
