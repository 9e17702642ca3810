//! What is told of an erasure. Holds no personal data.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::counts::Counts;
use super::order::{Order, Source};

/// How long a receipt is kept.
pub(super) const KEEP: SignedDuration = SignedDuration::from_hours(365 * 24);

/// Where an erasure stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Status {
    /// It is asked for.
    Received,
    /// Something was found and is being removed.
    Matched,
    /// Nothing was found.
    NoMatch,
    /// What was found is removed.
    Erased,
}

impl Status {
    /// As it is stored and told.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether nothing follows.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::NoMatch | Self::Erased)
    }
}

/// What is told of an erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Where it stands.
    pub status: Status,
    /// Who asked for it.
    pub source: Source,
    /// When.
    pub requested_at: Timestamp,
    /// When it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// What was removed.
    #[serde(default)]
    pub removed: Counts,
}

impl Receipt {
    /// Of an order that nobody has begun.
    #[must_use]
    pub fn received(order: &Order) -> Self {
        Self {
            status: Status::Received,
            source: order.source,
            requested_at: order.requested_at,
            finished_at: None,
            removed: Counts::default(),
        }
    }

    /// Whether it is of another erasure, which was asked for after the one of `earlier` was done.
    #[must_use]
    pub fn follows(&self, earlier: &Self) -> bool {
        earlier.status.is_final() && earlier.requested_at < self.requested_at
    }
}
