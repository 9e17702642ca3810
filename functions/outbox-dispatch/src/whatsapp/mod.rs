//! Hands WhatsApp messages to the external system and sends its replies through Braze.
//!
//! One worker at a time drains a conversation, under a lease: it sends the replies that wait, hands over the
//! messages whose turn it is, stores the answer, sends it, and looks once more before it lets go. Many conversations
//! are drained side by side; each is a future and no thread.

mod ask;
mod drain;
mod external_system;
mod messages;
mod openai;
mod pace;
mod send;
#[cfg(test)]
mod tests;

use crate::braze::Braze;
use crate::effect::Group;
use crate::settle::{Outcome, Settler};
use crate::whatsapp::external_system::ExternalSystemClient;
use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use shared::clock::Clock;
use shared::outbox::{Entry, Outbox};
use shared::secrets::{RelaySecret, Secret};
use shared::whatsapp::settings::RelaySettings;
use shared::whatsapp::table::Conversations;

use self::drain::Drain;

/// How long a worker waits for the rest of a burst itself. Longer windows are left to the schedule.
pub(crate) const LONGEST_WAIT: SignedDuration = SignedDuration::from_secs(60);

/// Conversations drained at once. Each has one request under way; a function has 1,024 file descriptors.
const CONVERSATIONS_AT_ONCE: usize = 200;

/// Settles the items of conversations.
#[derive(Debug)]
pub struct RelayWorker {
    conversations: Conversations,
    outbox: Outbox,
    settler: Settler,
    braze: Braze,
    external_system: ExternalSystemClient,
    settings: RelaySettings,
    clock: Clock,
}

impl RelayWorker {
    /// A worker.
    #[must_use]
    pub fn new(
        conversations: Conversations,
        (outbox, settler): (Outbox, Settler),
        braze: Braze,
        secret: Secret<RelaySecret>,
        settings: RelaySettings,
        clock: Clock,
    ) -> Self {
        let external_system =
            ExternalSystemClient::new(secret, settings.external_system_timeout, clock.clone());
        Self {
            conversations,
            outbox,
            settler,
            braze,
            external_system,
            settings,
            clock,
        }
    }

    /// Drains all conversations, and says of each item what became of it.
    pub(crate) async fn work(&self, groups: Vec<Group<()>>, until: Timestamp) -> Vec<(Entry, Outcome)> {
        let drained = stream::iter(groups)
            .map(|group| Drain::run(self, group, until))
            .buffer_unordered(CONVERSATIONS_AT_ONCE);
        drained.collect::<Vec<_>>().await.concat()
    }
}
