//! What is planted is named by its check, with what helps.

use std::time::Duration;

use clap::Parser;
use rstest::rstest;
use serde_json::{Value, json};
use shared::outbox::{Kind, Lane, Outbox, OutboxItem, Quarantined, Reason};
use testkit::braze::faults as braze_faults;
use testkit::graph::{FakeGraph, faults};
use testkit::time;

use super::*;
use crate::stack::{LocalStack, StackOptions};

/// The page of the local stack's Graph.
const PAGE: &str = "1134597043258171";
const TOKEN: &str = "EAAB-page-1134597043258171";
const CALLBACK: &str = "https://elsewhere.example/webhook";
/// Where nobody listens.
const NOWHERE: &str = "http://127.0.0.1:1";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    target: TargetArgs,
}

struct House {
    stack: LocalStack,
    clock: Clock,
    flags: Vec<String>,
}

impl House {
    /// A local stack that is set up.
    async fn start() -> Self {
        let clock = Clock::starting_at(time::start());
        let stack = LocalStack::start(StackOptions::with_clock(&clock)).await.unwrap();
        let house = Self {
            flags: vec!["--aws-addr".to_owned(), stack.aws().address().to_string()],
            stack,
            clock,
        };
        let mut meta = crate::secrets::development()["meta"].clone();
        meta["page_access_tokens"] = json!({PAGE: TOKEN, "17841452691600098": TOKEN});
        house.put("meta", meta).await;
        let fields: Vec<String> = shared::health::settings::DEFAULT_FIELDS
            .split(',')
            .map(str::to_owned)
            .collect();
        let app = "development-app-id";
        house.graph().change_page(PAGE, |page| {
            page.subscribed
                .insert(app.to_owned(), fields.iter().cloned().collect());
        });
        let callback_url = format!("{}/messenger/webhook", house.stack.url());
        house.graph().change_app(|app| {
            for object in ["page", "instagram"] {
                let subscription = testkit::graph::Subscription {
                    callback_url: callback_url.clone(),
                    is_active: true,
                    fields: fields.iter().cloned().collect(),
                };
                app.subscriptions.insert(object.to_owned(), subscription);
            }
        });
        house
    }

    fn graph(&self) -> &FakeGraph {
        self.stack.fakes().graph.as_ref().unwrap()
    }

    async fn put(&self, name: &str, value: Value) {
        self.stack
            .aws()
            .put_secret(&format!("local/{name}"), &value)
            .await
            .unwrap();
    }

