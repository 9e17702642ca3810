//! `POST /whatsapp/reply`: an answer that comes later, with a signature or the token.

use jiff::SignedDuration;
use rstest::rstest;
use serde_json::{Value, json};
use testkit::aws::Fault;
use testkit::house::{EXTERNAL_TOKEN, SIGNING_SECRET};
use testkit::signer::standard_webhooks_headers;

use crate::door::{Door, REPLY, bearer, recorded};

const CONVERSATION: &str = "user:42";

fn later() -> Value {
    json!({"conversation_id": CONVERSATION, "replies": [{"text": "later"}]})
}

/// Somebody has written.
async fn spoken_to(settings: &[(&str, &str)]) -> Door {
    let door = Door::with(settings).await;
    assert_eq!(door.forward(&recorded("full.json")).await.0, 202);
    door
}

#[tokio::test]
async fn a_signed_answer_is_taken_once() {
    let door = spoken_to(&[]).await;
    let waiting = door.pending().await;
    let accepted = (202, json!({"status": "accepted"}));
    let duplicate = (202, json!({"status": "duplicate"}));
    assert_eq!(door.answer(&later(), "msg_1").await, accepted);
    assert_eq!(door.answer(&later(), "msg_1").await, duplicate);
    assert_eq!(door.pending().await, waiting + 1);
    assert_eq!(door.answer(&later(), "msg_2").await, accepted, "another message");
}

#[tokio::test]
async fn an_answer_with_the_token_is_taken_as_base64_too() {
    let door = spoken_to(&[]).await;
    let token = bearer(EXTERNAL_TOKEN);
    let body = later().to_string();
    for (base64, status) in [(true, "accepted"), (false, "duplicate")] {
        let answer = door
            .call(
                "POST",
                REPLY,
                &[("authorization", &token)],
                body.as_bytes(),
                base64,
            )
            .await;
        assert_eq!(answer, (202, json!({ "status": status })));
    }
}

#[tokio::test]
async fn without_a_right_signature_or_token_it_is_401() {
    let door = spoken_to(&[]).await;
    let body = later().to_string();
    let now = door.house.clock.now();
    let signed = |secret: &str, at, body: &[u8]| {
        let headers = standard_webhooks_headers(secret, "msg_1", at, body).unwrap();
        headers.to_vec()
    };
    let minutes = SignedDuration::from_mins(6);
    for (what, headers) in [
        ("nothing", Vec::new()),
        ("another token", vec![("authorization", bearer("another"))]),
        (
            "the other route's token",
            vec![("authorization", bearer(testkit::house::INBOUND_TOKEN))],
        ),
        ("another key", signed("whsec_AAAA", now, body.as_bytes())),
        ("another body", signed(SIGNING_SECRET, now, b"{}")),
        (
            "an old one",
            signed(SIGNING_SECRET, now - minutes, body.as_bytes()),
        ),
        (
            "one of the future",
            signed(SIGNING_SECRET, now + minutes, body.as_bytes()),
        ),
    ] {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let (status, answer) = door.call("POST", REPLY, &headers, body.as_bytes(), false).await;
        assert_eq!(
            (status, &answer["error"]),
            (401, &json!("token_invalid")),
            "{what}"
        );
    }
}

#[rstest]
#[case::no_conversation(json!({"replies": []}), "conversation_id")]
#[case::an_id_of_no_kind(json!({"conversation_id": "42", "replies": []}), "conversation_id")]
#[case::no_replies(json!({"conversation_id": CONVERSATION}), "replies")]
#[case::no_object(json!([]), "body")]
#[tokio::test]
async fn the_field_at_fault_is_named(#[case] body: Value, #[case] field: &str) {
    let door = spoken_to(&[]).await;
    let (status, answer) = door.answer(&body, "msg_1").await;
    assert_eq!(status, 400, "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains(field), "{answer}");
}

#[tokio::test]
async fn a_conversation_of_nobody_is_404() {
    let door = Door::open().await;
    let (status, answer) = door.answer(&later(), "msg_1").await;
    assert_eq!((status, &answer["error"]), (404, &json!("conversation_unknown")));
}

#[tokio::test]
async fn after_24_hours_it_is_409_unless_a_template_may_be_sent() {
    for (settings, expected) in [
        (&[][..], (409, Some("window_closed"))),
        (&[("TEMPLATE_CAMPAIGN_ID", "template-campaign")][..], (202, None)),
    ] {
        let door = spoken_to(settings).await;
        assert_eq!(door.answer(&later(), "msg_1").await.0, 202);
        door.house.later(SignedDuration::from_hours(25));
        let (status, answer) = door.answer(&later(), "msg_2").await;
        assert_eq!((status, answer["error"].as_str()), expected);
        // What was taken stays so.
        let again = json!({"status": "duplicate"});
        door.house.later(SignedDuration::from_hours(-2));
        assert_eq!(door.answer(&later(), "msg_1").await, (202, again));
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_503() {
    let door = spoken_to(&[]).await;
    door.house.aws.fail_next("*", 100, Fault::ServiceUnavailable);
    let (status, answer) = door.answer(&later(), "msg_1").await;
    assert_eq!((status, &answer["error"]), (503, &json!("store_unavailable")));
    door.house.aws.clear_faults();
    assert_eq!(
        door.answer(&later(), "msg_1").await,
        (202, json!({"status": "accepted"}))
    );
}

#[tokio::test]
async fn more_than_four_mebibytes_are_413() {
    let door = Door::open().await;
    let body = vec![b' '; 4 * 1024 * 1024 + 1];
    let token = bearer(EXTERNAL_TOKEN);
    let (status, answer) = door
        .call("POST", REPLY, &[("authorization", &token)], &body, true)
        .await;
    assert_eq!((status, &answer["error"]), (413, &json!("body_too_large")));
}
