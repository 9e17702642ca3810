//! What the release binaries cost: cold start, latency, round trips, memory, size.
//!
//! Each binary runs as it does on Lambda, polling a runtime API, against the embedded AWS and the fake Braze in
//! this process. Nothing is timed in a test; this prints what it measured.
//!
//! ```sh
//! cargo build --release && cargo bench -p bridge --bench functions
//! # or some of it: a function's cold start, `contacts`, `syncs`, `conversations`, `sends`, `lanes`
//! cargo bench -p bridge --bench functions -- messenger-events contacts
//! # a tick over a million contacts that wait, which takes minutes to prepare
//! cargo bench -p bridge --bench functions -- backlog
//! # beside the same job written by hand, in Rust, Node and Python
//! scripts/peers
//! ```
#![expect(clippy::print_stdout, reason = "it reports to people")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking"
)]

#[path = "functions/lanes.rs"]
mod lanes;
#[path = "functions/sends.rs"]
mod sends;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::{Value, json};
use shared::clock::Clock;
use testkit::aws::EmbeddedAws;
use testkit::braze::{FakeBraze, Options};
use testkit::external_system::{self, Behaviour, ExternalSystem};
use testkit::template::Template;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc};

const FUNCTIONS: [&str; 7] = [
    "messenger-verify",
    "messenger-events",
    "messenger-send",
    "fbe-install-webhook",
    "whatsapp-relay",
    "data-deletion",
    "outbox-dispatch",
];
const COLD_STARTS: usize = 20;
/// Who does the same job, written by hand: `benches/peers`.
const PEERS: [&str; 3] = ["bare", "node", "python"];
/// Contacts that wait for a tick.
const BACKLOG: usize = 1_000_000;
const SIGNING_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const APP_SECRET: &str = "app-secret-of-the-benchmark";
const PAGE: &str = "101332922643063";

/// Lambda's runtime API: <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>
struct RuntimeApi {
    address: SocketAddr,
    polls: mpsc::UnboundedReceiver<Instant>,
    events: mpsc::UnboundedSender<Value>,
    answers: mpsc::UnboundedReceiver<Value>,
}

struct Shared {
    polls: mpsc::UnboundedSender<Instant>,
    events: Mutex<mpsc::UnboundedReceiver<Value>>,
    answers: mpsc::UnboundedSender<Value>,
}

impl RuntimeApi {
    async fn start() -> Self {
        let (polled, polls) = mpsc::unbounded_channel();
        let (events, queued) = mpsc::unbounded_channel();
        let (answered, answers) = mpsc::unbounded_channel();
        let shared = Shared {
            polls: polled,
            events: Mutex::new(queued),
            answers: answered,
        };
        let app = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/{outcome}", post(answer))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::new(shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, app).await });
        Self {
            address,
            polls,
            events,
            answers,
        }
    }

    async fn invoke(&mut self, event: Value) -> (Value, Duration) {
        let start = Instant::now();
        self.events.send(event).unwrap();
        let answer = self.answers.recv().await.unwrap();
        (answer, start.elapsed())
    }
}

async fn next(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    shared.polls.send(Instant::now()).ok();
    let Some(event) = shared.events.lock().await.recv().await else {
        // The benchmark is over.
        return std::future::pending().await;
    };
    let deadline = Clock::system().now().as_millisecond() + 900_000;
    let mut headers = HeaderMap::new();
    headers.insert(
        "lambda-runtime-aws-request-id",
        HeaderValue::from_static("8476a536-e9f4-11e8-9739-2dfe598c3fcd"),
    );
    headers.insert("lambda-runtime-deadline-ms", HeaderValue::from(deadline));
    headers.insert(
        "lambda-runtime-invoked-function-arn",
        HeaderValue::from_static("arn:aws:lambda:us-east-1:123456789012:function:bench"),
    );
    (headers, event.to_string())
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    Path((_, outcome)): Path<(String, String)>,
    body: String,
) -> StatusCode {
    assert_eq!(outcome, "response", "{body}");
    shared
        .answers
        .send(serde_json::from_str(&body).unwrap_or_default())
        .ok();
    StatusCode::ACCEPTED
}

struct Stack {
    aws: EmbeddedAws,
    braze: FakeBraze,
    system: ExternalSystem,
    settings: BTreeMap<&'static str, String>,
}

