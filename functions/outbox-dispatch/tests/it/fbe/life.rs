//! The whole life of a business.

use jiff::SignedDuration;
use serde_json::json;
use shared::fbe::event::Stamp;
use shared::fbe::install::{Install, Status};
use testkit::graph::{Edge, faults};

use super::house::{House, SHOP, value};

const FEATURES: [&str; 4] = ["ads", "catalog", "fb_shop", "pixel"];
const PIXEL: &str = "1964583793745557";

#[tokio::test]
async fn install_update_drift_and_uninstall() {
    let house = House::start().await;

    // Installed: token and its type kept, every asset recorded, features on, the business told.
    house.happen("install").await;
    house.drain().await;
    let install = house.install().await;
    assert_eq!(install.status, Status::Active);
    assert_eq!(
        house.notices(),
        [("installed".to_owned(), json!(FEATURES), json!([]))]
    );
    assert_eq!(install.assets.catalog_id.as_deref(), Some("726635365295186"));
    // The person's token was exchanged for a system user's, once, and only that is used.
    assert_eq!(house.graph.issued_tokens(SHOP), ["EAAB-system-user-1"]);
    assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-1"));
    assert!(install.token.as_ref().unwrap().exchanged_at.is_some());
    // The pixel leads to the business.
    let found = house.installs.by_pixel(PIXEL).await.unwrap();
    assert_eq!(found[0].business_id, SHOP);
    assert!(install.reconciled_at.is_some() && install.drift_count == 0);

    // Changed: without the pixel only what needs it is off.
    house.happen("update_removes_pixel").await;
    house.drain().await;
    let off = json!([{"feature": "pixel", "missing": "pixel_id"}]);
    assert_eq!(
        house.notices()[1],
        ("updated".to_owned(), json!(["ads", "catalog", "fb_shop"]), off)
    );
    assert!(house.installs.by_pixel(PIXEL).await.unwrap().is_empty());
    assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-2"));

    // Graph says something else one day: its answer counts.
    let mut graph = value("update_removes_pixel");
    graph["ad_account_id"] = json!("0");
    let features = graph["installed_features"].as_array_mut().unwrap();
    features.retain(|feature| feature["feature_type"] != "ads");
    house.graph.change_install(SHOP, Some(graph));
    assert_eq!(house.plan_the_day().await, json!({"planned": 1}));
    assert_eq!(house.plan_the_day().await, json!({"planned": 0}), "once a day");
    house.later(SignedDuration::from_hours(24));
    house.drain().await;
    let install = house.install().await;
    assert_eq!(install.drift_count, 2, "{:?}", install.drift);
    let off = json!([{"feature": "pixel", "missing": "pixel_id"}]);
    assert_eq!(
        house.notices()[2],
        ("updated".to_owned(), json!(["catalog", "fb_shop"]), off)
    );

    // Removed: everything off, the token gone, the business told; Graph is not needed for that.
    house.graph.begin_outage(faults::unavailable(503));
    house.happen("uninstall").await;
    house.drain().await;
    house.graph.end_outage();
    let (change, enabled, disabled) = house.notices().pop().unwrap();
    assert_eq!((change.as_str(), enabled), ("uninstalled", json!([])));
    assert!(
        disabled
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["missing"] == "installation")
    );
    assert_eq!(house.install().await.status, Status::Uninstalled);
    assert_eq!(house.token().await, None);
    assert_eq!(house.plan_the_day().await, json!({"planned": 0}));

    // And once more, inside the recovery window.
    house.happen("reinstall").await;
    house.drain().await;
    assert_eq!(
        house.changes(),
        ["installed", "updated", "updated", "uninstalled", "installed"]
    );
    assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-3"));
    assert_eq!(house.rows("dead").await, 0);
}

#[tokio::test]
async fn nothing_is_done_twice() {
    let house = House::start().await;
    for _ in 0..3 {
        house.happen("install").await;
        house.drain().await;
    }
    assert_eq!(house.changes(), ["installed"]);
    assert_eq!(
        house.graph.issued_tokens(SHOP).len(),
        0,
        "set_install starts the list anew"
    );
    assert_eq!(house.graph.calls_of(Edge::AccessToken).len(), 1);
}

#[tokio::test]
async fn a_removal_that_graph_has_seen_and_nobody_announced_is_only_reported() {
    let house = House::start().await;
    house.happen("install").await;
    house.drain().await;
    house.graph.change_install(SHOP, None);
    house.plan_the_day().await;
    house.later(SignedDuration::from_hours(24));
    house.drain().await;
    let install = house.install().await;
    assert!(install.is_installed() && install.unknown_at_graph_since.is_some());
    assert_eq!(house.changes(), ["installed"]);

    // The removal that named another Business Manager is believed together with Graph's silence.
    house.deliver("uninstall_foreign_business_manager").await;
    assert!(house.install().await.is_installed());
    house.plan_the_day().await;
    house.later(SignedDuration::from_hours(24));
    house.drain().await;
    assert!(!house.install().await.is_installed());
    assert_eq!(house.token().await, None);
    assert_eq!(house.changes(), ["installed", "uninstalled"]);
}

#[tokio::test]
async fn whatever_passes_at_graph_is_survived() {
    let passing = [
        faults::rate_limited(4),
        faults::rate_limited(17),
        faults::rate_limited(613),
        faults::temporarily_down(),
        faults::unavailable(500),
        faults::unavailable(502),
        faults::not_json(),
        testkit::fault::Fault::CutBeforeProcessing,
        testkit::fault::Fault::CutAfterProcessing,
    ];
    for fault in passing {
        let house = House::start().await;
        for edge in [Edge::AccessToken, Edge::Installs] {
            house.graph.script(edge, fault.clone());
        }
        house.happen("install").await;
        let first = house.tick().await;
        assert_eq!(
            (&first["retried"], &first["done"]),
            (&json!(2), &json!(1)),
            "{fault:?}"
        );
        assert_eq!(
            house.changes(),
            ["installed"],
            "each item stands alone: {fault:?}"
        );
        house.drain().await;
        assert!(
            house.token().await.unwrap().starts_with("EAAB-system-user"),
            "{fault:?}"
        );
        assert!(house.install().await.reconciled_at.is_some(), "{fault:?}");
        assert_eq!(
            (house.changes(), house.rows("dead").await),
            (vec!["installed".to_owned()], 0)
        );
    }
}

#[tokio::test]
async fn a_hundred_businesses_are_spread_over_the_day() {
    let house = House::start().await;
    for n in 0..100 {
        let install = tokenless(&format!("shop-{n}"));
        assert!(house.installs.commit(&install, &[], false).await.unwrap());
    }
    assert_eq!(house.plan_the_day().await, json!({"planned": 100}));
    let mut waiting = vec![100];
    for _ in 0..24 {
        house.later(SignedDuration::from_hours(1));
        house.tick().await;
        waiting.push(house.rows("pending").await);
    }
    let an_hour: Vec<usize> = waiting.windows(2).map(|pair| pair[0] - pair[1]).collect();
    assert_eq!(an_hour.iter().sum::<usize>(), 100, "{an_hour:?}");
    assert!(an_hour.iter().all(|items| *items <= 15), "{an_hour:?}");
}

/// An install that only the store knows: there is nothing to ask Graph with.
pub(super) fn tokenless(business: &str) -> Install {
    let mut install = Install::unknown(business);
    install.status = Status::Active;
    install.version = 1;
    install.granted = Some(Stamp {
        at: "2026-11-21T09:00:00Z".parse().unwrap(),
        digest: String::new(),
    });
    install
}
