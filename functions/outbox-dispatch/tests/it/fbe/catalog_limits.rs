//! Catalog pushes at their limits: which of several is the newest, how much is sent at a time, and how long they may
//! take.

use jiff::SignedDuration;
use shared::fbe::plan::push_item;
use testkit::graph::{Edge, FoundOut, Install, faults};

use super::catalog::{Feed, FeedServer, house};
use super::house::{CATALOG, House, SHOP, payload};

const NEXT_CATALOG: &str = "726635365299999";

#[tokio::test]
async fn a_push_of_one_catalog_says_nothing_of_another() {
    let (house, _server) = house(vec![Feed::Lines(10)]).await;
    house.drain().await;
    // On demand, with a key of our clock; the change has Meta's time, which lies before it.
    let item = push_item(SHOP, CATALOG, house.clock.now());
    house.outbox.add(&item).await.unwrap();
    house.drain().await;
    house.happen("update_changes_catalog").await;
    house.drain().await;
    assert_eq!(house.graph.item_count(NEXT_CATALOG), 10);
}

#[tokio::test]
async fn of_two_pushes_that_wait_one_is_enough() {
    let (house, server) = house(vec![Feed::Status(503), Feed::Status(503), Feed::Lines(10)]).await;
    let item = push_item(SHOP, CATALOG, house.clock.now());
    house.outbox.add(&item).await.unwrap();
    house.drain().await;
    assert_eq!(server.requests(), 3);
    assert_eq!(house.graph.calls_of(Edge::ItemsBatch).len(), 1);
}

#[tokio::test]
async fn an_error_that_looks_like_a_feed_is_tried_again() {
    let (house, server) = house(vec![
        Feed::Bytes("{\"error\":\"unauthorized\"}"),
        Feed::Bytes("[{\"error\":1}]"),
        Feed::Lines(5),
    ])
    .await;
    house.tick().await;
    house.drain().await;
    assert_eq!((house.graph.item_count(CATALOG), server.requests()), (5, 3));
    assert_eq!(house.push().await.progress.failed, 0);
}

#[tokio::test]
async fn one_item_that_is_too_much_costs_few_calls() {
    let (house, _server) = house(vec![Feed::Lines(20_000)]).await;
    house
        .graph
        .refuse_item(CATALOG, "p7777", "too much", FoundOut::AsTooMuch);
    house.drain().await;
    assert_eq!(house.graph.item_count(CATALOG), 19_999);
    let calls = house.graph.calls_of(Edge::ItemsBatch).len();
    assert!(calls < 40, "{calls}");
    let progress = house.push().await.progress;
    assert_eq!((progress.failed, progress.errors[0].item.as_str()), (1, "p7777"));
}

#[tokio::test]
async fn handles_are_asked_for_before_there_are_too_many() {
    let (house, _server) = house(vec![Feed::Lines(450)]).await;
    // Nothing but batches of one, each of them looked at twice before it is finished.
    house.graph.limit_batches(1);
    house.graph.finish_batches_after(1);
    for _ in 0..20 {
        house.tick().await;
        let Some(push) = house.installs.read(SHOP).await.unwrap().unwrap().push else {
            continue;
        };
        assert!(push.progress.outstanding.len() <= 200);
        let size = serde_json::to_string(&push).unwrap().len();
        assert!(size < 100_000, "{size}");
        house.later(SignedDuration::from_mins(5));
    }
    house.drain().await;
    assert_eq!(house.graph.item_count(CATALOG), 450);
    assert_eq!(house.rows("dead").await, 0);
}

#[tokio::test]
async fn a_push_that_gets_on_is_not_given_up_and_one_that_stands_still_is() {
    let (house, _server) = house(vec![Feed::Lines(20_000)]).await;
    for _ in 0..3 {
        house.graph.script(
            Edge::ItemsBatch,
            testkit::fault::Fault::Late(std::time::Duration::ZERO),
        );
        house
            .graph
            .script(Edge::ItemsBatch, faults::catalog_rate_limited(CATALOG, 20 * 60));
    }
    // A batch in twenty hours: it takes longer than an item may wait.
    for _ in 0..4 {
        house.tick().await;
        house.later(SignedDuration::from_hours(20));
    }
    house.drain().await;
    assert_eq!(house.graph.item_count(CATALOG), 20_000);
    assert_eq!(house.rows("dead").await, 0);

    let item = push_item(SHOP, CATALOG, house.clock.now());
    house.outbox.add(&item).await.unwrap();
    house.graph.begin_outage(faults::rate_limited(4));
    for _ in 0..60 {
        house.tick().await;
        house.later(SignedDuration::from_hours(1));
    }
    house.graph.end_outage();
    assert_eq!(house.rows("dead").await, 1);
}