impl Stack {
    async fn start() -> Self {
        let aws = EmbeddedAws::in_memory().await.unwrap();
        let template = Template::parse(include_str!("../../template.yaml")).unwrap();
        aws.create_tables(&template).await.unwrap();
        let meta = json!({"app_id": "1", "app_secret": APP_SECRET, "verify_token": "v"});
        aws.put_secret("meta", &meta).await.unwrap();
        aws.put_secret("link", &json!({"signing_key": "link-key"}))
            .await
            .unwrap();
        aws.put_secret("braze", &json!({"api_key": "key"})).await.unwrap();
        aws.put_secret(
            "relay",
            &json!({"inbound_token": "t", "signing_secret": SIGNING_SECRET}),
        )
        .await
        .unwrap();
        let braze = FakeBraze::start(Options::new("key")).await.unwrap();
        // The binaries keep to the machine's clock.
        let options = external_system::Options::new(SIGNING_SECRET).clock(&Clock::system());
        let system = ExternalSystem::start(options).await.unwrap();
        system.set_behaviour(Behaviour::slow(Duration::from_secs(3)));
        let table = |name: &str| template.table(name).unwrap().name.clone();
        let settings = BTreeMap::from([
            ("AWS_ENDPOINT_URL", aws.endpoint_url()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "bench".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "bench".to_owned()),
            ("AWS_LAMBDA_FUNCTION_NAME", "bench".to_owned()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "1".to_owned()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256".to_owned()),
            ("META_SECRET_ID", "meta".to_owned()),
            ("PARTNER_SECRET_ID", "partner".to_owned()),
            ("LINK_SECRET_ID", "link".to_owned()),
            ("BRAZE_SECRET_ID", "braze".to_owned()),
            ("RELAY_SECRET_ID", "relay".to_owned()),
            ("FBE_SECRET_PREFIX", "fbe/".to_owned()),
            ("CONTACTS_TABLE", table("ContactsTable")),
            ("INSTALLS_TABLE", table("InstallsTable")),
            ("CONVERSATIONS_TABLE", table("ConversationsTable")),
            ("OUTBOX_TABLE", table("OutboxTable")),
            ("BRAZE_REST_ENDPOINT", braze.url()),
            ("LANE", "sync".to_owned()),
            ("EXTERNAL_SYSTEM_URL", system.url()),
            ("REPLY_CAMPAIGN_ID", "reply".to_owned()),
            ("REPLY_URL", "http://127.0.0.1/whatsapp/reply".to_owned()),
        ]);
        Self {
            aws,
            braze,
            system,
            settings,
        }
    }

    fn spawn(&self, function: &str, api: SocketAddr) -> Child {
        let mut command = match function {
            "bare" => Command::new(built("../benches/peers/bare/target/release", "bare")),
            "node" => script("node", built("../benches/peers/node", "main.js")),
            "python" => script(
                built("../.venv/peers/bin", "python"),
                built("../benches/peers/python", "main.py"),
            ),
            ours => Command::new(binary(ours)),
        };
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("AWS_DEFAULT_REGION", "us-east-1")
            // That an SDK will want a newer Node some day.
            .env("NODE_NO_WARNINGS", "1")
            .envs(&self.settings)
            .env("AWS_LAMBDA_RUNTIME_API", api.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    async fn warm(&self, function: &str) -> (RuntimeApi, Child) {
        let mut api = RuntimeApi::start().await;
        let child = self.spawn(function, api.address);
        api.polls.recv().await.unwrap();
        (api, child)
    }
}

fn binary(function: &str) -> PathBuf {
    built("../target/release", function)
}

fn script(interpreter: impl AsRef<std::ffi::OsStr>, script: PathBuf) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(script);
    command
}

fn built(folder: &str, name: &str) -> PathBuf {
    let binary = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder).join(name);
    assert!(
        binary.exists(),
        "{} is missing: see the commands at the head of this file",
        binary.display()
    );
    binary
}

#[tokio::main]
async fn main() {
    let stack = Stack::start().await;
    println!(
        "{:<22}{:>12}{:>14}{:>12}",
        "function", "size (MB)", "cold start", "memory"
    );
    // Names after `--` choose; cargo itself passes `--bench`.
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|name| !name.starts_with('-'))
        .collect();
    let runs = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    for function in FUNCTIONS.into_iter().filter(|function| runs(function)) {
        cold_start(&stack, function).await;
    }
    if runs("contacts") {
        one_contact(&stack).await;
        thousand_contacts(&stack).await;
    }
    if runs("syncs") {
        ten_thousand_syncs().await;
    }
    if runs("conversations") {
        thousand_conversations().await;
    }
    if runs("sends") {
        sends::ten_thousand().await;
    }
    if runs("lanes") {
        lanes::webhook().await;
        lanes::sync().await;
        lanes::relay().await;
    }
    // Not without being asked for: peers are built by a command of their own, and a backlog takes minutes to prepare.
    let is_asked_for = |name: &str| chosen.iter().any(|chosen| chosen == name);
    if is_asked_for("backlog") {
        lanes::backlog().await;
    }
    if is_asked_for("peers") {
        beside_the_peers(&stack).await;
    }
}

