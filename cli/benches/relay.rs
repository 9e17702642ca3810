//! How the relay stands up to many conversations at once: the whole stack in this process, as `bridge local` runs it, with
//! its embedded queue and the fakes. Nothing is timed in a test; this prints what it measured.
//!
//! ```sh
//! cargo bench -p bridge --bench relay
//! # or some of it: `thousand`, `fast`
//! cargo bench -p bridge --bench relay -- fast
//! ```
#![expect(clippy::print_stdout, reason = "it reports to people")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking"
)]

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bridge::stack::{LocalStack, StackOptions};
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use shared::clock::Clock;
use testkit::braze::Identifier;
use testkit::external_system::{Behaviour, ExternalSystem, Options};

/// Requests under way at once, as Braze's webhooks come in.
const POSTS_AT_ONCE: usize = 50;

#[tokio::main]
async fn main() {
    // Names after `--` choose; cargo itself passes `--bench`.
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|name| !name.starts_with('-'))
        .collect();
    let runs = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    if runs("thousand") {
        thousand_at_once().await;
    }
    if runs("fast") {
        fast_beside_slow().await;
    }
}

/// One message in each of 1,000 conversations, whose system takes 3 s for each.
async fn thousand_at_once() {
    let stack = start(&[("RELAY_MAX_CONCURRENCY", "1000")]).await;
    let system = stack.fakes().external_system.as_ref().unwrap();
    system.set_behaviour(Behaviour::slow(Duration::from_secs(3)));
    let people: Vec<String> = (0..1_000).map(|number| format!("user-{number}")).collect();
    let before = peak_megabytes();
    let begun = Instant::now();
    write(&stack, &people, "hello").await;
    let posted = begun.elapsed();
    let answered = answers(&stack, people.len()).await;
    let last = answered.values().max().unwrap().duration_since(begun);
    println!(
        "1,000 conversations, 3 s an answer: taken in after {:.1} s, all answered after {:.1} s, {} at once, peak memory {:.1} MB \
         with the tables, the queue and the fakes, {before:.1} MB of it before the first message",
        posted.as_secs_f64(),
        last.as_secs_f64(),
        system.most_at_once(),
        peak_megabytes(),
    );
    stack.stop().await;
}

/// 15 conversations whose system takes 20 s, then 200 whose system answers at once.
async fn fast_beside_slow() {
    let secrets = bridge::secrets::development();
    let secret = secrets.pointer("/relay/signing_secret").and_then(Value::as_str);
    let options = Options::new(secret.unwrap())
        .clock(&Clock::system())
        .drained(false);
    let slow = ExternalSystem::start(options).await.unwrap();
    slow.set_behaviour(Behaviour::slow(Duration::from_secs(20)));
    let routes =
        json!([{"name": "slow", "keywords": ["slow"], "match": "exact", "external_system_url": slow.url()}]);
    let stack = start(&[("RELAY_ROUTES", &routes.to_string())]).await;
    let patient: Vec<String> = (0..15).map(|number| format!("patient-{number}")).collect();
    write(&stack, &patient, "slow").await;
    let asked = slow.until(Duration::from_mins(1), |slow| slow.handover_count() == 15);
    assert!(
        asked.await,
        "{} of the slow ones are asked",
        slow.handover_count()
    );
    let people: Vec<String> = (0..200).map(|number| format!("user-{number}")).collect();
    let written = write(&stack, &people, "hello").await;
    let answered = answers(&stack, people.len()).await;
    let mut took: Vec<Duration> = written
        .iter()
        .map(|(user, at)| answered[user].duration_since(*at))
        .collect();
    took.sort();
    let percentile = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64();
    println!(
        "200 conversations beside 15 whose system takes 20 s: answered after {:.2} s (median), {:.2} s (p95), {:.2} s (the last)",
        percentile(50),
        percentile(95),
        percentile(100),
    );
    stack.stop().await;
}

async fn start(settings: &[(&str, &str)]) -> LocalStack {
    let settings = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    LocalStack::start(StackOptions {
        settings: settings.collect::<BTreeMap<_, _>>(),
        ..StackOptions::with_clock(&Clock::system())
    })
    .await
    .unwrap()
}

/// Each of these people writes, and Braze forwards it. Says when.
async fn write(stack: &LocalStack, people: &[String], text: &str) -> HashMap<String, Instant> {
    let token = stack.secrets()["relay"]["inbound_token"].as_str().unwrap();
    let (client, url) = (
        shared::clients::http::client(Duration::from_mins(1)),
        format!("{}/whatsapp/inbound", stack.url()),
    );
    let braze = stack.fakes().braze.as_ref().unwrap();
    let posts = people.iter().map(async |user| {
        braze.add_user(user, &json!({}));
        let body = json!({"user_id": user, "phone_number": "", "message": text, "dispatch_id": user});
        let at = Instant::now();
        let request = client.post(&url).bearer_auth(token).json(&body);
        assert_eq!(request.send().await.unwrap().status(), 202);
        (user.clone(), at)
    });
    stream::iter(posts)
        .buffer_unordered(POSTS_AT_ONCE)
        .collect()
        .await
}

/// When each person got an answer, once so many have.
async fn answers(stack: &LocalStack, people: usize) -> HashMap<String, Instant> {
    let braze = stack.fakes().braze.as_ref().unwrap();
    let (mut answered, mut looked_at) = (HashMap::new(), 0);
    let patience = Instant::now() + Duration::from_mins(2);
    while answered.len() < people {
        assert!(
            Instant::now() < patience,
            "{} of {people} are answered",
            answered.len()
        );
        let sent = braze.sent_messages();
        for message in sent.iter().skip(looked_at) {
            if let Identifier::ExternalId(user) = &message.recipient {
                answered.entry(user.clone()).or_insert_with(Instant::now);
            }
        }
        looked_at = sent.len();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    answered
}

fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok())
        .unwrap_or(f64::NAN)
        / 1024.0
}
