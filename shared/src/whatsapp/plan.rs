//! What a message, an answer or a failure changes in a conversation.

use super::conversation::{Conversation, Turn};
use super::duplicate::DuplicateGuard;
use crate::outbox::OutboxItem;

/// All of it is committed in one transaction, or nothing: so a message is not taken in without being handed over, and
/// the external system is not asked again because Braze was down.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The conversation as it is to be stored. The version before its own must still be stored; before the first
    /// there must be none.
    pub conversation: Conversation,
    /// What tells duplicates: if one of these is there and has not expired, nothing is committed.
    pub guards: Vec<DuplicateGuard>,
    /// Sort keys of turns that must not be handed over yet, and then are.
    pub handed_over: Vec<String>,
    /// New turns.
    pub turns: Vec<Turn>,
    /// What is still to leave, in order.
    pub outbox: Vec<OutboxItem>,
}

impl Plan {
    /// A plan that writes the next version of `stored`, and nothing else yet.
    #[must_use]
    pub fn next(stored: Conversation) -> Self {
        Self {
            conversation: Conversation {
                version: stored.version + 1,
                ..stored
            },
            guards: Vec::new(),
            handed_over: Vec::new(),
            turns: Vec::new(),
            outbox: Vec::new(),
        }
    }
}
