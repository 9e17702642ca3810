//! What is known of a business by Business Manager: grants, tokens and removals, each with its own time.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::event::{InstallEvent, Stamp};
use super::read::Granted;
use super::secret::TokenType;
use crate::personal::Personal;

/// What is known of the token, without the token.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenState {
    /// Type of the token that arrived.
    pub token_type: TokenType,
    /// Time of the newest event that brought it.
    pub at: Timestamp,
    /// Digest of the token as it arrived: the same token in two webhooks has the same one. Decides ties. Empty: the
    /// token was obtained on behalf of the business.
    pub source: String,
    /// Version id of the secret as it is now.
    pub version: String,
    /// Business Manager of the event that brought it.
    pub business_manager_id: Option<String>,
    /// When it was exchanged for a system user's.
    pub exchanged_at: Option<Timestamp>,
    /// When the system user's token ends; `None`: it has no known end.
    pub expires_at: Option<Timestamp>,
    /// Since when Graph refuses it.
    pub invalid_since: Option<Timestamp>,
}

/// A removal, by the Business Manager that it named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Time of the event.
    pub at: Timestamp,
    /// `None`: it named none, and counts for every Business Manager.
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

    /// At equal times the grant counts: Graph is asked next, and an empty answer then settles it.
    fn ends(&self, at: Timestamp, business_manager_id: Option<&str>) -> bool {
        self.at > at && self.is_for(business_manager_id)
    }
}

/// What one Business Manager granted, by its own webhooks.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ManagerGrant {
    /// `None`: its webhooks named no Business Manager. They count for the owner.
    pub business_manager_id: Option<String>,
    /// Times of its grants since its last removal.
    pub times: BTreeSet<Timestamp>,
    /// Its newest grant.
    pub newest: Stamp,
    /// What that grant says. `None` where the install itself holds it, and where it was too large to keep.
    pub said: Option<Box<Said>>,
    /// Its token. `None` where the install itself holds it, and where there is none.
    pub token: Option<TokenState>,
}

/// The content of a grant.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// Assets and features.
    pub granted: Granted,
    /// `flow`
    pub flow: Option<String>,
    /// `entry.uid`
    pub uid: Option<Personal<String>>,
}

impl ManagerGrant {
    pub(super) fn new(event: &InstallEvent) -> Self {
        Self {
            business_manager_id: event.business_manager_id.clone(),
            times: BTreeSet::new(),
            newest: event.stamp.clone(),
            said: None,
            token: None,
        }
    }

    /// Since when it has the app installed.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.times.first().copied().unwrap_or(self.newest.at)
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.business_manager_id.as_deref()
    }

    /// The earliest is the owner. One without a name never is, where there is one with a name.
    pub(super) fn rank(&self) -> (bool, Timestamp, Option<&str>) {
        (self.id().is_none(), self.since(), self.id())
    }

    /// Drops what a removal ended. `false` if nothing is left.
    pub(super) fn survives(&mut self, removals: &[Removal]) -> bool {
        let id = self.business_manager_id.clone();
        let is_ended = |at: Timestamp| removals.iter().any(|removal| removal.ends(at, id.as_deref()));
        self.times.retain(|at| !is_ended(*at));
        self.token = self.token.take().filter(|token| !is_ended(token.at));
        !is_ended(self.newest.at)
    }

    /// Keeps the newer of two tokens. The same token again stays what was made of it since.
    pub(super) fn take_token(&mut self, token: TokenState) {
        match &mut self.token {
            Some(stored) if stored.is_same(&token) => {
                stored.at = stored.at.max(token.at);
            }
            Some(stored) if (stored.at, &stored.source) > (token.at, &token.source) => {}
            stored => *stored = Some(token),
        }
    }
}

impl TokenState {
    /// Whether the other holds the same token. What an earlier version stored names the webhook's secret as `source`.
    fn is_same(&self, other: &Self) -> bool {
        self.source == other.source || self.source == other.version
    }
}
