//! What is stored of a business.
//!
//! The record is built so that webhooks may arrive in any order and any number of times: the newest grant,
//! the newest token and the newest removals are kept side by side, each with its own time, and the status
//! follows from the three. So the end state depends on which events there were, not on how they arrived.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::asset::Assets;
use super::event::{BusinessIntegrationEvent, InstallEvent, Stamp};
use super::features::{Feature, Gating, gate};
use super::read::Granted;
use super::reconcile::Drift;
use super::secret::TokenType;
use crate::personal::Personal;

/// How many changes are remembered.
const MAX_HISTORY: usize = 20;
/// How many Business Managers' removals are remembered.
const MAX_REMOVALS: usize = 8;
/// How many Business Integration events are remembered.
const MAX_INTEGRATIONS: usize = 10;

/// Where a business stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Installed.
    Active,
    /// Removed, or never installed as far as we know.
    Uninstalled,
    /// Installed, but Graph refuses the token until a new one arrives.
    TokenInvalid,
}

/// What happened to a business, as it is told to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

impl Change {
    /// The word in the notice's `change`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Updated => "updated",
            Self::Uninstalled => "uninstalled",
            Self::TokenInvalid => "token_invalid",
        }
    }
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

/// A removal, by whose Business Manager it said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Time of the event.
    pub at: Timestamp,
    /// `None`: it did not say, which counts for every Business Manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub business_manager_id: Option<String>,
}

impl Removal {
    fn is_for(&self, business_manager_id: Option<&str>) -> bool {
        match (&self.business_manager_id, business_manager_id) {
            (Some(removed), Some(granted)) => removed == granted,
            _ => true,
        }
    }
}

/// What is known of the token, without the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenState {
    /// Type of the token that arrived.
    pub token_type: TokenType,
    /// Time of the event that brought it.
    pub at: Timestamp,
    /// Version id of the secret as the webhook wrote it: decides ties.
    pub source: String,
    /// Version id of the secret as it is now.
    pub version: String,
    /// Business Manager of the event that brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub business_manager_id: Option<String>,
    /// When it was exchanged for a system user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchanged_at: Option<Timestamp>,
    /// Since when Graph refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid_since: Option<Timestamp>,
}

