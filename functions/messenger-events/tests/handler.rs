//! The webhook's edge: who gets in, and what bad input gets.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use lambda_http::{Body, Request};
use messenger_events::{App, Settings};
use secrecy::SecretString;
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::config::Env;
use shared::messenger::link::mint;
use shared::webhook::signature::sign;
use testkit::aws::{EmbeddedAws, Fault};
use testkit::house::{APP_SECRET as SECRET, House as TestHouse};

const NOW: &str = "2026-11-21T10:00:00Z";

struct House {
    aws: EmbeddedAws,
    app: App,
    clock: Clock,
    contacts_table: String,
    outbox_table: String,
}

impl House {
    async fn start() -> Self {
        let house = TestHouse::start().await.unwrap();
        house
            .write_secret("LinkSecret", &json!({"signing_key": "k"}))
            .await
            .unwrap();
        let settings = Env::new(house.lookup("MessengerEventsFunction")).finish(Settings::read);
        let (secrets, dynamodb) = (house.aws.secrets_manager(), house.aws.dynamodb());
        let app = App::new(settings.unwrap(), &secrets, &dynamodb, house.clock.clone());
        house.aws.reset_calls();
        let table = |logical_id: &str| house.table(logical_id).to_owned();
        Self {
            app,
            contacts_table: table("ContactsTable"),
            outbox_table: table("OutboxTable"),
            aws: house.aws,
            clock: house.clock,
        }
    }

    async fn post(&self, body: impl Into<Body>, signature: Option<&str>) -> (u16, String) {
        let mut request = lambda_http::http::Request::post("/messenger/webhook");
        if let Some(signature) = signature {
            request = request.header("X-Hub-Signature-256", signature);
        }
        let request: Request = request.body(body.into()).unwrap();
        let answer = self.app.handle(request).await;
        let Body::Text(body) = answer.body() else {
            panic!("not a text")
        };
        (answer.status().as_u16(), body.clone())
    }

    async fn signed(&self, body: &[u8]) -> (u16, String) {
        self.post(body.to_vec(), Some(&sign(&SecretString::from(SECRET), body)))
            .await
    }

    async fn quarantined(&self) -> usize {
        let rows = self
            .aws
            .dynamodb()
            .scan()
            .table_name(&self.outbox_table)
            .send()
            .await
            .unwrap();
        rows.items()
            .iter()
            .filter(|row| {
                row.get("status")
                    .is_some_and(|status| status.as_s().unwrap() == "quarantined")
            })
            .count()
    }

    async fn contact(&self, psid: &str) -> HashMap<String, AttributeValue> {
        let key = AttributeValue::S(format!("messenger#101#{psid}"));
        let get = self.aws.dynamodb().get_item().key("contact_key", key);
        let answer = get.table_name(&self.contacts_table).send().await;
        answer.unwrap().item.unwrap_or_default()
    }

    /// The user that a person is linked to.
    async fn user(&self, psid: &str) -> Option<String> {
        let contact = self.contact(psid).await;
        Some(contact.get("user_id")?.as_s().unwrap().clone())
    }

    async fn synced_people(&self) -> usize {
        let rows = self
            .aws
            .dynamodb()
            .scan()
            .table_name(&self.outbox_table)
            .send()
            .await
            .unwrap();
        rows.items()
            .iter()
            .filter(|row| row.contains_key("due_shard"))
            .count()
    }
}

fn meta(secret: &str, previous: Option<&str>) -> Value {
    json!({"app_id": "1", "app_secret": secret, "previous_app_secret": previous, "verify_token": "v"})
}

fn message(psid: &str) -> Value {
    json!({"sender": {"id": psid}, "recipient": {"id": "101"}, "timestamp": 1_763_719_200_000_u64,
           "message": {"mid": format!("m_{psid}"), "text": "hi"}})
}

fn referral(psid: &str, user: &str, key: &str) -> Value {
    let now = NOW.parse().unwrap();
    let ttl = Duration::from_mins(15).try_into().unwrap();
    let token = mint(&SecretString::from(key), user, ttl, now).unwrap();
    json!({"sender": {"id": psid}, "recipient": {"id": "101"}, "timestamp": 1_795_255_200_000_u64,
           "referral": {"ref": token, "source": "SHORTLINK"}})
}

fn page(items: &[Value]) -> Vec<u8> {
    json!({"object": "page", "entry": [{"id": "101", "time": 1_763_719_200_000_u64, "messaging": items}]})
        .to_string()
        .into_bytes()
}

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
async fn a_rotated_link_key_links_at_once() {
    let house = House::start().await;
    assert_eq!(house.signed(&page(&[referral("7001", "ana", "k")])).await.0, 200);
    let rotated = json!({"signing_key": "new", "previous_signing_key": "k"});
    house.aws.put_secret("local/link", &rotated).await.unwrap();
    let both = [referral("7002", "bo", "new"), referral("7003", "cy", "k")];
    assert_eq!(house.signed(&page(&both)).await.0, 200);
    for (psid, user) in [("7001", "ana"), ("7002", "bo"), ("7003", "cy")] {
        assert_eq!(house.user(psid).await.as_deref(), Some(user));
    }
}

