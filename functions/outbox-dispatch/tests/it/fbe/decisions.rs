//! What is decided about an install after it was stored: about its token, and about what Graph says of it.

use jiff::{SignedDuration, Timestamp};
use outbox_dispatch::fbe::compare::{AtGraph, Reconciled, Verdict, compare};
use outbox_dispatch::fbe::token::{
    Obtained, exchange_due, exchanged, owner_lost, token_invalid, token_valid,
};
use secrecy::SecretString;
use shared::fbe::decide::decide;
use shared::fbe::drift::Cause;
use shared::fbe::event::InstallEvent;
use shared::fbe::install::{Install, Status};
use shared::fbe::payload::parse;
use shared::fbe::plan::{Outcome, Plan, SecretChange, exchange_on_demand};
use shared::fbe::read::{self, Granted};
use shared::fbe::settings::Configured;
use shared::outbox::Kind;
use shared::webhook::{Received, signature};

use super::house::payload;

const CONFIGURED: Configured = Configured {
    catalog_feed: true,
    partner_webhook: false,
};

fn now() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().unwrap()
}

fn event(case: &str) -> InstallEvent {
    let (secret, body) = (SecretString::from("app_secret"), payload(case));
    let header = signature::sign(&secret, &body);
    let verified = Received::new(body, Some(&header)).verify([&secret]).unwrap();
    parse(&verified, now()).changes.remove(0)
}

/// Decides one event after another, as the store would.
struct Business {
    install: Option<Install>,
}

impl Business {
    fn new() -> Self {
        Self { install: None }
    }

    fn receive(&mut self, case: &str) -> Plan {
        self.take(&event(case))
    }

    fn take(&mut self, event: &InstallEvent) -> Plan {
        let plan = decide(self.install.as_ref(), event, CONFIGURED, now());
        if let Some(next) = &plan.install {
            self.install = Some(next.clone());
        }
        plan
    }

    fn install(&self) -> &Install {
        self.install.as_ref().unwrap()
    }
}

fn kinds(plan: &Plan) -> Vec<Kind> {
    plan.outbox.iter().map(|item| item.kind).collect()
}

fn obtained<'a>(source: Option<&'a str>, version: &'a str) -> Obtained<'a> {
    Obtained {
        source,
        version,
        expires_at: None,
    }
}

fn compared(stored: &Install, granted: Option<&Granted>) -> Reconciled {
    let graph = AtGraph {
        granted,
        switched_off: None,
    };
    compare(stored, graph, CONFIGURED, now())
}

#[test]
fn a_refused_token_is_told_once_and_the_next_one_wakes_what_waits() {
    let mut shop = Business::new();
    shop.receive("install");
    let version = shop.install().token.as_ref().unwrap().version.clone();
    let plan = token_invalid(shop.install(), &version, CONFIGURED, now()).unwrap();
    let refused = plan.install.clone().unwrap();
    assert_eq!(refused.status, Status::TokenInvalid);
    assert_eq!(plan.outbox[0].payload["change"], "token_invalid");
    assert_eq!(plan.outbox[0].payload["enabled"], serde_json::json!([]));
    assert_eq!(token_invalid(&refused, &version, CONFIGURED, now()), None);
    assert_eq!(token_invalid(shop.install(), "another", CONFIGURED, now()), None);

    let plan = decide(Some(&refused), &event("install_without_token"), CONFIGURED, now());
    assert_eq!(plan.install.as_ref().unwrap().status, Status::TokenInvalid);
    assert!(!plan.wake);
    let plan = decide(Some(&refused), &event("update_removes_pixel"), CONFIGURED, now());
    assert!(plan.wake);
    assert_eq!(plan.install.unwrap().status, Status::Active);
}