/// One business. Holds no token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Install {
    /// The partner's own id of the business: the key.
    pub business_id: String,
    /// Follows from `granted`, `removals` and `token`.
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onsite_eligible: Option<bool>,
    /// `flow` of the newest grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<String>,
    /// `entry.uid` of the newest grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Personal<String>>,
    /// The newest grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<Stamp>,
    /// The newest removal of each Business Manager.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removals: Vec<Removal>,
    /// The token, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenState>,
    /// What the newest webhook said, where Graph has corrected it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Box<Granted>>,
    /// When it was installed (last).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed_at: Option<Timestamp>,
    /// When Graph was asked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconciled_at: Option<Timestamp>,
    /// How many differences Graph has shown since the install.
    #[serde(default)]
    pub drift_count: u64,
    /// The differences of the last reconcile that showed any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<Drift>,
    /// Since when Graph knows no install although no removal was announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
            flow: None,
            uid: None,
            granted: None,
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

    /// Time of the newest event, grant or removal.
    #[must_use]
    pub fn event_at(&self) -> Option<Timestamp> {
        let removed = self.removals.iter().map(|removal| removal.at).max();
        self.granted.as_ref().map(|granted| granted.at).max(removed)
    }

    /// Which features are on and off, and why.
    #[must_use]
    pub fn gating(&self) -> Gating {
        let gating = gate(&self.assets, &self.features);
        match self.status {
            Status::Active => gating,
            Status::TokenInvalid => gating.all_off("access_token"),
            Status::Uninstalled => gating.all_off("installation"),
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

    pub(super) fn set_grant(&mut self, granted: Granted) {
        self.assets = granted.assets;
        self.features = granted.features;
        self.onsite_eligible = granted.onsite_eligible;
    }

    /// Takes over a grant, unless a newer one is stored. Gives whether it was taken.
    pub(super) fn take_grant(&mut self, event: &InstallEvent, granted: &Granted) -> bool {
        if self.granted.as_ref().is_some_and(|stored| *stored >= event.stamp) {
            return false;
        }
        self.set_grant(granted.clone());
        self.granted = Some(event.stamp.clone());
        self.flow.clone_from(&event.flow);
        self.uid.clone_from(&event.uid);
        self.said = None;
        self.unknown_at_graph_since = None;
        true
    }

    /// Takes over a token, unless a newer one is stored.
    pub(super) fn take_token(&mut self, token: TokenState) {
        if self.is_removed(token.at, token.business_manager_id.as_deref()) {
            return;
        }
        match &mut self.token {
            // The same token in two events of one moment: what was made of it since stays.
            Some(stored) if (stored.at, &stored.source) == (token.at, &token.source) => {
                let manager = stored.business_manager_id.take();
                stored.business_manager_id = manager.max(token.business_manager_id);
            }
            Some(stored) if (stored.at, &stored.source) > (token.at, &token.source) => {}
            stored => *stored = Some(token),
        }
    }

    /// Remembers a removal, unless a newer one of the same Business Manager is remembered.
    pub(super) fn take_removal(&mut self, removal: Removal) {
        let same = |known: &&mut Removal| known.business_manager_id == removal.business_manager_id;
        if let Some(known) = self.removals.iter_mut().find(same) {
            known.at = known.at.max(removal.at);
        } else {
            self.removals.push(removal);
        }
        self.removals
            .sort_by(|a, b| (a.at, &a.business_manager_id).cmp(&(b.at, &b.business_manager_id)));
        let surplus = self.removals.len().saturating_sub(MAX_REMOVALS);
        self.removals.drain(..surplus);
    }

    fn is_removed(&self, at: Timestamp, business_manager_id: Option<&str>) -> bool {
        // At equal times the grant counts: Graph is asked next, and an empty answer then settles it.
        self.removals
            .iter()
            .any(|removal| removal.at > at && removal.is_for(business_manager_id))
    }

    /// Derives the status, and drops what a removal took.
    pub(super) fn settle(&mut self) {
        let business_manager_id = self.assets.business_manager_id.clone();
        let removed = self
            .granted
            .as_ref()
            .is_none_or(|granted| self.is_removed(granted.at, business_manager_id.as_deref()));
        if removed {
            self.remove();
            return;
        }
        let taken = self.token.as_ref().is_some_and(|token| {
            self.is_removed(token.at, token.business_manager_id.as_deref())
                || self.is_removed(token.at, business_manager_id.as_deref())
        });
        if taken {
            self.token = None;
        }
        let refused = self
            .token
            .as_ref()
            .is_some_and(|token| token.invalid_since.is_some());
        self.status = if refused {
            Status::TokenInvalid
        } else {
            Status::Active
        };
    }

    /// Everything off. The Business Manager stays: it tells whose removal this was.
    pub(super) fn remove(&mut self) {
        self.status = Status::Uninstalled;
        let business_manager_id = self.assets.business_manager_id.take();
        self.set_grant(Granted::default());
        self.assets.business_manager_id = business_manager_id;
        self.token = None;
        self.said = None;
        self.unknown_at_graph_since = None;
    }

    pub(super) fn remember(&mut self, entry: HistoryEntry) {
        self.history.push(entry);
        let surplus = self.history.len().saturating_sub(MAX_HISTORY);
        self.history.drain(..surplus);
    }

    /// The same install with a Business Integration event recorded; `None` if it already is, or is older
    /// than all that are kept.
    #[must_use]
    pub fn with_integration(&self, event: &BusinessIntegrationEvent) -> Option<Self> {
        if self.integrations.iter().any(|known| known.stamp == event.stamp) {
            return None;
        }
        let mut next = self.clone();
        next.integrations.push(event.clone());
        next.integrations.sort_by(|a, b| a.stamp.cmp(&b.stamp));
        let surplus = next.integrations.len().saturating_sub(MAX_INTEGRATIONS);
        next.integrations.drain(..surplus);
        next.version += 1;
        (next.integrations != self.integrations).then_some(next)
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

/// The business that a pixel belongs to: the one that was granted it last.
#[must_use]
pub fn pixel_owner<'a>(pixel_id: &str, found: &'a [Install]) -> Option<&'a str> {
    found
        .iter()
        .filter(|install| install.is_installed() && install.assets.pixel_id.as_deref() == Some(pixel_id))
        .max_by_key(|install| &install.granted)
        .map(|install| install.business_id.as_str())
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
        assert_eq!(pixel_owner("p", &found), Some("b"));
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
