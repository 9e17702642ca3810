//! The webhook's edge, and what it leaves in DynamoDB and Secrets Manager.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::io::Write;
use std::sync::{Arc, Mutex};

use fbe_install_webhook::{App, Settings};
use lambda_http::{Body, Request};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use shared::clock::Clock;
use shared::config::{Env, FbeSecretSettings};
use shared::fbe::install::{Install, Status};
use shared::store::business_secrets::BusinessSecrets;
use shared::store::installs::Installs;
use shared::store::outbox::Outbox;
use shared::webhook::signature::sign;
use testkit::aws::{EmbeddedAws, Fault};
use testkit::template::Template;

const SECRET: &str = "app_secret_for_tests";
const SHOP: &str = "shop-42-unique-id";

struct House {
    aws: EmbeddedAws,
    app: App,
    installs: Installs,
    secrets: BusinessSecrets,
    tables: [String; 2],
}

impl House {
    async fn start() -> Self {
        let aws = EmbeddedAws::in_memory().await.unwrap();
        let template = Template::parse(include_str!("../../../template.yaml")).unwrap();
        aws.create_tables(&template).await.unwrap();
        let meta = json!({
            "app_id": "1", "app_secret": SECRET, "verify_token": "v", "fbe_verify_token": "of-fbe",
        });
        aws.put_secret("meta", &meta).await.unwrap();
        let table = |name: &str| template.table(name).unwrap().name.clone();
        let (installs_table, outbox_table) = (table("InstallsTable"), table("OutboxTable"));
        let pairs = [
            ("META_SECRET_ID", "meta"),
            ("FBE_SECRET_PREFIX", "stack/fbe/"),
            ("INSTALLS_TABLE", installs_table.as_str()),
            ("OUTBOX_TABLE", outbox_table.as_str()),
            ("CATALOG_FEED_URL", "https://shop.example/feed"),
        ];
        let settings = Env::from_pairs(&pairs).finish(Settings::read).unwrap();
        let clock = Clock::fixed("2026-11-21T10:00:00Z".parse().unwrap());
        let (secrets, dynamodb) = (aws.secrets_manager(), aws.dynamodb());
        let app = App::new(settings, &secrets, &dynamodb, clock.clone());
        let outbox = Outbox::new(dynamodb.clone(), outbox_table.clone(), clock.clone());
        aws.reset_calls();
        Self {
            app,
            installs: Installs::new(dynamodb, installs_table.clone(), outbox, clock),
            secrets: BusinessSecrets::new(
                secrets,
                FbeSecretSettings {
                    prefix: "stack/fbe/".to_owned(),
                    encryption_key: None,
                },
            ),
            aws,
            tables: [installs_table, outbox_table],
        }
    }

    async fn send(&self, request: Request) -> (u16, String) {
        let answer = self.app.handle(request).await;
        let Body::Text(body) = answer.body() else {
            panic!("not a text")
        };
        (answer.status().as_u16(), body.clone())
    }

    async fn post(&self, body: &[u8]) -> u16 {
        let signature = sign(&SecretString::from(SECRET), body);
        let request = lambda_http::http::Request::post("/fbe/webhook")
            .header("X-Hub-Signature-256", signature)
            .body(Body::Binary(body.to_vec()))
            .unwrap();
        self.send(request).await.0
    }

    async fn deliver(&self, case: &str) -> u16 {
        self.post(&payload(case)).await
    }

    async fn install(&self, business: &str) -> Option<Install> {
        Some(self.installs.read(business).await.unwrap()?.install)
    }

    /// The webhook's token, if the secret is in use.
    async fn token(&self, business: &str) -> Option<String> {
        let secret = self.secrets.current(business).await.unwrap()?;
        Some(secret.access_token?.expose_secret().to_owned())
    }

    async fn rows(&self, table: usize) -> Vec<String> {
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

    async fn pending(&self) -> usize {
        self.rows(1)
            .await
            .iter()
            .filter(|row| row.contains("due_shard"))
            .count()
    }
}

fn payload(case: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/payloads/fbe");
    std::fs::read(format!("{folder}/{case}.json")).unwrap()
}

fn get(query: &str) -> Request {
    let uri = format!("https://host/fbe/webhook?{query}");
    let request = lambda_http::http::Request::get(&uri).body(Body::Empty).unwrap();
    let parameters: std::collections::HashMap<String, Vec<String>> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), vec![value.to_owned()]))
        .collect();
    lambda_http::RequestExt::with_query_string_parameters(request, parameters)
}