/// The same messages through our function and its peers, turn by turn, so that all meet the same machine.
async fn beside_the_peers(stack: &Stack) {
    const STARTS: usize = 20;
    const ROUNDS: u64 = 20;
    const MESSAGES: u64 = 100;
    let functions: Vec<&str> = ["messenger-events"].into_iter().chain(PEERS).collect();
    let mut first_answers = vec![[Vec::new(), Vec::new()]; functions.len()];
    for start in 0..STARTS {
        // Somebody new, and again.
        for (time, is_known) in [(50, false), (51, true)] {
            for (function, took) in functions.iter().zip(&mut first_answers) {
                let mut api = RuntimeApi::start().await;
                let began = Instant::now();
                let mut child = stack.spawn(function, api.address);
                let (answer, _) = api.invoke(post_event(&[format!("77{start:04}")], time)).await;
                took[usize::from(is_known)].push(began.elapsed());
                assert_eq!(answer["statusCode"], 200, "{answer}");
                child.kill().await.unwrap();
            }
        }
    }
    let mut warm = Vec::new();
    for function in &functions {
        warm.push(stack.warm(function).await);
    }
    let mut latencies = vec![Vec::new(); functions.len()];
    let mut processor = vec![Vec::new(); functions.len()];
    let mut in_dynamodb = vec![Vec::new(); functions.len()];
    for round in 0..ROUNDS {
        let mut turns: Vec<_> = warm.iter_mut().enumerate().collect();
        // Nobody always comes after the same.
        if round % 2 == 1 {
            turns.reverse();
        }
        for (function, (api, child)) in turns {
            let before = (processor_time(child), stack.aws.dynamodb_time());
            for message in 0..MESSAGES {
                let event = post_event(&["88".to_owned()], 100 + round * MESSAGES + message);
                let (answer, took) = api.invoke(event).await;
                assert_eq!(answer["statusCode"], 200, "{answer}");
                // The first round warms all up.
                if round > 0 {
                    latencies[function].push(took);
                }
            }
            if round > 0 {
                let each = |time: Duration, before| {
                    time.checked_sub(before).unwrap() / u32::try_from(MESSAGES).unwrap()
                };
                processor[function].push(each(processor_time(child), before.0));
                in_dynamodb[function].push(each(stack.aws.dynamodb_time(), before.1));
            }
        }
    }
    println!(
        "| a message of a known person | start | of a new one | latency | of it DynamoDB | processor | memory |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (number, function) in functions.iter().enumerate() {
        let milliseconds = |durations: &[Duration]| median(durations.to_vec()).as_secs_f64() * 1e3;
        let [new, known] = &first_answers[number];
        println!(
            "| {function} | {:.2} ms | {:.2} ms | {:.3} ms | {:.3} ms | {:.3} ms | {:.0} MB |",
            milliseconds(known),
            milliseconds(new),
            milliseconds(&latencies[number]),
            milliseconds(&in_dynamodb[number]),
            milliseconds(&processor[number]),
            peak_megabytes(&warm[number].1),
        );
    }
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations[durations.len() / 2]
}

/// What all threads of a process have used so far.
fn processor_time(child: &Child) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id().unwrap())).unwrap();
    let used = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(used.sum())
}

/// Process start to the first poll of the runtime API.
async fn cold_start(stack: &Stack, function: &str) {
    let mut starts = Vec::new();
    let mut memory = 0.0;
    for _ in 0..COLD_STARTS {
        let mut api = RuntimeApi::start().await;
        let start = Instant::now();
        let mut child = stack.spawn(function, api.address);
        let polled = api.polls.recv().await.unwrap();
        starts.push(polled.duration_since(start));
        memory = peak_megabytes(&child);
        child.kill().await.unwrap();
    }
    starts.sort();
    let size = std::fs::metadata(binary(function)).unwrap().len();
    println!(
        "{function:<22}{:>12.1}{:>11.1} ms{memory:>9.1} MB",
        f64::from(u32::try_from(size).unwrap()) / 1e6,
        starts[COLD_STARTS / 2].as_secs_f64() * 1e3,
    );
}

async fn one_contact(stack: &Stack) {
    let (mut api, _child) = stack.warm("messenger-events").await;
    api.invoke(post_event(&["1".to_owned()], 0)).await;
    for (label, psid) in [("a new contact", "2"), ("the same contact again", "2")] {
        stack.aws.reset_calls();
        let round = if label == "a new contact" { 1 } else { 2 };
        let (answer, took) = api.invoke(post_event(&[psid.to_owned()], round)).await;
        assert_eq!(answer["statusCode"], 200);
        println!(
            "{label}: {:.1} ms, {} DynamoDB calls",
            took.as_secs_f64() * 1e3,
            stack.aws.dynamodb_calls().total()
        );
    }
}

