//! How much there is, or was, of somebody.

use serde::{Deserialize, Serialize};

/// How much of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Contacts.
    pub contacts: usize,
    /// `user_ref` records and link tokens.
    pub records: usize,
    /// Conversations.
    pub conversations: usize,
    /// What was said in them.
    pub turns: usize,
    /// Installs of businesses.
    pub installs: usize,
    /// Outbox items, in any state.
    pub outbox: usize,
}

impl Counts {
    /// Adds other counts to these.
    pub fn add(&mut self, other: Self) {
        self.contacts += other.contacts;
        self.records += other.records;
        self.conversations += other.conversations;
        self.turns += other.turns;
        self.installs += other.installs;
        self.outbox += other.outbox;
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
