//! Where what is stored and what Graph says differ.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Which of the three sides (webhook, store, Graph) a difference comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Webhook and store agree, Graph does not: a webhook was missed or wrong.
    Unannounced,
    /// Graph now says what the webhook had said.
    CaughtUp,
    /// All three differ.
    Conflict,
}

/// One difference between what is stored and what Graph says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// Asset, or `feature:<type>`.
    pub field: String,
    /// What was stored: ids, or instances of the feature.
    pub stored: BTreeSet<String>,
    /// What Graph says.
    pub graph: BTreeSet<String>,
    /// Where it comes from.
    pub cause: Cause,
}
