//! Between the commit and the answer anything may break: the sender tries again, and nothing is lost or doubled.

use std::fmt::Write as _;

use bridge::payloads::Payload;
use bridge::secrets::development_credential;
use serde_json::{Value, json};
use testkit::aws::Fault;
use testkit::time::eventually;
use tokio::io::AsyncWriteExt as _;

use crate::house::{House, payload};

const EVENTS: [(&str, &str); 1] = [("MESSENGER_EVENTS", "message,referral")];

fn cases() -> Vec<Payload> {
    [
        "messenger/message_text",
        "messenger/referral_link_token",
        "messenger/several_items_of_one_person",
        "messenger/one_broken_of_three",
    ]
    .into_iter()
    .map(payload)
    .collect()
}

/// The first case's person edits their message: the contact is written, and nothing follows from it.
fn edit() -> Payload {
    let payload = payload("messenger/message_text");
    let mut body: Value = serde_json::from_slice(&payload.body).unwrap();
    let item = body.pointer_mut("/entry/0/messaging/0").unwrap();
    let item = item.as_object_mut().unwrap();
    let message = item.remove("message").unwrap();
    let edit = json!({ "mid": message.get("mid"), "num_edit": 1 });
    item.insert("message_edit".to_owned(), edit);
    let sent = item.get("timestamp").and_then(Value::as_u64).unwrap();
    item.insert("timestamp".to_owned(), (sent + 60_000).into());
    Payload {
        name: "messenger/message_text, edited".to_owned(),
        body: body.to_string().into(),
        ..payload
    }
}

/// What is to be reached: every case once, and nothing broke.
async fn undisturbed(cases: &[Payload]) -> House {
    let house = House::start(&EVENTS).await;
    house.deliver_all(cases, 1).await;
    house.drain().await;
    house
}

async fn assert_same(house: &House, expected: &House, what: &str) {
    house.drain().await;
    assert_eq!(house.problems().await, Vec::<String>::new(), "{what}");
    assert_eq!(house.facts().await, expected.facts().await, "{what}");
    assert_eq!(house.outbox().await, expected.outbox().await, "{what}");
    assert_eq!(house.profiles(), expected.profiles(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_store_that_is_lost_loses_and_doubles_nothing() {
    // Last, for who edits a message before it has come is somebody new.
    let cases = [cases(), vec![edit()]].concat();
    let expected = undisturbed(&cases).await;
    assert!(expected.braze().events().len() >= 3);
    // A client sends a request three times; after that the function gives up, with the write made.
    for (operation, times) in [
        ("TransactWriteItems", 1),
        ("TransactWriteItems", 3),
        ("UpdateItem", 3),
        ("BatchGetItem", 3),
        ("BatchWriteItem", 3),
    ] {
        let house = House::start(&EVENTS).await;
        let mut met = 0;
        for payload in &cases {
            // With nothing under way it is the webhook that meets it.
            house.drain().await;
            house.stack.aws().fail_next(operation, times, Fault::AnswerLost);
            house.deliver(payload).await;
            met += times - house.stack.aws().clear_faults();
        }
        assert!(met >= times, "{operation} × {times}: met {met} times");
        assert_same(&house, &expected, &format!("{operation} × {times}")).await;
        house.stack.stop().await;
    }
    expected.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer_is_a_503_and_the_next_delivery_mends_it() {
    let expected = undisturbed(&cases()).await;
    let house = House::start(&EVENTS).await;
    for payload in cases() {
        // With nothing under way it is the webhook that meets it.
        house.drain().await;
        house
            .stack
            .aws()
            .fail_next("BatchGetItem", 3, Fault::ServiceUnavailable);
        assert_eq!(house.post(&payload).await, 503, "{}", payload.name);
        house.stack.aws().clear_faults();
        house.deliver(&payload).await;
    }
    assert_same(&house, &expected, "unavailable").await;
    house.stack.stop().await;
    expected.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_hangs_up_before_the_answer_loses_and_doubles_nothing() {
    let expected = undisturbed(&cases()).await;
    let house = House::start(&EVENTS).await;
    // Some of them before the function has begun, some after it has committed.
    for calls in 0..4 {
        for payload in cases() {
            hang_up(&house, &payload, calls).await;
        }
    }
    let people = expected.facts().await.len();
    let taken = eventually(async || house.facts().await.len() >= people).await;
    assert!(taken, "nothing that was sent was taken");
    house.deliver_all(&cases(), 2).await;
    assert_same(&house, &expected, "hung up").await;
    house.stack.stop().await;
    expected.stack.stop().await;
}

/// Sends a whole request and closes the connection without reading, once the store has been called so often.
async fn hang_up(house: &House, payload: &Payload, calls: u64) {
    let so_far = || house.stack.aws().dynamodb_calls().total();
    let before = so_far();
    let address = house.stack.url().trim_start_matches("http://").to_owned();
    let mut connection = tokio::net::TcpStream::connect(&address).await.unwrap();
    let mut head = format!(
        "POST {} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n",
        payload.sender.path(),
        payload.body.len()
    );
    for (name, value) in payload.headers(&development_credential(payload.sender)) {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    head.push_str("\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&payload.body).await.unwrap();
    assert!(eventually(async || so_far() >= before + calls).await);
    drop(connection);
}
