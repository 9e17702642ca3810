//! The function, wired to the embedded AWS.

use fbe_install_webhook::{App, Settings};
use lambda_http::{Body, Request};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use shared::clock::Clock;
use shared::config::Env;
use shared::fbe::install::Install;
use shared::fbe::secrets::BusinessSecrets;
use shared::fbe::settings::FbeSecretSettings;
use shared::fbe::table::Installs;
use shared::outbox::Outbox;
use shared::webhook::signature::sign;
use testkit::aws::EmbeddedAws;
use testkit::template::Template;

const SECRET: &str = "app_secret_for_tests";
pub(crate) const SHOP: &str = "shop-42-unique-id";

pub(crate) struct House {
    pub(crate) aws: EmbeddedAws,
    pub(crate) app: App,
    pub(crate) installs: Installs,
    pub(crate) secrets: BusinessSecrets,
    pub(crate) tables: [String; 2],
    clock: Clock,
}

impl House {
    pub(crate) async fn start() -> Self {
        let aws = EmbeddedAws::in_memory().await.unwrap();
        let template = Template::parse(include_str!("../../../../template.yaml")).unwrap();
        aws.create_tables(&template).await.unwrap();
        let meta = json!({
            "app_id": "1", "app_secret": SECRET, "verify_token": "v", "fbe_verify_token": "of-fbe",
        });
        aws.put_secret("meta", &meta).await.unwrap();
        let partner =
            json!({"api_token": "reader", "signing_secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"});
        aws.put_secret("partner", &partner).await.unwrap();
        let table = |name: &str| template.table(name).unwrap().name.clone();
        let (installs_table, outbox_table) = (table("InstallsTable"), table("OutboxTable"));
        let pairs = [
            ("META_SECRET_ID", "meta"),
            ("PARTNER_SECRET_ID", "partner"),
            ("FBE_SECRET_PREFIX", "stack/fbe/"),
            ("INSTALLS_TABLE", installs_table.as_str()),
            ("OUTBOX_TABLE", outbox_table.as_str()),
            ("CATALOG_FEED_URL", "https://shop.example/feed"),
        ];
        let settings = Env::from_pairs(&pairs).finish(Settings::read).unwrap();
        let clock = Clock::fixed(testkit::time::start());
        let (secrets, dynamodb) = (aws.secrets_manager(), aws.dynamodb());
        let app = App::new(settings, &secrets, &dynamodb, clock.clone());
        let outbox = Outbox::new(dynamodb.clone(), outbox_table.clone(), clock.clone());
        aws.reset_calls();
        Self {
            app,
            installs: Installs::new(dynamodb, installs_table.clone(), outbox, clock.clone()),
            secrets: BusinessSecrets::new(
                secrets,
                FbeSecretSettings {
                    prefix: "stack/fbe/".to_owned(),
                    encryption_key: None,
                },
            ),
            aws,
            tables: [installs_table, outbox_table],
            clock,
        }
    }

    pub(crate) async fn write_partner(&self, secret: serde_json::Value) {
        self.aws.put_secret("partner", &secret).await.unwrap();
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
        let pairs = [
            ("META_SECRET_ID", "meta"),
            ("PARTNER_SECRET_ID", "partner"),
            ("FBE_SECRET_PREFIX", "stack/fbe/"),
            ("INSTALLS_TABLE", house.tables[0].as_str()),
            ("OUTBOX_TABLE", house.tables[1].as_str()),
        ];
        let settings = Env::from_pairs(&pairs).finish(Settings::read).unwrap();
        let clock = Clock::fixed(testkit::time::start());
        App::new(
            settings,
            &house.aws.secrets_manager(),
            &house.aws.dynamodb(),
            clock,
        )
    }
}

pub(crate) fn payload(case: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/payloads/fbe");
    std::fs::read(format!("{folder}/{case}.json")).unwrap()
}

pub(crate) fn signed(case: &str) -> Request {
    lambda_http::http::Request::post("/fbe/webhook")
        .header(
            "X-Hub-Signature-256",
            sign(&SecretString::from(SECRET), &payload(case)),
        )
        .body(Body::Binary(payload(case)))
        .unwrap()
}