#[test]
fn an_exchange_that_was_overtaken_is_worth_nothing() {
    let mut shop = Business::new();
    shop.receive("install");
    let source = shop.install().token.as_ref().unwrap().source.clone();
    let plan = exchanged(shop.install(), &obtained(Some(&source), "v2"), CONFIGURED, now()).unwrap();
    assert!(plan.outbox.is_empty() && !plan.wake, "nobody has to be told");
    let done = plan.install.unwrap();
    assert_eq!(done.token.as_ref().unwrap().version, "v2");
    // The redelivered webhook does not bring the old token back.
    let plan = decide(Some(&done), &event("install"), CONFIGURED, now());
    assert_eq!((plan.outcome, plan.install), (Outcome::Repeated, None));
    shop.receive("update_removes_pixel");
    assert_eq!(
        exchanged(shop.install(), &obtained(Some(&source), "v2"), CONFIGURED, now()),
        None
    );
    shop.receive("uninstall");
    assert_eq!(
        exchanged(shop.install(), &obtained(None, "v2"), CONFIGURED, now()),
        None
    );
}

#[test]
fn a_token_that_is_refused_again_is_told_again() {
    let mut shop = Business::new();
    shop.receive("install");
    let version = shop.install().token.as_ref().unwrap().version.clone();
    let first = token_invalid(shop.install(), &version, CONFIGURED, now()).unwrap();
    let valid = token_valid(first.install.as_ref().unwrap(), CONFIGURED, now()).unwrap();
    let second = token_invalid(valid.install.as_ref().unwrap(), &version, CONFIGURED, now()).unwrap();
    let keys = [&first, &valid, &second].map(|plan| plan.outbox[0].event_key.clone());
    assert!(keys.is_sorted() && keys[0] != keys[2], "{keys:?}");
}

#[test]
fn an_exchange_that_mends_a_refused_token_is_told_and_wakes_what_waits() {
    let mut shop = Business::new();
    shop.receive("install");
    let token = shop.install().token.clone().unwrap();
    let refused = token_invalid(shop.install(), &token.version, CONFIGURED, now()).unwrap();
    let refused = refused.install.unwrap();
    let plan = exchanged(&refused, &obtained(Some(&token.source), "v2"), CONFIGURED, now()).unwrap();
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
    let item = exchange_due(shop.install(), false, now()).unwrap();
    assert_eq!(item.payload["on_behalf_of"], false);
    assert_eq!(
        exchange_due(shop.install(), true, now()).unwrap().event_key,
        item.event_key,
        "once a week"
    );
    let next = exchange_due(shop.install(), false, now() + week).unwrap();
    assert_ne!(next.event_key, item.event_key);
    let source = shop.install().token.as_ref().unwrap().source.clone();
    let done = exchanged(shop.install(), &obtained(Some(&source), "v2"), CONFIGURED, now()).unwrap();
    let done = done.install.unwrap();
    assert_eq!(exchange_due(&done, true, now()), None);
    let asked = exchange_on_demand(&done, now()).unwrap();
    assert_eq!(
        (&asked.payload["again"], &asked.payload["on_behalf_of"]),
        (&true.into(), &false.into())
    );

    let mut system = Business::new();
    system.receive("install_instagram");
    assert_eq!(exchange_due(system.install(), true, now()), None);

    // Without a token it takes the partner's to ask with; and then there is a catalog to push.
    let mut nothing = Business::new();
    nothing.receive("install_without_token");
    assert_eq!(exchange_due(nothing.install(), false, now()), None);
    let item = exchange_due(nothing.install(), true, now()).unwrap();
    assert_eq!(item.payload["on_behalf_of"], true);
    let plan = exchanged(nothing.install(), &obtained(None, "v1"), CONFIGURED, now()).unwrap();
    assert_eq!(kinds(&plan), [Kind::FbeCatalogPush]);
}

fn answer(case: &str) -> Option<Granted> {
    let body: serde_json::Value = serde_json::from_slice(&payload(case)).unwrap();
    read::installs(body["data"].as_array().unwrap())
}