async fn thousand_contacts(stack: &Stack) {
    let (mut api, child) = stack.warm("messenger-events").await;
    api.invoke(post_event(&["1".to_owned()], 10)).await;
    stack.aws.reset_calls();
    let people: Vec<String> = (0..1000).map(|n| format!("55{n:04}")).collect();
    let (answer, took) = api.invoke(post_event(&people, 11)).await;
    assert_eq!(answer["statusCode"], 200);
    println!(
        "1,000 new contacts in one POST: {:.0} ms, {} DynamoDB calls, peak memory {:.1} MB",
        took.as_secs_f64() * 1e3,
        stack.aws.dynamodb_calls().total(),
        peak_megabytes(&child),
    );
}

async fn ten_thousand_syncs() {
    let stack = Stack::start().await;
    let (mut events, _child) = stack.warm("messenger-events").await;
    for post in 0..10 {
        let people: Vec<String> = (0..1000).map(|n| format!("66{post}{n:04}")).collect();
        events.invoke(post_event(&people, post)).await;
    }
    // New items are the stream's for 30 s; then the schedule takes them.
    tokio::time::sleep(Duration::from_secs(31)).await;
    let (mut dispatch, child) = stack.warm("outbox-dispatch").await;
    let (answer, took) = dispatch.invoke(json!({})).await;
    println!(
        "10,000 queued contact syncs: {:.1} s, {} calls of /users/track, peak memory {:.1} MB, {answer}",
        took.as_secs_f64(),
        stack.braze.track_requests().len(),
        peak_megabytes(&child),
    );
}

/// One message in each of 1,000 conversations, and an external system that takes 3 s for each answer.
async fn thousand_conversations() {
    let mut stack = Stack::start().await;
    let (mut relay, _child) = stack.warm("whatsapp-relay").await;
    for user in 0..1000 {
        stack.braze.add_user(&format!("user-{user}"), &json!({}));
        let body =
            json!({"user_id": format!("user-{user}"), "phone_number": "", "message": "hello"}).to_string();
        let headers = [
            ("authorization", "Bearer t"),
            ("content-type", "application/json"),
        ];
        let event =
            testkit::signer::gateway_event("POST", "/whatsapp/inbound", "", &headers, body.as_bytes(), false);
        let (answer, _) = relay.invoke(event).await;
        assert_eq!(answer["statusCode"], 202, "{answer}");
    }
    tokio::time::sleep(Duration::from_secs(31)).await;
    stack.settings.insert("LANE", "relay".to_owned());
    let (mut dispatch, child) = stack.warm("outbox-dispatch").await;
    let (answer, took) = dispatch.invoke(json!({})).await;
    println!(
        "1,000 conversations, 3 s an answer: {:.1} s, {} replies sent, {} conversations at once, peak memory {:.1} MB, {answer}",
        took.as_secs_f64(),
        stack.braze.sent_messages().len(),
        stack.system.most_at_once(),
        peak_megabytes(&child),
    );
}

/// The time, and at least a millisecond later than before: a person does not write twice in one.
fn later() -> i64 {
    static LATEST: AtomicI64 = AtomicI64::new(0);
    let now = Clock::system().now().as_millisecond();
    let later = |latest: i64| Some(now.max(latest + 1));
    let before = LATEST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    now.max(before.unwrap_or_default() + 1)
}

/// An API Gateway event with one signed POST in which each of `people` writes one message.
fn post_event(people: &[String], round: u64) -> Value {
    post_event_to(PAGE, people, round)
}

/// The same to a page.
fn post_event_to(page: &str, people: &[String], round: u64) -> Value {
    let now = later();
    let items: Vec<Value> = people
        .iter()
        .map(|psid| {
            json!({
                "sender": {"id": psid}, "recipient": {"id": page}, "timestamp": now,
                "message": {"mid": format!("m_{round}_{psid}"), "text": "hello, world!"},
            })
        })
        .collect();
    let body =
        json!({"object": "page", "entry": [{"id": page, "time": now, "messaging": items}]}).to_string();
    let signature = shared::webhook::signature::sign(&APP_SECRET.into(), body.as_bytes());
    json!({
        "version": "2.0", "routeKey": "POST /messenger/webhook", "rawPath": "/messenger/webhook", "rawQueryString": "",
        "headers": {"content-type": "application/json", "x-hub-signature-256": signature},
        "requestContext": {
            "accountId": "123456789012", "apiId": "api", "domainName": "api.example", "domainPrefix": "api",
            "http": {"method": "POST", "path": "/messenger/webhook", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "bench"},
            "requestId": "id", "routeKey": "POST /messenger/webhook", "stage": "$default",
            "time": "21/Nov/2026:10:00:00 +0000", "timeEpoch": now,
        },
        "body": body, "isBase64Encoded": false,
    })
}

fn peak_megabytes(child: &Child) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().unwrap())).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok())
        .unwrap_or(f64::NAN)
        / 1024.0
}
