//! Tokens: kinds, refusals, and what waits for the next one.

use jiff::SignedDuration;
use serde_json::json;
use shared::fbe::install::Status;
use shared::fbe::plan::{reconcile_item, subject};
use shared::outbox::Kind;
use testkit::graph::{Edge, GraphError, Install, TokenKind, faults};

use super::house::{APP_SECRET, House, PARTNER, SHOP, value};

#[tokio::test]
async fn a_system_users_token_is_not_exchanged() {
    let house = House::start().await;
    house.happen("install_instagram").await;
    house.drain().await;
    assert!(house.graph.calls_of(Edge::AccessToken).is_empty());
    let shop = house.installs.read("ig-shop").await.unwrap().unwrap().install;
    assert!(shop.reconciled_at.is_some());
    assert_eq!(house.braze.events().len(), 1);
}

#[tokio::test]
async fn the_partner_asks_on_behalf_of_a_business_that_came_without_a_token() {
    let house = House::with(&[], Some(PARTNER)).await;
    let mut install = value("install_without_token");
    install["access_token"] = json!("EAAB-never-sent");
    house.graph.set_install(Install::from_webhook(&install).unwrap());
    house.deliver("install_without_token").await;
    house.drain().await;
    assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-1"));
    let install = house.install().await;
    assert!(install.token.is_some() && install.reconciled_at.is_some());
    assert_eq!(house.changes()[0], "installed");
}

#[tokio::test]
async fn without_any_token_the_install_is_kept_and_nothing_waits() {
    let house = House::start().await;
    house.deliver("install_without_token").await;
    house.drain().await;
    assert_eq!(
        (house.changes(), house.rows("dead").await),
        (vec!["installed".to_owned()], 0)
    );
    assert_eq!(house.graph.calls().len(), 0);
}

#[tokio::test]
async fn a_refused_token_is_told_once_and_its_items_wait_for_the_next() {
    let house = House::start().await;
    house.happen("install").await;
    house.drain().await;
    house.graph.invalidate_token("EAAB-system-user-1", 460);
    house.graph.invalidate_token("EAAB_install_token", 460);
    house.graph.forget_calls();
    for name in ["a", "b"] {
        let item = reconcile_item(SHOP, name, house.clock.now(), None);
        assert!(house.outbox.add(&item).await.unwrap());
    }
    house.tick().await;
    assert_eq!(house.install().await.status, Status::TokenInvalid);
    assert_eq!(
        house.graph.calls_of(Edge::Installs).len(),
        1,
        "the second item does not try again"
    );
    house.tick().await;
    assert_eq!(house.changes(), ["installed", "token_invalid"]);
    let (_, enabled, disabled) = house.notices().pop().unwrap();
    assert_eq!(enabled, json!([]));
    assert!(
        disabled
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["missing"] == "access_token")
    );

    // One try an hour, for as long as it takes.
    house.graph.forget_calls();
    for _ in 0..59 {
        house.later(SignedDuration::from_mins(30));
        house.tick().await;
    }
    let tries = house.graph.calls_of(Edge::Installs).len();
    assert!((25..=30).contains(&tries), "{tries} in 30 hours");
    let exchanges = house.graph.calls_of(Edge::AccessToken).len();
    assert!(
        (1..=3).contains(&exchanges),
        "{exchanges}: the person's token is tried once a day"
    );
    assert_eq!((house.rows("pending").await, house.rows("dead").await), (2, 0));
    assert_eq!(house.changes(), ["installed", "token_invalid"], "told once");

    // The next token wakes them.
    house.happen("update_removes_pixel").await;
    house.tick().await;
    house.tick().await;
    house.tick().await;
    assert_eq!(house.rows("pending").await, 0, "{:?}", house.reasons().await);
    assert_eq!(house.install().await.status, Status::Active);
    assert_eq!(house.changes(), ["installed", "token_invalid", "updated"]);
}

