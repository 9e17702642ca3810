//! What is kept of a person.
//!
//! # Order does not matter
//!
//! Meta delivers at least once and in any order, and two deliveries may be handled at the same moment. So
//! the facts form a join-semilattice: every fact only grows (earliest, latest, last writer by the event's own
//! time), and [`Contact::merge`] is associative, commutative and idempotent. Whatever the order and
//! however often, the same events end in the same facts. Only `version` and `window_queued` are bookkeeping
//! of this store and not facts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::key::ContactKey;
pub use super::stamped::Stamped;
use super::topic::Topics;
use super::window::{self, Quiet};
use crate::personal::Personal;

/// Where the proof came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum LinkedVia {
    /// An m.me link or ad into a thread that existed (`messaging_referrals`).
    Ref,
    /// Get Started after an m.me link.
    Postback,
    /// The referral of a message.
    Message,
    /// A plugin's optin.
    Optin,
    /// The account linking flow; also the way a link is undone.
    AccountLinking,
    /// A checkbox plugin's `user_ref`, tied to the PSID later.
    UserRef,
}

impl LinkedVia {
    /// The name as stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Which user a person is, or that they no longer are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link {
    /// Braze `external_id`; `None` = unlinked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Personal<String>>,
    /// How.
    pub via: LinkedVia,
}

/// Where the person last came from.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Referral {
    /// `SHORTLINK`, `ADS`, … as Meta spells it.
    pub source: Option<String>,
    /// The `ref`, unless it was a link token: a token is a credential and is not kept.
    #[serde(rename = "ref")]
    pub reference: Option<Personal<String>>,
    /// The ad.
    pub ad_id: Option<String>,
}

/// What is kept of a person on one page or account.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Who.
    pub key: ContactKey,
    /// The time of the earliest event that makes a contact.
    pub first_seen: Timestamp,
    /// The time of the person's latest own act.
    pub last_interaction: Option<Timestamp>,
    /// The time of the latest act that opens the window.
    pub opened_at: Option<Timestamp>,
    /// When the window closes by the rules of the version before, which let more acts open it. Counts until the next
    /// event of the contact.
    #[serde(rename = "window_closes_at")]
    pub legacy_window: Option<Timestamp>,
    /// When Meta last refused a message because the window was closed.
    pub refused_at: Option<Timestamp>,
    /// When Meta last said that the person cannot be reached: blocked, deactivated, muted, gone.
    pub unreachable_at: Option<Timestamp>,
    /// Whether the person wants no messages.
    pub opted_out: Option<Stamped<bool>>,
    /// Consent to marketing messages, by topic.
    #[serde(default, skip_serializing_if = "Topics::is_empty")]
    pub topics: Topics,
    /// Where the person last came from.
    pub referral: Option<Stamped<Referral>>,
    /// Which user the person is. `None` = never linked.
    pub link: Option<Stamped<Link>>,
    /// Bookkeeping: the window (or, without one, the first sight) when a sync was last queued.
    pub window_queued: Option<Timestamp>,
    /// Bookkeeping: how many times the record was written; 0 = not yet.
    #[serde(default)]
    pub version: u64,
    /// Bookkeeping, kept beside the facts: acts that need not be decided on.
    #[serde(skip)]
    pub quiet: Option<Quiet>,
}

impl Contact {
    /// An empty contact.
    #[must_use]
    pub fn new(key: ContactKey, first_seen: Timestamp) -> Self {
        Self {
            key,
            first_seen,
            last_interaction: None,
            opened_at: None,
            legacy_window: None,
            refused_at: None,
            unreachable_at: None,
            opted_out: None,
            topics: Topics::default(),
            referral: None,
            link: None,
            window_queued: None,
            version: 0,
            quiet: None,
        }
    }

    /// Braze's `external_id` of the user that the person is linked to now.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.link.as_ref()?.value.user_id.as_deref().map(String::as_str)
    }

    /// When the 24-hour window closes, or closed. One that Meta says is closed is, until an act opens it again.
    #[must_use]
    pub fn window_closes_at(&self) -> Option<Timestamp> {
        let closes_at = self.legacy_window.max(self.opened_at.map(window::closes_at));
        let refused_at = self
            .refused_at
            .filter(|refused_at| Some(*refused_at) > self.opened_at);
        closes_at.map(|closes_at| refused_at.map_or(closes_at, |refused_at| closes_at.min(refused_at)))
    }

    /// Whether Meta could not reach the person, and they have not acted since.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.unreachable_at.is_some() && self.unreachable_at >= self.last_interaction
    }

    /// Takes over an act that opened the window and was noted beside the facts.
    pub fn acted(&mut self, at: Timestamp) {
        self.last_interaction = self.last_interaction.max(Some(at));
        self.opened_at = self.opened_at.max(Some(at));
    }

    /// Whether the person wants no messages, if they ever said.
    #[must_use]
    pub fn is_opted_out(&self) -> Option<bool> {
        self.opted_out.as_ref().map(|opted_out| opted_out.value)
    }

    /// Takes over the facts of another record of the same person; its bookkeeping is left alone.
    pub fn merge(&mut self, other: &Self) {
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_interaction = self.last_interaction.max(other.last_interaction);
        self.opened_at = self.opened_at.max(other.opened_at);
        // A record of this version has none, and replaces it.
        self.legacy_window = self.legacy_window.zip(other.legacy_window).map(|(a, b)| a.max(b));
        self.refused_at = self.refused_at.max(other.refused_at);
        self.unreachable_at = self.unreachable_at.max(other.unreachable_at);
        self.topics.merge(&other.topics);
        if let Some(opted_out) = other.opted_out.clone() {
            Stamped::merge(&mut self.opted_out, opted_out);
        }
        if let Some(referral) = other.referral.clone() {
            Stamped::merge(&mut self.referral, referral);
        }
        if let Some(link) = other.link.clone() {
            Stamped::merge(&mut self.link, link);
        }
    }

    /// Whether both records say the same of the person, bookkeeping aside.
    #[must_use]
    pub fn same_facts(&self, other: &Self) -> bool {
        let mut theirs = other.clone();
        theirs.window_queued = self.window_queued;
        theirs.version = self.version;
        theirs.quiet = self.quiet;
        *self == theirs
    }
}
