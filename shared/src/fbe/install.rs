//! What is stored of a business.
//!
//! The record is built so that webhooks may arrive in any order and any number of times: the grants of each Business
//! Manager, its newest token and its newest removal are kept side by side, each with its own time. Whose the business
//! is, what is granted and the status follow from them ([`super::ownership`]). So the end state depends on which events
//! there were, not on how they arrived.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::asset::Assets;
use super::drift::Drift;
use super::event::{BusinessIntegrationEvent, Stamp};
use super::features::{ACCESS_TOKEN, Feature, Gating, INSTALLATION, gate};
use super::manager::{ManagerGrant, Removal, TokenState};
use super::read::Granted;
use crate::personal::Personal;

/// How many changes are remembered.
const MAX_HISTORY: usize = 20;
/// How many names of what is different a remembered change holds.
const MAX_FIELDS: usize = 50;
/// How many Business Integration events are remembered.
const MAX_INTEGRATIONS: usize = 10;

/// Where a business stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Status {
    /// Installed.
    Active,
    /// Removed, or never installed as far as we know.
    Uninstalled,
    /// Installed, but Graph refuses the token until a new one arrives.
    TokenInvalid,
}

/// What happened to a business, as its notice says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Change {
    /// Installed, or installed again.
    Installed,
    /// Something granted changed.
    Updated,
    /// Removed.
    Uninstalled,
    /// The token was refused.
    TokenInvalid,
}

/// One remembered change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When it happened at Meta (or was found out from Graph).
    pub at: Timestamp,
    /// When we learned of it.
    pub noted_at: Timestamp,
    /// What happened.
    pub change: Change,
    /// The assets and `feature:<type>`s that are different.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// One business. Holds no token.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Install {
    /// The partner's own id of the business: the key.
    pub business_id: String,
    /// Follows from `managers`, `removals` and `token`.
    pub status: Status,
    /// Goes up by one with every commit; a commit asks for the one it has read.
    #[serde(default)]
    pub version: u64,
    /// Assets; empty once uninstalled, but for the Business Manager.
    #[serde(flatten)]
    pub assets: Assets,
    /// Installed features.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<Feature>,
    /// Top-level `onsite_eligible`.
    pub onsite_eligible: Option<bool>,
    /// Installed features that are not switched on in Meta's configuration, as [`Feature::key`]s.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub switched_off: BTreeSet<String>,
    /// `flow` of the newest grant.
    pub flow: Option<String>,
    /// `entry.uid` of the newest grant.
    pub uid: Option<Personal<String>>,
    /// The grant in force: the owner's newest. Once uninstalled, the newest there was.
    pub granted: Option<Stamp>,
    /// Every Business Manager that has the app installed: first the owner, then those who claim the business too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managers: Vec<ManagerGrant>,
    /// The newest removal of each Business Manager.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removals: Vec<Removal>,
    /// The owner's token, if there is one.
    pub token: Option<TokenState>,
    /// What the newest webhook said, where Graph has corrected it.
    pub said: Option<Box<Granted>>,
    /// When it was installed (last).
    pub installed_at: Option<Timestamp>,
    /// When Graph was asked last.
    pub reconciled_at: Option<Timestamp>,
    /// How many differences Graph has shown since the install.
    #[serde(default)]
    pub drift_count: u64,
    /// The differences of the last reconcile that showed any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<Drift>,
    /// Since when Graph knows no install although no removal was announced.
    pub unknown_at_graph_since: Option<Timestamp>,
    /// The newest changes, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
    /// The newest Business Integration events, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub integrations: Vec<BusinessIntegrationEvent>,
}

impl Install {
    /// A business of which nothing is known.
    #[must_use]
    pub fn unknown(business_id: &str) -> Self {
        Self {
            business_id: business_id.to_owned(),
            status: Status::Uninstalled,
            version: 0,
            assets: Assets::default(),
            features: Vec::new(),
            onsite_eligible: None,
            switched_off: BTreeSet::new(),
            flow: None,
            uid: None,
            granted: None,
            managers: Vec::new(),
            removals: Vec::new(),
            token: None,
            said: None,
            installed_at: None,
            reconciled_at: None,
            drift_count: 0,
            drift: Vec::new(),
            unknown_at_graph_since: None,
            history: Vec::new(),
            integrations: Vec::new(),
        }
    }

    /// Whether the app is installed, with a working token or not.
    #[must_use]
    pub fn is_installed(&self) -> bool {
        self.status != Status::Uninstalled
    }

    /// Whether this only remembers a removal that came before its install, or Business Integration events:
    /// nothing was ever granted. A removal may be forgotten once Meta has stopped redelivering (36 hours).
    #[must_use]
    pub fn is_trace(&self) -> bool {
        self.granted.is_none()
    }

    /// When the newest event happened that this tells of.
    #[must_use]
    pub fn newest_event(&self) -> Option<Timestamp> {
        let granted = self.granted.iter().map(|stamp| stamp.at);
        let removed = self.removals.iter().map(|removal| removal.at);
        let integrated = self.integrations.iter().map(|event| event.stamp.at);
        granted.chain(removed).chain(integrated).max()
    }

