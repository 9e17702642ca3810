//! FBE payloads as they arrive → events → plans, and the whole life of a business.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;
use secrecy::SecretString;
use shared::fbe::decide::{decide, removal};
use shared::fbe::event::InstallEvent;
use shared::fbe::install::{Change, Install, Status};
use shared::fbe::payload::{Parsed, parse};
use shared::fbe::plan::{Outcome, Plan, SecretChange};
use shared::fbe::secret::TokenType;
use shared::fbe::settings::Configured;
use shared::outbox::{Kind, Reason};
use shared::webhook::{Received, signature};

use crate::fbe_view::view;

pub(crate) fn now() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().unwrap()
}

/// A feed for catalogs, and no partner's platform.
pub(crate) const CONFIGURED: Configured = Configured {
    catalog_feed: true,
    partner_webhook: false,
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../events/payloads/fbe")
}

fn payload(case: &str) -> Vec<u8> {
    std::fs::read(folder().join(format!("{case}.json"))).unwrap()
}

fn parsed(body: impl Into<bytes::Bytes>) -> Parsed {
    let (secret, body) = (SecretString::from("app_secret"), body.into());
    let header = signature::sign(&secret, &body);
    let verified = Received::new(body, Some(&header)).verify([&secret]).unwrap();
    parse(&verified, now())
}

pub(crate) fn event(case: &str) -> InstallEvent {
    parsed(payload(case)).changes.remove(0)
}

/// Decides one event after another, as the store would.
pub(crate) struct Business {
    install: Option<Install>,
}

impl Business {
    pub(crate) fn new() -> Self {
        Self { install: None }
    }

    pub(crate) fn receive(&mut self, case: &str) -> Plan {
        let plan = decide(self.install.as_ref(), &event(case), CONFIGURED, now());
        if let Some(next) = &plan.install {
            self.install = Some(next.clone());
        }
        plan
    }

    pub(crate) fn install(&self) -> &Install {
        self.install.as_ref().unwrap()
    }
}

pub(crate) fn kinds(plan: &Plan) -> Vec<Kind> {
    plan.outbox.iter().map(|item| item.kind).collect()
}

const AFTER_INSTALL: [Kind; 4] = [
    Kind::FbeExchangeToken,
    Kind::FbeReconcile,
    Kind::FbeNotify,
    Kind::FbeCatalogPush,
];

