//! `template.yaml` against the code: what a function is given in settings and powers is what it uses.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use shared::erase::{Erasures, Order, Source, Target};
use shared::messenger::link;
use shared::outbox::Outbox;
use shared::webhook::signed_request;
use testkit::aws::{EmbeddedAws, Fault};
use testkit::braze::{self, Endpoint, FakeBraze, faults};
use testkit::external_system::{self, Behaviour, ExternalSystem};
use testkit::graph::{self, Edge, FakeGraph, Install};
use testkit::lambda::{StreamDriver, StreamSource};
use testkit::partner::FakePartner;
use testkit::signer;
use testkit::template::{Function, Power, Template};
use testkit::time;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::secrets;

/// Read by every function before its own settings, in `telemetry::init`.
const COMMON: [&str; 3] = ["LOG_LEVEL", "METRICS_NAMESPACE", "PSEUDONYM_KEY"];

/// What Lambda does in a function's name, without the function's code: it writes the logs and traces, reads the stream
/// or the queue of an event source, and sends what failed to the failure destination.
const LAMBDAS_OWN: [&str; 11] = [
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    "dynamodb:DescribeStream",
    "dynamodb:GetRecords",
    "dynamodb:GetShardIterator",
    "dynamodb:ListStreams",
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ReceiveMessage",
    "sqs:SendMessage",
];

/// Powers that the code needs and the run below does not use, each with its reason: (function, power, reason).
const NOT_SEEN: &[(&str, &str, &str)] = &[];

fn template() -> Template {
    Template::of_the_repository().unwrap()
}

/// The environment as deployed, with a value for what has no default.
fn environment(function: &Function) -> BTreeMap<String, String> {
    let mut environment = function.environment.clone();
    environment
        .entry("BRAZE_REST_ENDPOINT".to_owned())
        .or_insert_with(|| "https://rest.iad-01.braze.com".to_owned());
    environment
}