    /// Which features are on and off, and why.
    #[must_use]
    pub fn gating(&self) -> Gating {
        let gating = gate(&self.assets, &self.features, &self.switched_off);
        match self.status {
            Status::Active => gating,
            Status::TokenInvalid => gating.all_off(ACCESS_TOKEN),
            Status::Uninstalled => gating.all_off(INSTALLATION),
        }
    }

    /// What is granted now, in the form that webhooks and Graph use.
    #[must_use]
    pub fn grant(&self) -> Granted {
        Granted {
            assets: self.assets.clone(),
            features: self.features.clone(),
            onsite_eligible: self.onsite_eligible,
        }
    }

    /// Takes over what is granted.
    pub fn set_grant(&mut self, granted: Granted) {
        self.assets = granted.assets;
        self.features = granted.features;
        self.onsite_eligible = granted.onsite_eligible;
    }

    /// Adds a change to the history.
    pub fn remember(&mut self, mut entry: HistoryEntry) {
        entry.fields.truncate(MAX_FIELDS);
        self.history.push(entry);
        let surplus = self.history.len().saturating_sub(MAX_HISTORY);
        self.history.drain(..surplus);
    }

    /// Records a Business Integration event, unless it already is or is older than all that are kept.
    pub fn take_integration(&mut self, event: &BusinessIntegrationEvent) {
        if self.integrations.iter().all(|known| known.stamp != event.stamp) {
            self.integrations.push(event.clone());
            self.integrations.sort_by(|a, b| a.stamp.cmp(&b.stamp));
            let surplus = self.integrations.len().saturating_sub(MAX_INTEGRATIONS);
            self.integrations.drain(..surplus);
        }
    }
}

/// The names of the assets and features (`feature:<type>`) in which two grants differ.
#[must_use]
pub fn differences(before: &Granted, after: &Granted) -> Vec<String> {
    let mut names: BTreeSet<String> = before
        .assets
        .fields()
        .into_iter()
        .zip(after.assets.fields())
        .filter(|(before, after)| before != after)
        .map(|((name, _), _)| name.to_owned())
        .collect();
    let only_in = |these: &Granted, those: &Granted| -> Vec<String> {
        these
            .features
            .iter()
            .filter(|feature| !those.features.contains(feature))
            .map(|feature| format!("feature:{}", feature.feature_type))
            .collect()
    };
    names.extend(only_in(before, after));
    names.extend(only_in(after, before));
    if before.onsite_eligible != after.onsite_eligible {
        names.insert("onsite_eligible".to_owned());
    }
    names.into_iter().collect()
}

/// The names of what is different in an install: as [`differences`], a feature that was switched on or off at Meta as
/// `feature:<type>` too, and `status`.
#[must_use]
pub fn changed_fields(before: &Install, next: &Install) -> Vec<String> {
    let mut names: BTreeSet<String> = differences(&before.grant(), &next.grant()).into_iter().collect();
    if next.is_installed() {
        let switched = before.switched_off.symmetric_difference(&next.switched_off);
        let types = switched.filter_map(|key| key.split_once('#').map(|(feature_type, _)| feature_type));
        names.extend(types.map(|feature_type| format!("feature:{feature_type}")));
    }
    if before.status != next.status {
        names.insert("status".to_owned());
    }
    names.into_iter().collect()
}

/// The businesses that claim a pixel next to `business_id`, from a lookup by pixel id. A pixel belongs to
/// one business, so a result that is not empty deserves a warning.
#[must_use]
pub fn pixel_rivals<'a>(business_id: &str, pixel_id: &str, found: &'a [Install]) -> Vec<&'a str> {
    found
        .iter()
        .filter(|install| {
            install.is_installed()
                && install.business_id != business_id
                && install.assets.pixel_id.as_deref() == Some(pixel_id)
        })
        .map(|install| install.business_id.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_pixel(business_id: &str, second: i64, status: Status) -> Install {
        let mut install = Install::unknown(business_id);
        install.status = status;
        install.assets.pixel_id = Some("p".into());
        install.granted = Some(Stamp {
            at: Timestamp::from_second(second).unwrap(),
            digest: String::new(),
        });
        install
    }

    #[test]
    fn two_businesses_with_one_pixel_are_noticed() {
        let found = [
            with_pixel("a", 1, Status::Active),
            with_pixel("b", 2, Status::Active),
            with_pixel("gone", 3, Status::Uninstalled),
        ];
        assert_eq!(pixel_rivals("a", "p", &found), ["b"]);
        assert!(pixel_rivals("a", "other", &found).is_empty());
    }

    #[test]
    fn it_comes_back_from_dynamodb_as_it_went() {
        let mut install = with_pixel("a", 1, Status::Active);
        install.version = 7;
        install.assets.pages = BTreeSet::from(["1".into(), "2".into()]);
        install.features = vec![Feature {
            feature_type: "fb_shop".into(),
            ..Feature::default()
        }];
        let item: serde_dynamo::Item = serde_dynamo::to_item(&install).unwrap();
        assert_eq!(serde_dynamo::from_item::<_, Install>(item).unwrap(), install);
    }
}