#[tokio::test]
async fn foreign_tokens_do_not_make_us_ask_for_the_key_each_time() {
    let house = House::start().await;
    for n in 0..5 {
        let body = page(&[referral(&format!("700{n}"), "ana", "another")]);
        assert_eq!(house.signed(&body).await.0, 200);
    }
    assert_eq!(house.user("7000").await, None);
    let asked = house.aws.secrets_manager_calls().of("GetSecretValue");
    assert_eq!(asked, 3, "the app's, the link's, and once more");
}

#[tokio::test]
async fn a_link_key_that_cannot_be_looked_up_is_our_fault() {
    let house = House::start().await;
    house.signed(&page(&[message("7001")])).await;
    let rotated = json!({"signing_key": "new", "previous_signing_key": "k"});
    house.aws.put_secret("local/link", &rotated).await.unwrap();
    house
        .aws
        .fail_next("GetSecretValue", 3, Fault::ServiceUnavailable);
    let body = page(&[referral("7001", "ana", "new")]);
    assert_eq!(house.signed(&body).await.0, 503);
}

#[tokio::test]
async fn a_write_that_meets_a_transaction_is_made_all_the_same() {
    let house = House::start().await;
    house.signed(&page(&[message("7001")])).await;
    house.aws.fail_next("UpdateItem", 1, Fault::Conflict);
    let mut again = message("7001");
    again["timestamp"] = json!(1_763_719_260_000_u64);
    assert_eq!(house.signed(&page(&[again])).await.0, 200);
    assert_eq!(house.aws.clear_faults(), 0);
    assert_eq!(
        house.contact("7001").await["version"],
        AttributeValue::N("2".into())
    );
}

