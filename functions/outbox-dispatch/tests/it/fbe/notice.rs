//! The order of notices, and the day's plan.

use jiff::SignedDuration;
use serde_json::json;
use shared::fbe::plan::subject;
use shared::outbox::Kind;
use testkit::aws::Fault;
use testkit::braze::{Endpoint, faults};

use super::house::{House, SHOP};
use super::life::tokenless;

#[tokio::test]
async fn a_notice_that_failed_holds_up_the_next() {
    for fault in [faults::unavailable(503), faults::unauthorized()] {
        let house = House::start().await;
        house.braze.script(Endpoint::Track, fault);
        house.happen("install").await;
        house.tick().await;
        // The backoff may be anything up to an hour.
        let pending = house.outbox.pending_all(&subject(SHOP)).await.unwrap();
        let failed = pending
            .iter()
            .find(|entry| entry.kind == Kind::FbeNotify)
            .unwrap();
        let due = house.clock.now() + SignedDuration::from_mins(50);
        house.outbox.wait(failed, "braze", due).await.unwrap();

        house.happen("uninstall").await;
        house.tick().await;
        assert!(house.changes().is_empty(), "{:?}", house.changes());
        house.later(SignedDuration::from_mins(51));
        house.tick().await;
        house.tick().await;
        assert_eq!(house.changes(), ["installed", "uninstalled"]);
        assert_eq!(house.rows("pending").await, 0);
    }
}

#[tokio::test]
async fn a_comparison_that_cannot_be_planned_costs_no_other() {
    let house = House::start().await;
    // So large that a page of the scan has room for a few.
    for n in 0..8 {
        let mut install = tokenless(&format!("shop-{n}"));
        install.flow = Some("x".repeat(300_000));
        assert!(house.installs.commit(&install, &[], false).await.unwrap());
    }
    assert!(house.installs.scan(true, None).await.unwrap().next.is_some());
    // All attempts of the first one, or almost all of the first few.
    house.aws.fail_next("PutItem", 9, Fault::ServiceUnavailable);
    let until = house.clock.now() + SignedDuration::from_secs(115);
    let task = json!({"task": "reconcile"});
    assert!(house.dispatch.handle_until(task, until).await.is_err());
    house.aws.clear_faults();
    let planned = house.rows("pending").await;
    assert!((5..8).contains(&planned), "{planned}");
    assert_eq!(house.plan_the_day().await, json!({"planned": 8 - planned}));
}
