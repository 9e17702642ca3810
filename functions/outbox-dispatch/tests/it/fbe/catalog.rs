//! Catalog pushes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use futures_util::stream::{self, StreamExt};
use jiff::SignedDuration;
use serde_json::json;
use shared::fbe::plan::push_item;
use testkit::graph::{Edge, FoundOut, faults};

use super::house::{CATALOG, House, SHOP};

/// What the feed does with a request.
#[derive(Clone)]
pub(super) enum Feed {
    /// JSON Lines of that many items.
    Lines(usize),
    /// The same as a JSON array.
    Array(usize),
    /// Lines that the connection breaks after.
    CutOff(usize),
    /// This status.
    Status(u16),
    /// These bytes.
    Bytes(&'static str),
    /// That many items of about 3 KB.
    Large(usize),
}

pub(super) struct FeedServer {
    pub(super) url: String,
    requests: Arc<AtomicUsize>,
}

impl FeedServer {
    /// Serves `feeds` one after the other; the last one stays. `tag` is the `ETag`.
    pub(super) async fn start(feeds: Vec<Feed>) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        let router = axum::Router::new().route(
            "/{business}/{catalog}",
            get(async move || {
                let turn = count.fetch_add(1, Ordering::SeqCst).min(feeds.len() - 1);
                answer(&feeds[turn])
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "http://{}/{{external_business_id}}/{{catalog_id}}",
            listener.local_addr().unwrap()
        );
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, requests }
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn answer(feed: &Feed) -> Response {
    let line = |n: usize| format!("{{\"id\":\"p{n}\",\"title\":\"Belt {n}\",\"price\":\"9.99 EUR\"}}\n");
    let chunks = move |items: usize| {
        stream::iter((0..items).step_by(100)).map(move |from| {
            let chunk: String = (from..(from + 100).min(items)).map(line).collect();
            Bytes::from(chunk)
        })
    };
    let body = match *feed {
        Feed::Lines(items) => Body::from_stream(chunks(items).map(Ok::<_, std::convert::Infallible>)),
        Feed::Array(items) => {
            let items: Vec<String> = (0..items).map(line).collect();
            Body::from(format!("[{}]", items.join(",")))
        }
        Feed::CutOff(items) => {
            let cut = stream::iter([Err(std::io::Error::other("cut off"))]);
            Body::from_stream(chunks(items).map(Ok::<_, std::io::Error>).chain(cut))
        }
        Feed::Status(status) => {
            let mut response = Response::new(Body::from("no"));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            return response;
        }
        Feed::Bytes(bytes) => Body::from(bytes),
        Feed::Large(items) => {
            let text = "x".repeat(3_000);
            let line = move |n: usize| Bytes::from(format!("{{\"id\":\"p{n}\",\"title\":\"{text}\"}}\n"));
            Body::from_stream(
                stream::iter(0..items)
                    .map(line)
                    .map(Ok::<_, std::convert::Infallible>),
            )
        }
    };
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::ETAG, header::HeaderValue::from_static("\"v1\""));
    response
}

pub(super) async fn house(feeds: Vec<Feed>) -> (House, FeedServer) {
    let server = FeedServer::start(feeds).await;
    let house = House::with(&[("CATALOG_FEED_URL", &server.url)], None).await;
    house.happen("install").await;
    (house, server)
}

#[tokio::test]
async fn a_hundred_thousand_items_are_pushed_in_twenty_calls() {
    for (feed, items) in [(Feed::Lines(100_000), 100_000), (Feed::Array(10_000), 10_000)] {
        let (house, server) = house(vec![feed]).await;
        house.drain().await;
        let calls = house.graph.calls_of(Edge::ItemsBatch);
        assert_eq!(calls.len(), items / 5_000);
        assert!(calls.iter().all(|call| call.items == 5_000));
        assert_eq!(calls[0].parameters["allow_upsert"], json!(true));
        assert_eq!((house.graph.item_count(CATALOG), server.requests()), (items, 1));
        let push = house.push().await;
        assert!(push.finished_at.is_some());
        assert_eq!((push.progress.accepted, push.progress.failed), (items as u64, 0));
    }
}

#[tokio::test]
async fn a_catalog_is_pushed_on_install_on_change_and_on_demand_and_not_otherwise() {
    let (house, server) = house(vec![Feed::Lines(10)]).await;
    house.drain().await;
    house.happen("update_removes_pixel").await;
    house.drain().await;
    assert_eq!(server.requests(), 1);
    house.happen("update_changes_catalog").await;
    house.drain().await;
    assert_eq!(house.graph.item_count("726635365299999"), 10);
    house
        .outbox
        .add(&push_item(SHOP, "726635365299999", house.clock.now()))
        .await
        .unwrap();
    house.drain().await;
    assert_eq!(server.requests(), 3);
    // A catalog that is not granted any more is left alone.
    house
        .outbox
        .add(&push_item(SHOP, CATALOG, house.clock.now()))
        .await
        .unwrap();
    house.drain().await;
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn broken_and_refused_items_are_kept_and_cost_nobody_else() {
    let feed =
        "{\"id\":\"a\"}\n{broken\n{\"title\":\"no id\"}\n{\"id\":7}\n{\"id\":\"late\"}\n{\"id\":\"bad\"}\n";
    let (house, _server) = house(vec![Feed::Bytes(feed)]).await;
    house
        .graph
        .refuse_item(CATALOG, "bad", "price is missing", FoundOut::AtOnce);
    house
        .graph
        .refuse_item(CATALOG, "late", "image cannot be loaded", FoundOut::InProcessing);
    house.graph.finish_batches_after(2);
    house.drain().await;
    assert_eq!(house.graph.item_count(CATALOG), 2);
    let push = house.push().await;
    let errors: Vec<_> = push
        .progress
        .errors
        .iter()
        .map(|error| (error.item.as_str(), error.message.as_str()))
        .collect();
    assert_eq!(
        errors,
        [
            ("#1", "not valid JSON"),
            ("#2", "without an `id`"),
            ("bad", "price is missing"),
            ("late", "image cannot be loaded"),
        ]
    );
    assert_eq!(push.progress.failed, 4);
    assert_eq!(house.rows("dead").await, 0);
}

#[tokio::test]
async fn a_push_that_stops_goes_on_where_it_was() {
    let (house, server) = house(vec![Feed::Lines(12_000)]).await;
    house
        .graph
        .script(Edge::ItemsBatch, faults::catalog_rate_limited(CATALOG, 10));
    house.tick().await;
    // Too many calls: Graph said ten minutes.
    let calls = || house.graph.calls_of(Edge::ItemsBatch).len();
    assert_eq!(calls(), 1);
    house.later(SignedDuration::from_mins(9));
    house.tick().await;
    assert_eq!(calls(), 1);
    house.later(SignedDuration::from_mins(1));
    // The second batch of the next attempt fails.
    house.graph.script(
        Edge::ItemsBatch,
        testkit::fault::Fault::Late(std::time::Duration::ZERO),
    );
    house.graph.script(Edge::ItemsBatch, faults::unavailable(502));
    house.tick().await;
    assert_eq!(house.push().await.progress.next_index, 5_000);
    house.drain().await;
    let items: Vec<usize> = house
        .graph
        .calls_of(Edge::ItemsBatch)
        .iter()
        .map(|call| call.items)
        .collect();
    // The first 5,000 are not pushed again. What was not carried out counts no items.
    assert_eq!(items, [0, 5_000, 0, 5_000, 2_000]);
    assert_eq!((house.graph.item_count(CATALOG), server.requests()), (12_000, 3));
    assert_eq!(house.push().await.progress.accepted, 12_000);
}

#[tokio::test]
async fn less_data_is_sent_when_meta_asks_for_it() {
    let (house, _server) = house(vec![Feed::Lines(9_000)]).await;
    house.graph.limit_batches(2_000);
    house.drain().await;
    assert_eq!(house.graph.item_count(CATALOG), 9_000);
    let sizes: Vec<usize> = house
        .graph
        .calls_of(Edge::ItemsBatch)
        .iter()
        .filter(|call| call.status == Some(200))
        .map(|call| call.items)
        .collect();
    assert!(
        sizes
            .iter()
            .all(|items| (1_000..=2_000).contains(items) || *items == sizes[sizes.len() - 1]),
        "{sizes:?}"
    );
    assert_eq!(
        house.graph.calls_of(Edge::ItemsBatch).len() - sizes.len(),
        2,
        "asked twice to send less"
    );
}

#[tokio::test]
async fn done_in_spite_of_an_error_is_not_done_again() {
    let (house, _server) = house(vec![Feed::Lines(10)]).await;
    house
        .graph
        .script(Edge::ItemsBatch, faults::done_in_spite_of_the_error());
    house.drain().await;
    assert_eq!(house.graph.calls_of(Edge::ItemsBatch).len(), 1);
    assert_eq!(house.graph.item_count(CATALOG), 10);
}

#[tokio::test]
async fn a_feed_that_fails_is_tried_again_and_one_that_is_not_there_is_told() {
    let (house, server) = house(vec![
        Feed::Status(503),
        Feed::Bytes("<html>sorry</html>"),
        Feed::Bytes("[{\"id\":\"p0\"},"),
        Feed::CutOff(100),
        Feed::Status(404),
        Feed::Lines(5),
    ])
    .await;
    house.drain().await;
    assert_eq!((house.graph.item_count(CATALOG), server.requests()), (5, 6));
    assert_eq!(house.rows("dead").await, 0);
}

#[tokio::test]
async fn when_time_is_up_the_next_tick_goes_on() {
    let (house, server) = house(vec![Feed::Lines(12_000)]).await;
    // Time runs out while the first batch's progress is written.
    for _ in 0..20 {
        let clock = house.clock.clone();
        house.aws.before_next("UpdateItem", move |request| {
            Box::pin(async move {
                if request.to_string().contains("SET #push") {
                    clock.set(clock.now() + SignedDuration::from_secs(100));
                }
            })
        });
    }
    house.tick().await;
    let first = house.push().await.progress;
    assert_eq!((first.next_index, first.feed_done), (5_000, false));
    house.tick().await;
    let second = house.push().await.progress;
    assert_eq!((second.next_index, second.feed_done), (10_000, false));
    house.drain().await;
    let items: Vec<usize> = house
        .graph
        .calls_of(Edge::ItemsBatch)
        .iter()
        .map(|call| call.items)
        .collect();
    assert_eq!(items, [5_000, 5_000, 2_000]);
    assert_eq!(house.graph.item_count(CATALOG), 12_000);
    assert!(server.requests() >= 3);
}
