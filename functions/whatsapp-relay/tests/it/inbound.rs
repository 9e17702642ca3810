//! `POST /whatsapp/inbound`: Braze repeats no message that gets a 4xx, so all but a wrong token is 202 or 503.

use rstest::rstest;
use serde_json::json;
use testkit::aws::Fault;
use testkit::house::{EXTERNAL_TOKEN, INBOUND_TOKEN, SIGNING_SECRET};

use crate::door::{Door, INBOUND, bearer, recorded};

#[rstest]
#[case::json("three_key.json", "application/json")]
#[case::json_without_escapes("broken_quotes.json", "application/json")]
#[case::form("form.form", "application/x-www-form-urlencoded")]
#[case::bytes_that_are_no_text("not_utf8.json", "application/json")]
#[tokio::test]
async fn a_message_is_taken_as_text_and_as_base64(#[case] file: &str, #[case] content_type: &str) {
    let token = bearer(INBOUND_TOKEN);
    let headers = [("authorization", &*token), ("content-type", content_type)];
    for base64 in [false, true] {
        let door = Door::open().await;
        let (status, answer) = door
            .call("POST", INBOUND, &headers, &recorded(file), base64)
            .await;
        assert_eq!((status, &answer["status"]), (202, &json!("accepted")), "{answer}");
        assert!(answer["message_id"].is_string(), "{answer}");
        assert_eq!((door.pending().await, door.quarantined().await), (1, 0));
    }
}

#[rstest]
#[case::none(None)]
#[case::empty(Some(""))]
#[case::no_scheme(Some(INBOUND_TOKEN))]
#[case::another(Some("Bearer another"))]
#[case::longer(Some("Bearer inbound-token-of-the-tests-"))]
#[case::of_the_reply_route(Some("Bearer external-token-of-the-tests"))]
#[tokio::test]
async fn without_the_token_nothing_is_read_or_written(#[case] authorization: Option<&str>) {
    let door = Door::open().await;
    let headers: Vec<_> = authorization
        .iter()
        .map(|value| ("authorization", *value))
        .collect();
    let (status, answer) = door
        .call("POST", INBOUND, &headers, &recorded("three_key.json"), false)
        .await;
    assert_eq!((status, &answer["error"]), (401, &json!("token_invalid")));
    let told = answer.to_string();
    assert!(
        !told.contains(INBOUND_TOKEN) && !told.contains("15551234567"),
        "{told}"
    );
    assert_eq!(door.house.aws.dynamodb_calls().total(), 0);
}

#[tokio::test]
async fn the_previous_token_counts_while_it_is_replaced() {
    let door = Door::open().await;
    assert_eq!(door.forward(&recorded("full.json")).await.0, 202);
    let rotated = json!({
        "inbound_token": "next", "previous_inbound_token": INBOUND_TOKEN, "signing_secret": SIGNING_SECRET,
        "external_system_token": EXTERNAL_TOKEN,
    });
    door.house.write_secret("RelaySecret", &rotated).await.unwrap();
    let token = bearer("next");
    let headers = [("authorization", &*token), ("content-type", "application/json")];
    let body = recorded("three_key.json");
    assert_eq!(door.call("POST", INBOUND, &headers, &body, false).await.0, 202);
    assert_eq!(door.forward(&body).await.0, 202);
}

#[tokio::test]
async fn a_token_that_nobody_has_filled_in_opens_nothing() {
    let door = Door::open().await;
    let empty = json!({ "inbound_token": "", "signing_secret": SIGNING_SECRET });
    door.house.write_secret("RelaySecret", &empty).await.unwrap();
    for token in ["Bearer ", "Bearer guess"] {
        let headers = [("authorization", token)];
        let (status, answer) = door.call("POST", INBOUND, &headers, b"{}", false).await;
        assert_eq!((status, &answer["error"]), (503, &json!("secrets_unavailable")));
    }
}

#[tokio::test]
async fn a_message_with_a_dispatch_id_counts_once() {
    let door = Door::open().await;
    let (_, first) = door.forward(&recorded("full.json")).await;
    let (status, again) = door.forward(&recorded("full.json")).await;
    assert_eq!((status, &again["status"]), (202, &json!("duplicate")));
    assert_eq!(again["reason"], "seen_before");
    assert_eq!(again["message_id"], first["message_id"]);
    assert_eq!(door.pending().await, 1);
}

#[rstest]
#[case::a_keyword_of_brazes("full_stop.json", "keyword")]
#[case::nothing_said("full_blank.json", "blank")]
#[tokio::test]
async fn what_needs_no_answer_is_ignored(#[case] file: &str, #[case] reason: &str) {
    let door = Door::open().await;
    let (status, answer) = door.forward(&recorded(file)).await;
    assert_eq!((status, &answer["status"]), (202, &json!("ignored")), "{answer}");
    assert_eq!(answer["reason"], reason);
    assert_eq!((door.pending().await, door.quarantined().await), (0, 0));
}

#[tokio::test]
async fn what_is_not_understood_is_kept_and_answered_202() {
    let door = Door::open().await;
    let bodies = [
        recorded("quarantined_no_identity.json"),
        recorded("quarantined_cut_off.json"),
        Vec::new(),
        b"[]".to_vec(),
    ];
    for body in &bodies {
        let (status, answer) = door.forward(body).await;
        assert_eq!(
            (status, &answer["status"]),
            (202, &json!("quarantined")),
            "{answer}"
        );
        assert!(answer["reason"].is_string(), "{answer}");
    }
    assert_eq!(
        (door.pending().await, door.quarantined().await),
        (0, bodies.len())
    );
}

#[tokio::test]
async fn more_than_four_mebibytes_are_too_much_and_that_much_is_not() {
    let door = Door::open().await;
    let padded = |bytes: usize| {
        let mut body = recorded("full.json");
        body.resize(bytes, b' ');
        body
    };
    assert_eq!(door.forward(&padded(4 * 1024 * 1024)).await.0, 202);
    let (status, answer) = door.forward(&padded(4 * 1024 * 1024 + 1)).await;
    assert_eq!((status, &answer["error"]), (413, &json!("body_too_large")));
}

#[tokio::test]
async fn what_is_out_of_reach_is_a_503_and_the_repetition_is_taken() {
    let door = Door::open().await;
    let body = recorded("full.json");
    let aws = &door.house.aws;
    aws.fail_next("GetSecretValue", 3, Fault::ServiceUnavailable);
    let (status, answer) = door.forward(&body).await;
    assert_eq!((status, &answer["error"]), (503, &json!("secrets_unavailable")));
    aws.clear_faults();
    // It has just failed to be read, and is asked for again after a while.
    door.house.later(jiff::SignedDuration::from_mins(1));
    let of_another = br#"{"user_id":"43","phone_number":"+15551234568","message":"hi"}"#;
    assert_eq!(door.forward(of_another).await.0, 202);
    aws.fail_next("*", 100, Fault::ServiceUnavailable);
    let (status, answer) = door.forward(&body).await;
    assert_eq!((status, &answer["error"]), (503, &json!("store_unavailable")));
    aws.clear_faults();
    let (status, answer) = door.forward(&body).await;
    assert_eq!((status, &answer["status"]), (202, &json!("accepted")), "{answer}");
}

#[tokio::test]
async fn another_method_is_405() {
    let door = Door::open().await;
    let (status, answer) = door.call("GET", INBOUND, &[], b"", false).await;
    assert_eq!((status, &answer["error"]), (405, &json!("method_not_allowed")));
}