#[tokio::test]
async fn a_token_that_comes_back_to_life_is_told_too() {
    let house = House::start().await;
    house.happen("install").await;
    house.drain().await;
    house.graph.script(Edge::Installs, faults::token_invalid(459));
    house.plan_the_day().await;
    house.later(SignedDuration::from_hours(24));
    house.tick().await;
    assert_eq!(house.install().await.status, Status::TokenInvalid);
    house.later(SignedDuration::from_hours(1));
    house.tick().await;
    house.drain().await;
    assert_eq!(house.install().await.status, Status::Active);
    assert_eq!(house.changes(), ["installed", "token_invalid", "updated"]);
    let (_, enabled, _) = house.notices().pop().unwrap();
    assert_eq!(enabled, json!(["ads", "catalog", "fb_shop", "pixel"]));

    // And that it is refused once more, while the first refusal is still remembered.
    house.graph.script(Edge::Installs, faults::token_invalid(459));
    house.plan_the_day().await;
    house.later(SignedDuration::from_hours(24));
    house.tick().await;
    assert_eq!(house.install().await.status, Status::TokenInvalid);
    house.later(SignedDuration::from_hours(1));
    house.drain().await;
    assert_eq!(
        house.changes(),
        [
            "installed",
            "token_invalid",
            "updated",
            "token_invalid",
            "updated"
        ]
    );
}

#[tokio::test]
async fn a_refused_token_is_tried_again_each_day_if_nothing_else_waits_for_it() {
    let house = House::start().await;
    house.happen("install").await;
    house.drain().await;
    house.graph.script(Edge::Installs, faults::token_invalid(459));
    house.plan_the_day().await;
    house.later(SignedDuration::from_hours(24));
    house.tick().await;
    assert_eq!(house.install().await.status, Status::TokenInvalid);
    assert_eq!(
        house.plan_the_day().await,
        json!({"planned": 0}),
        "one waits already"
    );
    for entry in house.outbox.pending_all(&subject(SHOP)).await.unwrap() {
        house.outbox.done(&[entry]).await.unwrap();
    }
    assert_eq!(house.plan_the_day().await, json!({"planned": 1}));
    house.later(SignedDuration::from_hours(24));
    house.drain().await;
    assert_eq!(house.install().await.status, Status::Active);
}

#[tokio::test]
async fn a_persons_token_that_is_dead_on_arrival_is_told() {
    let house = House::start().await;
    house.graph.script(Edge::AccessToken, faults::token_invalid(460));
    house.happen("install").await;
    house.tick().await;
    assert_eq!(house.install().await.status, Status::TokenInvalid);
    house.tick().await;
    assert_eq!(house.changes(), ["installed", "token_invalid"]);
    // And that the exchange has mended it.
    house.later(SignedDuration::from_hours(1));
    house.tick().await;
    house.drain().await;
    assert_eq!(house.install().await.status, Status::Active);
    assert_eq!(house.changes(), ["installed", "token_invalid", "updated"]);
}

#[tokio::test]
async fn a_partners_token_that_comes_later_is_used_from_the_next_day_on() {
    let house = House::start().await;
    let mut install = value("install_without_token");
    install["access_token"] = json!("EAAB-never-sent");
    house.graph.set_install(Install::from_webhook(&install).unwrap());
    house.deliver("install_without_token").await;
    house.drain().await;
    assert_eq!(house.token().await, None);
    house.write_meta(APP_SECRET, Some(PARTNER)).await;
    house.later(SignedDuration::from_hours(1));
    house.plan_the_day().await;
    house.later(SignedDuration::from_hours(24));
    house.drain().await;
    assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-1"));
    assert_eq!(house.rows("dead").await, 0);
    assert!(house.install().await.reconciled_at.is_some());
}

#[tokio::test]
async fn an_exchange_that_was_given_up_is_tried_again_once_a_week() {
    let house = House::start().await;
    let refused = GraphError::new(100, "(#100) Unsupported post request").subcode(33);
    // Each time Graph is asked once more.
    for _ in 0..2 * 2 {
        house.graph.script(Edge::AccessToken, faults::error(&refused));
    }
    house.happen("install").await;
    for _ in 0..10 {
        house.drain().await;
        house.plan_the_day().await;
        house.later(SignedDuration::from_hours(24));
    }
    house.drain().await;
    assert_eq!(house.graph.calls_of(Edge::AccessToken).len(), 5);
    assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-1"));
}

