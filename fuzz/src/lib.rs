//! The parsers of bytes that others send, and what must hold of any input: nothing panics, and what is said beside each.
//!
//! The tests feed them with what was recorded, `scripts/fuzz` with what libFuzzer makes of it.

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use outbox_dispatch::parsers;
use secrecy::SecretString;
use shared::webhook::signature::{Received, Verified, sign};
use shared::webhook::signed_request;
use shared::whatsapp::{Inbound, answer};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// Takes any bytes, and panics if something does not hold.
pub type Target = fn(&[u8]);

/// Each by its name.
pub const TARGETS: [(&str, Target); 11] = [
    ("messenger", messenger),
    ("fbe", fbe),
    ("whatsapp", whatsapp),
    ("send", send),
    ("signed_request", signed_request),
    ("json", json),
    ("webhook_answer", webhook_answer),
    ("chat_completion", chat_completion),
    ("graph", graph),
    ("braze", braze),
    ("feed", feed),
];

/// Parsers take signed bytes alone.
fn signed(data: &[u8]) -> Verified {
    let secret = SecretString::from("fuzz");
    let signature = sign(&secret, data);
    match Received::new(data.to_vec(), Some(&signature)).verify([&secret]) {
        Ok(verified) => verified,
        Err(_) => unreachable!("it is signed"),
    }
}

/// An event or a quarantined item needs bytes of its own.
fn messenger(data: &[u8]) {
    let parsed = shared::messenger::parse(&signed(data), NOW);
    assert!(parsed.events.len() + parsed.quarantined.len() <= data.len().max(1));
    let again = shared::messenger::parse(&signed(data), NOW);
    let keys = |parsed: &shared::messenger::Parsed| -> Vec<String> {
        parsed.events.iter().map(|event| event.key.0.clone()).collect()
    };
    assert_eq!(keys(&parsed), keys(&again), "a redelivery makes the same keys");
}

fn fbe(data: &[u8]) {
    let parsed = shared::fbe::payload::parse(&signed(data), NOW);
    assert!(parsed.changes.len() + parsed.quarantined.len() <= data.len().max(1));
}

/// As JSON, as a form, and by the lenient reader.
fn whatsapp(data: &[u8]) {
    for content_type in [
        None,
        Some("application/json"),
        Some("application/x-www-form-urlencoded"),
    ] {
        if let Inbound::Message(message) = shared::whatsapp::parse(data, content_type, NOW) {
            let shown = format!("{message:?}");
            assert!(shown.len() < 2_000, "Debug shows content: {shown}");
        }
    }
}

fn send(data: &[u8]) {
    drop(shared::messenger::send::request::parse(data));
}

/// As the form that arrives, which another secret has signed at best, and as the payload of one that is signed.
fn signed_request(data: &[u8]) {
    let secret = SecretString::from("fuzz");
    if let Ok(received) = signed_request::Received::of_form(&Bytes::copy_from_slice(data)) {
        assert!(received.verify([&secret]).is_err());
    }
    let Ok(payload) = shared::json::read(data) else {
        return;
    };
    let field = signed_request::sign(&secret, &payload);
    if let Ok(received) = signed_request::Received::of_form(&format!("signed_request={field}").into()) {
        match received.verify([&secret]) {
            Ok(verified) => drop(verified.read(NOW)),
            Err(_) => unreachable!("it is signed"),
        }
    }
}

/// What is read can be written, and read again.
fn json(data: &[u8]) {
    if let Ok(value) = shared::json::read::<serde_json::Value>(data) {
        assert!(shared::json::read::<serde_json::Value>(value.to_string().as_bytes()).is_ok());
    }
}

fn webhook_answer(data: &[u8]) {
    for status in [200, 202, 204] {
        drop(answer::parse_answer(status, data));
    }
    drop(answer::parse_reply(data));
}

fn chat_completion(data: &[u8]) {
    for status in [
        StatusCode::OK,
        StatusCode::BAD_REQUEST,
        StatusCode::SERVICE_UNAVAILABLE,
    ] {
        let is_answer = parsers::chat_completion(status, data);
        assert!(!is_answer || status.is_success());
    }
}

fn graph(data: &[u8]) {
    for status in [
        StatusCode::OK,
        StatusCode::BAD_REQUEST,
        StatusCode::SERVICE_UNAVAILABLE,
    ] {
        let _ = shared::clients::graph::app::read_as_each(status, data);
    }
}

fn braze(data: &[u8]) {
    let _ = parsers::braze_answer(data);
}

/// However the feed is cut into pieces, its items are the same.
fn feed(data: &[u8]) {
    let whole = parsers::catalog_feed(data, data.len());
    for chunk in [1, 7] {
        assert_eq!(parsers::catalog_feed(data, chunk), whole);
    }
}
