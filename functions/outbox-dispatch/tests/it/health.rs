//! The look at the app and its pages, four times a day.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use jiff::SignedDuration;
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use outbox_dispatch::App;
use rstest::rstest;
use serde_json::{Value, json};
use shared::config::Env;
use testkit::graph::{Edge, Page, Subscription, faults};
use testkit::house::{APP_ID, APP_SECRET, House, VERIFY_TOKEN};

const PAGE: &str = "101";
const TOKEN: &str = "EAAB-page-101";

struct Health {
    house: House,
    dispatch: App,
}

impl Health {
    /// A page that is subscribed, and its app.
    async fn start(settings: &[(&str, &str)]) -> Self {
        let house = House::with(settings).await.unwrap();
        let meta = json!({
            "app_id": APP_ID, "app_secret": APP_SECRET, "verify_token": VERIFY_TOKEN,
            "page_access_tokens": {PAGE: TOKEN},
        });
        house.write_secret("MetaSecret", &meta).await.unwrap();
        let mut page = Page::new(PAGE, "Shop");
        page.subscribed
            .insert(APP_ID.to_owned(), BTreeSet::from(["messages".to_owned()]));
        house.graph.add_page(page);
        let callback = endpoint().await;
        house.graph.change_app(|app| {
            let subscription = Subscription {
                callback_url: callback,
                is_active: true,
                fields: BTreeSet::from(["messages".to_owned()]),
            };
            app.subscriptions.insert("page".to_owned(), subscription);
        });
        let settings = Env::new(house.lookup("DispatchSyncFunction")).finish(outbox_dispatch::Settings::read);
        let (secrets, dynamodb) = (house.aws.secrets_manager(), house.aws.dynamodb());
        let dispatch = App::new(settings.unwrap(), &secrets, &dynamodb, None, house.clock.clone());
        Self { house, dispatch }
    }

    async fn invoke(&self, task: &str) -> Value {
        let until = self.house.clock.now() + SignedDuration::from_secs(115);
        let invoked = self.dispatch.handle_until(json!({"task": task}), until).await;
        invoked.unwrap()
    }

    /// A look, and what the tick did.
    async fn look(&self) -> Value {
        assert_eq!(self.invoke("health").await, json!({"planned": 1}));
        self.later(SignedDuration::from_secs(31));
        self.invoke("due").await
    }

    fn later(&self, duration: SignedDuration) {
        self.house.clock.set(self.house.clock.now() + duration);
    }

    fn is_subscribed(&self) -> bool {
        self.house
            .graph
            .page(PAGE)
            .unwrap()
            .subscribed
            .contains_key(APP_ID)
    }
}

/// What answers Meta's handshake.
async fn endpoint() -> String {
    use axum::Router;
    use axum::extract::Query;
    use std::collections::HashMap;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/messenger/webhook", listener.local_addr().unwrap());
    let answer = |Query(query): Query<HashMap<String, String>>| async move {
        assert_eq!(query["hub.verify_token"], VERIFY_TOKEN);
        query["hub.challenge"].clone()
    };
    let app = Router::new().route("/messenger/webhook", axum::routing::get(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test]
async fn a_page_that_lost_its_subscription_is_subscribed_again() {
    let health = Health::start(&[]).await;
    health.look().await;
    assert!(
        health.house.graph.calls_of(Edge::SubscribePage).is_empty(),
        "it was subscribed"
    );

    health
        .house
        .graph
        .change_page(PAGE, |page| page.subscribed.clear());
    health.later(SignedDuration::from_hours(6));
    health.look().await;
    assert!(health.is_subscribed());
    let fields = &health.house.graph.page(PAGE).unwrap().subscribed[APP_ID];
    assert!(fields.contains("messaging_optouts"), "{fields:?}");
}

#[tokio::test]
async fn without_the_setting_it_only_looks() {
    let health = Health::start(&[("AUTO_RESUBSCRIBE", "false")]).await;
    health
        .house
        .graph
        .change_page(PAGE, |page| page.subscribed.clear());
    health.look().await;
    assert!(!health.is_subscribed());
    assert_eq!(health.house.graph.calls_of(Edge::PageSubscriptions).len(), 1);
}

#[tokio::test]
async fn the_apps_subscription_is_switched_on_again() {
    let health = Health::start(&[]).await;
    let switch_off = |app: &mut testkit::graph::Application| {
        app.subscriptions.get_mut("page").unwrap().is_active = false;
    };
    health.house.graph.change_app(switch_off);
    health.look().await;
    assert!(health.house.graph.application().subscriptions["page"].is_active);
}

#[rstest]
#[case(faults::unavailable(503))]
#[case(faults::rate_limited(4))]
#[tokio::test]
async fn what_graph_does_not_answer_is_asked_again(#[case] fault: testkit::fault::Fault) {
    let health = Health::start(&[]).await;
    health
        .house
        .graph
        .change_page(PAGE, |page| page.subscribed.clear());
    health.house.graph.begin_outage(fault);
    assert_eq!(health.look().await["retried"], 1);
    health.house.graph.end_outage();
    health.later(SignedDuration::from_hours(1));
    assert_eq!(health.invoke("due").await["done"], 1);
    assert!(health.is_subscribed());
}

#[tokio::test]
async fn it_is_planned_once_in_six_hours() {
    let health = Health::start(&[]).await;
    assert_eq!(health.invoke("health").await, json!({"planned": 1}));
    assert_eq!(health.invoke("health").await, json!({"planned": 0}));
    health.later(SignedDuration::from_hours(6));
    assert_eq!(health.invoke("health").await, json!({"planned": 1}));
    health.later(SignedDuration::from_secs(31));
    // One look serves both.
    assert_eq!(health.invoke("due").await["done"], 2);
    assert_eq!(health.house.graph.calls_of(Edge::DebugToken).len(), 1);
}

#[tokio::test]
async fn a_stack_without_pages_asks_nothing() {
    let health = Health::start(&[]).await;
    let meta = json!({"app_id": APP_ID, "app_secret": APP_SECRET, "verify_token": VERIFY_TOKEN});
    health.house.write_secret("MetaSecret", &meta).await.unwrap();
    assert_eq!(health.look().await["done"], 1);
    assert_eq!(health.house.graph.call_count(), 0);
}

/// Keeps what is recorded in histograms.
#[derive(Default)]
struct Recorded(Arc<Mutex<Vec<(String, f64)>>>);

struct Sink(Arc<Mutex<Vec<(String, f64)>>>, String);

impl HistogramFn for Sink {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push((self.1.clone(), value));
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Sink(self.0.clone(), key.name().to_owned())))
    }
}

#[tokio::test]
async fn the_metrics_say_how_it_stands() {
    let recorded = Recorded::default();
    let _recording = metrics::set_default_local_recorder(&recorded);
    let health = Health::start(&[]).await;
    let end = health.house.clock.now() + SignedDuration::from_hours(24 * 5 + 1);
    health.house.graph.change_page(PAGE, |page| {
        page.subscribed.clear();
        page.expires_at = end.as_second();
    });
    health.look().await;
    let mut values = recorded.0.lock().unwrap().clone();
    values.retain(|(name, _)| !matches!(name.as_str(), "OldestDueSeconds" | "FailingSeconds"));
    let expected = [
        ("PagesUnsubscribed".to_owned(), 1.0),
        ("TokenDaysLeft".to_owned(), 5.0),
    ];
    assert_eq!(values, expected);
}
