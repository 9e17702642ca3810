//! The webhook's edge: who gets in, and what bad input gets.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use shared::webhook::signature::sign;
use testkit::aws::Fault;
use testkit::house::APP_SECRET as SECRET;

use super::house::{House, later, message, meta, page};

#[tokio::test]
async fn a_signed_body_is_received_as_text_and_as_bytes() {
    let house = House::start().await;
    let body = page(&[message("7001")]);
    assert_eq!(house.signed(&body).await, (200, "EVENT_RECEIVED".into()));
    let text = String::from_utf8(page(&[message("7002")])).unwrap();
    let signature = sign(&SecretString::from(SECRET), text.as_bytes());
    assert_eq!(house.post(text, Some(&signature)).await.0, 200);
    assert_eq!(house.synced_people().await, 2);
}

#[tokio::test]
async fn without_the_right_signature_nothing_is_read_or_written() {
    let house = House::start().await;
    let body = page(&[message("7001")]);
    let right = sign(&SecretString::from(SECRET), &body);
    let foreign = sign(&SecretString::from("another"), &body);
    let upper = right.to_uppercase();
    for signature in [
        None,
        Some(""),
        Some("sha1=61698897626f89226740755522da195c7402ca59"),
        Some(foreign.as_str()),
        Some(upper.as_str()),
    ] {
        let (status, answer) = house.post(body.clone(), signature).await;
        assert_eq!(status, 401, "{signature:?}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["error"], "signature_invalid");
        let digits = right.strip_prefix("sha256=").unwrap();
        assert!(!answer.to_string().contains(digits) && !answer.to_string().contains("7001"));
    }
    assert_eq!(house.aws.dynamodb_calls().total(), 0);
}

#[tokio::test]
async fn a_rotation_needs_no_redeploy() {
    let house = House::start().await;
    let body = page(&[message("7001")]);
    let old = sign(&SecretString::from(SECRET), &body);
    let new = sign(&SecretString::from("rotated"), &body);
    assert_eq!(house.post(body.clone(), Some(&old)).await.0, 200);
    house
        .aws
        .put_secret("local/meta", &meta("rotated", Some(SECRET)))
        .await
        .unwrap();
    assert_eq!(house.post(body.clone(), Some(&new)).await.0, 200);
    assert_eq!(
        house.post(body, Some(&old)).await.0,
        200,
        "both are accepted for a while"
    );
}

#[tokio::test]
async fn secrets_out_of_reach_are_our_fault() {
    let house = House::start().await;
    house
        .aws
        .fail_next("GetSecretValue", 3, Fault::ServiceUnavailable);
    let body = page(&[message("7001")]);
    let (status, answer) = house.signed(&body).await;
    assert_eq!((status, answer.contains("secrets_unavailable")), (503, true));
    assert_eq!(house.signed(&body).await.0, 200);
}

#[tokio::test]
async fn a_secret_nobody_has_filled_in_lets_nobody_in() {
    let house = House::start().await;
    house.aws.put_secret("local/meta", &meta("", None)).await.unwrap();
    let body = page(&[message("7001")]);
    let of_the_empty_key = sign(&SecretString::from(""), &body);
    assert_eq!(house.post(body, Some(&of_the_empty_key)).await.0, 503);
    assert_eq!(house.aws.dynamodb_calls().total(), 0);
}

#[tokio::test]
async fn more_than_four_mebibytes_are_too_much_and_that_much_is_not() {
    let house = House::start().await;
    let padded = |bytes: usize| {
        let mut body = page(&[message("7001")]);
        body.resize(bytes, b' ');
        body
    };
    assert_eq!(house.signed(&padded(4 * 1024 * 1024)).await.0, 200);
    let (status, answer) = house.signed(&padded(4 * 1024 * 1024 + 1)).await;
    assert_eq!((status, answer.contains("body_too_large")), (413, true));
}

#[tokio::test]
async fn what_is_signed_and_not_understood_is_kept_and_answered_200() {
    let house = House::start().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies: [&[u8]; 7] = [
        b"",
        b"not json",
        b"\xff\xfe\x00",
        b"{\"object\":\"page\",\"entry\":[{\"id\":\"1\",\"messaging\":\"x\"}]}",
        b"{\"object\":\"permissions\",\"entry\":[{\"id\":\"0\",\"uid\":\"0\",\"time\":1567181353,\"changes\":[{\"field\":\"connected\",\"verb\":\"granted\"}]}]}",
        b"[\"\\u0000\"]",
        deep.as_bytes(),
    ];
    for (n, body) in bodies.iter().enumerate() {
        assert_eq!(
            house.signed(body).await,
            (200, "EVENT_RECEIVED".into()),
            "body {n}"
        );
    }
    assert_eq!(house.quarantined().await, bodies.len());
}

#[tokio::test]
async fn an_outage_of_secrets_manager_is_met_once_in_half_a_minute() {
    let house = House::start().await;
    let body = br#"{"object":"page","entry":[]}"#;
    assert_eq!(house.signed(body).await.0, 200);
    house.clock.set(house.clock.now() + Duration::from_mins(6));
    house
        .aws
        .fail_next("GetSecretValue", 100, Fault::ServiceUnavailable);
    house.aws.reset_calls();
    for _ in 0..3 {
        assert_eq!(house.signed(body).await.0, 200, "the last values serve");
    }
    let asked = || house.aws.secrets_manager_calls().of("GetSecretValue");
    assert_eq!(asked(), 3, "three tries for the one secret that is needed");
    house.clock.set(house.clock.now() + Duration::from_secs(31));
    assert_eq!(house.signed(body).await.0, 200);
    assert_eq!(asked(), 6);
}

#[tokio::test]
async fn a_secret_that_is_overwritten_with_rubbish_serves_for_an_hour() {
    let house = House::start().await;
    let body = br#"{"object":"page","entry":[]}"#;
    assert_eq!(house.signed(body).await.0, 200);
    let rubbish = serde_json::json!("a leaked token was replaced, in a hurry");
    house.aws.put_secret("local/meta", &rubbish).await.unwrap();
    for minutes in [6, 30, 59] {
        house
            .clock
            .set(testkit::time::start() + Duration::from_mins(minutes));
        assert_eq!(house.signed(body).await.0, 200, "{minutes} minutes");
    }
    house.clock.set(testkit::time::start() + Duration::from_mins(61));
    assert_eq!(house.signed(body).await.0, 503);
    // An outage brings nothing back to life.
    house
        .aws
        .fail_next("GetSecretValue", 100, Fault::ServiceUnavailable);
    house
        .clock
        .set(testkit::time::start() + Duration::from_mins(61) + Duration::from_secs(30));
    assert_eq!(house.signed(body).await.0, 503);
    house.aws.clear_faults();
    house
        .aws
        .put_secret("local/meta", &meta(testkit::house::APP_SECRET, None))
        .await
        .unwrap();
    house.clock.set(testkit::time::start() + Duration::from_mins(62));
    assert_eq!(house.signed(body).await.0, 200, "it is mended");
}

#[tokio::test]
async fn a_secret_that_is_out_of_reach_serves_for_as_long_as_it_takes() {
    let house = House::start().await;
    let body = br#"{"object":"page","entry":[]}"#;
    assert_eq!(house.signed(body).await.0, 200);
    house
        .aws
        .fail_next("GetSecretValue", 100, Fault::ServiceUnavailable);
    house.clock.set(house.clock.now() + Duration::from_hours(5));
    assert_eq!(house.signed(body).await.0, 200);
    house.aws.clear_faults();
}

#[tokio::test]
async fn a_signature_that_cannot_be_judged_is_503_however_often() {
    let house = House::start().await;
    let body = br#"{"object":"page","entry":[]}"#;
    assert_eq!(house.signed(body).await.0, 200);
    // It was rotated, and Secrets Manager is away.
    house
        .aws
        .put_secret("local/meta", &meta("next", None))
        .await
        .unwrap();
    house
        .aws
        .fail_next("GetSecretValue", 100, Fault::ServiceUnavailable);
    let signature = sign(&SecretString::from("next"), body);
    for _ in 0..3 {
        let (status, answer) = house.post(body.to_vec(), Some(&signature)).await;
        assert_eq!(status, 503, "{answer}");
        house.clock.set(house.clock.now() + Duration::from_secs(25));
    }
    house.aws.clear_faults();
    house.clock.set(house.clock.now() + Duration::from_mins(1));
    assert_eq!(house.post(body.to_vec(), Some(&signature)).await.0, 200);
}

#[tokio::test]
async fn after_an_outage_a_mismatch_is_looked_into() {
    let house = House::start().await;
    let body = br#"{"object":"page","entry":[]}"#;
    assert_eq!(house.signed(body).await.0, 200);
    house.clock.set(house.clock.now() + Duration::from_mins(6));
    house
        .aws
        .fail_next("GetSecretValue", 100, Fault::ServiceUnavailable);
    assert_eq!(house.signed(body).await.0, 200);
    house.aws.reset_calls();
    let signature = sign(&SecretString::from("foreign"), body);
    assert_eq!(house.post(body.to_vec(), Some(&signature)).await.0, 503);
    assert_eq!(
        house.aws.secrets_manager_calls().of("GetSecretValue"),
        0,
        "it has just failed"
    );
    house.aws.clear_faults();
    house.clock.set(house.clock.now() + Duration::from_mins(1));
    assert_eq!(house.post(body.to_vec(), Some(&signature)).await.0, 401);
}

#[tokio::test]
async fn what_is_fetched_while_it_starts_is_not_fetched_again() {
    let house = House::start().await;
    house.app.warm_up().await;
    assert_eq!(house.aws.secrets_manager_calls().of("GetSecretValue"), 1);
    house.aws.reset_calls();
    for (minutes, calls) in [(0, 2), (1, 1), (59, 1)] {
        house.aws.reset_calls();
        assert_eq!(house.signed(&page(&[later("7001", minutes)])).await.0, 200);
        assert_eq!(house.aws.dynamodb_calls().total(), calls, "minute {minutes}");
        assert_eq!(house.aws.secrets_manager_calls().total(), 0, "no token, no key");
    }
}

#[tokio::test]
async fn a_start_without_secret_and_store_is_no_end() {
    let house = House::start().await;
    house
        .aws
        .fail_next("GetSecretValue", 3, Fault::ServiceUnavailable);
    house.aws.fail_next("BatchGetItem", 3, Fault::ServiceUnavailable);
    house.app.warm_up().await;
    house.aws.clear_faults();
    assert_eq!(house.signed(&page(&[message("7001")])).await.0, 200);
}

#[tokio::test]
async fn instagram_login_signs_with_a_secret_of_its_own() {
    let house = House::start().await;
    let body = page(&[message("7001")]);
    let signature = |secret: &str| sign(&SecretString::from(secret), &body);
    assert_eq!(
        house.post(body.clone(), Some(&signature("instagram"))).await.0,
        401
    );
    house.clock.set(house.clock.now() + Duration::from_mins(6));
    let mut both = meta(SECRET, None);
    both["instagram"] = json!({"app_id": "2", "app_secret": "instagram", "previous_app_secret": "before"});
    house.aws.put_secret("local/meta", &both).await.unwrap();
    for secret in [SECRET, "instagram", "before"] {
        assert_eq!(
            house.post(body.clone(), Some(&signature(secret))).await.0,
            200,
            "{secret}"
        );
    }
    assert_eq!(house.post(body.clone(), Some(&signature(""))).await.0, 401);
}

/// It costs Instagram alone.
#[tokio::test]
async fn an_instagram_app_that_is_not_filled_in_costs_messenger_nothing() {
    for instagram in [json!({}), json!({"app_id": "2"}), json!("2"), json!(null)] {
        let house = House::start().await;
        let mut both = meta(SECRET, None);
        both["instagram"] = instagram.clone();
        house.aws.put_secret("local/meta", &both).await.unwrap();
        let body = page(&[message("7001")]);
        assert_eq!(house.signed(&body).await.0, 200, "{instagram}");
        let unsigned = sign(&SecretString::from(""), &body);
        assert_eq!(house.post(body, Some(&unsigned)).await.0, 401, "{instagram}");
    }
}