#[tokio::test]
async fn the_handshake_asks_for_fbes_own_token() {
    let house = House::start().await;
    let query = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=";
    let right = house.send(get(&format!("{query}of-fbe"))).await;
    assert_eq!(right, (200, "1158201444".to_owned()));
    assert_eq!(house.send(get(&format!("{query}v"))).await.0, 403);
    let put = lambda_http::http::Request::put("/fbe/webhook")
        .body(Body::Empty)
        .unwrap();
    assert_eq!(house.send(put).await.0, 405);
}

#[tokio::test]
async fn without_the_right_signature_nothing_is_read_or_written() {
    let house = House::start().await;
    for signature in [
        "",
        "sha256=00",
        &sign(&SecretString::from("another"), &payload("install")),
    ] {
        let request = lambda_http::http::Request::post("/fbe/webhook")
            .header("X-Hub-Signature-256", signature)
            .body(Body::Binary(payload("install")))
            .unwrap();
        assert_eq!(house.send(request).await.0, 401);
    }
    assert_eq!(house.aws.dynamodb_calls().total(), 0);
}

#[tokio::test]
async fn an_install_costs_one_read_one_secret_write_and_one_transaction() {
    let house = House::start().await;
    // The app secret comes from the warm process's cache.
    assert_eq!(house.deliver("unknown_object").await, 200);
    for (case, secret_write) in [
        ("install", "CreateSecret"),
        ("update_removes_pixel", "PutSecretValue"),
    ] {
        house.aws.reset_calls();
        assert_eq!(house.deliver(case).await, 200);
        let (dynamodb, secrets) = (house.aws.dynamodb_calls(), house.aws.secrets_manager_calls());
        assert_eq!(
            (dynamodb.of("GetItem"), dynamodb.of("TransactWriteItems")),
            (1, 1),
            "{case}"
        );
        assert_eq!(dynamodb.total(), 2, "{case}: {dynamodb:?}");
        assert_eq!(
            (secrets.of(secret_write), secrets.total()),
            (1, 1),
            "{case}: {secrets:?}"
        );
    }
    house.aws.reset_calls();
    assert_eq!(house.deliver("uninstall").await, 200);
    let secrets = house.aws.secrets_manager_calls();
    assert_eq!((secrets.of("DeleteSecret"), secrets.total()), (1, 1));
    assert_eq!(house.aws.dynamodb_calls().total(), 2);

    // A redelivery reads, and makes sure that a token which is not in force is not there.
    house.aws.reset_calls();
    assert_eq!(house.deliver("install").await, 200);
    assert_eq!(house.aws.dynamodb_calls().total(), 1);
    let secrets = house.aws.secrets_manager_calls();
    assert_eq!((secrets.of("DeleteSecret"), secrets.total()), (1, 1));

    // While the business is there, a redelivery only reads.
    assert_eq!(house.deliver("reinstall").await, 200);
    house.aws.reset_calls();
    assert_eq!(house.deliver("reinstall").await, 200);
    assert_eq!(house.aws.dynamodb_calls().total(), 1);
    assert_eq!(house.aws.secrets_manager_calls().total(), 0);
}

#[tokio::test]
async fn every_shape_of_an_install_arrives() {
    for case in [
        "install",
        "bare_value",
        "data_shape",
        "install_instagram",
        "install_without_token",
        "odd_shapes",
        "pages_as_text",
        "unknown_feature",
    ] {
        let house = House::start().await;
        assert_eq!(house.deliver(case).await, 200, "{case}");
        let installs = house.installs.scan(true, None).await.unwrap().installs;
        assert!(!installs.is_empty(), "{case}");
        for install in installs {
            let secret = house.secrets.of(&install).await.unwrap();
            assert_eq!(secret.is_some(), install.token.is_some(), "{case}");
        }
        assert!(house.pending().await >= 1, "{case}");
    }
}