#[test]
fn graphs_answer_wins_and_the_drift_is_counted() {
    let mut shop = Business::new();
    shop.receive("install");
    let graph = answer("installs_answer").unwrap();
    let found = compared(shop.install(), Some(&graph));
    assert_eq!(found.verdict, Verdict::Drifted);
    let fields: Vec<_> = found.drift.iter().map(|drift| drift.field.as_str()).collect();
    assert_eq!(
        fields,
        ["ad_account_id", "instagram_profiles", "profiles", "feature:ads"]
    );
    assert!(found.drift.iter().all(|drift| drift.cause == Cause::Unannounced));
    let plan = found.plan.unwrap();
    assert_eq!(kinds(&plan), [Kind::FbeNotify]);
    let next = plan.install.unwrap();
    assert_eq!((next.drift_count, next.assets.ad_account_id.as_ref()), (4, None));
    assert_eq!(next.gating().enabled, ["catalog", "fb_shop", "pixel"]);

    let again = compared(&next, Some(&graph));
    assert_eq!((again.verdict, again.drift.len()), (Verdict::Confirmed, 0));
    assert!(again.plan.as_ref().unwrap().outbox.is_empty());

    // Graph comes round to what the webhook had said.
    let caught_up = compared(&next, Some(&shop.install().grant()));
    assert_eq!(caught_up.drift.len(), 4);
    assert!(caught_up.drift.iter().all(|drift| drift.cause == Cause::CaughtUp));
    let mut third = shop.install().grant();
    third.assets.ad_account_id = Some("3".to_owned());
    let conflict = compared(&next, Some(&third));
    assert_eq!(conflict.drift[0].cause, Cause::Conflict);
}

#[test]
fn an_empty_answer_uninstalls_only_what_a_webhook_removed() {
    let mut shop = Business::new();
    shop.receive("install");
    let reported = compared(shop.install(), None);
    assert_eq!(reported.verdict, Verdict::UnknownAtGraph);
    let plan = reported.plan.unwrap();
    assert!(plan.outbox.is_empty() && plan.secret == SecretChange::None);
    let kept = plan.install.unwrap();
    assert_eq!(
        (kept.status, kept.unknown_at_graph_since),
        (Status::Active, Some(now()))
    );

    // A removal that named another Business Manager is believed once Graph agrees.
    shop.receive("uninstall_foreign_business_manager");
    let removed = compared(shop.install(), None);
    assert_eq!(removed.verdict, Verdict::Uninstalled);
    let plan = removed.plan.unwrap();
    assert_eq!(plan.secret, SecretChange::ScheduleDelete);
    assert_eq!(kinds(&plan), [Kind::FbeNotify]);
    assert!(!plan.install.unwrap().is_installed());
}

#[test]
fn a_token_that_is_refused_or_ends_soon_is_exchanged_anew_once_a_day() {
    let mut shop = Business::new();
    shop.receive("install");
    let source = shop.install().token.as_ref().unwrap().source.clone();
    let ends = |days: i64| Obtained {
        expires_at: Some(now() + SignedDuration::from_hours(24 * days)),
        ..obtained(Some(&source), "v2")
    };
    let stored = |days| {
        exchanged(shop.install(), &ends(days), CONFIGURED, now())
            .unwrap()
            .install
            .unwrap()
    };
    assert_eq!(exchange_due(&stored(11), false, now()), None);
    let due = exchange_due(&stored(10), false, now()).unwrap();
    assert_eq!(
        (&due.payload["again"], &due.payload["on_behalf_of"]),
        (&true.into(), &false.into())
    );
    let hour = SignedDuration::from_hours(1);
    assert_eq!(
        exchange_due(&stored(10), false, now() + hour).unwrap().event_key,
        due.event_key
    );
    let tomorrow = exchange_due(&stored(10), false, now() + hour * 24).unwrap();
    assert_ne!(tomorrow.event_key, due.event_key);

    let refused = token_invalid(&stored(60), "v2", CONFIGURED, now()).unwrap();
    assert_eq!(kinds(&refused), [Kind::FbeNotify, Kind::FbeExchangeToken]);
    // A person's token that is refused cannot be exchanged.
    let version = shop.install().token.as_ref().unwrap().version.clone();
    let refused = token_invalid(shop.install(), &version, CONFIGURED, now()).unwrap();
    assert_eq!(kinds(&refused), [Kind::FbeNotify]);
}

