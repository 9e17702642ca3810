//! The functions of the FBE job, wired to the embedded AWS, the fake Graph and the fake Braze.

use fbe_install_webhook::App as Webhook;
use jiff::SignedDuration;
use lambda_http::{Body, Request};
use outbox_dispatch::App as Dispatch;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::config::Env;
use shared::fbe::install::Install;
use shared::fbe::push::Push;
use shared::fbe::secrets::BusinessSecrets;
use shared::fbe::settings::FbeSecretSettings;
use shared::fbe::table::Installs;
use shared::outbox::{Lane, Outbox};
use shared::webhook::signature::sign;
use testkit::aws::EmbeddedAws;
use testkit::braze::FakeBraze;
use testkit::graph::{self, FakeGraph};
pub(crate) use testkit::house::{APP_SECRET, PARTNER_TOKEN as PARTNER};

pub(crate) const SHOP: &str = "shop-42-unique-id";
pub(crate) const CATALOG: &str = "726635365295186";
pub(crate) const SIGNING_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

pub(crate) struct House {
    pub(crate) aws: EmbeddedAws,
    pub(crate) graph: FakeGraph,
    pub(crate) braze: FakeBraze,
    pub(crate) webhook: Webhook,
    pub(crate) dispatch: Dispatch,
    pub(crate) installs: Installs,
    pub(crate) secrets: BusinessSecrets,
    pub(crate) outbox: Outbox,
    pub(crate) clock: Clock,
    pub(crate) installs_table: String,
    pub(crate) outbox_table: String,
}

