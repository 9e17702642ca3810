//! A feed that is slow, and one that is looked at again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use futures_util::stream::{self, StreamExt};
use jiff::SignedDuration;
use serde_json::json;
use shared::clock::Clock;
use testkit::graph::Edge;

use super::house::{CATALOG, House};

const PIECE: usize = 5_000;

/// A feed whose bytes take their time.
#[derive(Clone)]
struct Slow {
    feed: Arc<Mutex<Vec<u8>>>,
    /// What it says of its version.
    headers: Vec<(header::HeaderName, &'static str)>,
    /// Whether it gives a part of itself.
    ranges: bool,
    /// How long a piece of 5,000 bytes takes.
    pause: SignedDuration,
    clock: Arc<Mutex<Option<Clock>>>,
    requests: Arc<AtomicUsize>,
    /// Where the parts begin that were asked for.
    begins: Arc<Mutex<Vec<usize>>>,
}

impl Slow {
    fn new(feed: Vec<u8>, etag: Option<&'static str>, ranges: bool, pause: SignedDuration) -> Self {
        Self {
            feed: Arc::new(Mutex::new(feed)),
            headers: etag.map(|etag| (header::ETAG, etag)).into_iter().collect(),
            ranges,
            pause,
            clock: Arc::default(),
            requests: Arc::default(),
            begins: Arc::default(),
        }
    }

