//! Many businesses, and large catalogs.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use futures_util::stream::{self, StreamExt};
use jiff::SignedDuration;
use serde_json::json;
use testkit::graph::Edge;

use super::house::House;
use super::life::tokenless;

/// The first and the last comparison of a day lie so far apart.
const MINUTES: i64 = 23 * 60;

impl House {
    /// When each pending item is due, in minutes from now.
    async fn due_in_minutes(&self) -> Vec<i64> {
        let scan = self.aws.dynamodb().scan().table_name(&self.outbox_table);
        let rows = scan
            .into_paginator()
            .items()
            .send()
            .collect::<Result<Vec<_>, _>>();
        let rows = rows.await.unwrap().into_iter();
        let due = rows.filter_map(|row| row.get("due_at")?.as_n().ok()?.parse::<i64>().ok());
        due.map(|due| (due - self.clock.now().as_millisecond()) / 60_000)
            .collect()
    }
}

/// The item with another name wherever it stands.
fn renamed(item: &HashMap<String, AttributeValue>, from: &str, to: &str) -> HashMap<String, AttributeValue> {
    let value = |value: &AttributeValue| match value {
        AttributeValue::S(text) if text == from => AttributeValue::S(to.to_owned()),
        AttributeValue::M(members) => AttributeValue::M(renamed(members, from, to)),
        other => other.clone(),
    };
    let renamed = item.iter().map(|(name, member)| (name.clone(), value(member)));
    renamed.collect()
}

impl House {
    /// Installs that differ in nothing but their names.
    async fn has_installs(&self, installs: usize) {
        assert!(
            self.installs
                .commit(&tokenless("shop-0"), &[], false)
                .await
                .unwrap()
        );
        let (dynamodb, table) = (self.aws.dynamodb(), &self.installs_table);
        let stored = dynamodb.scan().table_name(table).send().await.unwrap();
        let first = &stored.items()[0];
        let puts: Vec<WriteRequest> = (1..installs)
            .map(|n| {
                let item = renamed(first, "shop-0", &format!("shop-{n}"));
                let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
                WriteRequest::builder().put_request(put).build()
            })
            .collect();
        let written = stream::iter(puts.chunks(25))
            .map(|puts| {
                let write = dynamodb.batch_write_item().request_items(table, puts.to_vec());
                async move { write.send().await.unwrap() }
            })
            .buffer_unordered(8);
        let all_taken = written.all(|written| {
            let left = written.unprocessed_items.unwrap_or_default();
            std::future::ready(left.is_empty())
        });
        assert!(all_taken.await);
    }
}

/// Plans the comparisons of so many installs, and counts what that takes.
async fn compares_spread_over_the_day(installs: usize) {
    let house = House::start().await;
    house.has_installs(installs).await;

    house.aws.reset_calls();
    assert_eq!(house.plan_the_day().await, json!({"planned": installs}));
    let calls = house.aws.dynamodb_calls();
    let each = u64::try_from(installs).unwrap();
    assert_eq!(calls.of("Query"), each, "what waits for each business");
    assert_eq!(calls.total() - calls.of("Scan"), 2 * each, "{calls:?}");
    assert!(calls.of("Scan") < 50 + each / 50, "{calls:?}");

    let due = house.due_in_minutes().await;
    assert_eq!(due.len(), installs);
    assert!(due.iter().all(|minute| (0..=MINUTES).contains(minute)));
    let mut a_minute: BTreeMap<i64, usize> = BTreeMap::new();
    for minute in due {
        *a_minute.entry(minute).or_default() += 1;
    }
    // They do not come in heaps: on average there are so many a minute.
    let average = installs / 1_380;
    let most = a_minute.values().max().copied().unwrap_or_default();
    assert!(most <= 7 + 3 * average, "{most} in a minute");
    assert!(a_minute.len() > 500, "{}", a_minute.len());
}

#[tokio::test]
async fn a_thousand_installs_are_compared_spread_over_the_day() {
    compares_spread_over_the_day(1_000).await;
}

#[tokio::test]
#[ignore = "takes ten times as long as with a thousand"]
async fn ten_thousand_installs_are_compared_spread_over_the_day() {
    compares_spread_over_the_day(10_000).await;
}

#[tokio::test]
async fn what_is_planned_for_the_day_is_looked_at_and_not_planned_again() {
    let house = House::start().await;
    house.has_installs(300).await;
    assert_eq!(house.plan_the_day().await, json!({"planned": 300}));
    // The schedule plans every six hours.
    house.later(SignedDuration::from_hours(6));
    house.aws.reset_calls();
    assert_eq!(house.plan_the_day().await, json!({"planned": 0}));
    let calls = house.aws.dynamodb_calls();
    assert_eq!(calls.total() - calls.of("Scan"), 300, "{calls:?}");
}

#[tokio::test]
async fn a_comparison_that_confirms_costs_two_calls_of_graph() {
    let house = House::start().await;
    house.happen("install").await;
    house.drain().await;
    for _ in 0..3 {
        house.plan_the_day().await;
        house.later(SignedDuration::from_hours(24));
        house.graph.forget_calls();
        house.tick().await;
        let calls = [Edge::Installs, Edge::Configuration].map(|edge| house.graph.calls_of(edge).len());
        assert_eq!(calls, [1, 1]);
        assert_eq!(house.graph.calls().len(), 2);
    }
}

#[cfg(target_os = "linux")]
mod memory {
    use shared::fbe::plan::push_item;
    use testkit::graph::{FakeGraph, Install, KeepItems, Options};
    use testkit::house::{APP_ID, APP_SECRET};

    use crate::fbe::catalog::{Feed, FeedServer};
    use crate::fbe::house::{CATALOG, House, SHOP, value};

    const ALONE: &str = "TEST_RUNS_ALONE";

    /// The most memory that this process has had, in KiB.
    fn peak() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.unwrap().trim().strip_suffix(" kB").unwrap();
        peak.parse().unwrap()
    }

    #[test]
    fn a_hundred_thousand_items_take_no_more_memory_than_ten_thousand() {
        if std::env::var_os(ALONE).is_none() {
            // What other tests do in this process would count.
            let itself = std::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "fbe::scale::memory::a_hundred_thousand_items_take_no_more_memory_than_ten_thousand",
                ])
                .env(ALONE, "1")
                .output();
            let itself = itself.unwrap();
            let said = String::from_utf8_lossy(&itself.stdout);
            assert!(itself.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(Box::pin(push_both()));
    }

    async fn push_both() {
        let server = FeedServer::start(vec![Feed::Lines(10_000), Feed::Lines(100_000)]).await;
        let options = Options::new(APP_ID, APP_SECRET).keep_items(KeepItems::Counts);
        let graph = FakeGraph::start(options).await.unwrap();
        graph.set_install(Install::from_webhook(&value("install")).unwrap());
        let settings = [
            ("CATALOG_FEED_URL", server.url.as_str()),
            ("GRAPH_API_URL", &graph.url()),
        ];
        let house = House::with(&settings, None).await;
        assert_eq!(house.deliver("install").await, 200);
        house.drain().await;
        assert_eq!(house.push().await.progress.accepted, 10_000);
        let before = peak();
        let item = push_item(SHOP, CATALOG, house.clock.now());
        house.outbox.add(&item).await.unwrap();
        house.drain().await;
        assert_eq!(house.push().await.progress.accepted, 100_000);
        // All items at once would be 30 MB.
        let grown = peak() - before;
        assert!(grown < 10_000, "{grown} KiB more");
    }
}
