//! A campaign to 10,000 people on 20 pages, with a Graph that takes 50 ms.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::fault::Fault;
use testkit::graph::{self, FakeGraph, TokenKind};
use testkit::signer::gateway_event;

use crate::{APP_SECRET, Stack, median, peak_megabytes, post_event_to};

const PAGES: usize = 20;
const PEOPLE: usize = 500;
/// What the relay secret of the benchmark opens `/messenger/send` with.
const TOKEN: &str = "Bearer t";

pub(crate) async fn ten_thousand() {
    let mut stack = Stack::start().await;
    let graph = graph::Options::new("1", APP_SECRET).history(10 * PAGES * PEOPLE);
    let graph = FakeGraph::start(graph).await.unwrap();
    let pages: Vec<String> = (0..PAGES).map(|page| format!("9000{page:02}")).collect();
    let mut tokens = serde_json::Map::new();
    for page in &pages {
        let token = format!("EAAB-{page}");
        graph.add_token(&token, TokenKind::Page, Some(page));
        tokens.insert(page.clone(), token.into());
    }
    let meta =
        json!({"app_id": "1", "app_secret": APP_SECRET, "verify_token": "v", "page_access_tokens": tokens});
    stack.aws.put_secret("meta", &meta).await.unwrap();
    stack.settings.insert("GRAPH_API_URL", graph.url());

    let (mut events, _events) = stack.warm("messenger-events").await;
    for page in &pages {
        let people: Vec<String> = (0..PEOPLE).map(|person| psid(page, person)).collect();
        let (answer, _) = events.invoke(post_event_to(page, &people, 0)).await;
        assert_eq!(answer["statusCode"], 200, "{answer}");
    }
    let (mut door, _door) = stack.warm("messenger-send").await;
    let mut took = Vec::new();
    stack.aws.reset_calls();
    // Person by person, so that the pages take turns, as the outbox has them.
    for person in 0..PEOPLE {
        for page in &pages {
            let (answer, after) = door.invoke(message(page, &psid(page, person))).await;
            assert_eq!(answer["statusCode"], 202, "{answer}");
            took.push(after);
        }
    }
    println!(
        "{} messages taken in: {} DynamoDB calls, {:.1} ms each (median)",
        took.len(),
        stack.aws.dynamodb_calls().total(),
        median(took).as_secs_f64() * 1e3
    );
    // New items are the stream's for 30 s; then the schedule takes them.
    tokio::time::sleep(Duration::from_secs(31)).await;

    graph.begin_outage(Fault::Late(Duration::from_millis(50)));
    let (mut dispatch, child) = stack.warm("outbox-dispatch").await;
    let began = tokio::time::Instant::now();
    let ticking = Instant::now();
    let (answer, _) = dispatch.invoke(json!({})).await;
    let ticked = ticking.elapsed();
    graph.clear_script();
    let sent = graph.sent_messages();
    let (mut of_page, mut of_person): (BTreeMap<_, Vec<_>>, HashMap<_, usize>) = Default::default();
    for message in &sent {
        let at = message.received_at.duration_since(began);
        of_page.entry(message.sender.as_str()).or_default().push(at);
        *of_person.entry(message.recipient.as_str()).or_default() += 1;
    }
    let last = of_page.values().flatten().max().copied().unwrap_or_default();
    println!(
        "{} messages through {} pages: all left after {:.1} s, the most of a page within a second {}, to a person {}, \
         peak memory {:.1} MB; the call took {:.1} s: {answer}",
        sent.len(),
        of_page.len(),
        last.as_secs_f64(),
        of_page
            .values()
            .map(|times| most_within_a_second(times))
            .max()
            .unwrap_or_default(),
        of_person.values().max().copied().unwrap_or_default(),
        peak_megabytes(&child),
        ticked.as_secs_f64(),
    );
    assert_eq!((sent.len(), of_person.len()), (PAGES * PEOPLE, PAGES * PEOPLE));
}

fn psid(page: &str, person: usize) -> String {
    format!("{page}7{person:04}")
}

fn message(page: &str, psid: &str) -> Value {
    let body = json!({
        "psid": psid, "page_id": page, "dispatch_id": "campaign", "text": "Your order has left our house.",
    });
    let headers = [("authorization", TOKEN), ("content-type", "application/json")];
    gateway_event(
        "POST",
        "/messenger/send",
        "",
        &headers,
        body.to_string().as_bytes(),
        false,
    )
}

/// `times` in any order.
fn most_within_a_second(times: &[Duration]) -> usize {
    let mut times = times.to_vec();
    times.sort();
    let within = |(place, first): (usize, &Duration)| {
        let end = *first + Duration::from_secs(1);
        times.iter().skip(place).take_while(|at| **at < end).count()
    };
    times.iter().enumerate().map(within).max().unwrap_or_default()
}
