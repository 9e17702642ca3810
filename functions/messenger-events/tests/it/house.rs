//! The function on the embedded AWS, and what Meta posts to it.

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
use testkit::aws::EmbeddedAws;
use testkit::house::{APP_SECRET as SECRET, House as TestHouse};

pub(crate) const NOW: &str = "2026-11-21T10:00:00Z";

pub(crate) struct House {
    pub(crate) aws: EmbeddedAws,
    pub(crate) app: App,
    pub(crate) clock: Clock,
    pub(crate) contacts_table: String,
    pub(crate) outbox_table: String,
}

impl House {
    pub(crate) async fn start() -> Self {
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

    pub(crate) async fn post(&self, body: impl Into<Body>, signature: Option<&str>) -> (u16, String) {
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

    pub(crate) async fn signed(&self, body: &[u8]) -> (u16, String) {
        self.post(body.to_vec(), Some(&sign(&SecretString::from(SECRET), body)))
            .await
    }

    /// The rows of the outbox that are such.
    async fn rows(&self, is_such: impl Fn(&HashMap<String, AttributeValue>) -> bool) -> usize {
        let scan = self.aws.dynamodb().scan().table_name(&self.outbox_table);
        let rows = scan.send().await.unwrap();
        rows.items().iter().filter(|row| is_such(row)).count()
    }

    pub(crate) async fn quarantined(&self) -> usize {
        self.rows(|row| {
            row.get("status")
                .is_some_and(|status| status.as_s().unwrap() == "quarantined")
        })
        .await
    }

    pub(crate) async fn synced_people(&self) -> usize {
        self.rows(|row| row.contains_key("due_shard")).await
    }

    pub(crate) async fn contact(&self, psid: &str) -> HashMap<String, AttributeValue> {
        let key = AttributeValue::S(format!("messenger#101#{psid}"));
        let get = self.aws.dynamodb().get_item().key("contact_key", key);
        let answer = get.table_name(&self.contacts_table).send().await;
        answer.unwrap().item.unwrap_or_default()
    }

    /// The user that a person is linked to.
    pub(crate) async fn user(&self, psid: &str) -> Option<String> {
        let contact = self.contact(psid).await;
        Some(contact.get("user_id")?.as_s().unwrap().clone())
    }
}

pub(crate) fn meta(secret: &str, previous: Option<&str>) -> Value {
    json!({"app_id": "1", "app_secret": secret, "previous_app_secret": previous, "verify_token": "v"})
}

pub(crate) fn message(psid: &str) -> Value {
    json!({"sender": {"id": psid}, "recipient": {"id": "101"}, "timestamp": 1_763_719_200_000_u64,
           "message": {"mid": format!("m_{psid}"), "text": "hi"}})
}

pub(crate) fn referral(psid: &str, user: &str, key: &str) -> Value {
    let now = NOW.parse().unwrap();
    let ttl = Duration::from_mins(15).try_into().unwrap();
    let token = mint(&SecretString::from(key), user, ttl, now).unwrap();
    json!({"sender": {"id": psid}, "recipient": {"id": "101"}, "timestamp": 1_795_255_200_000_u64,
           "referral": {"ref": token, "source": "SHORTLINK"}})
}

pub(crate) fn page(items: &[Value]) -> Vec<u8> {
    json!({"object": "page", "entry": [{"id": "101", "time": 1_763_719_200_000_u64, "messaging": items}]})
        .to_string()
        .into_bytes()
}

/// A message some minutes later.
pub(crate) fn later(psid: &str, minutes: u64) -> Value {
    let mut item = message(psid);
    item["timestamp"] = json!(1_763_719_200_000 + minutes * 60_000);
    item["message"]["mid"] = format!("m_{psid}_{minutes}").into();
    item
}
