//! The handshake as Meta plays it, with the secret in the embedded Secrets Manager.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use lambda_http::{Body, Request, request};
use messenger_verify::{App, Settings};
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::config::Env;
use testkit::aws::EmbeddedAws;
use testkit::house::House as TestHouse;

struct House {
    aws: EmbeddedAws,
    app: App,
    clock: Clock,
}

impl House {
    async fn start(secret: Option<Value>) -> Self {
        let house = TestHouse::start().await.unwrap();
        match secret {
            Some(secret) => house.write_secret("MetaSecret", &secret).await.unwrap(),
            None => house.delete_secret("MetaSecret").await.unwrap(),
        }
        house.aws.reset_calls();
        let settings = Env::new(house.lookup("MessengerVerifyFunction")).finish(Settings::read);
        let app = App::new(
            &settings.unwrap(),
            house.aws.secrets_manager(),
            house.clock.clone(),
        );
        let (aws, clock) = (house.aws, house.clock);
        Self { aws, app, clock }
    }

    async fn with_token(token: &str) -> Self {
        Self::start(Some(secret(token))).await
    }

    async fn get(&self, query: &str) -> (u16, String) {
        let answer = self.app.handle(gateway_request(query)).await;
        let Body::Text(body) = answer.body() else {
            panic!("not a text")
        };
        (answer.status().as_u16(), body.clone())
    }
}

fn secret(token: &str) -> Value {
    json!({"app_id": "1", "app_secret": "s", "verify_token": token})
}

/// As API Gateway hands it over: names with dots, values percent-encoded.
fn gateway_request(query: &str) -> Request {
    let event = testkit::lambda::request_event(
        &testkit::lambda::HttpRequest {
            method: "GET".into(),
            path: "/messenger/webhook".into(),
            query: query.into(),
            headers: lambda_http::http::HeaderMap::new(),
            body: Vec::new().into(),
            source: ([127, 0, 0, 1], 443).into(),
        },
        "GET /messenger/webhook",
        &std::collections::BTreeMap::new(),
        jiff::Timestamp::UNIX_EPOCH,
    );
    request::from_str(&event.to_string()).unwrap()
}

#[tokio::test]
async fn the_challenge_comes_back_byte_for_byte() {
    let house = House::with_token("token").await;
    for (query, challenge) in [
        (
            "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=token",
            "1158201444",
        ),
        (
            "hub.verify_token=token&hub.challenge=a%20b%2Bc%C3%A9&hub.mode=subscribe",
            "a b+cé",
        ),
    ] {
        assert_eq!(house.get(query).await, (200, challenge.to_owned()));
    }
}

#[tokio::test]
async fn the_answer_is_plain_text() {
    let house = House::with_token("token").await;
    let request = gateway_request("hub.mode=subscribe&hub.challenge=1&hub.verify_token=token");
    let answer = house.app.handle(request).await;
    assert!(
        answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
}

#[tokio::test]
async fn whatever_is_wrong_or_missing_is_refused() {
    let house = House::with_token("token").await;
    for query in [
        "",
        "hub.mode=subscribe&hub.challenge=1",
        "hub.challenge=1&hub.verify_token=token",
        "hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=token",
        "hub.mode=subscribe&hub.challenge=1&hub.verify_token=",
        "hub.mode=subscribe&hub.challenge=1&hub.verify_token=Token",
        "hub.mode=subscribe&hub.challenge=1&hub.verify_token=tokentoken",
        "hub_mode=subscribe&hub_challenge=1&hub_verify_token=token",
    ] {
        let (status, body) = house.get(query).await;
        assert_eq!(status, 403, "{query}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["error"], "verify_token_invalid");
        assert!(
            !body.to_string().contains("\"token\""),
            "the expected value stays here"
        );
    }
    let (status, body) = house.get("hub.mode=subscribe&hub.verify_token=token").await;
    assert_eq!((status, body.contains("challenge_missing")), (400, true));
}

#[tokio::test]
async fn an_empty_token_in_the_secret_opens_nothing() {
    let house = House::with_token("").await;
    for token in ["", "guess"] {
        let query = format!("hub.mode=subscribe&hub.challenge=1&hub.verify_token={token}");
        let (status, body) = house.get(&query).await;
        assert_eq!(
            (status, body.contains("secrets_unavailable")),
            (503, true),
            "nobody has filled it in yet"
        );
    }
}

#[tokio::test]
async fn a_rotated_token_is_known_at_once_and_guessing_costs_one_refresh_a_minute() {
    let house = House::with_token("old").await;
    let new = "hub.mode=subscribe&hub.challenge=1&hub.verify_token=new";
    assert_eq!(
        house
            .get("hub.mode=subscribe&hub.challenge=1&hub.verify_token=old")
            .await
            .0,
        200
    );
    house.aws.put_secret("local/meta", &secret("new")).await.unwrap();
    assert_eq!(house.get(new).await.0, 200);
    house.aws.reset_calls();
    for _ in 0..20 {
        assert_eq!(
            house
                .get("hub.mode=subscribe&hub.challenge=1&hub.verify_token=guess")
                .await
                .0,
            403
        );
    }
    assert_eq!(
        house.aws.secrets_manager_calls().total(),
        0,
        "a refresh was made less than a minute ago"
    );
    house.clock.set("2026-11-21T10:01:00Z".parse().unwrap());
    assert_eq!(
        house
            .get("hub.mode=subscribe&hub.challenge=1&hub.verify_token=guess")
            .await
            .0,
        403
    );
    assert_eq!(house.aws.secrets_manager_calls().total(), 1);
}

#[tokio::test]
async fn without_a_secret_it_is_our_fault_and_not_metas() {
    let house = House::start(None).await;
    let (status, body) = house
        .get("hub.mode=subscribe&hub.challenge=1&hub.verify_token=token")
        .await;
    assert_eq!((status, body.contains("secrets_unavailable")), (503, true));
}

#[tokio::test]
async fn a_secret_of_another_shape_is_our_fault_and_stays_unseen() {
    let house = House::start(Some(json!({"app_id": "1", "verify_token": "token"}))).await;
    let (status, body) = house
        .get("hub.mode=subscribe&hub.challenge=1&hub.verify_token=token")
        .await;
    assert_eq!(status, 503);
    assert!(!body.contains("token\""), "{body}");
}