#[test]
fn every_payload_becomes_the_recorded_events_and_plans() {
    let mut cases: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|file| {
            file.unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    cases.sort();
    assert!(cases.len() >= 26, "{cases:?}");
    for case in cases {
        let parsed = parsed(payload(&case));
        let shown = view(&parsed, |event| decide(None, event, CONFIGURED, now()));
        assert!(
            !shown.to_string().contains("EAAB"),
            "{case} shows a token: {shown}"
        );
        insta::with_settings!({ omit_expression => true }, {
            insta::assert_yaml_snapshot!(case, shown);
        });
    }
}

#[test]
fn a_whole_life() {
    let mut shop = Business::new();
    let plan = shop.receive("install");
    assert_eq!(plan.outcome, Outcome::Installed);
    assert_eq!(kinds(&plan), AFTER_INSTALL);
    assert!(matches!(plan.secret, SecretChange::Put(_)));
    assert_eq!(
        shop.install().gating().enabled,
        ["ads", "catalog", "fb_shop", "pixel"]
    );
    assert_eq!(shop.install().features[2].additional.shop_status, ["active"]);

    let plan = shop.receive("update_removes_pixel");
    assert_eq!(plan.outcome, Outcome::Updated);
    assert_eq!(kinds(&plan), AFTER_INSTALL[..3], "the catalog is the same");
    assert_eq!(shop.install().assets.pixel_id, None);
    assert_eq!(shop.install().gating().enabled, ["ads", "catalog", "fb_shop"]);
    let notice = &plan.outbox[2].payload;
    assert_eq!(notice["change"], "updated");
    assert_eq!(
        notice["enabled"],
        serde_json::json!(["ads", "catalog", "fb_shop"])
    );
    let off = serde_json::json!([{"feature": "pixel", "missing": "pixel_id"}]);
    assert_eq!(notice["disabled"], off);

    let plan = shop.receive("update_older");
    assert_eq!(plan.outcome, Outcome::Stale);
    assert!(plan.outbox.is_empty() && plan.secret == SecretChange::None);
    assert_eq!(shop.install().gating().enabled, ["ads", "catalog", "fb_shop"]);

    let plan = shop.receive("update_changes_catalog");
    assert_eq!(kinds(&plan), AFTER_INSTALL);
    assert_eq!(plan.outbox[3].payload["catalog_id"], "726635365299999");
    assert_eq!(shop.install().gating().enabled, ["catalog"]);
    let disabled = shop.install().gating().disabled;
    assert_eq!(disabled[0].missing, "commerce_merchant_settings_id");

    let plan = shop.receive("uninstall");
    assert_eq!(plan.outcome, Outcome::Uninstalled);
    assert_eq!(plan.secret, SecretChange::ScheduleDelete);
    assert_eq!(kinds(&plan), [Kind::FbeReconcile, Kind::FbeNotify]);
    assert!(
        plan.outbox[0].not_before > Some(now()),
        "a look back, not at once"
    );
    assert_eq!(plan.outbox[1].payload["disabled"][0]["missing"], "installation");
    assert_eq!(shop.install().status, Status::Uninstalled);
    assert_eq!(shop.install().token, None);
    assert!(shop.install().features.is_empty() && shop.install().assets.catalog_id.is_none());

    let plan = shop.receive("uninstall");
    assert_eq!((plan.outcome, plan.install), (Outcome::Repeated, None));
    assert_eq!(
        plan.secret,
        SecretChange::ScheduleDelete,
        "a crash may have come between"
    );

    let plan = shop.receive("reinstall");
    assert_eq!(plan.outcome, Outcome::Installed);
    assert!(matches!(plan.secret, SecretChange::RestoreAndPut(_)));
    assert_eq!(kinds(&plan), AFTER_INSTALL);

    let plan = shop.receive("uninstall");
    assert_eq!(
        (plan.outcome, plan.secret),
        (Outcome::Repeated, SecretChange::None)
    );
    let changes: Vec<Change> = shop.install().history.iter().map(|entry| entry.change).collect();
    assert_eq!(
        changes,
        [
            Change::Installed,
            Change::Updated,
            Change::Updated,
            Change::Uninstalled,
            Change::Installed
        ]
    );
}

#[test]
fn a_removal_by_hand_ends_an_install_whatever_the_clocks_say() {
    for at in [now(), Timestamp::UNIX_EPOCH] {
        let mut shop = Business::new();
        shop.receive("install");
        let removal = removal(shop.install(), at);
        let plan = decide(Some(shop.install()), &removal, CONFIGURED, now());
        assert_eq!(
            (plan.outcome, &plan.secret),
            (Outcome::Uninstalled, &SecretChange::ScheduleDelete)
        );
        assert_eq!(kinds(&plan), [Kind::FbeReconcile, Kind::FbeNotify]);
    }
}

#[test]
fn a_redelivery_has_no_second_effect() {
    let mut shop = Business::new();
    let first = shop.receive("install");
    let again = shop.receive("install");
    assert_eq!((again.outcome, again.install), (Outcome::Repeated, None));
    assert!(again.outbox.is_empty() && again.secret == SecretChange::None);
    // After a crash before the commit, the same plan comes out: same keys, same version of the secret.
    let replayed = decide(None, &event("install"), CONFIGURED, now());
    assert_eq!(replayed, first);
}

#[test]
fn event_keys_are_unique_and_sort_in_the_order_of_events() {
    let mut shop = Business::new();
    let mut keys = Vec::new();
    let cases = [
        "install",
        "update_removes_pixel",
        "update_changes_catalog",
        "uninstall",
        "reinstall",
    ];
    for case in cases {
        keys.extend(shop.receive(case).outbox.into_iter().map(|item| item.event_key));
    }
    let sorted: BTreeSet<_> = keys.iter().cloned().collect();
    assert_eq!(sorted.into_iter().collect::<Vec<_>>(), keys);
}

#[test]
fn a_system_users_token_is_not_exchanged() {
    let mut shop = Business::new();
    let plan = shop.receive("install_instagram");
    assert_eq!(kinds(&plan), AFTER_INSTALL[1..]);
    let token = shop.install().token.as_ref().unwrap();
    assert_eq!(token.token_type, TokenType::SystemUser);
}

#[test]
fn an_install_without_a_token_keeps_the_one_there_is() {
    let mut shop = Business::new();
    shop.receive("install");
    let token = shop.install().token.clone();
    let plan = shop.receive("install_without_token");
    assert_eq!(plan.secret, SecretChange::None);
    assert_eq!(shop.install().token, token);
    assert_eq!(shop.install().status, Status::Active);
    assert_eq!(kinds(&plan), [Kind::FbeReconcile], "nothing else is different");

    // Where there is none, the partner may ask on behalf of the business.
    let mut stranger = Business::new();
    let plan = stranger.receive("install_without_token");
    assert_eq!(plan.outbox[0].kind, Kind::FbeExchangeToken);
    assert_eq!(plan.outbox[0].payload["on_behalf_of"], true);
}

#[test]
fn removals_of_others_change_nothing() {
    let mut shop = Business::new();
    shop.receive("install");
    let before = shop.install().clone();
    let plan = shop.receive("uninstall_foreign_business_manager");
    assert_eq!(plan.outcome, Outcome::ForeignBusinessManager);
    assert!(plan.outbox.is_empty() && plan.secret == SecretChange::None);
    let after = shop.install();
    assert_eq!((after.status, after.grant()), (before.status, before.grant()));
    assert_eq!(after.token, before.token);

    let mut nobody = Business::new();
    let plan = nobody.receive("uninstall_unknown_business");
    assert_eq!(plan.outcome, Outcome::UnknownUninstall);
    // Its install may have written the secret and died before the commit.
    assert!(plan.outbox.is_empty() && plan.secret == SecretChange::ScheduleDelete);
    assert!(nobody.install().is_trace() && !nobody.install().is_installed());
}

#[test]
fn a_removal_that_overtakes_its_install_still_counts() {
    let mut shop = Business::new();
    shop.receive("uninstall");
    let plan = shop.receive("install");
    assert_eq!(plan.outcome, Outcome::Stale);
    assert_eq!(plan.secret, SecretChange::ScheduleDelete);
    assert!(plan.outbox.is_empty() && !shop.install().is_installed());
    let again = shop.receive("install");
    assert_eq!(
        (again.outcome, again.secret),
        (Outcome::Repeated, SecretChange::ScheduleDelete)
    );
    assert_eq!(shop.receive("reinstall").outcome, Outcome::Installed);
}

#[test]
fn integration_events_are_recorded_once() {
    let mut shop = Business::new();
    shop.receive("install");
    let integration = parsed(payload("business_integration_install"))
        .integrations
        .remove(0);
    let mut next = shop.install().clone();
    next.take_integration(&integration);
    assert_eq!(
        next.integrations[0].configuration_id.as_deref(),
        Some("1234567890")
    );
    let recorded = next.clone();
    next.take_integration(&integration);
    assert_eq!(next, recorded);
}

#[test]
fn one_body_with_two_businesses_and_broken_items_loses_none() {
    let parsed = parsed(payload("two_businesses"));
    let ids: Vec<_> = parsed
        .changes
        .iter()
        .map(|event| event.business_id.as_str())
        .collect();
    assert_eq!(ids, ["shop-a", "shop-b"]);
    let reasons: Vec<_> = parsed.quarantined.iter().map(|kept| kept.reason).collect();
    assert_eq!(
        reasons,
        [Reason::UnknownField, Reason::NoBusinessId, Reason::NoValue]
    );
}
