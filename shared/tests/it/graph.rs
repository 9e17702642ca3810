//! The Graph client against the fake Graph.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use shared::clients::graph::GraphSettings;
use shared::clients::graph::{Credentials, ErrorKind, GraphApp, GraphClient};
use shared::clients::http;
use shared::fbe::read;
use testkit::graph::{Edge, FakeGraph, FoundOut, Install, Options, faults};

const TOKEN: &str = "EAAB-user";
const BUSINESS: &str = "shop/42 ü";
const MANAGER: &str = "973766133343161";
const CATALOG: &str = "726635365295186";

struct Caller {
    client: GraphClient,
    app: GraphApp,
    token: SecretString,
}

impl Caller {
    fn new(graph: &FakeGraph, token: &str) -> Self {
        let settings = GraphSettings {
            url: graph.url(),
            version: "v25.0".to_owned(),
        };
        Self {
            client: GraphClient::new(http::client(Duration::from_secs(2)), &settings),
            app: GraphApp {
                id: "app".to_owned(),
                secret: "secret".into(),
            },
            token: token.into(),
        }
    }

    fn credentials(&self) -> Credentials<'_> {
        Credentials {
            app: &self.app,
            token: &self.token,
        }
    }
}

async fn start() -> (FakeGraph, Caller) {
    let options = Options::new("app", "secret")
        .partner_token("EAAB-partner")
        .proof_everywhere(true);
    let graph = FakeGraph::start(options).await.unwrap();
    graph.set_install(Install::recorded(BUSINESS, TOKEN));
    let caller = Caller::new(&graph, TOKEN);
    (graph, caller)
}

/// The requests of a batch.
fn batch(items: usize) -> Vec<Value> {
    let data = (0..items).map(|index| json!({"id": format!("p{index}"), "title": "Belt"}));
    data.map(|data| json!({"method": "UPDATE", "data": data}))
        .collect()
}

#[tokio::test]
async fn a_users_token_is_exchanged_and_the_new_one_works() {
    let (graph, _) = start().await;
    let scopes = [
        "manage_business_extension".to_owned(),
        "catalog_management".to_owned(),
    ];
    for token in [TOKEN, "EAAB-partner"] {
        let caller = Caller::new(&graph, token);
        let issued = caller
            .client
            .create_access_token(caller.credentials(), MANAGER, BUSINESS, &scopes)
            .await
            .unwrap();
        let issued = issued.token.expose_secret().to_owned();
        assert_eq!(graph.issued_tokens(BUSINESS).last(), Some(&issued));
        let caller = Caller::new(&graph, &issued);
        caller
            .client
            .fbe_installs(caller.credentials(), BUSINESS)
            .await
            .unwrap();
    }
    let sent = &graph.calls_of(Edge::AccessToken)[0];
    assert_eq!(
        sent.parameters["scope"],
        "manage_business_extension,catalog_management"
    );
    assert_eq!(sent.parameters["fbe_external_business_id"], BUSINESS);
}

#[tokio::test]
async fn installs_are_read_and_no_install_is_no_error() {
    let (graph, caller) = start().await;
    let installs = caller
        .client
        .fbe_installs(caller.credentials(), BUSINESS)
        .await
        .unwrap();
    let granted = read::installs(&installs).unwrap();
    assert_eq!(granted.assets.catalog_id.as_deref(), Some(CATALOG));
    assert_eq!(granted.assets.ad_account_id, None);
    assert_eq!(granted.features.len(), 3);

    caller
        .client
        .delete_fbe_installs(caller.credentials(), BUSINESS)
        .await
        .unwrap();
    assert_eq!(graph.install(BUSINESS), None);
    let none = caller
        .client
        .fbe_installs(caller.credentials(), BUSINESS)
        .await
        .unwrap();
    assert_eq!(none, Vec::<Value>::new());
}

#[tokio::test]
async fn every_page_of_installs_is_read() {
    let (graph, caller) = start().await;
    graph.page_installs(3);
    let installs = caller
        .client
        .fbe_installs(caller.credentials(), BUSINESS)
        .await
        .unwrap();
    assert_eq!(installs.len(), 1);
    assert_eq!(graph.calls_of(Edge::Installs).len(), 3);
    // A page that cannot be followed must not read as "not installed".
    let further = json!({"data": [], "paging": {"next": "https://graph.facebook.com/next"}});
    let answer = testkit::fault::Answer::json(200, &further);
    graph.script(Edge::Installs, testkit::fault::Fault::Answer(answer));
    let error = caller
        .client
        .fbe_installs(caller.credentials(), BUSINESS)
        .await
        .unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Retryable { .. }));
}