#[tokio::test]
async fn few_batches_are_in_flight_whatever_is_to_be_pushed() {
    let server = FeedServer::start(vec![Feed::Large(6_000)]).await;
    let house = House::with(&[("CATALOG_FEED_URL", &server.url)], None).await;
    let late = std::time::Duration::from_millis(300);
    for n in 0..6 {
        let body = String::from_utf8(payload("install")).unwrap();
        let body = body
            .replace(SHOP, &format!("shop-{n}"))
            .replace(CATALOG, &format!("{CATALOG}{n}"))
            .replace("EAAB_install_token", &format!("EAAB_token_{n}"));
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        let install = Install::from_webhook(&value["entry"][0]["changes"][0]["value"]).unwrap();
        house.graph.set_install(install);
        assert_eq!(house.deliver_body(body.into_bytes()).await, 200);
        for _ in 0..3 {
            house
                .graph
                .script(Edge::ItemsBatch, testkit::fault::Fault::Late(late));
        }
    }
    house.tick().await;
    let calls = house.graph.calls_of(Edge::ItemsBatch);
    assert_eq!(calls.len(), 18, "three of up to 8 MiB for each");
    let begun: Vec<_> = calls.iter().map(|call| call.received_at).collect();
    for three in begun.windows(3) {
        let apart = three[2].duration_since(three[0]);
        assert!(apart.as_millis() >= 290, "{apart:?}: a third was under way");
    }
}

#[tokio::test]
async fn failures_are_counted_by_item() {
    let (house, _server) = house(vec![Feed::Lines(10)]).await;
    house
        .graph
        .refuse_item(CATALOG, "p1", "no image", FoundOut::Everywhere);
    house
        .graph
        .refuse_item(CATALOG, "p2", "no price", FoundOut::InProcessing);
    house.drain().await;
    let progress = house.push().await.progress;
    assert_eq!((progress.failed, progress.accepted), (2, 9));
    let named: Vec<_> = progress.errors.iter().map(|error| error.item.as_str()).collect();
    assert_eq!(named, ["p1", "p2"]);
}

#[tokio::test]
async fn a_batch_that_is_refused_for_one_item_is_halved_until_it_is_alone() {
    for how in [FoundOut::AsInvalid, FoundOut::AsNothingTaken] {
        let (house, _server) = house(vec![Feed::Lines(12_000)]).await;
        for bad in ["p0", "p7777", "p11999"] {
            house.graph.refuse_item(CATALOG, bad, "wrong", how);
        }
        house.drain().await;
        assert_eq!(house.graph.item_count(CATALOG), 11_997, "{how:?}");
        let progress = house.push().await.progress;
        assert_eq!((progress.failed, progress.accepted), (3, 11_997), "{how:?}");
        let calls = house.graph.calls_of(Edge::ItemsBatch).len();
        assert!(calls < 90, "{calls}: 26 for each");
        assert_eq!(
            progress.batch_limit, 5_000,
            "the next batches are as large as before"
        );
        assert_eq!(house.rows("dead").await, 0);
    }
}

#[tokio::test]
async fn a_catalog_that_refuses_everything_costs_few_calls() {
    let (house, _server) = house(vec![Feed::Lines(5_000)]).await;
    let refused = testkit::graph::GraphError::new(100, "(#100) Invalid parameter");
    house.graph.begin_outage(faults::error(&refused));
    let item = push_item(SHOP, CATALOG, house.clock.now());
    house.outbox.add(&item).await.unwrap();
    house.drain().await;
    house.graph.end_outage();
    assert!(house.graph.calls_of(Edge::ItemsBatch).len() <= 102);
    let dead = house.reasons().await;
    assert!(
        dead.iter()
            .all(|(_, status, reason)| status == "dead" && reason == "graph_100"),
        "{dead:?}"
    );
}

#[tokio::test]
async fn doubles_of_one_item_are_joined_and_the_last_one_counts() {
    let feed = "{\"id\":\"Belt\",\"n\":1}\n{\"id\":\"shoe\"}\n{\"id\":\" belt\u{200b}\",\"n\":2}\n{\"id\":\"Belt\",\"n\":3}\n";
    let (house, _server) = house(vec![Feed::Bytes(feed)]).await;
    house.drain().await;
    let items = house.graph.catalog(CATALOG).unwrap().items;
    assert_eq!(items.len(), 2);
    assert_eq!(items["Belt"]["n"], 3);
}
