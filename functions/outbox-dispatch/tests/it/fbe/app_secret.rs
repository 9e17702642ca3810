//! The app's secret is reset at Meta while work is under way.

use jiff::SignedDuration;
use testkit::graph::{Edge, faults};

use super::catalog::{Feed, FeedServer};
use super::house::{CATALOG, House, SHOP};

async fn house() -> House {
    let server = FeedServer::start(vec![Feed::Lines(10)]).await;
    House::with(&[("CATALOG_FEED_URL", &server.url)], None).await
}

#[tokio::test]
async fn a_secret_that_is_written_in_time_costs_no_attempt() {
    let house = house().await;
    house.happen("install").await;
    house.drain().await;
    // Both are in the warm process's cache.
    house.graph.reset_app_secret("another-app-secret");
    house.write_meta("another-app-secret", None).await;
    let item = shared::fbe::plan::reconcile_item(SHOP, "now", house.clock.now(), None);
    house.outbox.add(&item).await.unwrap();
    let report = house.tick().await;
    assert_eq!((&report["done"], &report["retried"]), (&1.into(), &0.into()));
    assert_eq!(house.graph.take_refusals().len(), 1);
}

#[tokio::test]
async fn until_then_everything_waits_and_nothing_is_given_up() {
    for edge in [
        Edge::AccessToken,
        Edge::Installs,
        Edge::ItemsBatch,
        Edge::BatchStatus,
    ] {
        let house = house().await;
        house.graph.finish_batches_after(1);
        house.graph.script(edge, faults::wrong_proof());
        house.happen("install").await;
        house.tick().await;
        assert_eq!(house.rows("dead").await, 0, "{edge:?}");
        if edge == Edge::BatchStatus {
            let progress = house.push().await.progress;
            assert_eq!(progress.outstanding.len(), 1, "the handle is not forgotten");
        }
        house.later(SignedDuration::from_hours(1));
        house.drain().await;
        assert_eq!(house.rows("dead").await, 0, "{edge:?}");
        assert_eq!(house.graph.item_count(CATALOG), 10, "{edge:?}");
        assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-1"));
    }
}