/// Every variable that the functions' own code knows, so that a function that gets one it does not read is found.
#[test]
fn every_setting_that_a_function_reads_is_passed_and_no_other() {
    let aws = testkit::aws::sdk_config("http://127.0.0.1:9");
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../template.yaml")).unwrap();
    let mut problems = Vec::new();
    for function in template().functions() {
        let environment = environment(function);
        let read = RefCell::new(BTreeSet::new());
        let wiring = Wiring {
            function,
            environment: &environment,
            aws: &aws,
            clock: &Clock::fixed(time::start()),
        };
        let made = make_from(&wiring, &|name| {
            read.borrow_mut().insert(name.to_owned());
            environment.get(name).cloned()
        });
        let name = &function.logical_id;
        match made {
            Err(error) => problems.push(format!(
                "{name} does not start with the template's defaults: {error}"
            )),
            Ok(None) => problems.push(format!("{name} has no code")),
            Ok(Some(_)) => {}
        }
        let read = read.into_inner();
        // A variable whose parameter has no default is not in the template's environment as it is read here.
        let passed = passed(&text, name);
        for missing in read.difference(&passed) {
            problems.push(format!(
                "{name} reads {missing}, which the template does not pass"
            ));
        }
        for unused in passed.difference(&read) {
            problems.push(format!("{name} is passed {unused}, which it does not read"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The names of a function's own settings under its `Environment`, whatever their values are.
fn passed(template: &str, function: &str) -> BTreeSet<String> {
    let start = template.find(&format!("\n  {function}:\n")).unwrap();
    let (_, variables) = template[start + 1..].split_once("        Variables:\n").unwrap();
    let names = variables
        .lines()
        .map_while(|line| line.strip_prefix("          "));
    let names = names.filter_map(|line| Some(line.split_once(':')?.0.to_owned()));
    let names: BTreeSet<String> = names.filter(|name| !COMMON.contains(&name.as_str())).collect();
    assert!(!names.is_empty());
    names
}

/// The whole system: every function with an identity of its own at the embedded AWS.
struct Stack {
    aws: EmbeddedAws,
    braze: FakeBraze,
    external_system: ExternalSystem,
    graph: FakeGraph,
    partner: FakePartner,
    clock: Clock,
    template: Template,
    handlers: BTreeMap<String, Handler>,
    outbox: String,
}

impl Stack {
    async fn start() -> Self {
        let template = template();
        let aws = EmbeddedAws::in_memory().await.unwrap();
        aws.create_tables(&template).await.unwrap();
        let mut development = secrets::development();
        development["meta"]["page_access_tokens"] = json!({"1134597043258171": "development-page-token"});
        development["meta"]["partner_system_user_token"] = json!("EAAB_partner");
        for (name, value) in development.as_object().unwrap() {
            aws.put_secret(&format!("local/{name}"), value).await.unwrap();
        }
        let secret = |path: &str| development.pointer(path).and_then(Value::as_str).unwrap();
        let braze = braze::Options::new(secret("/braze/api_key")).drained(false);
        let braze = FakeBraze::start(braze).await.unwrap();
        let graph = graph::Options::new(secret("/meta/app_id"), secret("/meta/app_secret"));
        let graph = FakeGraph::start(graph.any_token(true).partner_token("EAAB_partner").drained(false))
            .await
            .unwrap();
        // Later than what was recorded.
        let clock = Clock::fixed(time::start() + SignedDuration::from_hours(2));
        let options = external_system::Options::new(secret("/relay/signing_secret"))
            .bearer_token(secret("/relay/external_system_token"))
            .clock(&clock)
            .drained(false);
        let external_system = ExternalSystem::start(options).await.unwrap();

        let partner = FakePartner::start(secret("/partner/signing_secret"), false)
            .await
            .unwrap();

        let mut handlers = BTreeMap::new();
        for function in template.functions() {
            let mut environment = environment(function);
            for (name, value) in [
                ("BRAZE_REST_ENDPOINT", braze.url()),
                ("GRAPH_API_URL", graph.url()),
                ("EXTERNAL_SYSTEM_URL", external_system.url()),
                ("PARTNER_WEBHOOK_URL", partner.url()),
                ("REPLY_CAMPAIGN_ID", "reply".to_owned()),
                ("MESSENGER_EVENTS", "message,postback".to_owned()),
                ("RETRY_BASE_SECONDS", "1".to_owned()),
            ] {
                if let Some(variable) = environment.get_mut(name) {
                    *variable = value;
                }
            }
            let wiring = Wiring {
                function,
                environment: &environment,
                aws: &aws.sdk_config_of(&function.logical_id),
                clock: &clock,
            };
            if let Some(handler) = make(&wiring).unwrap() {
                handlers.insert(function.logical_id.clone(), handler);
            }
        }
        let outbox = template.table("OutboxTable").unwrap().name.clone();
        Self {
            aws,
            braze,
            external_system,
            graph,
            partner,
            clock,
            template,
            handlers,
            outbox,
        }
    }

    /// The event of a request to the function that has its route. `None` if that function is not there.
    async fn request(
        &self,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<u64> {
        let routed = |function: &&Function| {
            let mut routes = function.routes.iter();
            routes.any(|route| route.method == method && route.path == path)
        };
        let function = self.template.functions().iter().find(routed).unwrap();
        let handler = self.handlers.get(&function.logical_id)?;
        let event = signer::gateway_event(method, path, query, headers, body, false);
        let answer = handler(event).await.unwrap();
        Some(answer["statusCode"].as_u64().unwrap())
    }

    /// Delivers a payload as its sender does, with the development secrets.
    async fn deliver(&self, sender: &str, body: &[u8]) -> Option<u64> {
        let json = ("content-type", "application/json");
        if sender == "whatsapp" {
            let token = ("authorization", "Bearer development-inbound-token");
            return self
                .request("POST", "/whatsapp/inbound", "", &[json, token], body)
                .await;
        }
        let path = if sender == "fbe" {
            "/fbe/webhook"
        } else {
            "/messenger/webhook"
        };
        let signature = signer::meta_signature("development-app-secret", body);
        let headers = [json, ("x-hub-signature-256", signature.as_str())];
        self.request("POST", path, "", &headers, body).await
    }

    /// What the schedules with this in their input send.
    async fn tick(&self, task: &str) {
        for function in self.template.functions() {
            let Some(handler) = self.handlers.get(&function.logical_id) else {
                continue;
            };
            for input in function
                .schedules
                .iter()
                .filter_map(|schedule| schedule.input.as_deref())
            {
                if input.contains(task) {
                    handler(serde_json::from_str(input).unwrap()).await.unwrap();
                }
            }
        }
    }

    async fn pending(&self) -> usize {
        let scan = self.aws.dynamodb().scan().table_name(&self.outbox);
        let scan = scan
            .filter_expression("#status = :pending")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":pending", AttributeValue::S("pending".to_owned()));
        let items = scan
            .into_paginator()
            .items()
            .send()
            .collect::<Result<Vec<_>, _>>();
        items.await.unwrap().len()
    }

    /// Lets the streams and the schedules work until nothing is pending, or half a day is over.
    async fn settle(&self) {
        for _ in 0..12 {
            let streamed = Duration::from_millis(100);
            if time::eventually_within(streamed, async || self.pending().await == 0).await {
                return;
            }
            self.clock.set(self.clock.now() + SignedDuration::from_hours(1));
            self.tick("due").await;
        }
    }

    async fn streams(&self, stop: &CancellationToken) -> Vec<StreamDriver> {
        let mut drivers = Vec::new();
        for function in self.template.functions() {
            let Some(handler) = self.handlers.get(&function.logical_id) else {
                continue;
            };
            for mapping in &function.streams {
                let mut mapping = mapping.clone();
                mapping.batching_window_seconds = 0;
                let source = StreamSource {
                    table: self.template.table(&mapping.table).unwrap().clone(),
                    mapping,
                    poll: Duration::from_millis(50),
                    handler: handler.clone(),
                    timeout: None,
                };
                let driver = StreamDriver::start(self.aws.streams(), source, stop.clone());
                drivers.push(driver.await.unwrap());
            }
        }
        drivers
    }
}

/// Recorded bodies with their senders, by sender and name.
fn payloads() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../events/payloads");
    let mut payloads = Vec::new();
    for sender in ["messenger", "instagram", "fbe", "whatsapp"] {
        let files = std::fs::read_dir(root.join(sender)).unwrap();
        payloads.extend(files.map(|file| (sender.to_owned(), file.unwrap().path())));
    }
    payloads.sort();
    assert!(payloads.len() > 100, "{}", payloads.len());
    payloads
}

fn recorded(sender: &str, case: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../events/payloads");
    std::fs::read(root.join(sender).join(format!("{case}.json"))).unwrap()
}

/// A message of a person who was never seen before.
fn message(psid: &str, at: Timestamp) -> Vec<u8> {
    let at = at.as_millisecond();
    let body = json!({"object": "page", "entry": [{"id": "1001", "time": at, "messaging": [{
        "sender": {"id": psid}, "recipient": {"id": "1001"}, "timestamp": at,
        "message": {"mid": format!("m_{psid}_{at}"), "text": "hello"},
    }]}]});
    body.to_string().into_bytes()
}

/// Somebody proves by a link token that they are `user_id`.
fn referral(psid: &str, user_id: &str, at: Timestamp) -> Vec<u8> {
    let key = "development-link-signing-key-000000".into();
    // A token links one contact, so each gets one of its own: they differ by when they expire.
    let own = psid.bytes().map(i64::from).sum();
    let ttl = SignedDuration::from_mins(15) + SignedDuration::from_secs(own);
    let token = link::mint(&key, user_id, ttl, at).unwrap();
    let at = at.as_millisecond();
    let body = json!({"object": "page", "entry": [{"id": "1001", "time": at, "messaging": [{
        "sender": {"id": psid}, "recipient": {"id": "1001"}, "timestamp": at,
        "referral": {"ref": token, "source": "SHORTLINK", "type": "OPEN_THREAD"},
    }]}]});
    body.to_string().into_bytes()
}

async fn handshakes(stack: &Stack) {
    for path in ["/messenger/webhook", "/fbe/webhook"] {
        for token in ["development-verify-token", "wrong"] {
            let query = format!("hub.mode=subscribe&hub.challenge=1&hub.verify_token={token}");
            stack.request("GET", path, &query, &[], b"").await;
        }
        let signature = ("x-hub-signature-256", "sha256=00");
        stack.request("POST", path, "", &[signature], b"{}").await;
    }
}

/// A business installs, leaves, comes back, loses its token, and brings another one.
async fn installs(stack: &Stack) {
    let body = recorded("fbe", "install");
    let webhook: Value = serde_json::from_slice(&body).unwrap();
    let value = &webhook["entry"][0]["changes"][0]["value"];
    stack.graph.set_install(Install::from_webhook(value).unwrap());
    for case in ["install", "uninstall", "reinstall"] {
        stack.deliver("fbe", &recorded("fbe", case)).await;
        stack.settle().await;
    }
    // The install of the first Business Manager arrives after another one's.
    for case in ["install_other_manager", "install"] {
        let body = String::from_utf8(recorded("fbe", case)).unwrap();
        let body = body.replace("shop-42-unique-id", "shop-46");
        stack.deliver("fbe", body.as_bytes()).await;
    }
    // Another one comes without a token, and the partner's own asks for one.
    let tokenless = String::from_utf8(recorded("fbe", "install_without_token")).unwrap();
    let tokenless = tokenless.replace("shop-42-unique-id", "shop-43");
    stack
        .graph
        .set_install(Install::recorded("shop-43", "EAAB_shop_43"));
    stack.deliver("fbe", tokenless.as_bytes()).await;
    stack.settle().await;
    stack
        .graph
        .script(Edge::Installs, graph::faults::token_invalid(460));
    stack.tick("reconcile").await;
    stack.settle().await;
    let mut again = webhook.clone();
    again["entry"][0]["time"] = json!(stack.clock.now().as_second());
    again["entry"][0]["changes"][0]["value"]["access_token"] = json!("EAAB_another_token");
    stack.deliver("fbe", again.to_string().as_bytes()).await;
    stack.settle().await;
    // What a removal leaves that was overtaken by the next install.
    let secrets = stack.aws.secrets_manager();
    let secret = secrets.delete_secret().secret_id("local/fbe/shop-42-unique-id");
    secret.recovery_window_in_days(7).send().await.unwrap();
    stack.tick("reconcile").await;
    stack.settle().await;
    // A removal while the comparison with Graph is still to come.
    stack
        .graph
        .script(Edge::Installs, graph::faults::unavailable(503));
    let before = stack.graph.calls_of(Edge::Installs).len();
    let (install, uninstall) = (recorded("fbe", "install"), recorded("fbe", "uninstall"));
    for body in [install, uninstall] {
        let body = String::from_utf8(body)
            .unwrap()
            .replace("shop-42-unique-id", "shop-44");
        stack.deliver("fbe", body.as_bytes()).await;
        let asked = || stack.graph.calls_of(Edge::Installs).len() > before;
        assert!(time::eventually(async || asked()).await);
    }
    stack.settle().await;
    // Another Business Manager claims a business that Graph knows nothing of, with a token that needs no exchange.
    for case in ["install", "install_other_manager"] {
        let body = String::from_utf8(recorded("fbe", case)).unwrap();
        let body = body
            .replace("shop-42-unique-id", "shop-45")
            .replace("\"token_type\":\"User\"", "\"token_type\":\"System User\"");
        stack.deliver("fbe", body.as_bytes()).await;
        stack.settle().await;
    }
    stack
        .deliver("fbe", &recorded("fbe", "business_integration_update"))
        .await;
    stack.settle().await;
    // The partner's platform asks.
    let token = ("authorization", "Bearer development-partner-api-token");
    stack
        .request("GET", "/fbe/installs", "pixel_id=1964583793745557", &[token], b"")
        .await;
    assert!(
        !stack.partner.notices().is_empty(),
        "the partner's platform is told"
    );
    // Graph knows nothing of it any more, and says so before Meta's webhook does.
    stack.graph.change_install("shop-42-unique-id", None);
    stack.tick("reconcile").await;
    stack.settle().await;
}

/// Messages to people: one that leaves, one that is refused, and one whose answer teaches something.
async fn sends(stack: &Stack) {
    let send = async |body: Value| {
        let token = ("authorization", "Bearer development-inbound-token");
        let json = ("content-type", "application/json");
        let body = body.to_string();
        stack
            .request("POST", "/messenger/send", "", &[json, token], body.as_bytes())
            .await
    };
    let page = "1134597043258171";
    let at = |body: &[u8]| String::from_utf8_lossy(body).replace("\"1001\"", &format!("\"{page}\""));
    for psid in ["7006", "7007"] {
        let body = referral(psid, &format!("user-{psid}"), stack.clock.now());
        stack.deliver("messenger", at(&body).as_bytes()).await;
    }
    stack.settle().await;
    stack.graph.set_reach("7007", graph::Reach::Unavailable);
    for body in [
        json!({"user_id": "user-7006", "text": "hello"}),
        json!({"psid": "7007", "text": "hello", "dispatch_id": "d"}),
    ] {
        assert_eq!(send(body).await, Some(202));
    }
    stack.settle().await;
    let again = json!({"psid": "7007", "text": "hello", "dispatch_id": "e"});
    assert_eq!(send(again).await, Some(409));
    // Meta tells the page what it has said itself.
    let first = &stack.graph.sent_messages()[0];
    let echo = json!({"object": "page", "entry": [{"id": page, "time": 0, "messaging": [{
        "sender": {"id": page}, "recipient": {"id": first.recipient}, "timestamp": stack.clock.now().as_millisecond(),
        "message": {"mid": "m_echo", "is_echo": true, "metadata": first.message["metadata"]},
    }]}]});
    stack.deliver("messenger", echo.to_string().as_bytes()).await;
}

/// A person whom Meta tells of, a page that leaves, a user with all that they have, a conversation and a business.
async fn erasures(stack: &Stack) {
    let form = ("content-type", "application/x-www-form-urlencoded");
    let signed = |payload: Value| {
        let payload = json!({"algorithm": "HMAC-SHA256", "issued_at": stack.clock.now().as_second()})
            .as_object()
            .unwrap()
            .clone()
            .into_iter()
            .chain(payload.as_object().unwrap().clone())
            .collect::<serde_json::Map<_, _>>();
        let secret = "development-app-secret".into();
        format!(
            "signed_request={}",
            signed_request::sign(&secret, &payload.into())
        )
    };
    for (path, payload) in [
        ("/meta/deletion", json!({"user_id": "9001"})),
        ("/meta/deauthorize", json!({"profile_id": "1134597043258171"})),
    ] {
        let body = signed(payload);
        let status = stack.request("POST", path, "", &[form], body.as_bytes()).await;
        assert_eq!(status, Some(200));
    }
    let path = format!("/meta/deletion/{:032x}", 0);
    let status = signer::gateway_event("GET", &path, "", &[], b"", false);
    let answer = stack.handlers["DataDeletionFunction"](status).await.unwrap();
    assert_eq!(answer["statusCode"], 404);
    let erasures = Erasures::new(Outbox::new(
        stack.aws.dynamodb(),
        stack.outbox.clone(),
        stack.clock.clone(),
    ));
    let targets = [
        Target::User("user-of-two".into()),
        Target::User("42".into()),
        Target::Business("shop-42-unique-id".to_owned()),
    ];
    for (number, target) in targets.into_iter().enumerate() {
        let order = Order::new(target, Source::Operator, stack.clock.now());
        assert!(erasures.order(&format!("{number:032x}"), &order).await.unwrap());
    }
    stack.settle().await;
}

async fn drive(stack: &Stack) {
    let stop = CancellationToken::new();
    let streams = stack.streams(&stop).await;
    handshakes(stack).await;
    installs(stack).await;
    // Everything that was ever recorded, and everything again: redeliveries and known people.
    for _ in 0..2 {
        for (sender, path) in payloads() {
            let status = stack.deliver(&sender, &std::fs::read(&path).unwrap()).await;
            assert!(
                status.is_none_or(|status| status < 300),
                "{status:?} for {}",
                path.display()
            );
        }
        stack.settle().await;
    }
    // Two accounts of one user.
    for psid in ["7004", "7005"] {
        let body = referral(psid, "user-of-two", stack.clock.now());
        stack.deliver("messenger", &body).await;
        stack.settle().await;
    }
    sends(stack).await;
    stack.clock.set(stack.clock.now() + SignedDuration::from_mins(70));
    stack
        .deliver("messenger", &message("7004", stack.clock.now()))
        .await;
    stack.settle().await;
    // The external system answers late.
    let token = ("authorization", "Bearer development-external-system-token");
    let late = json!({"conversation_id": "user:42", "replies": [{"text": "a late answer"}]}).to_string();
    let json = ("content-type", "application/json");
    stack
        .request("POST", "/whatsapp/reply", "", &[json, token], late.as_bytes())
        .await;
    // What passes, and what somebody has to mend.
    let braze = &stack.braze;
    braze.script(Endpoint::Track, faults::unavailable(503));
    braze.script(Endpoint::Track, faults::unauthorized());
    braze.script(Endpoint::TriggerSend, faults::unavailable(503));
    stack.external_system.script(Behaviour::failing(503));
    let body = String::from_utf8(recorded("whatsapp", "full")).unwrap();
    let again = body.replace("14497aa4b013bf150881547fb3076fd6", "another-dispatch");
    stack.deliver("whatsapp", again.as_bytes()).await;
    stack
        .deliver("messenger", &message("7001", stack.clock.now()))
        .await;
    stack.settle().await;
    // What never passes.
    braze.poison("7002");
    stack
        .deliver("messenger", &message("7002", stack.clock.now()))
        .await;
    stack.settle().await;
    braze.clear_script();
    // Two transactions that meet.
    stack.aws.fail_next("TransactWriteItems", 4, Fault::Conflict);
    stack
        .deliver("messenger", &message("7003", stack.clock.now()))
        .await;
    stack.aws.clear_faults();
    stack.settle().await;
    erasures(stack).await;

    stop.cancel();
    for stream in streams {
        stream.stopped().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_power_that_a_role_grants_is_used_and_no_other() {
    let stack = Stack::start().await;
    drive(&stack).await;
    let mut problems = Vec::new();
    for function in stack.template.functions() {
        let name = function.logical_id.as_str();
        let used = stack.aws.powers_of(name);
        if stack.handlers.contains_key(name) {
            assert!(!used.is_empty(), "{name} did nothing");
        }
        let grants: Vec<&Power> = function.grants.iter().collect();
        for power in used
            .iter()
            .filter(|power| !grants.iter().any(|grant| grant.covers(power)))
        {
            problems.push(format!("{name} needs {power}, which its role does not grant"));
        }
        let mut excused: BTreeSet<&str> = NOT_SEEN
            .iter()
            .filter(|(of, ..)| *of == name)
            .map(|(_, power, _)| *power)
            .collect();
        for grant in grants {
            let text = grant.to_string();
            let is_used = used.iter().any(|power| grant.covers(power));
            match (is_used, excused.remove(text.as_str())) {
                (true, true) => problems.push(format!("{name} does use {text}: strike it from NOT_SEEN")),
                (false, false) if LAMBDAS_OWN.contains(&grant.action.as_str()) => {}
                (false, false) => problems.push(format!("{name} is granted {text}, which it does not use")),
                _ => {}
            }
        }
        for power in excused {
            problems.push(format!(
                "{name} is not granted {power} at all: strike it from NOT_SEEN"
            ));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// `events/env.json` leads `sam local invoke` to the local stack: its tables, secrets and settings, all of them known.
#[test]
fn the_variables_for_sam_local_are_those_of_the_local_stack() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../events/env.json");
    let file: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let template = template();
    let mut given = file["Parameters"].as_object().unwrap().clone();
    assert!(given.remove("AWS_ENDPOINT_URL").is_some());
    for (name, value) in given {
        let value = value.as_str().unwrap();
        let functions = template.functions().iter().map(environment);
        let mut values = functions.filter_map(|environment| environment.get(&name).cloned());
        let deployed = values.next().unwrap_or_else(|| panic!("no function has {name}"));
        assert!(
            value == deployed || value.starts_with("http://host.docker.internal:"),
            "{name} is {deployed} in the local stack"
        );
    }
}
