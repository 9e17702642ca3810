//! What is switched off at Meta, and what an integration event has looked at.

use jiff::SignedDuration;
use serde_json::json;
use testkit::graph::{Edge, GraphError, faults};

use super::house::{House, SHOP, value};

#[tokio::test]
async fn a_feature_that_is_not_enabled_at_meta_is_off_with_the_reason() {
    let house = House::start().await;
    house.happen("install").await;
    house.drain().await;
    assert_eq!(
        house.graph.calls_of(Edge::Configuration).len(),
        1,
        "one call more a comparison"
    );
    house.graph.switch_off(SHOP, "pixel");
    house.plan_the_day().await;
    house.later(SignedDuration::from_hours(24));
    house.drain().await;
    let off = json!([{"feature": "pixel", "missing": "switched_on_at_meta"}]);
    let last = house.notices().pop().unwrap();
    assert_eq!(
        last,
        ("updated".to_owned(), json!(["ads", "catalog", "fb_shop"]), off)
    );
    assert_eq!(
        house.install().await.drift_count,
        0,
        "no drift: it is installed all the same"
    );
}

#[tokio::test]
async fn a_shop_that_is_not_active_is_off_whatever_its_assets() {
    for (status, on) in [
        (json!(["active"]), true),
        (json!("active"), true),
        (json!(["ACTIVE"]), true),
        (json!([]), true),
        (json!(["inactive_other", "active"]), true),
        (json!(["no_longer_available"]), false),
        (json!(["inactive_offsite"]), false),
        (json!("something_new"), false),
    ] {
        let house = House::start().await;
        let mut body: serde_json::Value = serde_json::from_slice(&super::house::payload("install")).unwrap();
        let features = body
            .pointer_mut("/entry/0/changes/0/value/installed_features")
            .unwrap();
        for feature in features.as_array_mut().unwrap() {
            if feature["feature_type"] == "fb_shop" {
                feature["additional_info"] = json!([{"shop_status": status}]);
            }
        }
        house.deliver_body(body.to_string().into_bytes()).await;
        let gating = house.install().await.gating();
        assert_eq!(gating.enabled.contains(&"fb_shop".to_owned()), on, "{status}");
        if !on {
            assert_eq!(gating.disabled[0].missing, "active_shop", "{status}");
        }
    }
}

#[tokio::test]
async fn a_configuration_that_may_not_be_read_costs_nothing_else() {
    let house = House::start().await;
    let refused = GraphError::new(10, "(#10) Application does not have permission for this action");
    house.graph.script(Edge::Configuration, faults::error(&refused));
    house.happen("install").await;
    house.drain().await;
    assert!(house.install().await.reconciled_at.is_some());
    assert_eq!(house.install().await.gating().enabled.len(), 4);
}

#[tokio::test]
async fn an_integration_event_has_the_businesses_of_its_manager_compared_at_once() {
    for case in [
        "business_integration_uninstall",
        "business_integration_update",
        "business_integration_install",
    ] {
        let house = House::start().await;
        house.happen("install").await;
        house.drain().await;
        house.graph.forget_calls();
        let mut graph = value("install");
        graph["ad_account_id"] = json!("0");
        let features = graph["installed_features"].as_array_mut().unwrap();
        features.retain(|feature| feature["feature_type"] != "ads");
        house.graph.change_install(SHOP, Some(graph));
        for _ in 0..2 {
            assert_eq!(house.deliver(case).await, 200);
        }
        // The manager's event, the comparison, the notice: each plans the next.
        for _ in 0..3 {
            house.tick().await;
        }
        assert_eq!(house.graph.calls_of(Edge::Installs).len(), 1, "{case}");
        assert_eq!(house.changes(), ["installed", "updated"], "{case}");
        assert_eq!(house.rows("pending").await, 0);
    }
}
