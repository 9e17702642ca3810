//! One effect that is still to leave.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which dispatcher settles an item: the same binary, deployed twice, so that slow chatbots never delay
/// contact syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Braze and Graph: large batches.
    Sync,
    /// External systems: small batches, high parallelism.
    Relay,
}

impl Lane {
    /// The lane's name as stored and as the stream filter spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Relay => "relay",
        }
    }
}

/// What is to be done. The payload's type belongs to the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Bring a contact's Braze profile up to date. Subject: the contact. No payload: the current state counts.
    ContactSync,
    /// Send a custom event for something a contact did. Subject: the contact.
    ContactEvent,
    /// Send a message through Meta. Subject: the contact.
    MessengerSend,
    /// Turn an install's user token into a system-user token. Subject: the business.
    FbeExchangeToken,
    /// Compare an install with what Graph says and take over Graph's answer. Subject: the business.
    FbeReconcile,
    /// Tell the business what changed. Subject: the business.
    FbeNotify,
    /// Post a notice to the partner's platform. Subject: the business.
    FbePartnerNotify,
    /// Compare every install of a Business Manager with Graph. Subject: the record of its integration events.
    FbeReconcileManager,
    /// Push the catalog. Subject: the business.
    FbeCatalogPush,
    /// Look whether the app's pages are subscribed and their tokens work. One subject for all.
    HealthCheck,
    /// Erase a person or a business. Subject: the erasure.
    Erase,
    /// Hand messages to the external system. Subject: the conversation.
    RelayMessage,
    /// Send one reply through Braze. Subject: the conversation.
    RelayReply,
}

impl Kind {
    /// The lane that settles this kind.
    #[must_use]
    pub fn lane(self) -> Lane {
        match self {
            Self::ContactSync
            | Self::ContactEvent
            | Self::MessengerSend
            | Self::FbeExchangeToken
            | Self::FbeReconcile
            | Self::FbeNotify
            | Self::FbePartnerNotify
            | Self::FbeReconcileManager
            | Self::FbeCatalogPush
            | Self::HealthCheck
            | Self::Erase => Lane::Sync,
            Self::RelayMessage | Self::RelayReply => Lane::Relay,
        }
    }

    /// Whether the stream's batch may wait for it. A catalog takes minutes, and the partner's platform may; many people
    /// may be erased at once. They are left to the schedule.
    #[must_use]
    pub fn is_quick(self) -> bool {
        !matches!(self, Self::FbeCatalogPush | Self::FbePartnerNotify | Self::Erase)
    }
}

/// One effect that is still to leave, as a decider plans it.
///
/// The key is (`subject`, `event_key`). The event key is made from what caused the effect, so a redelivery
/// makes the same key, finds the item, and has no second effect.
#[derive(Clone, PartialEq, Serialize)]
pub struct OutboxItem {
    /// Contact, business or conversation. Items of one subject are settled in the order of their event keys.
    pub subject: String,
    /// Deterministic, unique within the subject.
    pub event_key: String,
    /// What is to be done.
    pub kind: Kind,
    /// What the kind needs to know.
    pub payload: Value,
    /// Not before this time; `None` = at once.
    pub not_before: Option<Timestamp>,
}

// The subject names a person and the payload may quote them.
impl fmt::Debug for OutboxItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboxItem")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}
