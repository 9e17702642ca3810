//! A business that another Business Manager installs the app for too.

use jiff::SignedDuration;
use secrecy::ExposeSecret;
use testkit::graph::Edge;

use super::house::{CATALOG, House, SHOP};

const OWNER: &str = "973766133343161";
const OTHER: &str = "864422002200113";

impl House {
    async fn owner(&self) -> Option<String> {
        self.install().await.owner().map(str::to_owned)
    }

    /// The token that the install names.
    async fn token_in_force(&self) -> String {
        let secret = self.secrets.of(&self.install().await).await.unwrap().unwrap();
        secret.token().unwrap().expose_secret().to_owned()
    }

    async fn compare(&self) {
        self.plan_the_day().await;
        self.later(SignedDuration::from_hours(24));
        self.drain().await;
    }
}

async fn claimed() -> House {
    let house = House::start().await;
    house.happen("install").await;
    house.drain().await;
    house.graph.forget_calls();
    house.happen("install_other_manager").await;
    house.drain().await;
    house
}

#[tokio::test]
async fn an_install_under_another_manager_changes_nothing_and_is_kept() {
    let house = claimed().await;
    let install = house.install().await;
    assert_eq!(install.owner(), Some(OWNER));
    assert_eq!(install.claims()[0].business_manager_id.as_deref(), Some(OTHER));
    assert_eq!(install.assets.catalog_id.as_deref(), Some(CATALOG));
    assert_eq!(house.changes(), ["installed"], "the business is not told");
    // Its token is kept and not used: neither exchanged nor asked with.
    assert!(house.graph.calls_of(Edge::AccessToken).is_empty());
    assert!(
        house
            .graph
            .calls()
            .iter()
            .all(|call| call.access_token.expose_secret() == "EAAB-system-user-1")
    );
    assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-1"));
    // Graph was asked at once whether the owner is still there.
    assert_eq!(house.graph.calls_of(Edge::Installs).len(), 1);
}

#[tokio::test]
async fn a_claim_takes_effect_when_the_owner_removes_the_app() {
    let house = claimed().await;
    house.happen("uninstall").await;
    assert_eq!(house.owner().await.as_deref(), Some(OTHER));
    house.drain().await;
    assert_eq!(house.changes(), ["installed", "updated"]);
    assert_eq!(house.token_in_force().await, "EAAB-system-user-2");
    assert_eq!(
        house.token().await.as_deref(),
        Some("EAAB-system-user-2"),
        "the current version too"
    );
    assert_eq!(
        house.install().await.assets.catalog_id.as_deref(),
        Some("837746476306297")
    );
    assert_eq!(house.rows("dead").await, 0);
}

#[tokio::test]
async fn a_claim_whose_token_needs_no_exchange_becomes_the_current_version() {
    let house = House::start().await;
    house.happen("install").await;
    house.drain().await;
    let body = String::from_utf8(super::house::payload("install_other_manager")).unwrap();
    let body = body.replace("\"token_type\":\"User\"", "\"token_type\":\"System User\"");
    let value: serde_json::Value = serde_json::from_str(&body).unwrap();
    let value = &value["entry"][0]["changes"][0]["value"];
    house
        .graph
        .set_install(testkit::graph::Install::from_webhook(value).unwrap());
    assert_eq!(house.deliver_body(body.into_bytes()).await, 200);
    house.happen("uninstall").await;
    house.drain().await;
    assert_eq!(house.token_in_force().await, "EAAB_other_manager_token");
    assert_eq!(house.token().await.as_deref(), Some("EAAB_other_manager_token"));
}

#[tokio::test]
async fn a_claim_takes_effect_when_graph_does_not_know_the_owners_install_any_more() {
    let house = claimed().await;
    house.graph.remove_install(SHOP, OWNER);
    house.compare().await;
    assert_eq!(house.owner().await.as_deref(), Some(OTHER));
    assert_eq!(house.token_in_force().await, "EAAB-system-user-2");
    assert_eq!(house.changes(), ["installed", "updated"]);
}

#[tokio::test]
async fn a_claim_takes_effect_when_graph_does_not_take_the_owners_token_any_more() {
    let house = claimed().await;
    // As long as another can be had with the person's token, the owner is still there.
    house.graph.invalidate_token("EAAB-system-user-1", 463);
    house.compare().await;
    assert_eq!(house.owner().await.as_deref(), Some(OWNER));
    for token in ["EAAB-system-user-2", "EAAB_install_token"] {
        house.graph.invalidate_token(token, 460);
    }
    house.compare().await;
    house.compare().await;
    assert_eq!(house.owner().await.as_deref(), Some(OTHER));
    assert_eq!(house.token_in_force().await, "EAAB-system-user-3");
    assert_eq!(house.changes().last().unwrap(), "updated");
}

#[tokio::test]
async fn a_claim_that_is_withdrawn_is_forgotten_with_its_token() {
    let house = claimed().await;
    let claim = house.install().await.claims()[0].token.clone().unwrap();
    house.happen("uninstall_other_manager").await;
    house.drain().await;
    assert!(!house.install().await.is_claimed());
    assert_eq!(house.changes(), ["installed"]);
    let secrets = house.aws.secrets_manager();
    let version = secrets
        .get_secret_value()
        .secret_id("local/fbe/shop-42-unique-id")
        .version_id(claim.version);
    assert!(version.send().await.is_err(), "its version is gone");
    assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-1"));
}

#[tokio::test]
async fn any_order_of_two_managers_webhooks_ends_the_same() {
    let cases = [
        "install",
        "install_other_manager",
        "update_removes_pixel",
        "uninstall",
    ];
    let mut ends = Vec::new();
    for turn in 0..cases.len() {
        for reversed in [false, true] {
            let mut order = cases;
            order.rotate_left(turn);
            if reversed {
                order.reverse();
            }
            let house = House::start().await;
            for case in order.iter().chain(&order[..2]) {
                assert_eq!(house.deliver(case).await, 200);
            }
            let install = house.install().await;
            let secret = house.secrets.of(&install).await.unwrap();
            let secret = secret.unwrap_or_else(|| panic!("no secret after {order:?}: {:?}", install.token));
            let token = secret.access_token.unwrap().expose_secret().to_owned();
            ends.push((install.managers, install.assets, token));
        }
    }
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
    assert_eq!(ends[0].2, "EAAB_other_manager_token");
}

#[tokio::test]
async fn an_owner_that_turns_out_to_have_been_second_becomes_the_claim() {
    let house = House::start().await;
    house.happen("install_other_manager").await;
    house.drain().await;
    assert_eq!(house.owner().await.as_deref(), Some(OTHER));
    house.happen("install").await;
    house.drain().await;
    assert_eq!(house.owner().await.as_deref(), Some(OWNER));
    assert_eq!(house.token_in_force().await, "EAAB-system-user-2");
    // And back, with the token that had been exchanged before.
    house.happen("uninstall").await;
    house.drain().await;
    assert_eq!(house.owner().await.as_deref(), Some(OTHER));
    assert!(house.token_in_force().await.starts_with("EAAB-system-user"));
    assert_eq!(house.rows("dead").await, 0, "{:?}", house.reasons().await);
}