#[tokio::test]
async fn what_is_signed_and_not_understood_is_kept_and_answered_200() {
    let house = House::start().await;
    for case in [
        "curly_quotes",
        "no_business_id",
        "unknown_object",
        "values_not_included",
    ] {
        assert_eq!(house.deliver(case).await, 200, "{case}");
    }
    assert_eq!(house.rows(1).await.len(), 4);
    assert!(house.rows(0).await.is_empty());
    // The dashboard's button is nothing to be alarmed about.
    assert_eq!(house.deliver("dashboard_sample").await, 200);
    assert_eq!(house.rows(1).await.len(), 4);
}

#[tokio::test]
async fn two_businesses_and_broken_items_in_one_post_lose_none() {
    let house = House::start().await;
    assert_eq!(house.deliver("two_businesses").await, 200);
    for business in ["shop-a", "shop-b"] {
        assert!(house.install(business).await.unwrap().is_installed());
    }
    let quarantined = house.rows(1).await;
    assert_eq!(
        quarantined
            .iter()
            .filter(|row| row.contains("quarantine#fbe"))
            .count(),
        3
    );
}

#[tokio::test]
async fn what_one_business_fails_with_does_not_cost_the_other() {
    let house = House::start().await;
    assert_eq!(house.deliver("unknown_object").await, 200);
    house
        .aws
        .fail_next("TransactWriteItems", 5, Fault::ServiceUnavailable);
    // Each tries three times, so the faults are enough for one of them.
    assert_eq!(house.deliver("two_businesses").await, 503);
    house.aws.clear_faults();
    let mut there = 0;
    for business in ["shop-a", "shop-b"] {
        there += usize::from(house.install(business).await.is_some());
    }
    assert_eq!(there, 1);
    assert_eq!(house.deliver("two_businesses").await, 200);
    assert!(house.install("shop-a").await.is_some() && house.install("shop-b").await.is_some());
}

#[tokio::test]
async fn whatever_is_out_of_reach_is_a_503_and_the_redelivery_completes_it() {
    let faults = [
        Fault::ServiceUnavailable,
        Fault::Throttle,
        Fault::AnswerLost,
        Fault::Timeout,
    ];
    for operation in ["GetItem", "CreateSecret", "TransactWriteItems"] {
        for fault in faults {
            if fault == Fault::Timeout && operation != "CreateSecret" {
                continue;
            }
            let house = House::start().await;
            assert_eq!(house.deliver("unknown_object").await, 200);
            house.aws.fail_next(operation, 3, fault);
            let deadline = std::time::Duration::from_secs(3);
            let answer = tokio::time::timeout(deadline, house.deliver("install")).await;
            // A call whose answer is lost may be found done by the SDK's own second try.
            let lost = fault == Fault::AnswerLost && answer == Ok(200);
            assert!(
                answer == Ok(503) || lost || answer.is_err(),
                "{operation} {fault:?}: {answer:?}"
            );
            house.aws.clear_faults();
            assert_eq!(house.deliver("install").await, 200, "{operation} {fault:?}");
            assert!(house.install(SHOP).await.unwrap().is_installed());
            assert_eq!(house.token(SHOP).await.as_deref(), Some("EAAB_install_token"));
            assert_eq!(house.pending().await, 4, "{operation} {fault:?}");
        }
    }
    for fault in faults.into_iter().take(3) {
        let house = House::start().await;
        house.deliver("install").await;
        house.aws.fail_next("DeleteSecret", 3, fault);
        house.deliver("uninstall").await;
        house.aws.clear_faults();
        assert_eq!(house.deliver("uninstall").await, 200);
        assert_eq!(
            house.token(SHOP).await,
            None,
            "{fault:?}: the redelivery deletes it"
        );
    }
}

#[tokio::test]
async fn a_secret_is_restored_inside_its_recovery_window() {
    let house = House::start().await;
    for case in ["install", "uninstall"] {
        assert_eq!(house.deliver(case).await, 200);
    }
    assert_eq!(house.token(SHOP).await, None);
    assert_eq!(house.deliver("reinstall").await, 200);
    assert_eq!(house.token(SHOP).await.as_deref(), Some("EAAB_reinstall_token"));
    // An old removal that is delivered once more leaves it alone.
    assert_eq!(house.deliver("uninstall").await, 200);
    assert_eq!(house.token(SHOP).await.as_deref(), Some("EAAB_reinstall_token"));
}

