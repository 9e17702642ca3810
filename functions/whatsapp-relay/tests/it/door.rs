//! The function as API Gateway calls it.

use lambda_http::{Body, request};
use serde_json::Value;
use shared::config::Env;
use testkit::house::{House, INBOUND_TOKEN, SIGNING_SECRET};
use testkit::signer::{gateway_event, standard_webhooks_headers};
use whatsapp_relay::{App, Settings};

pub(crate) const INBOUND: &str = "/whatsapp/inbound";
pub(crate) const REPLY: &str = "/whatsapp/reply";

pub(crate) struct Door {
    pub(crate) house: House,
    app: App,
}

impl Door {
    pub(crate) async fn open() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let house = House::with(settings).await.unwrap();
        let settings = Env::new(house.lookup("WhatsAppRelayFunction"))
            .finish(Settings::read)
            .unwrap();
        let (secrets, dynamodb) = (house.aws.secrets_manager(), house.aws.dynamodb());
        let app = App::new(settings, &secrets, &dynamodb, house.clock.clone());
        Self { house, app }
    }

    /// Status and body of the answer to the event that API Gateway makes of a request.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        base64: bool,
    ) -> (u16, Value) {
        let event = gateway_event(method, path, "", headers, body, base64);
        let request = request::from_str(&event.to_string()).unwrap();
        let answer = self.app.handle(request).await;
        let Body::Text(text) = answer.body() else {
            panic!("not a text")
        };
        (answer.status().as_u16(), serde_json::from_str(text).unwrap())
    }

    /// Braze forwards a message as JSON.
    pub(crate) async fn forward(&self, body: &[u8]) -> (u16, Value) {
        let headers = [
            ("authorization", &*bearer(INBOUND_TOKEN)),
            ("content-type", "application/json"),
        ];
        self.call("POST", INBOUND, &headers, body, false).await
    }

    /// The external system answers later, and signs.
    pub(crate) async fn answer(&self, body: &Value, webhook_id: &str) -> (u16, Value) {
        let body = body.to_string();
        let now = self.house.clock.now();
        let signed = standard_webhooks_headers(SIGNING_SECRET, webhook_id, now, body.as_bytes()).unwrap();
        let headers: Vec<_> = signed
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        self.call("POST", REPLY, &headers, body.as_bytes(), false).await
    }

    /// What waits to be handed over or sent.
    pub(crate) async fn pending(&self) -> usize {
        self.with_status("pending").await
    }

    pub(crate) async fn quarantined(&self) -> usize {
        self.with_status("quarantined").await
    }

    async fn with_status(&self, status: &str) -> usize {
        let items = self.house.items("OutboxTable").await.unwrap();
        let has = |item: &&std::collections::HashMap<_, _>| {
            let found: Option<&aws_sdk_dynamodb::types::AttributeValue> = item.get("status");
            found.is_some_and(|found| found.as_s().is_ok_and(|found| found == status))
        };
        items.iter().filter(has).count()
    }
}

pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// What Braze was recorded to post.
pub(crate) fn recorded(file: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/payloads/whatsapp");
    std::fs::read(format!("{folder}/{file}")).unwrap()
}
