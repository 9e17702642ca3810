//! The function, wired to the embedded AWS.

use fbe_install_webhook::{App, Settings};
use lambda_http::{Body, Request};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use shared::config::Env;
use shared::fbe::install::Install;
use shared::fbe::secrets::BusinessSecrets;
use shared::fbe::settings::FbeSecretSettings;
use shared::fbe::table::Installs;
use shared::outbox::Outbox;
use shared::webhook::signature::sign;
use testkit::house::{APP_ID, APP_SECRET as SECRET, House as TestHouse};

pub(crate) const SHOP: &str = "shop-42-unique-id";

pub(crate) struct House {
    shared: TestHouse,
    pub(crate) app: App,
    pub(crate) installs: Installs,
    pub(crate) secrets: BusinessSecrets,
    pub(crate) tables: [String; 2],
}

impl std::ops::Deref for House {
    type Target = TestHouse;

    fn deref(&self) -> &TestHouse {
        &self.shared
    }
}

impl House {
    pub(crate) async fn start() -> Self {
        let house = TestHouse::with(&[("CATALOG_FEED_URL", "https://shop.example/feed")])
            .await
            .unwrap();
        let meta = json!({
            "app_id": APP_ID, "app_secret": SECRET, "verify_token": "v", "fbe_verify_token": "of-fbe",
        });
        house.write_secret("MetaSecret", &meta).await.unwrap();
        let partner =
            json!({"api_token": "reader", "signing_secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"});
        house.write_secret("PartnerSecret", &partner).await.unwrap();
        let app = app(&house);
        let tables = ["InstallsTable", "OutboxTable"].map(|table| house.table(table).to_owned());
        let (dynamodb, clock) = (house.aws.dynamodb(), house.clock.clone());
        let outbox = Outbox::new(dynamodb.clone(), tables[1].clone(), clock.clone());
        let own = FbeSecretSettings {
            prefix: "local/fbe/".to_owned(),
            encryption_key: None,
        };
        house.aws.reset_calls();
        Self {
            app,
            installs: Installs::new(tables[0].clone(), outbox),
            secrets: BusinessSecrets::new(house.aws.secrets_manager(), own),
            shared: house,
            tables,
        }
    }

    pub(crate) async fn write_partner(&self, secret: serde_json::Value) {
        self.write_secret("PartnerSecret", &secret).await.unwrap();
    }

    pub(crate) fn later(&self, duration: jiff::SignedDuration) {
        self.clock.set(self.clock.now() + duration);
    }

    pub(crate) async fn send(&self, request: Request) -> (u16, String) {
        let answer = self.app.handle(request).await;
        let Body::Text(body) = answer.body() else {
            panic!("not a text")
        };
        (answer.status().as_u16(), body.clone())
    }

    pub(crate) async fn post(&self, body: &[u8]) -> u16 {
        let signature = sign(&SecretString::from(SECRET), body);
        let request = lambda_http::http::Request::post("/fbe/webhook")
            .header("X-Hub-Signature-256", signature)
            .body(Body::Binary(body.to_vec()))
            .unwrap();
        self.send(request).await.0
    }

    pub(crate) async fn deliver(&self, case: &str) -> u16 {
        self.post(&payload(case)).await
    }

    pub(crate) async fn install(&self, business: &str) -> Option<Install> {
        Some(self.installs.read(business).await.unwrap()?.install)
    }

    /// The webhook's token, if the secret is in use.
    pub(crate) async fn token(&self, business: &str) -> Option<String> {
        let secret = self.secrets.current(business).await.unwrap()?;
        Some(secret.access_token?.expose_secret().to_owned())
    }

    pub(crate) async fn rows(&self, table: usize) -> Vec<String> {
        let scan = self
            .aws
            .dynamodb()
            .scan()
            .table_name(&self.tables[table])
            .send()
            .await;
        scan.unwrap()
            .items()
            .iter()
            .map(|row| format!("{row:?}"))
            .collect()
    }

    pub(crate) async fn pending(&self) -> usize {
        self.rows(1)
            .await
            .iter()
            .filter(|row| row.contains("due_shard"))
            .count()
    }

    /// The function in another process.
    pub(crate) fn rival(house: &Self) -> App {
        app(&house.shared)
    }
}

fn app(house: &TestHouse) -> App {
    let settings = Env::new(house.lookup("FbeInstallWebhookFunction")).finish(Settings::read);
    let (secrets, dynamodb) = (house.aws.secrets_manager(), house.aws.dynamodb());
    App::new(settings.unwrap(), &secrets, &dynamodb, house.clock.clone())
}

pub(crate) fn payload(case: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/payloads/fbe");
    std::fs::read(format!("{folder}/{case}.json")).unwrap()
}

pub(crate) fn signed(case: &str) -> Request {
    signed_body(payload(case))
}

pub(crate) fn signed_body(body: Vec<u8>) -> Request {
    lambda_http::http::Request::post("/fbe/webhook")
        .header("X-Hub-Signature-256", sign(&SecretString::from(SECRET), &body))
        .body(Body::Binary(body))
        .unwrap()
}