#[test]
fn what_graph_does_not_know_under_its_owner_any_more_goes_to_who_claims_it() {
    let mut shop = Business::new();
    shop.receive("install");
    assert_eq!(shop.receive("install_other_manager").outcome, Outcome::Claimed);
    let owner = shop.install().clone();

    // As long as Graph knows it under its owner nothing changes.
    let same = compared(&owner, Some(&owner.grant()));
    assert_eq!(same.verdict, Verdict::Confirmed);
    assert!(same.plan.unwrap().outbox.is_empty());

    let claim = event("install_other_manager");
    let manager = claim.business_manager_id.clone();
    let mut moved = owner.grant();
    moved.assets.business_manager_id.clone_from(&manager);
    for graph in [None, Some(&moved)] {
        let found = compared(&owner, graph);
        assert_eq!(found.verdict, Verdict::OwnerChanged);
        let plan = found.plan.unwrap();
        let next = plan.install.as_ref().unwrap();
        assert_eq!(
            (next.assets.business_manager_id.clone(), next.is_claimed()),
            (manager.clone(), false)
        );
        assert_eq!(next.token.as_ref().unwrap().business_manager_id, manager);
        assert_eq!(
            kinds(&plan)[..3],
            [Kind::FbeExchangeToken, Kind::FbeReconcile, Kind::FbeNotify]
        );
        // The owner that is not known any more may install again, and claims the business then.
        let mut again = event("install");
        again.stamp.at = next.removals[0].at + SignedDuration::from_secs(1);
        let plan = decide(Some(next), &again, CONFIGURED, now());
        assert_eq!(plan.outcome, Outcome::Claimed);
    }
    let plan = owner_lost(&owner, CONFIGURED, now()).unwrap();
    assert_eq!(plan.install.unwrap().assets.business_manager_id, manager);
    shop.receive("uninstall");
    assert_eq!(
        owner_lost(shop.install(), CONFIGURED, now()),
        None,
        "nobody claims it"
    );
}

#[test]
fn a_feature_that_is_off_at_meta_is_off_and_the_business_is_told_why() {
    let mut shop = Business::new();
    shop.receive("install");
    let install = shop.install().clone();
    let key = |feature: &str| {
        install
            .features
            .iter()
            .find(|one| one.feature_type == feature)
            .unwrap()
            .key()
    };
    let graph = |off: &[&str]| AtGraph {
        granted: None,
        switched_off: Some(off.iter().map(|feature| key(feature)).collect()),
    };
    let granted = install.grant();
    let off = AtGraph {
        granted: Some(&granted),
        ..graph(&["pixel"])
    };
    let found = compare(&install, off, CONFIGURED, now());
    assert_eq!((found.verdict, found.drift.len()), (Verdict::Confirmed, 0));
    let plan = found.plan.unwrap();
    let missing = serde_json::json!([{"feature": "pixel", "missing": "switched_on_at_meta"}]);
    assert_eq!(plan.outbox[0].payload["disabled"], missing);
    let next = plan.install.unwrap();
    assert_eq!(next.history.last().unwrap().fields, ["feature:pixel"]);

    // What could not be read stays as it was known; what is on again is told again.
    let silent = compared(&next, Some(&granted)).plan.unwrap();
    assert!(silent.outbox.is_empty());
    assert_eq!(silent.install.unwrap().switched_off, next.switched_off);
    let on = AtGraph {
        granted: Some(&granted),
        ..graph(&[])
    };
    let plan = compare(&next, on, CONFIGURED, now()).plan.unwrap();
    assert_eq!(plan.outbox[0].payload["disabled"], serde_json::json!([]));
}