#[tokio::test]
async fn a_missing_permission_waits_for_somebody_to_grant_it() {
    let house = House::start().await;
    let refused = GraphError::new(10, "(#10) Application does not have permission for this action");
    house.graph.script(Edge::AccessToken, faults::error(&refused));
    house.happen("install").await;
    house.tick().await;
    assert_eq!((house.rows("pending").await, house.rows("dead").await), (1, 0));
    house.drain().await;
    assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-1"));
}

#[tokio::test]
async fn what_can_never_succeed_is_given_up_alone() {
    let house = House::start().await;
    let refused = GraphError::new(100, "(#100) Unsupported post request").subcode(33);
    for _ in 0..2 {
        house.graph.script(Edge::AccessToken, faults::error(&refused));
    }
    house.happen("install").await;
    house.drain().await;
    assert_eq!(
        house.reasons().await,
        [("fbe_exchange_token".into(), "dead".into(), "graph_100_33".into())]
    );
    // The person's own token still serves.
    assert!(house.install().await.reconciled_at.is_some());
    assert_eq!(house.changes(), ["installed"]);
}

/// Meta removes the app first, and tells of it later.
#[tokio::test]
async fn a_removal_that_graph_knows_of_before_us_is_nobodys_fault() {
    let house = House::start().await;
    let refused = GraphError::new(100, "(#100) Unsupported post request").subcode(33);
    house.graph.script(Edge::AccessToken, faults::error(&refused));
    house.happen("install").await;
    house.tick().await;
    house.happen("uninstall").await;
    house.drain().await;
    assert_eq!(house.rows("dead").await, 0);
    assert_eq!(house.graph.calls_of(Edge::AccessToken).len(), 1);
    assert_eq!(house.changes(), ["installed", "uninstalled"]);
}

#[tokio::test]
async fn a_removal_during_the_exchange_leaves_no_token_behind() {
    let house = std::sync::Arc::new(House::start().await);
    house.happen("install").await;
    let other = house.clone();
    house.aws.before_next("PutSecretValue", move |_| {
        Box::pin(async move { assert_eq!(other.deliver("uninstall").await, 200) })
    });
    house.drain().await;
    assert_eq!(house.install().await.status, Status::Uninstalled);
    assert_eq!(house.token().await, None);
    house.aws.clear_faults();
}

#[tokio::test]
async fn a_removal_during_a_visit_is_not_taken_back_by_it() {
    let house = std::sync::Arc::new(House::with(&[("CATALOG_FEED_URL", "http://127.0.0.1:1/")], None).await);
    house.happen("install").await;
    house.tick().await;
    let pushes = || async {
        let pending = house.outbox.pending_all(&subject(SHOP)).await.unwrap();
        pending.iter().map(|entry| entry.kind).collect::<Vec<_>>()
    };
    assert_eq!(pushes().await, [Kind::FbeCatalogPush]);
    house.later(SignedDuration::from_hours(1));
    let other = house.clone();
    house.aws.before_next("GetSecretValue", move |_| {
        Box::pin(async move { assert_eq!(other.deliver("uninstall").await, 200) })
    });
    house.tick().await;
    assert_eq!(house.install().await.status, Status::Uninstalled);
    assert_eq!(house.token().await, None);
    assert_eq!(house.aws.secrets_manager_calls().of("RestoreSecret"), 0);
    house.drain().await;
    assert_eq!(house.changes(), ["installed", "uninstalled"]);
    assert_eq!(house.rows("dead").await, 0);
}

#[tokio::test]
async fn what_a_slow_writer_leaves_behind_a_removal_is_swept_away() {
    let house = House::start().await;
    house.happen("install").await;
    house.drain().await;
    house.happen("uninstall").await;
    house.secrets.restore(SHOP).await.unwrap();
    assert!(house.token().await.is_some());
    house.later(SignedDuration::from_mins(5));
    house.tick().await;
    assert_eq!(house.token().await, None);
    assert_eq!(house.rows("pending").await, 0);
}

#[tokio::test]
async fn a_secret_that_a_late_deletion_took_is_restored() {
    let house = House::start().await;
    house.happen("install").await;
    house.drain().await;
    // A removal's deletion that was overtaken by the next install.
    house.secrets.schedule_deletion(SHOP).await.unwrap();
    house.plan_the_day().await;
    house.later(SignedDuration::from_hours(24));
    house.drain().await;
    assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-1"));
}