#[tokio::test]
async fn a_removal_that_comes_while_the_token_is_written_takes_the_token_too() {
    let house = Arc::new(House::start().await);
    let other = House::rival(&house);
    house.aws.before_next("TransactWriteItems", move |_| {
        Box::pin(async move {
            let status = other.handle(signed("uninstall")).await.status();
            assert_eq!(status, 200);
        })
    });
    assert_eq!(house.deliver("install").await, 200);
    assert!(!house.install(SHOP).await.unwrap().is_installed());
    assert_eq!(house.token(SHOP).await, None);
    assert_eq!(house.pending().await, 0);
}

#[tokio::test]
async fn a_token_whose_install_was_never_committed_goes_with_the_removal() {
    let house = House::start().await;
    house
        .aws
        .fail_next("TransactWriteItems", 9, Fault::ServiceUnavailable);
    assert_eq!(house.deliver("install").await, 503);
    house.aws.clear_faults();
    assert!(house.token(SHOP).await.is_some());
    assert_eq!(house.deliver("uninstall").await, 200);
    assert_eq!(house.token(SHOP).await, None);
    assert_eq!(house.deliver("install").await, 200, "Meta delivers it again");
    assert_eq!(house.token(SHOP).await, None);
}

#[tokio::test]
async fn a_token_that_a_failed_reinstall_restored_goes_with_the_next_removal() {
    let house = House::start().await;
    for case in ["install", "uninstall"] {
        assert_eq!(house.deliver(case).await, 200);
    }
    house
        .aws
        .fail_next("TransactWriteItems", 9, Fault::ServiceUnavailable);
    assert_eq!(house.deliver("reinstall").await, 503);
    house.aws.clear_faults();
    assert!(house.token(SHOP).await.is_some());
    // Later than the reinstall.
    let removal = String::from_utf8(payload("uninstall")).unwrap();
    let removal = removal.replace("1795254000", "1795254700");
    assert_eq!(house.post(removal.as_bytes()).await, 200);
    assert_eq!(house.token(SHOP).await, None);
}

#[tokio::test]
async fn a_deletion_that_failed_is_made_up_for_by_the_installs_redelivery() {
    let house = Arc::new(House::start().await);
    assert_eq!(house.deliver("unknown_object").await, 200);
    let other = House::rival(&house);
    let there = Arc::downgrade(&house);
    house.aws.before_next("CreateSecret", move |_| {
        Box::pin(async move {
            assert_eq!(other.handle(signed("uninstall")).await.status(), 200);
            // The install's own deletion, once it has lost.
            if let Some(house) = there.upgrade() {
                house.aws.fail_next("DeleteSecret", 9, Fault::Throttle);
            }
        })
    });
    assert_eq!(house.deliver("install").await, 503);
    house.aws.clear_faults();
    assert!(house.token(SHOP).await.is_some());
    assert_eq!(house.deliver("install").await, 200);
    assert_eq!(house.token(SHOP).await, None);
}

fn signed(case: &str) -> Request {
    lambda_http::http::Request::post("/fbe/webhook")
        .header(
            "X-Hub-Signature-256",
            sign(&SecretString::from(SECRET), &payload(case)),
        )
        .body(Body::Binary(payload(case)))
        .unwrap()
}

impl House {
    /// The function in another process.
    fn rival(house: &Self) -> App {
        let pairs = [
            ("META_SECRET_ID", "meta"),
            ("FBE_SECRET_PREFIX", "stack/fbe/"),
            ("INSTALLS_TABLE", house.tables[0].as_str()),
            ("OUTBOX_TABLE", house.tables[1].as_str()),
        ];
        let settings = Env::from_pairs(&pairs).finish(Settings::read).unwrap();
        let clock = Clock::fixed("2026-11-21T10:00:00Z".parse().unwrap());
        App::new(
            settings,
            &house.aws.secrets_manager(),
            &house.aws.dynamodb(),
            clock,
        )
    }
}