    fn answer(&self, request: &HeaderMap) -> Response {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let text = |name: header::HeaderName| {
            request
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let feed = self.feed.lock().unwrap().clone();
        let mut response = Response::builder();
        for (name, value) in &self.headers {
            response = response.header(name, *value);
        }
        let known = self.headers.iter().any(|(_, value)| {
            text(header::IF_NONE_MATCH).as_deref() == Some(value)
                || text(header::IF_MODIFIED_SINCE).as_deref() == Some(value)
        });
        if known {
            return response.status(304).body(Body::empty()).unwrap();
        }
        let current = self.headers.first().map(|(_, value)| *value);
        let wanted =
            text(header::RANGE).filter(|_| self.ranges && text(header::IF_RANGE).as_deref() == current);
        let from = wanted.and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        });
        self.begins.lock().unwrap().push(from.unwrap_or_default());
        if let Some(from) = from {
            let end = format!("bytes {from}-{}/{}", feed.len() - 1, feed.len());
            response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, end);
        }
        let pieces: Vec<Bytes> = feed[from.unwrap_or_default()..]
            .chunks(PIECE)
            .map(Bytes::copy_from_slice)
            .collect();
        let this = self.clone();
        let body = stream::iter(pieces).map(move |piece| {
            if let Some(clock) = &*this.clock.lock().unwrap() {
                clock.set(clock.now() + this.pause);
            }
            Ok::<_, std::convert::Infallible>(piece)
        });
        // The connection holds more than a piece: without a pause the clock would run ahead of the reader. What it runs
        // ahead is far less than the time that is kept to hand over what was read.
        let body = body.then(|piece| async {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            piece
        });
        response.body(Body::from_stream(body)).unwrap()
    }

    async fn serve(&self) -> House {
        let this = self.clone();
        let router = axum::Router::new().route(
            "/feed",
            get(async move |headers: HeaderMap| this.answer(&headers)),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/feed", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let house = House::with(&[("CATALOG_FEED_URL", &url)], None).await;
        *self.clock.lock().unwrap() = Some(house.clock.clone());
        house
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn items(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("{{\"id\":\"p{n}\",\"price\":\"9.99 EUR\"}}"))
        .collect()
}

fn lines(count: usize) -> Vec<u8> {
    (items(count).join("\n") + "\n").into_bytes()
}

fn array(count: usize) -> Vec<u8> {
    format!("[{}]", items(count).join(",")).into_bytes()
}

#[tokio::test]
async fn a_feed_that_takes_longer_than_an_invocation_is_read_on_where_time_was_up() {
    for feed in [lines(12_000), array(12_000)] {
        // 400,000 bytes at 5,000 in three seconds: about four invocations.
        let slow = Slow::new(feed, Some("\"v1\""), true, SignedDuration::from_secs(3));
        let house = slow.serve().await;
        house.happen("install").await;
        house.drain().await;
        assert_eq!(house.graph.item_count(CATALOG), 12_000);
        let progress = house.push().await.progress;
        assert_eq!(
            (progress.accepted, progress.failed, progress.restarts),
            (12_000, 0, 0)
        );
        assert!(slow.requests() > 2, "{}", slow.requests());
        // Each begins behind what the one before it brought.
        let begins = slow.begins.lock().unwrap().clone();
        assert!(begins.is_sorted_by(|one, next| one < next), "{begins:?}");
        assert_eq!(house.rows("dead").await, 0);
    }
}

#[tokio::test]
async fn a_slow_feed_that_gives_no_parts_is_given_up_once_it_gets_nowhere() {
    for (etag, ranges) in [(Some("\"v1\""), false), (Some("W/\"v1\""), true), (None, true)] {
        let slow = Slow::new(lines(12_000), etag, ranges, SignedDuration::from_secs(3));
        let house = slow.serve().await;
        house.happen("install").await;
        house.drain().await;
        assert_eq!(
            house.reasons().await,
            [(
                "fbe_catalog_push".into(),
                "dead".into(),
                "catalog_feed_too_slow".into()
            )]
        );
        // What was read was handed over.
        let items = house.graph.item_count(CATALOG);
        assert!((1_000..12_000).contains(&items), "{items}");
        assert!(slow.requests() < 12, "{}", slow.requests());

        // Once it is quicker a redrive brings the rest.
        *slow.clock.lock().unwrap() = None;
        house.redrive().await;
        house.drain().await;
        assert_eq!(house.graph.item_count(CATALOG), 12_000);
    }
}

#[tokio::test]
async fn a_feed_that_gives_nothing_at_all_is_given_up_after_two_tries() {
    let slow = Slow::new(lines(2_000), Some("\"v1\""), true, SignedDuration::from_secs(200));
    let house = slow.serve().await;
    house.happen("install").await;
    house.drain().await;
    assert_eq!(
        house.reasons().await,
        [(
            "fbe_catalog_push".into(),
            "dead".into(),
            "catalog_feed_too_slow".into()
        )]
    );
    assert_eq!(slow.requests(), 2);
    assert_eq!(house.graph.item_count(CATALOG), 0);
}

/// A day, in hours: as often as the schedule plans.
async fn a_day(house: &House) {
    for _ in 0..4 {
        house.plan_the_day().await;
        for _ in 0..6 {
            house.later(SignedDuration::from_hours(1));
            house.tick().await;
        }
    }
}

#[tokio::test]
async fn a_feed_that_has_not_changed_is_not_pushed_again() {
    for etag in [Some("\"v1\""), Some("W/\"v1\""), None] {
        let slow = Slow::new(lines(100), etag, true, SignedDuration::ZERO);
        let house = slow.serve().await;
        house.happen("install").await;
        house.drain().await;
        let (before, calls) = (slow.requests(), house.graph.calls_of(Edge::ItemsBatch).len());
        a_day(&house).await;
        assert_eq!(slow.requests() - before, 1, "one request a day: {etag:?}");
        assert_eq!(house.graph.calls_of(Edge::ItemsBatch).len(), calls, "{etag:?}");
        assert!(house.push().await.unchanged_at.is_some());

        // On demand it is pushed whether it has changed or not.
        let item = shared::fbe::plan::push_item(super::house::SHOP, CATALOG, house.clock.now());
        house.outbox.add(&item).await.unwrap();
        house.drain().await;
        assert_eq!(
            house.graph.calls_of(Edge::ItemsBatch).len(),
            calls + 1,
            "{etag:?}"
        );
    }
}

#[tokio::test]
async fn a_feed_that_has_changed_is_pushed_at_its_refresh() {
    let mut slow = Slow::new(lines(100), None, true, SignedDuration::ZERO);
    slow.headers = vec![(header::LAST_MODIFIED, "Sat, 21 Nov 2026 10:00:00 GMT")];
    for slow in [slow, Slow::new(lines(100), None, true, SignedDuration::ZERO)] {
        let mut changed = slow.clone();
        changed.headers.clear();
        let house = changed.serve().await;
        house.happen("install").await;
        house.drain().await;
        *changed.feed.lock().unwrap() = lines(150);
        a_day(&house).await;
        assert_eq!(house.graph.item_count(CATALOG), 150);
        assert!(house.push().await.finished_at.is_some());
    }
}

#[tokio::test]
async fn without_a_period_a_catalog_is_not_looked_at_again() {
    let slow = Slow::new(lines(10), None, true, SignedDuration::ZERO);
    let this = slow.clone();
    let router = axum::Router::new().route(
        "/feed",
        get(async move |headers: HeaderMap| this.answer(&headers)),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/feed", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let house = House::with(
        &[("CATALOG_FEED_URL", &url), ("CATALOG_REFRESH_HOURS", "0")],
        None,
    )
    .await;
    house.happen("install").await;
    house.drain().await;
    a_day(&house).await;
    assert_eq!(slow.requests(), 1);
    assert_eq!(house.push().await.progress.accepted, 10);
    assert_eq!(json!(house.reasons().await), json!([]));
}