#[tokio::test]
async fn a_batch_is_pushed_and_its_errors_are_found() {
    let (graph, caller) = start().await;
    graph.refuse_item(CATALOG, "p1", "no image", FoundOut::AtOnce);
    graph.refuse_item(CATALOG, "p2", "no price", FoundOut::InProcessing);
    graph.finish_batches_after(1);
    let (client, credentials) = (&caller.client, caller.credentials());
    let accepted = client
        .items_batch(credentials, CATALOG, &batch(5), 0)
        .await
        .unwrap();
    assert_eq!(accepted.errors.len(), 1);
    assert_eq!(
        (
            accepted.errors[0].item.as_str(),
            accepted.errors[0].message.as_str()
        ),
        ("p1", "no image")
    );
    let handle = accepted.handles.first().unwrap();
    let status = client
        .check_batch_request_status(credentials, CATALOG, handle)
        .await
        .unwrap();
    assert!(!status.is_finished);
    let status = client
        .check_batch_request_status(credentials, CATALOG, handle)
        .await
        .unwrap();
    assert!(status.is_finished);
    assert_eq!((status.errors_total, status.invalid), (1, vec!["p2".to_owned()]));
    assert_eq!(
        (status.errors[0].item.as_str(), status.errors[0].message.as_str()),
        ("p2", "no price")
    );
    assert_eq!(graph.item_count(CATALOG), 3);
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let (graph, caller) = start().await;
    let retry = ErrorKind::Retryable { wait: None };
    for (fault, expected) in [
        (
            faults::token_invalid(460),
            ErrorKind::TokenInvalid { subcode: Some(460) },
        ),
        (faults::wrong_proof(), ErrorKind::App),
        (faults::rate_limited(4), retry),
        (faults::rate_limited(17), retry),
        (faults::rate_limited(613), retry),
        (faults::temporarily_down(), retry),
        (faults::unavailable(503), retry),
        (faults::not_json(), retry),
        (faults::done_in_spite_of_the_error(), ErrorKind::SentAnyway),
        (faults::reduce_the_data(), ErrorKind::ReduceData),
        (
            faults::catalog_rate_limited(CATALOG, 7),
            ErrorKind::Retryable {
                wait: Some(Duration::from_mins(7)),
            },
        ),
        (testkit::fault::Fault::CutAfterProcessing, retry),
        (testkit::fault::Fault::CutBeforeProcessing, retry),
    ] {
        let shown = format!("{fault:?}");
        graph.script(Edge::ItemsBatch, fault);
        let error = caller
            .client
            .items_batch(caller.credentials(), CATALOG, &batch(1), 0)
            .await
            .unwrap_err();
        assert_eq!(error.kind, expected, "{shown}");
        assert!(!format!("{error} {error:?}").contains("EAAB"), "{error:?}");
    }
    graph.limit_batches(2);
    let credentials = caller.credentials();
    let error = caller
        .client
        .items_batch(credentials, CATALOG, &batch(3), 0)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::ReduceData);
    graph.invalidate_token(TOKEN, 463);
    let error = caller
        .client
        .fbe_installs(credentials, BUSINESS)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::TokenInvalid { subcode: Some(463) });
}

#[tokio::test]
async fn strangers_are_refused_for_what_they_are() {
    let (graph, caller) = start().await;
    graph.set_install(Install::recorded("another", "EAAB-another"));
    let error = caller
        .client
        .fbe_installs(caller.credentials(), "another")
        .await
        .unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Permission, Some(200)));
    let unknown = Caller::new(&graph, "EAAB-unknown");
    let error = unknown
        .client
        .fbe_installs(unknown.credentials(), BUSINESS)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::TokenInvalid { subcode: None });
    assert_eq!(graph.take_refusals().len(), 2);
}

#[tokio::test]
async fn an_answer_is_read_whatever_json_allows() {
    let (graph, caller) = start().await;
    let body = "\u{FEFF}{\"data\":[{\"catalog_id\":10000002479028556077430,\"name \\ude00\":\"half \\ud83d\"}],\"n\":1e400}";
    graph.script(
        Edge::Installs,
        testkit::fault::Fault::Answer(testkit::fault::Answer::html(200, body)),
    );
    let installs = caller
        .client
        .fbe_installs(caller.credentials(), BUSINESS)
        .await
        .unwrap();
    let granted = read::installs(&installs).unwrap();
    assert_eq!(
        granted.assets.catalog_id.as_deref(),
        Some("10000002479028556077430")
    );
}
