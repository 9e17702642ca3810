//! What happens to a business's token: refused, taken again, exchanged.

use shared::fbe::decide::decide;
use shared::fbe::install::Status;
use shared::fbe::plan::Outcome;
use shared::fbe::token::{exchange_again, exchange_on_demand, exchanged, token_invalid, token_valid};
use shared::outbox::Kind;

use super::fbe::{Business, event, kinds, now, settings};

#[test]
fn a_refused_token_is_told_once_and_the_next_one_wakes_what_waits() {
    let mut shop = Business::new();
    shop.receive("install");
    let version = shop.install().token.as_ref().unwrap().version.clone();
    let plan = token_invalid(shop.install(), &version, now()).unwrap();
    let refused = plan.install.clone().unwrap();
    assert_eq!(refused.status, Status::TokenInvalid);
    assert_eq!(plan.outbox[0].payload["change"], "token_invalid");
    assert_eq!(plan.outbox[0].payload["enabled"], serde_json::json!([]));
    assert_eq!(token_invalid(&refused, &version, now()), None);
    assert_eq!(token_invalid(shop.install(), "another", now()), None);

    let plan = decide(
        Some(&refused),
        &event("install_without_token"),
        &settings(),
        now(),
    );
    assert_eq!(plan.install.as_ref().unwrap().status, Status::TokenInvalid);
    assert!(!plan.wake);
    let plan = decide(Some(&refused), &event("update_removes_pixel"), &settings(), now());
    assert!(plan.wake);
    assert_eq!(plan.install.unwrap().status, Status::Active);
}

#[test]
fn an_exchange_that_was_overtaken_is_worth_nothing() {
    let mut shop = Business::new();
    shop.receive("install");
    let source = shop.install().token.as_ref().unwrap().source.clone();
    let plan = exchanged(shop.install(), Some(&source), "v2", &settings(), now()).unwrap();
    assert!(plan.outbox.is_empty() && !plan.wake, "nobody has to be told");
    let done = plan.install.unwrap();
    assert_eq!(done.token.as_ref().unwrap().version, "v2");
    // The redelivered webhook does not bring the old token back.
    let plan = decide(Some(&done), &event("install"), &settings(), now());
    assert_eq!((plan.outcome, plan.install), (Outcome::Repeated, None));
    shop.receive("update_removes_pixel");
    assert_eq!(
        exchanged(shop.install(), Some(&source), "v2", &settings(), now()),
        None
    );
    shop.receive("uninstall");
    assert_eq!(exchanged(shop.install(), None, "v2", &settings(), now()), None);
}

#[test]
fn a_token_that_is_refused_again_is_told_again() {
    let mut shop = Business::new();
    shop.receive("install");
    let version = shop.install().token.as_ref().unwrap().version.clone();
    let first = token_invalid(shop.install(), &version, now()).unwrap();
    let valid = token_valid(first.install.as_ref().unwrap(), now()).unwrap();
    let second = token_invalid(valid.install.as_ref().unwrap(), &version, now()).unwrap();
    let keys = [&first, &valid, &second].map(|plan| plan.outbox[0].event_key.clone());
    assert!(keys.is_sorted() && keys[0] != keys[2], "{keys:?}");
}

#[test]
fn an_exchange_that_mends_a_refused_token_is_told_and_wakes_what_waits() {
    let mut shop = Business::new();
    shop.receive("install");
    let token = shop.install().token.clone().unwrap();
    let refused = token_invalid(shop.install(), &token.version, now()).unwrap();
    let refused = refused.install.unwrap();
    let plan = exchanged(&refused, Some(&token.source), "v2", &settings(), now()).unwrap();
    assert!(plan.wake);
    assert_eq!(kinds(&plan), [Kind::FbeNotify]);
    assert_eq!(plan.outbox[0].payload["change"], "updated");
    assert_eq!(plan.install.unwrap().status, Status::Active);
}

#[test]
fn an_exchange_that_was_given_up_is_planned_again() {
    let mut shop = Business::new();
    shop.receive("install");
    let week = jiff::SignedDuration::from_hours(7 * 24);
    let item = exchange_again(shop.install(), false, now()).unwrap();
    assert_eq!(item.payload["on_behalf_of"], false);
    assert_eq!(
        exchange_again(shop.install(), true, now()).unwrap().event_key,
        item.event_key,
        "once a week"
    );
    let next = exchange_again(shop.install(), false, now() + week).unwrap();
    assert_ne!(next.event_key, item.event_key);
    let source = shop.install().token.as_ref().unwrap().source.clone();
    let done = exchanged(shop.install(), Some(&source), "v2", &settings(), now()).unwrap();
    let done = done.install.unwrap();
    assert_eq!(exchange_again(&done, true, now()), None);
    assert_eq!(exchange_on_demand(&done, now()), None);

    let mut system = Business::new();
    system.receive("install_instagram");
    assert_eq!(exchange_again(system.install(), true, now()), None);

    // Without a token it takes the partner's to ask with; and then there is a catalog to push.
    let mut nothing = Business::new();
    nothing.receive("install_without_token");
    assert_eq!(exchange_again(nothing.install(), false, now()), None);
    let item = exchange_again(nothing.install(), true, now()).unwrap();
    assert_eq!(item.payload["on_behalf_of"], true);
    let plan = exchanged(nothing.install(), None, "v1", &settings(), now()).unwrap();
    assert_eq!(kinds(&plan), [Kind::FbeCatalogPush]);
}