#[tokio::test]
async fn graph_without_the_token_kinds_it_knows_stays_within_its_business() {
    // The fake refuses a token of another business; so a mix-up would show as a refusal.
    let house = House::start().await;
    house
        .graph
        .add_token("EAAB-foreign", TokenKind::User, Some("another"));
    house.happen("install").await;
    house.drain().await;
    let used: Vec<String> = house
        .graph
        .calls()
        .iter()
        .map(|call| secrecy::ExposeSecret::expose_secret(&call.access_token).to_owned())
        .collect();
    assert_eq!(
        used,
        ["EAAB_install_token", "EAAB-system-user-1", "EAAB-system-user-1"]
    );
}

#[tokio::test]
async fn the_same_token_in_several_webhooks_is_kept_and_exchanged_once() {
    let house = House::start().await;
    house.happen("install").await;
    for second in 1..6 {
        let body = String::from_utf8(super::house::payload("install")).unwrap();
        let body = body.replace("1795251600", &(1_795_251_600 + second).to_string());
        assert_eq!(house.deliver_body(body.into_bytes()).await, 200);
    }
    house.drain().await;
    let calls = house.aws.secrets_manager_calls();
    assert_eq!((calls.of("CreateSecret"), calls.of("PutSecretValue")), (1, 1));
    assert_eq!(house.graph.calls_of(Edge::AccessToken).len(), 1);
    assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-1"));
}

#[tokio::test]
async fn a_system_users_token_that_dies_is_exchanged_anew() {
    for subcode in [463, 460, 458] {
        let house = House::start().await;
        house.happen("install").await;
        house.drain().await;
        house.graph.invalidate_token("EAAB-system-user-1", subcode);
        house.plan_the_day().await;
        house.later(SignedDuration::from_hours(24));
        house.drain().await;
        assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-2"));
        assert_eq!(house.install().await.status, Status::Active);
        assert_eq!(house.changes(), ["installed", "token_invalid", "updated"]);
        assert_eq!(house.rows("dead").await, 0);
    }
}

#[tokio::test]
async fn a_system_users_token_is_exchanged_anew_ahead_of_its_end() {
    let house = House::start().await;
    house.graph.limit_tokens(60 * 24 * 3600);
    house.happen("install").await;
    house.drain().await;
    let ends = house.install().await.token.unwrap().expires_at.unwrap();
    let secret = house.secrets.current(SHOP).await.unwrap().unwrap();
    assert_eq!(secret.system_user_expires_at, Some(ends));
    let mut tokens = 1;
    for day in 1..=55 {
        house.plan_the_day().await;
        house.later(SignedDuration::from_hours(24));
        house.drain().await;
        let issued = house.graph.issued_tokens(SHOP).len();
        if issued > tokens {
            assert!((48..=52).contains(&day), "{day}");
            tokens = issued;
        }
    }
    assert_eq!(tokens, 2);
    assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-2"));
    assert_eq!(house.changes(), ["installed"], "nothing changes for the business");
}

#[tokio::test]
async fn a_token_that_the_partner_obtained_is_renewed_by_the_partner() {
    let house = House::with(&[], Some(PARTNER)).await;
    let mut install = value("install_without_token");
    install["access_token"] = json!("EAAB-never-sent");
    house.graph.set_install(Install::from_webhook(&install).unwrap());
    house.deliver("install_without_token").await;
    house.drain().await;
    house.graph.invalidate_token("EAAB-system-user-1", 463);
    house.plan_the_day().await;
    house.later(SignedDuration::from_hours(24));
    house.drain().await;
    assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-2"));
}

#[tokio::test]
async fn an_exchange_that_is_asked_for_is_made_whatever_there_is() {
    let house = House::start().await;
    house.happen("install").await;
    house.drain().await;
    let install = house.install().await;
    let item = shared::fbe::plan::exchange_on_demand(&install, house.clock.now()).unwrap();
    house.outbox.add(&item).await.unwrap();
    house.drain().await;
    assert_eq!(house.token().await.as_deref(), Some("EAAB-system-user-2"));
}
