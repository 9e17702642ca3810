//! One conversation, from claiming it to releasing it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use shared::outbox::{Entry, Kind, Reason};
use shared::personal::Personal;
use shared::store::{Claim, Released, StoreError};
use shared::whatsapp::message::ConversationId;
use shared::whatsapp::reply::{SENDS, event_key};

use super::RelayWorker;
use super::drain::{BEYOND, BRAZE_TIMEOUT, Drain, Stop, UNREADABLE, Waiting};
use super::wake::WakeUp;
use crate::effect::Group;
use crate::settle::Outcome;

/// How often one drain looks for something new. Who never stops writing has to let others go on.
const ROUNDS: u32 = 50;

/// Drains a conversation, and says what became of the items that woke us.
pub(super) async fn drain(worker: &RelayWorker, group: Group<()>, until: Timestamp) -> Vec<(Entry, Outcome)> {
    let unknown = Outcome::dead(Reason::UnknownConversation);
    let Some(id) = ConversationId::parse(&group.subject) else {
        return group.outcome(&unknown);
    };
    if worker.clock.now() >= until {
        return group.outcome(&Outcome::Busy);
    }
    let lease = worker.settings.external_system_timeout.max(BRAZE_TIMEOUT) + BEYOND;
    let claimed = match worker.conversations.claim(&id, lease).await {
        Ok(Claim::Leased(stored, lease)) => (stored, lease),
        Ok(Claim::Busy) => return group.outcome(&Outcome::Busy),
        Ok(Claim::Missing) => return group.outcome(&unknown),
        // Another version's, which reads it: it is left alone, and holds up no other.
        Err(error) if error.is_unreadable() => {
            error.count_unreadable("conversation");
            let outcome = Outcome::waiting(Reason::ConversationUnreadable, UNREADABLE);
            return group.outcome(&outcome);
        }
        Err(error) => return group.outcome(&error.into()),
    };
    let mut drain = Drain::new(worker, group, claimed, until);
    let rest = match drain.run().await {
        Ok(()) => {
            drain.wake_after_burst().await;
            Outcome::Busy
        }
        Err(Stop::Lost) => Outcome::Busy,
        Err(Stop::OutOfTime) => {
            drain.let_go().await;
            Outcome::Busy
        }
        Err(Stop::Store(error)) => {
            drain.let_go().await;
            Outcome::from(error)
        }
    };
    let given = drain.given.into_values();
    given
        .map(|given| (given.entry, given.outcome.unwrap_or_else(|| rest.clone())))
        .collect()
}

impl Drain<'_> {
    async fn run(&mut self) -> Result<(), Stop> {
        for _ in 0..ROUNDS {
            if self.outdated {
                self.read().await?;
            }
            self.send_replies().await?;
            if self.hand_over().await? {
                continue;
            }
            self.settle_messages();
            if self.outdated {
                continue;
            }
            let settled = self.settled_sends.as_deref();
            let news = settled.filter(|settled| self.stored.settled_sends.as_deref() != Some(settled));
            match self.release(news).await? {
                Released::Yes => return Ok(()),
                Released::Lost => return Err(Stop::Lost),
                Released::Refused => {}
            }
            // Something came in meanwhile, and the worker that it woke was turned away.
            self.renew(self.worker.settings.external_system_timeout.max(BRAZE_TIMEOUT))
                .await?;
            self.outdated = true;
        }
        Err(Stop::OutOfTime)
    }

    /// Reads all that waits, as the tables have it: what woke us says only that there is something.
    pub(super) async fn read(&mut self) -> Result<(), Stop> {
        self.burst_ends = None;
        self.read_turns().await?;
        let mut waiting: BTreeMap<String, Waiting> = BTreeMap::new();
        for entry in self.waiting_replies().await? {
            waiting.insert(entry.event_key.clone(), Waiting::from(&entry));
        }
        // One that was given up and redriven may lie before those that are settled.
        for (event_key, entry) in self.open() {
            if entry.kind == Kind::RelayReply {
                waiting
                    .entry(event_key.clone())
                    .or_insert_with(|| Waiting::from(entry));
            }
        }
        self.replies = waiting.into_values().collect();
        self.outdated = false;
        Ok(())
    }

    async fn waiting_replies(&self) -> Result<Vec<Entry>, StoreError> {
        let sends = self.stored.conversation.sends;
        let settled = self.settled_sends.as_deref();
        // Not so if a piece of the last send is settled: further pieces may wait.
        if sends == 0 || settled == Some(event_key(sends).as_str()) {
            return Ok(Vec::new());
        }
        let from = settled.unwrap_or(SENDS.0);
        self.worker.outbox.pending(self.subject(), from, SENDS.1).await
    }

    /// A wake-up for the end of the burst. Only now, since one that came before the release would be turned away.
    async fn wake_after_burst(&self) {
        let (Some(ends), Some(queue)) = (self.burst_ends, &self.worker.queue) else {
            return;
        };
        let keys = self.waiting_messages().into_iter();
        let wake_up = WakeUp {
            subject: self.subject().into(),
            event_keys: Personal(keys.map(|message| Self::message_key(message.turn)).collect()),
        };
        let delay = ends.duration_since(self.now()).unsigned_abs();
        if let Err(error) = queue.send(&[(wake_up, delay)]).await {
            // The items fall due when the burst is over.
            tracing::warn!(%error, "the end of a burst is left to the schedule");
        }
    }
}