#[tokio::test]
async fn a_contact_that_cannot_be_read_costs_nobody_else_and_loses_nothing() {
    let house = House::start().await;
    house.signed(&page(&[message("7001")])).await;
    let facts = house.contact("7001").await["facts"].clone();
    let mut newer = facts.as_m().unwrap().clone();
    newer.insert("first_seen".into(), AttributeValue::Bool(true));
    let key = AttributeValue::S("messenger#101#7001".into());
    let update = house.aws.dynamodb().update_item().key("contact_key", key);
    let update = update.table_name(&house.contacts_table);
    let update = update.update_expression("SET facts = :facts");
    let update = update.expression_attribute_values(":facts", AttributeValue::M(newer.clone()));
    update.send().await.unwrap();

    let mut items = [message("7001"), message("7002")];
    items[0]["message"]["mid"] = "m_later".into();
    let body = page(&items);
    assert_eq!(house.signed(&body).await, (200, "EVENT_RECEIVED".into()));
    assert!(!house.contact("7002").await.is_empty());
    assert_eq!(house.contact("7001").await["facts"], AttributeValue::M(newer));
    assert_eq!(house.quarantined().await, 1);
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
async fn one_broken_item_of_a_thousand_costs_nobody_else() {
    let house = House::start().await;
    let mut items: Vec<Value> = (0..999).map(|n| message(&format!("7{n:04}"))).collect();
    items.insert(500, json!({"sender": 5, "message": "not an object"}));
    assert_eq!(house.signed(&page(&items)).await.0, 200);
    assert_eq!((house.synced_people().await, house.quarantined().await), (999, 1));
}

#[tokio::test]
async fn ids_as_numbers_and_missing_times_are_taken() {
    let house = House::start().await;
    let body = br#"{"object":"page","entry":[{"id":101,"messaging":[{"sender":{"id":7001},"recipient":{"id":101},"message":{"mid":"m_1","text":"a\u0000b"}}]}]}"#;
    assert_eq!(house.signed(body).await.0, 200);
    assert_eq!((house.synced_people().await, house.quarantined().await), (1, 0));
}

#[tokio::test]
async fn everything_twice_and_at_once_makes_one_contact_each() {
    let house = House::start().await;
    let items: Vec<Value> = (0..50).map(|n| message(&format!("7{n:04}"))).collect();
    let body = page(&items);
    let mut backwards = items;
    backwards.reverse();
    let reversed = page(&backwards);
    let answers = tokio::join!(
        house.signed(&body),
        house.signed(&reversed),
        house.signed(&body),
        house.signed(&reversed),
    );
    for answer in [answers.0, answers.1, answers.2, answers.3] {
        assert_eq!(answer.0, 200);
    }
    assert_eq!(house.synced_people().await, 50);
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

/// A message some minutes later.
fn later(psid: &str, minutes: u64) -> Value {
    let mut item = message(psid);
    item["timestamp"] = json!(1_763_719_200_000 + minutes * 60_000);
    item["message"]["mid"] = format!("m_{psid}_{minutes}").into();
    item
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
async fn a_known_contact_that_says_something_takes_no_more_calls_than_before() {
    let house = House::start().await;
    house.signed(&page(&[message("7001")])).await;
    let mut stop = later("7001", 2);
    stop["message"]["text"] = "STOP".into();
    let mut read = message("7001");
    read.as_object_mut().unwrap().remove("message");
    read["read"] = json!({"watermark": 1});
    let cases = [
        (later("7001", 0), 1, "the same again"),
        (later("7001", 1), 1, "another one"),
        (later("7001", 1), 1, "a redelivery"),
        (stop, 2, "a keyword"),
        (later("7001", 70), 2, "the window has to be told again"),
        (later("7001", 5), 1, "a late one"),
        (read, 0, "a receipt"),
    ];
    for (item, most, what) in cases {
        house.aws.reset_calls();
        assert_eq!(house.signed(&page(&[item])).await.0, 200);
        let calls = house.aws.dynamodb_calls();
        assert!(calls.total() <= most, "{what}: {calls:?}");
    }
    assert!(
        house.contact("7001").await["facts"]
            .as_m()
            .unwrap()
            .contains_key("opted_out")
    );
}

#[tokio::test]
async fn what_is_noted_beside_the_facts_is_read_with_them() {
    let house = House::start().await;
    house.signed(&page(&[message("7001")])).await;
    house.signed(&page(&[later("7001", 30)])).await;
    let stored = house.contact("7001").await;
    assert_eq!(
        stored["version"],
        AttributeValue::N("1".into()),
        "no decision was written"
    );
    assert_eq!(
        stored["latest"],
        AttributeValue::N((1_763_719_200_000_u64 + 30 * 60_000).to_string())
    );
    let mut stop = later("7001", 31);
    stop["message"]["text"] = "STOP".into();
    stop["message"].as_object_mut().unwrap().remove("mid");
    house.signed(&page(&[stop])).await;
    let opened = house.contact("7001").await["facts"].as_m().unwrap()["opened_at"].clone();
    assert_eq!(opened, AttributeValue::S("2025-11-21T10:31:00Z".into()));
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

#[tokio::test]
async fn samples_of_the_dashboard_leave_nothing_behind() {
    let house = House::start().await;
    let item = json!({"sender": {"id": "12334"}, "recipient": {"id": "23245"}, "timestamp": "1527459824",
        "message": {"mid": "test_message_id", "text": "test_message"}});
    let change = json!({"field": "messages", "value": item});
    let bodies = [
        json!({"object": "page", "entry": [{"id": "0", "time": 1_527_459_824, "changes": [change]}]}),
        json!({"object": "instagram", "entry": [{"id": "0", "time": 1_527_459_824, "changes": [change]}]}),
        json!({"object": "page", "entry": [{"id": "101", "time": 1_527_459_824, "messaging": [item]}]}),
        json!({"object": "page", "entry": [{"id": "0", "changes": [{"field": "messaging_feedback"}]}]}),
        change.clone(),
    ];
    for body in bodies {
        let answer = house.signed(body.to_string().as_bytes()).await;
        assert_eq!(answer, (200, "EVENT_RECEIVED".into()), "{body}");
    }
    assert_eq!(house.aws.dynamodb_calls().total(), 0);
}

/// The same token from many people and pages at the same moment, and again.
#[tokio::test]
async fn at_no_time_are_two_contacts_linked_by_one_token() {
    for seed in 0..4 {
        let house = House::start().await;
        let shown = referral("7000", "ana", "k");
        let body = |person: usize| {
            let mut item = shown.clone();
            item["sender"]["id"] = format!("700{}", person % 4).into();
            let optin = json!({"recipient": {"id": "101"}, "timestamp": 1_795_255_200_000_u64,
                "optin": {"ref": shown["referral"]["ref"], "user_ref": "form-1"}});
            let mut answer = message(&format!("701{}", person % 2));
            answer["timestamp"] = json!(1_795_255_200_001_u64);
            answer["prior_message"] = json!({"source": "checkbox_plugin", "identifier": "form-1"});
            page(&match (person + seed) % 3 {
                0 => vec![item],
                1 => vec![optin],
                _ => vec![answer],
            })
        };
        for _ in 0..2 {
            let bodies: Vec<Vec<u8>> = (0..8).map(body).collect();
            let answers = futures_util::future::join_all(bodies.iter().map(|body| house.signed(body))).await;
            assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
            let mut linked = Vec::new();
            for psid in ["7000", "7001", "7002", "7003", "7010", "7011"] {
                linked.extend(house.user(psid).await.map(|_| psid));
            }
            assert!(linked.len() <= 1, "seed {seed}: {linked:?}");
        }
    }
}