    async fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value = crate::secrets::development()[name].clone();
        if name == "meta" {
            value["page_access_tokens"] = json!({PAGE: TOKEN, "17841452691600098": TOKEN});
        }
        change(&mut value);
        self.put(name, value).await;
    }

    fn outbox(&self) -> Outbox {
        let client = self.stack.dynamodb().clone();
        Outbox::new(client, "local-OutboxTable".to_owned(), self.clock.clone())
    }

    /// An item that no dispatcher settles meanwhile.
    async fn item(&self) -> shared::outbox::Entry {
        let item = OutboxItem {
            subject: "fbe#nobody".to_owned(),
            event_key: "1".to_owned(),
            kind: Kind::FbeReconcile,
            payload: Value::Null,
            not_before: Some(self.clock.now() + jiff::SignedDuration::from_hours(24)),
        };
        let outbox = self.outbox();
        assert!(outbox.add(&item).await.unwrap());
        outbox.get(&item.subject, &item.event_key).await.unwrap().unwrap()
    }

    #[expect(clippy::too_many_lines, reason = "a list of faults")]
    async fn plant(&mut self, fault: &str) {
        let graph = self.graph();
        let page = |change: fn(&mut testkit::graph::Page)| graph.change_page(PAGE, change);
        let app = |change: fn(&mut testkit::graph::Application)| graph.change_app(change);
        match fault {
            "token expired" => page(|page| page.dead = Some(463)),
            "password changed" => page(|page| page.dead = Some(460)),
            "app removed" => page(|page| page.dead = Some(458)),
            "token of another app" => page(|page| page.foreign_app = Some("77".to_owned())),
            "scope missing" => page(|page| page.scopes.retain(|scope| scope != "pages_messaging")),
            "instagram scope missing" => {
                page(|page| page.scopes.retain(|scope| !scope.starts_with("instagram")));
            }
            "token near its end" => {
                page(|page| page.expires_at = time::start().as_second() + 3 * 24 * 3600 + 60);
            }
            "short-lived page token" => {
                self.change("meta", |meta| {
                    meta["page_access_tokens"] = json!({PAGE: format!("{TOKEN}-short")});
                })
                .await;
            }
            "page token of another page" => {
                graph.add_page(testkit::graph::Page::new("42", "Another"));
                self.change("meta", |meta| {
                    meta["page_access_tokens"] = json!({PAGE: "EAAB-page-42"});
                })
                .await;
            }
            "person's token for a page" => {
                self.change("meta", |meta| {
                    meta["page_access_tokens"] = json!({PAGE: "EAAB-a-person"});
                })
                .await;
            }
            "page not subscribed" => page(|page| page.subscribed.clear()),
            "page subscribed by another app" => page(|page| {
                let fields = page.subscribed.remove("development-app-id").unwrap();
                page.subscribed.insert("77".to_owned(), fields);
            }),
            "page field missing" => page(|page| {
                let fields = page.subscribed.get_mut("development-app-id").unwrap();
                fields.remove("messaging_referrals");
            }),
            "app not subscribed" => app(|app| app.subscriptions.clear()),
            "subscription switched off" => app(|app| {
                app.subscriptions.get_mut("page").unwrap().is_active = false;
            }),
            "another callback URL" => app(|app| {
                CALLBACK.clone_into(&mut app.subscriptions.get_mut("page").unwrap().callback_url);
            }),
            "app field missing" => app(|app| {
                app.subscriptions
                    .get_mut("page")
                    .unwrap()
                    .fields
                    .remove("messages");
            }),
            "instagram not subscribed" => app(|app| drop(app.subscriptions.remove("instagram"))),
            "version at its end" => app(|app| {
                app.ended_versions.insert("v26.0".to_owned());
            }),
            "graph down" => graph.begin_outage(faults::unavailable(503)),
            "graph limits" => graph.begin_outage(faults::rate_limited(4)),
            "graph out of reach" => self.flags.extend(["--graph-url".to_owned(), NOWHERE.to_owned()]),
            "app secret reset" => graph.reset_app_secret("another"),
            "app secret wrong here" => {
                self.change("meta", |meta| meta["app_secret"] = json!("another-secret"))
                    .await;
            }
            "app secret empty" => self.change("meta", |meta| meta["app_secret"] = json!("")).await,
            "verify token empty" => self.change("meta", |meta| meta["verify_token"] = json!("")).await,
            "no page" => {
                self.change("meta", |meta| meta["page_access_tokens"] = json!({}))
                    .await;
            }
            "braze key empty" => self.change("braze", |braze| braze["api_key"] = json!("")).await,
            "secret without a field" => {
                self.put("relay", json!({"inbound_token": "hush-hush-hush"}))
                    .await;
            }
            "braze key unknown" => {
                self.change("braze", |braze| braze["api_key"] = json!("hush-hush-hush"))
                    .await;
            }
            "trigger key unknown" => {
                self.change("braze", |braze| {
                    braze["trigger_api_key"] = json!("hush-hush-hush");
                })
                .await;
            }
            "braze down" => {
                let braze = self.stack.fakes().braze.as_ref().unwrap();
                braze.begin_outage(braze_faults::unavailable(503));
            }
            "braze out of reach" => self
                .flags
                .extend(["--braze-endpoint".to_owned(), NOWHERE.to_owned()]),
            "external system down" => {
                self.flags
                    .extend(["--external-system-url".to_owned(), format!("{NOWHERE}/x")]);
            }
            "another URL" => self.flags.extend(["--url".to_owned(), graph.url()]),
            "setting wrong" => {
                let outputs = json!({"url": self.stack.url(), "settings": {
                    "GRAPH_API_URL": graph.url(), "UNLINKED_CONTACTS": "drop"}});
                self.put("outputs", outputs).await;
            }
            "item fails" => {
                let entry = self.item().await;
                let later = self.clock.now() + jiff::SignedDuration::from_hours(1);
                self.outbox()
                    .retry(&entry, "graph_unavailable", later)
                    .await
                    .unwrap();
            }
            "item dead" => {
                let entry = self.item().await;
                self.outbox().dead(&entry, "payload_unreadable").await.unwrap();
            }
            "body not understood" => {
                let body = Quarantined {
                    source: "messenger",
                    reason: Reason::NotJson,
                    raw: bytes::Bytes::from_static(b"{").into(),
                };
                self.outbox().quarantine(&[body]).await.unwrap();
            }
            other => panic!("no such fault: {other}"),
        }
    }

    async fn checks(&self) -> Vec<Check> {
        let arguments = std::iter::once("doctor").chain(self.flags.iter().map(String::as_str));
        let target = Line::parse_from(arguments).target.open().await.unwrap();
        diagnose(&target, &self.clock).await
    }
}

