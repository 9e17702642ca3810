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

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use shared::clock::Clock;
use shared::outbox::{Entry, Kind, Outbox};
use shared::secrets::{RelaySecret, Secret};
use shared::whatsapp::settings::RelaySettings;
use shared::whatsapp::table::Conversations;

use self::external_system::ExternalSystemClient;
use self::wake::Queue;
use self::worker::Tools;
use crate::braze::Braze;
use crate::dispatch::{Outcome, Settler, Worker};

/// Conversations drained at once. Each has one request under way; a function has 1,024 file descriptors.
const CONVERSATIONS_AT_ONCE: usize = 200;

/// Settles [`Kind::RelayMessage`] and [`Kind::RelayReply`].
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

    /// Works on all `entries`, and says of each what became of it.
    async fn drain(&self, entries: &[Entry], until: Timestamp) -> Vec<(Entry, Outcome)> {
        let mut subjects: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            subjects.entry(&entry.subject).or_default().push(entry.clone());
        }
        let drained = stream::iter(subjects.into_values())
            .map(|entries| Box::pin(conversation::drain(&self.0, entries, until)))
            .buffer_unordered(CONVERSATIONS_AT_ONCE);
        drained.concat().await
    }
}

#[async_trait]
impl Worker for RelayWorker {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::RelayMessage, Kind::RelayReply]
    }

    async fn work(&self, entries: &[Entry], until: Timestamp) -> Vec<Outcome> {
        let drained = self.drain(entries, until).await.into_iter();
        let mut drained: BTreeMap<(String, String), Outcome> =
            drained.map(|(entry, outcome)| (entry.key(), outcome)).collect();
        let outcome = |entry: &Entry| drained.remove(&entry.key()).unwrap_or(Outcome::Busy);
        entries.iter().map(outcome).collect()
    }
}
