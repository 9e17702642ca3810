//! Webhooks of one business in any order, any number of times, and with anything in any place.

use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::Value;
use shared::fbe::asset::Assets;
use shared::fbe::decide::decide;
use shared::fbe::event::{InstallChange, InstallEvent, Stamp};
use shared::fbe::features::Feature;
use shared::fbe::install::{Install, Status};
use shared::fbe::payload::parse;
use shared::fbe::read::Granted;
use shared::fbe::secret::{Token, TokenType};
use shared::fbe::settings::Configured;
use shared::webhook::{Received, signature};

fn now() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().unwrap()
}

const CONFIGURED: Configured = Configured {
    catalog_feed: false,
    partner_webhook: false,
};

#[derive(Debug, Clone)]
struct Webhook {
    second: i64,
    removed: bool,
    token: Option<u8>,
    pixel: Option<u8>,
    page: u8,
    manager: Option<u8>,
}

impl Webhook {
    fn event(&self) -> InstallEvent {
        let business_manager_id = self.manager.map(|manager| format!("bm{manager}"));
        let assets = Assets {
            business_manager_id: business_manager_id.clone(),
            pixel_id: self.pixel.map(|pixel| format!("pixel{pixel}")),
            pages: BTreeSet::from([format!("page{}", self.page)]),
            ..Assets::default()
        };
        let features = ["page_cta", "pixel"].map(|feature_type| Feature {
            feature_type: feature_type.to_owned(),
            ..Feature::default()
        });
        let granted = Granted {
            assets,
            features: features.into(),
            onsite_eligible: None,
        };
        InstallEvent {
            business_id: "shop".to_owned(),
            business_manager_id,
            stamp: Stamp {
                at: Timestamp::from_second(1_795_000_000 + self.second).unwrap(),
                digest: format!("{self:?}"),
            },
            uid: None,
            flow: None,
            change: if self.removed {
                InstallChange::Uninstalled
            } else {
                InstallChange::Granted {
                    granted: Box::new(granted),
                    token: self.token.map(|token| Token {
                        value: format!("EAAB_token_{token}").into(),
                        token_type: TokenType::User,
                    }),
                }
            },
        }
    }
}

fn webhook(managers: impl Strategy<Value = Option<u8>>) -> impl Strategy<Value = Webhook> {
    let parts = (
        0..6_i64,
        prop::bool::weighted(0.3),
        prop::option::of(0..3_u8),
        prop::option::of(0..2_u8),
        0..2_u8,
        managers,
    );
    parts.prop_map(|(second, removed, token, pixel, page, manager)| Webhook {
        second,
        removed,
        token,
        pixel,
        page,
        manager,
    })
}

/// What must not depend on the order of arrival.
fn end_state<'a>(webhooks: impl IntoIterator<Item = &'a Webhook>) -> Install {
    let mut install: Option<Install> = None;
    for webhook in webhooks {
        let plan = decide(install.as_ref(), &webhook.event(), CONFIGURED, now());
        let shown = format!("{plan:?} {}", serde_json::to_string(&plan.install).unwrap());
        assert!(!shown.contains("EAAB"), "{shown}");
        install = plan.install.or(install);
    }
    let mut install = install.unwrap();
    let item: serde_dynamo::Item = serde_dynamo::to_item(&install).unwrap();
    assert_eq!(serde_dynamo::from_item::<_, Install>(item).unwrap(), install);
    install.version = 0;
    install.history.clear();
    install.installed_at = None;
    // The same token may have been written first by one webhook or by another.
    let tokens = install
        .managers
        .iter_mut()
        .filter_map(|manager| manager.token.as_mut());
    for token in tokens.chain(&mut install.token) {
        token.version.clear();
    }
    install
}

