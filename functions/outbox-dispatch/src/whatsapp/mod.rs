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

use std::collections::BTreeMap;

use crate::braze::Braze;
use crate::dispatch::{Outcome, Settler, Worker};
use crate::whatsapp::external_system::ExternalSystemClient;
use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use shared::clock::Clock;
use shared::outbox::Kind;
use shared::outbox::{Entry, Outbox};
use shared::secrets::{RelaySecret, Secret};
use shared::whatsapp::settings::RelaySettings;
use shared::whatsapp::table::Conversations;

use self::drain::Drain;

/// How long a worker waits for the rest of a burst itself. Longer windows are left to the schedule.
pub(crate) const LONGEST_WAIT: SignedDuration = SignedDuration::from_secs(60);

/// Conversations drained at once. Each has one request under way; a function has 1,024 file descriptors.
const CONVERSATIONS_AT_ONCE: usize = 200;

/// Settles [`Kind::RelayMessage`] and [`Kind::RelayReply`].
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
}

#[async_trait]
impl Worker for RelayWorker {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::RelayMessage, Kind::RelayReply]
    }

    async fn work(&self, entries: &[Entry], until: Timestamp) -> Vec<Outcome> {
        let mut subjects: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (position, entry) in entries.iter().enumerate() {
            subjects.entry(&entry.subject).or_default().push(position);
        }
        let conversations: Vec<Vec<usize>> = subjects.into_values().collect();
        let mut drained = stream::iter(conversations)
            .map(|positions| Drain::run(self, entries, positions, until))
            .buffer_unordered(CONVERSATIONS_AT_ONCE);
        let mut outcomes: Vec<Outcome> = entries.iter().map(|_| Outcome::Busy).collect();
        while let Some(settled) = drained.next().await {
            for (position, outcome) in settled {
                if let Some(slot) = outcomes.get_mut(position) {
                    *slot = outcome;
                }
            }
        }
        outcomes
    }
}