fn named<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    let found = checks.iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("no check {name}: {checks:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_is_set_up_is_green() {
    let house = House::start().await;
    let checks = house.checks().await;
    // This clock is not the machine's, which servers go by.
    let bad: Vec<_> = checks
        .iter()
        .filter(|check| check.name != "clock" && check.status != Status::Ok)
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    let subscription = format!("page_subscription:{PAGE}");
    let token = format!("page_token:{PAGE}");
    let expected = [
        "settings",
        "secrets",
        "handshake",
        "signature",
        "app",
        "app_subscription",
        &subscription,
        &token,
        "graph_version",
        "clock",
        "braze_key",
        "trigger_key",
        "external_system",
        "outbox",
        "dead",
        "quarantine",
    ];
    assert_eq!(names, expected);
    assert_eq!(house.stack.fakes().take_refusals(), Vec::<String>::new());
    let outbox = house.outbox();
    assert!(
        outbox.waiting(Lane::Sync, 10).await.unwrap().is_empty(),
        "it left something behind"
    );
}

#[rstest]
#[case("token expired", "page_token:", Status::Fail, "bridge setup")]
#[case("password changed", "page_token:", Status::Fail, "password")]
#[case("app removed", "page_token:", Status::Fail, "removed the app")]
#[case("token of another app", "page_token:", Status::Fail, "development-app-id")]
#[case("scope missing", "page_token:", Status::Warn, "log in again")]
#[case("instagram scope missing", "page_token:", Status::Warn, "log in again")]
#[case("token near its end", "page_token:", Status::Warn, "long-lived")]
#[case("short-lived page token", "page_token:", Status::Warn, "long-lived")]
#[case(
    "page token of another page",
    "page_token:",
    Status::Fail,
    "bridge setup --page"
)]
#[case("person's token for a page", "page_token:", Status::Fail, "bridge setup")]
#[case(
    "page not subscribed",
    "page_subscription:",
    Status::Fail,
    "bridge setup --page"
)]
#[case(
    "page subscribed by another app",
    "page_subscription:",
    Status::Fail,
    "bridge setup --page"
)]
#[case("page field missing", "page_subscription:", Status::Warn, "permission")]
#[case("app not subscribed", "app_subscription", Status::Fail, "bridge setup")]
#[case(
    "subscription switched off",
    "app_subscription",
    Status::Fail,
    "switches it on"
)]
#[case("another callback URL", "app_subscription", Status::Fail, "bridge setup")]
#[case("app field missing", "app_subscription", Status::Warn, "bridge setup")]
#[case(
    "instagram not subscribed",
    "app_subscription",
    Status::Warn,
    "Instagram > Webhooks"
)]
#[case("version at its end", "app", Status::Fail, "GraphApiVersion")]
#[case("graph down", "app", Status::Fail, "try again")]
#[case("graph limits", "app", Status::Fail, "try again")]
#[case("graph out of reach", "app", Status::Fail, "GraphApiUrl")]
#[case("app secret reset", "app", Status::Fail, "App settings > Basic")]
#[case("app secret wrong here", "app", Status::Fail, "App settings > Basic")]
#[case("app secret empty", "secrets", Status::Fail, "bridge setup")]
#[case("verify token empty", "secrets", Status::Fail, "bridge setup")]
#[case("no page", "page_token:none", Status::Warn, "--user-token")]
#[case("braze key empty", "secrets", Status::Fail, "bridge setup")]
#[case("secret without a field", "secrets", Status::Fail, "docs/operations.md")]
#[case("braze key unknown", "braze_key", Status::Fail, "BrazeRestEndpoint")]
#[case("trigger key unknown", "trigger_key", Status::Fail, "braze secret")]
#[case("braze down", "braze_key", Status::Fail, "try again")]
#[case("braze out of reach", "braze_key", Status::Fail, "BrazeRestEndpoint")]
#[case(
    "external system down",
    "external_system",
    Status::Fail,
    "EXTERNAL_SYSTEM_URL"
)]
#[case("another URL", "handshake", Status::Fail, "leads elsewhere")]
#[case("setting wrong", "settings", Status::Fail, "docs/reference.md")]
#[case("item fails", "outbox", Status::Warn, "tried again")]
#[case("item dead", "dead", Status::Warn, "bridge dead redrive")]
#[case("body not understood", "quarantine", Status::Warn, "posted again")]
#[tokio::test(flavor = "multi_thread")]
async fn a_planted_fault_is_named_with_what_helps(
    #[case] fault: &str,
    #[case] name: &str,
    #[case] status: Status,
    #[case] helps: &str,
) {
    let mut house = House::start().await;
    house.plant(fault).await;
    let checks = tokio::time::timeout(Duration::from_mins(2), house.checks())
        .await
        .unwrap();
    let name = if name.ends_with(':') {
        format!("{name}{PAGE}")
    } else {
        name.to_owned()
    };
    let check = named(&checks, &name);
    assert_eq!(check.status, status, "{check:?}");
    let remedy = check.remedy.as_deref().unwrap_or_default();
    assert!(remedy.contains(helps), "{check:?}");
    let shown = format!("{checks:?}");
    for secret in [
        TOKEN,
        "hush-hush-hush",
        "another-secret",
        "development-app-secret",
        "EAAB",
    ] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