/// A list of webhooks, and the same in another order with some of them repeated.
fn deliveries(
    managers: impl Strategy<Value = Option<u8>>,
) -> impl Strategy<Value = (Vec<Webhook>, Vec<Webhook>)> {
    prop::collection::vec(webhook(managers), 1..7).prop_flat_map(|webhooks| {
        let repeated = prop::collection::vec(prop::sample::select(webhooks.clone()), 0..4);
        let all = webhooks.clone();
        let arrived = repeated.prop_flat_map(move |repeated| {
            let mut all = all.clone();
            all.extend(repeated);
            Just(all).prop_shuffle()
        });
        (Just(webhooks), arrived)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_repetition_ends_in_the_state_of_the_newest(
        (mut webhooks, arrived) in deliveries(prop::option::of(Just(1)))
    ) {
        webhooks.sort_by_key(|webhook| webhook.event().stamp);
        let expected = end_state(&webhooks);
        prop_assert_eq!(&end_state(&arrived), &expected);

        // And that is the newest grant, unless a removal is newer.
        let newest = webhooks.iter().rfind(|webhook| !webhook.removed);
        let removed = webhooks.iter().rfind(|webhook| webhook.removed).map(|webhook| webhook.second);
        match newest {
            Some(newest) if removed.is_none_or(|second| second <= newest.second) => {
                prop_assert_eq!(expected.status, Status::Active);
                prop_assert_eq!(expected.assets.pixel_id, newest.pixel.map(|pixel| format!("pixel{pixel}")));
                let token = webhooks.iter().rfind(|webhook| {
                    webhook.token.is_some() && !webhook.removed && removed.is_none_or(|second| second <= webhook.second)
                });
                let at = token.map(|webhook| webhook.event().stamp.at);
                prop_assert_eq!(expected.token.map(|token| token.at), at);
            }
            _ => {
                prop_assert_eq!(expected.status, Status::Uninstalled);
                prop_assert_eq!(expected.token, None);
            }
        }
    }

    #[test]
    fn several_business_managers_do_not_upset_the_order(
        (mut webhooks, arrived) in deliveries(prop::option::of(0..3_u8))
    ) {
        webhooks.sort_by_key(|webhook| webhook.event().stamp);
        let (expected, found) = (end_state(&webhooks), end_state(&arrived));
        prop_assert_eq!(found.status, expected.status);
        prop_assert_eq!(&found.removals, &expected.removals);
        if expected.is_installed() {
            prop_assert_eq!(&found, &expected);
        }
    }

    #[test]
    fn the_business_belongs_to_the_manager_that_installed_first_and_has_not_left(
        (mut webhooks, arrived) in deliveries((0..2_u8).prop_map(Some))
    ) {
        webhooks.sort_by_key(|webhook| webhook.event().stamp);
        let found = end_state(&arrived);
        // Who is there, and since when: its first grant that no removal of its own is later than.
        let mut since: Vec<(u8, i64)> = Vec::new();
        for id in 0..2 {
            let own = |removed: bool| {
                let all = webhooks.iter().filter(move |webhook| webhook.manager == Some(id) && webhook.removed == removed);
                all.map(|webhook| webhook.second)
            };
            let left = own(true).max();
            let first = own(false).filter(|at| left.is_none_or(|left| *at >= left)).min();
            since.extend(first.map(|at| (id, at)));
        }
        since.sort_by_key(|(id, at)| (*at, *id));
        let managers: Vec<Option<String>> = since.iter().map(|(id, _)| Some(format!("bm{id}"))).collect();
        let kept: Vec<Option<String>> = found.managers.iter().map(|one| one.business_manager_id.clone()).collect();
        prop_assert_eq!(&kept, &managers);
        prop_assert_eq!(found.assets.business_manager_id.is_some(), found.granted.is_some());
        if let Some(owner) = managers.first() {
            prop_assert_eq!(&found.assets.business_manager_id, owner);
            let newest = webhooks.iter().rfind(|webhook| !webhook.removed && webhook.manager.map(|id| format!("bm{id}")) == *owner).unwrap();
            prop_assert_eq!(&found.assets.pixel_id, &newest.pixel.map(|pixel| format!("pixel{pixel}")));
            let token = found.token.as_ref().and_then(|token| token.business_manager_id.clone());
            prop_assert!(token.is_none() || token == *owner);
        }
    }

    #[test]
    fn a_payload_with_anything_in_any_place_is_answered(
        junk in junk(),
        place in prop::sample::select(vec![
            "/entry", "/entry/0", "/entry/0/time", "/entry/0/uid", "/entry/0/changes", "/entry/0/changes/0",
            "/entry/0/changes/0/field", "/entry/0/changes/0/value", "/entry/0/changes/0/value/flow",
            "/entry/0/changes/0/value/pages", "/entry/0/changes/0/value/access_token",
            "/entry/0/changes/0/value/token_type", "/entry/0/changes/0/value/pixel_id",
            "/entry/0/changes/0/value/installed_features", "/entry/0/changes/0/value/installed_features/0",
            "/entry/0/changes/0/value/installed_features/0/connected_assets",
            "/entry/0/changes/0/value/installed_features/0/additional_info",
        ])
    ) {
        let mut body: Value = serde_json::from_str(INSTALL).unwrap();
        *body.pointer_mut(place).unwrap() = junk;
        let (secret, body) = (SecretString::from("s"), body.to_string());
        let header = signature::sign(&secret, body.as_bytes());
        let parsed = parse(&Received::new(body, Some(&header)).verify([&secret]).unwrap(), now());
        for event in &parsed.changes {
            let plan = decide(None, event, CONFIGURED, now());
            let shown = format!("{event:?} {plan:?}");
            prop_assert!(!shown.contains("EAAB"), "{}", shown);
        }
        for kept in &parsed.quarantined {
            let raw = String::from_utf8_lossy(&kept.raw);
            prop_assert!(!raw.contains("EAAB"), "{}", raw);
        }
    }
}

const INSTALL: &str = include_str!("../../../events/payloads/fbe/install.json");

fn junk() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(Value::from("EAAB_misplaced_token")),
        Just(Value::from("[{\"EAAB_key\":1}]")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let name = prop::sample::select(vec![
            "id",
            "data",
            "page_id",
            "shop_status",
            "x",
            "access_token",
            "EAAB_name",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.prop_map(str::to_owned), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}