#[tokio::test]
async fn any_order_and_repetition_ends_in_the_state_of_the_newest() {
    let cases = [
        "install",
        "update_removes_pixel",
        "update_older",
        "update_changes_catalog",
        "uninstall",
        "reinstall",
    ];
    let house = House::start().await;
    for case in cases {
        house.deliver(case).await;
    }
    let expected = comparable(house.install(SHOP).await.unwrap());
    assert_eq!(expected.status, Status::Active);
    // Every order would be 720 deliveries of six; these have each case first, last and twice.
    for turn in 0..cases.len() {
        let house = House::start().await;
        let mut order = cases;
        order.rotate_left(turn);
        order.reverse();
        for case in order.iter().chain(&order[..2]) {
            assert_eq!(house.deliver(case).await, 200);
        }
        assert_eq!(
            comparable(house.install(SHOP).await.unwrap()),
            expected,
            "{order:?}"
        );
        assert_eq!(
            house.token(SHOP).await.as_deref(),
            Some("EAAB_reinstall_token"),
            "{order:?}"
        );
    }
    // And two at once. Not more: Secrets Manager keeps every version for a day, but the embedded one only the
    // current and the previous, and of three tokens written together the one that counts may be neither.
    let house = House::start().await;
    for (one, other) in [
        ("reinstall", "uninstall"),
        ("install", "update_changes_catalog"),
        ("update_older", "update_removes_pixel"),
    ] {
        let answers = tokio::join!(house.deliver(one), house.deliver(other));
        assert_eq!(answers, (200, 200));
    }
    assert_eq!(comparable(house.install(SHOP).await.unwrap()), expected);
    let install = house.install(SHOP).await.unwrap();
    let secret = house.secrets.of(&install).await.unwrap().unwrap();
    assert_eq!(secret.token().unwrap().expose_secret(), "EAAB_reinstall_token");
}

fn comparable(mut install: Install) -> Install {
    install.version = 0;
    install.history.clear();
    install.installed_at = None;
    install
}

#[tokio::test]
async fn removals_of_others_change_nothing_and_unknown_ones_expire() {
    let house = House::start().await;
    assert_eq!(house.deliver("uninstall_unknown_business").await, 200);
    let rows = house.rows(0).await;
    assert!(rows.len() == 1 && rows[0].contains("expires_at"), "{rows:?}");
    assert_eq!(house.pending().await, 0);
    house.deliver("install").await;
    house.deliver("uninstall_foreign_business_manager").await;
    assert!(house.install(SHOP).await.unwrap().is_installed());
    assert!(house.token(SHOP).await.is_some());
}

#[tokio::test]
async fn business_integration_events_are_recorded_under_their_business_manager() {
    let house = House::start().await;
    for case in [
        "business_integration_install",
        "business_integration_update",
        "business_integration_uninstall",
        "business_integration_install",
    ] {
        assert_eq!(house.deliver(case).await, 200, "{case}");
    }
    let rows = house.rows(0).await;
    assert!(
        rows.iter()
            .all(|row| row.contains("business_integration#") && !row.contains("expires_at")),
        "{rows:?}"
    );
    let recorded: usize = {
        let page = house.installs.scan(false, None).await.unwrap();
        page.installs
            .iter()
            .map(|install| install.integrations.len())
            .sum()
    };
    assert_eq!(recorded, 3, "the fourth was a redelivery");
    assert_eq!(house.pending().await, 0);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_token_reaches_a_table_or_a_log() {
    let log = Log::default();
    let house = House::start().await;
    {
        // The SDK logs request bodies at trace, which is why `telemetry` never lets libraries below warnings.
        let filter = tracing_subscriber::EnvFilter::new("warn,shared=trace,fbe_install_webhook=trace");
        let writer = log.clone();
        let quiet = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(move || writer.clone())
            .finish();
        // For the whole process: what is logged by the tests beside this one must not hold a token either, and a
        // subscriber of one thread may miss what another thread registers.
        tracing::subscriber::set_global_default(quiet).unwrap();
        for case in [
            "install",
            "update_removes_pixel",
            "curly_quotes",
            "uninstall",
            "reinstall",
            "odd_shapes",
        ] {
            house.deliver(case).await;
        }
        house
            .aws
            .fail_next("PutSecretValue", 3, Fault::ServiceUnavailable);
        house.deliver("install_instagram").await;
        house.aws.clear_faults();
    }
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("an install webhook was taken in"), "{logged}");
    assert!(!logged.contains("EAAB"), "{logged}");
    for table in 0..2 {
        for row in house.rows(table).await {
            assert!(!row.contains("EAAB"), "{row}");
        }
    }
}
