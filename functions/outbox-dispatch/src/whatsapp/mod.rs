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
mod worker;

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use shared::clock::Clock;
use shared::outbox::{Entry, Outbox};
use shared::secrets::{RelaySecret, Secret};
use shared::whatsapp::settings::RelaySettings;
use shared::whatsapp::table::Conversations;

pub(crate) use self::external_system::Received;
pub(crate) use self::outgoing::profile_update;

use self::external_system::ExternalSystemClient;
use self::wake::Queue;
use self::worker::Tools;
use crate::braze::Braze;
use crate::effect::Group;
use crate::settle::{Outcome, Settler};

/// Conversations drained at once. Each has one request under way; a function has 1,024 file descriptors.
const CONVERSATIONS_AT_ONCE: usize = 200;

/// Whether a chat server's answer is one.
pub(crate) fn is_completion(received: &Received, now: Timestamp) -> bool {
    openai::completion::read(received, now).is_ok()
}

/// Settles the items of conversations.
#[derive(Debug)]
pub struct RelayWorker(Tools);

impl RelayWorker {
    /// A worker.
    #[must_use]
    pub(crate) fn new(
        conversations: Conversations,
        (outbox, settler): (Outbox, Settler),
        (braze, queue): (Braze, Option<Queue>),
        secret: Secret<RelaySecret>,
        settings: RelaySettings,
        clock: Clock,
    ) -> Self {
        let external_system =
            ExternalSystemClient::new(secret, settings.external_system_timeout, clock.clone());
        Self(Tools {
            conversations,
            outbox,
            settler,
            braze,
            external_system,
            queue,
            settings,
            clock,
        })
    }

    /// Drains all conversations, and says of each item what became of it.
    pub(crate) async fn work(&self, groups: Vec<Group<()>>, until: Timestamp) -> Vec<(Entry, Outcome)> {
        let entries = |group: Group<()>| group.tasks.into_iter().map(|task| task.entry).collect();
        let drained = stream::iter(groups)
            .map(|group| Box::pin(conversation::drain(&self.0, entries(group), until)))
            .buffer_unordered(CONVERSATIONS_AT_ONCE);
        drained.concat().await
    }
}
