//! Hands WhatsApp messages to the external system and sends its replies through Braze.
//!
//! A worker is woken through a queue ([`wake`]) or by the schedule. One worker at a time drains a conversation, under a
//! lease ([`conversation`]): it sends the replies that wait ([`send`]), hands over the messages whose turn it is
//! ([`ask`]), stores the answer, sends it, and looks once more before it releases the lease. Many conversations
//! are drained side by side; each is a future and no thread, and none of them sleeps.

mod ask;
mod conversation;
mod drain;
mod external_system;
mod failure;
mod messages;
mod openai;
mod outgoing;
mod pace;
mod route;
mod send;
#[cfg(test)]
mod tests;
pub(crate) mod wake;

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use shared::clock::Clock;
use shared::outbox::Outbox;
use shared::whatsapp::settings::RelaySettings;
use shared::whatsapp::table::Conversations;

pub(crate) use self::external_system::{ExternalSystemClient, Received};
pub(crate) use self::outgoing::profile_update;

use self::wake::Queue;
use crate::braze::Braze;
use crate::effect::Group;
use crate::settle::{Outcomes, Settler};

/// Conversations drained at once. Each has one request under way; a function has 1,024 file descriptors.
const CONVERSATIONS_AT_ONCE: usize = 200;

/// Whether a chat server's answer is one.
pub(crate) fn is_completion(received: &Received, now: Timestamp) -> bool {
    openai::completion::read(received, now).is_ok()
}

/// Settles the items of conversations.
#[derive(Debug)]
pub(crate) struct RelayWorker {
    pub(crate) conversations: Conversations,
    pub(crate) outbox: Outbox,
    pub(crate) settler: Settler,
    pub(crate) braze: Braze,
    pub(crate) external_system: ExternalSystemClient,
    /// Wakes a worker when a burst is over; without it that is left to the schedule.
    pub(crate) queue: Option<Queue>,
    pub(crate) settings: RelaySettings,
    pub(crate) clock: Clock,
}

impl RelayWorker {
    /// Drains all conversations, and tells of each item what became of it.
    pub(crate) async fn work(&self, groups: Vec<Group<()>>, until: Timestamp, outcomes: &Outcomes) {
        stream::iter(groups)
            .map(|group| Box::pin(conversation::drain(self, group, until)))
            .buffer_unordered(CONVERSATIONS_AT_ONCE)
            .for_each(async |settled| outcomes.tell_all(settled))
            .await;
    }
}
