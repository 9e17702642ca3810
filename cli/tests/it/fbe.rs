//! `bridge fbe` against a running stack.
#![expect(clippy::indexing_slicing, reason = "tests fail by panicking")]

use serde_json::Value;
use testkit::time::eventually;

use crate::house::{House, payload};

const SHOP: &str = "shop-42-unique-id";

fn fbe(house: &House, arguments: &[&str], code: i32) -> String {
    house.bridge("fbe", arguments, code)
}

fn shown(house: &House) -> Value {
    serde_json::from_str(&fbe(house, &["show", SHOP], 0)).unwrap()
}

/// What the business was told.
fn changes(house: &House) -> Vec<Value> {
    let profile = house.braze().profile(SHOP).unwrap();
    let events = profile.events.into_iter();
    events.map(|event| event.properties["change"].clone()).collect()
}

async fn installed() -> House {
    let house = House::live(&[]).await;
    house.deliver(&payload("fbe/install")).await;
    house.drain().await;
    house
}

async fn until(house: &House, is_so: impl Fn(&Value) -> bool) {
    let holds = eventually(async || is_so(&shown(house))).await;
    assert!(holds, "{:#}", shown(house));
}

async fn assert_gone(house: &House, told: &[&str]) {
    until(house, |_| changes(house).len() == told.len()).await;
    assert_eq!(changes(house), told);
    let shown = shown(house);
    assert_eq!(shown["status"], "uninstalled");
    assert_eq!(shown["enabled"], serde_json::json!([]));
    let secret = house.stack.aws().secrets_manager().get_secret_value();
    let secret = secret.secret_id(format!("local/fbe/{SHOP}")).send().await;
    let error = secret.unwrap_err().into_service_error();
    assert!(error.is_invalid_request_exception(), "{error:?}");
    fbe(house, &["uninstall", SHOP], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_install_that_graph_has_lost_is_shown_and_ended() {
    let house = installed().await;
    let graph = house.stack.fakes().graph.clone().unwrap();
    graph.change_install(SHOP, None);
    fbe(&house, &["reconcile", SHOP], 0);
    until(&house, |shown| !shown["unknown_at_graph_since"].is_null()).await;
    assert!(fbe(&house, &["list"], 0).contains("[unknown at Graph since "));

    let would = fbe(&house, &["uninstall", SHOP, "--dry-run"], 0);
    assert!(would.contains("secret: deletion scheduled"), "{would}");
    assert_eq!(shown(&house)["status"], "active");

    assert!(fbe(&house, &["uninstall", SHOP], 0).contains("uninstalled"));
    assert_gone(&house, &["installed", "uninstalled"]).await;
    house.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_install_whose_token_is_refused_is_ended() {
    let house = installed().await;
    let graph = house.stack.fakes().graph.clone().unwrap();
    // The person's token too: with it, another system user's token would be obtained at once.
    graph.invalidate_token("EAAB_install_token", 460);
    for token in graph.issued_tokens(SHOP) {
        graph.invalidate_token(&token, 460);
    }
    fbe(&house, &["reconcile", SHOP], 0);
    until(&house, |shown| shown["status"] == "token_invalid").await;
    until(&house, |_| changes(&house).len() == 2).await;
    // Meta takes no word of it either, and then nothing is done at all.
    fbe(
        &house,
        &["uninstall", SHOP, "--at-meta", "--graph-url", &graph.url()],
        1,
    );
    assert_eq!(shown(&house)["status"], "token_invalid");
    fbe(&house, &["uninstall", SHOP], 0);
    assert_gone(&house, &["installed", "token_invalid", "uninstalled"]).await;
    house.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_app_is_removed_at_meta_too() {
    let house = installed().await;
    let graph = house.stack.fakes().graph.clone().unwrap();
    fbe(&house, &["uninstall", SHOP, "--at-meta"], 2);
    fbe(
        &house,
        &["uninstall", SHOP, "--at-meta", "--graph-url", &graph.url()],
        0,
    );
    assert_eq!(graph.install(SHOP), None);
    assert_gone(&house, &["installed", "uninstalled"]).await;
    house.stack.stop().await;
}