impl House {
    pub(crate) async fn start() -> Self {
        Self::with(&[], None).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)], partner: Option<&str>) -> Self {
        let house = testkit::house::House::with(settings).await.unwrap();
        let reader = json!({"api_token": "reader", "signing_secret": SIGNING_SECRET});
        house.write_secret("PartnerSecret", &reader).await.unwrap();
        house
            .write_secret("MetaSecret", &meta(APP_SECRET, partner))
            .await
            .unwrap();
        let webhook =
            Env::new(house.lookup("FbeInstallWebhookFunction")).finish(fbe_install_webhook::Settings::read);
        let dispatch = Env::new(house.lookup("DispatchSyncFunction")).finish(outbox_dispatch::Settings::read);
        let table = |logical_id: &str| house.table(logical_id).to_owned();
        let (installs_table, outbox_table) = (table("InstallsTable"), table("OutboxTable"));
        let (secrets, dynamodb) = (house.aws.secrets_manager(), house.aws.dynamodb());
        let clock = house.clock;
        let webhook = Webhook::new(webhook.unwrap(), &secrets, &dynamodb, clock.clone());
        let dispatch = Dispatch::new(dispatch.unwrap(), &secrets, &dynamodb, None, clock.clone());
        let outbox = Outbox::new(dynamodb.clone(), outbox_table.clone(), clock.clone());
        let own = FbeSecretSettings {
            prefix: "local/fbe/".to_owned(),
            encryption_key: None,
        };
        house.aws.reset_calls();
        Self {
            secrets: BusinessSecrets::new(secrets, own),
            aws: house.aws,
            graph: house.graph,
            braze: house.braze,
            webhook,
            dispatch,
            installs: Installs::new(installs_table.clone(), outbox.clone()),
            outbox,
            clock,
            installs_table,
            outbox_table,
        }
    }

    /// Meta installs or changes the app, says so at Graph, and delivers the webhook.
    pub(crate) async fn happen(&self, case: &str) {
        self.happens_at_graph(case);
        assert_eq!(self.deliver(case).await, 200, "{case}");
    }

    /// The same, at the time that it is.
    pub(crate) async fn happen_now(&self, case: &str) {
        self.happens_at_graph(case);
        let mut body: Value = serde_json::from_slice(&payload(case)).unwrap();
        body["entry"][0]["time"] = self.clock.now().as_second().into();
        assert_eq!(
            self.deliver_body(body.to_string().into_bytes()).await,
            200,
            "{case}"
        );
    }

    fn happens_at_graph(&self, case: &str) {
        let value = value(case);
        match (
            graph::Install::from_webhook(&value),
            value["business_manager_id"].as_str(),
        ) {
            (Some(install), _) => self.graph.set_install(install),
            (None, Some(manager)) => self.graph.remove_install(SHOP, manager),
            (None, None) => self.graph.change_install(SHOP, None),
        }
    }

    /// The webhook alone.
    pub(crate) async fn deliver(&self, case: &str) -> u16 {
        self.deliver_body(payload(case)).await
    }

    pub(crate) async fn deliver_body(&self, body: Vec<u8>) -> u16 {
        let request: Request = lambda_http::http::Request::post("/fbe/webhook")
            .header(
                "x-hub-signature-256",
                sign(&SecretString::from(APP_SECRET), &body),
            )
            .body(Body::Binary(body))
            .unwrap();
        self.webhook.handle(request).await.status().as_u16()
    }

    pub(crate) fn later(&self, duration: SignedDuration) {
        self.clock.set(self.clock.now() + duration);
    }

    /// The schedule's tick, once new items are its own.
    pub(crate) async fn tick(&self) -> Value {
        self.later(SignedDuration::from_secs(31));
        let until = self.clock.now() + SignedDuration::from_secs(115);
        self.dispatch
            .handle_until(json!({"task": "due"}), until)
            .await
            .unwrap()
    }

    /// Ticks until nothing is pending, an hour apart.
    pub(crate) async fn drain(&self) {
        for _ in 0..40 {
            self.tick().await;
            if self.rows("pending").await == 0 {
                return;
            }
            self.later(SignedDuration::from_hours(1));
        }
        panic!("the outbox is not drained: {:?}", self.reasons().await);
    }

    /// The daily schedule.
    pub(crate) async fn plan_the_day(&self) -> Value {
        let until = self.clock.now() + SignedDuration::from_secs(115);
        self.dispatch
            .handle_until(json!({"task": "reconcile"}), until)
            .await
            .unwrap()
    }

    /// Somebody writes the meta secret.
    pub(crate) async fn write_meta(&self, app_secret: &str, partner: Option<&str>) {
        self.aws
            .put_secret("local/meta", &meta(app_secret, partner))
            .await
            .unwrap();
    }

    pub(crate) async fn install(&self) -> Install {
        self.installs.read(SHOP).await.unwrap().unwrap().install
    }

    pub(crate) async fn push(&self) -> Push {
        self.installs.read(SHOP).await.unwrap().unwrap().push.unwrap()
    }

    /// The token that calls would be made with.
    pub(crate) async fn token(&self) -> Option<String> {
        let secret = self.secrets.current(SHOP).await.unwrap()?;
        Some(secret.token()?.expose_secret().to_owned())
    }

    /// The notices that the business got: change, enabled, disabled.
    pub(crate) fn notices(&self) -> Vec<(String, Value, Value)> {
        let events = self.braze.profile(SHOP).map(|profile| profile.events);
        events
            .unwrap_or_default()
            .into_iter()
            .map(|event| {
                assert_eq!(event.name, "fbe_install_updated");
                let change = event.properties["change"].as_str().unwrap().to_owned();
                (
                    change,
                    event.properties["enabled"].clone(),
                    event.properties["disabled"].clone(),
                )
            })
            .collect()
    }

    pub(crate) fn changes(&self) -> Vec<String> {
        self.notices().into_iter().map(|(change, ..)| change).collect()
    }

    async fn scan(&self) -> Vec<std::collections::HashMap<String, aws_sdk_dynamodb::types::AttributeValue>> {
        let scan = self.aws.dynamodb().scan().table_name(&self.outbox_table).send();
        scan.await.unwrap().items.unwrap_or_default()
    }

    /// Makes everything that was given up pending again.
    pub(crate) async fn redrive(&self) {
        for entry in self.outbox.list_dead(Lane::Sync, 100).await.unwrap() {
            assert!(self.outbox.redrive(&entry).await.unwrap());
        }
    }

    pub(crate) async fn rows(&self, status: &str) -> usize {
        let rows = self.scan().await;
        rows.iter()
            .filter(|row| row["status"].as_s().unwrap() == status)
            .count()
    }

    /// Kind, status and reason of what is not done.
    pub(crate) async fn reasons(&self) -> Vec<(String, String, String)> {
        let text = |value: Option<&aws_sdk_dynamodb::types::AttributeValue>| {
            value
                .and_then(|value| value.as_s().ok())
                .cloned()
                .unwrap_or_default()
        };
        self.scan()
            .await
            .iter()
            .map(|row| {
                (
                    text(row.get("kind")),
                    text(row.get("status")),
                    text(row.get("reason")),
                )
            })
            .filter(|(_, status, _)| status != "done")
            .collect()
    }
}

fn meta(app_secret: &str, partner: Option<&str>) -> Value {
    json!({
        "app_id": "1", "app_secret": app_secret, "verify_token": "v", "partner_system_user_token": partner,
    })
}

pub(crate) fn payload(case: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/payloads/fbe");
    std::fs::read(format!("{folder}/{case}.json")).unwrap()
}

/// What the webhook says.
pub(crate) fn value(case: &str) -> Value {
    let body: Value = serde_json::from_slice(&payload(case)).unwrap();
    body["entry"][0]["changes"][0]["value"].clone()
}
