//! The messages that wait, and what becomes of their items: when they are tried again, and when they are
//! given up.

use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use shared::outbox::{Entry, Kind, Reason, Status};
use shared::store::StoreError;
use shared::whatsapp::conversation::{Turn, TurnStatus};
use shared::whatsapp::decide::answer::MAX_HANDED_OVER;

use super::drain::{Drain, Stop, Tried, UNREADABLE, persist};
use super::pace::{Waiting, held_until};
use crate::settle::{Outcome, Settled};

/// What the keys of the items begin with that wake us for a message.
const MESSAGE: &str = "message#";

/// Updates under way at once: thousands may wait.
const POSTPONED_AT_ONCE: usize = 32;

impl Drain<'_> {
    /// Reads what was said, and how the items stand: those that we were given, and those of messages that wait though
    /// we were not given them.
    pub(super) async fn read_turns(&mut self) -> Result<(), Stop> {
        let id = &self.stored.conversation.id;
        let open: Vec<String> = self.open().map(|(key, _)| key.clone()).collect();
        let wanted: Vec<&str> = open.iter().filter_map(|key| key.strip_prefix(MESSAGE)).collect();
        let said = self.worker.conversations.turns(id, &wanted).await?;
        (self.turns, self.later, self.unreadable) = (said.turns, said.later, said.unreadable);
        self.stored.conversation.catch_up(&self.turns);
        let pending = self
            .turns
            .iter()
            .filter(|turn| turn.status == Some(TurnStatus::Pending));
        let mut keys: Vec<String> = pending.map(Self::message_key).collect();
        keys.retain(|key| !self.given.contains_key(key));
        keys.extend(open.iter().cloned());
        let stands = self.worker.outbox.get_all(self.subject(), &keys).await?;
        self.found.clear();
        let mut settled = open;
        for entry in stands {
            if let Some(given) = self.given.get_mut(&entry.event_key) {
                if entry.status == Status::Pending {
                    settled.retain(|key| *key != entry.event_key);
                }
                given.entry = entry;
            } else {
                self.found.insert(entry.event_key.clone(), entry);
            }
        }
        for key in settled {
            self.became(&key, Outcome::Settled(Settled::Done));
        }
        // A worker that gave an item up may have died before it could say so of the message.
        let is_dead = |turn: &&Turn| {
            let entry = self.found.get(&Self::message_key(turn));
            turn.status == Some(TurnStatus::Pending)
                && entry.is_some_and(|entry| entry.status == Status::Dead)
        };
        let given_up: Vec<Turn> = self.turns.iter().filter(is_dead).cloned().collect();
        self.give_up(&given_up).await
    }

    /// Messages that wait, in order. One that was given up goes again only if its item was redriven.
    pub(super) fn waiting_messages(&self) -> Vec<Waiting<'_>> {
        let waits = |turn: &&Turn| match turn.status {
            Some(TurnStatus::Pending) => true,
            Some(TurnStatus::GivenUp) => {
                let given = self.given.get(&Self::message_key(turn));
                given.is_some_and(|given| given.outcome.is_none())
            }
            Some(TurnStatus::HandedOver) | None => false,
        };
        let waiting = |turn| {
            let entry = self.item(turn);
            let failed = entry.filter(|entry| entry.attempts > 0);
            let tried = self.tried.get(&turn.id);
            let asked_before = entry.map_or(0, |entry| entry.asked_in_vain);
            let due = failed.and_then(|entry| entry.due_at);
            Waiting {
                turn,
                asked_in_vain: tried.map_or(asked_before, |tried| tried.asked_in_vain),
                backs_off_until: tried.map_or(due, |tried| Some(tried.backs_off_until)),
                tried: tried.is_some(),
                has_item: entry.is_some_and(|entry| entry.status == Status::Pending),
            }
        };
        self.turns.iter().filter(waits).map(waiting).collect()
    }

    /// Whether none of the messages that were read waits any more, though others do.
    pub(super) fn has_more(&self) -> bool {
        let waits = |turn: &Turn| turn.status == Some(TurnStatus::Pending);
        !self.later.is_empty() && !self.turns.iter().any(waits)
    }

    pub(super) fn item(&self, turn: &Turn) -> Option<&Entry> {
        let key = Self::message_key(turn);
        let given = self.given.get(&key).map(|given| &given.entry);
        given
            .filter(|entry| entry.kind == Kind::RelayMessage)
            .or_else(|| self.found.get(&key))
    }

    /// How often these messages have failed before: the one that has failed most.
    pub(super) fn attempts(&self, messages: &[Turn]) -> u32 {
        let items = messages.iter().filter_map(|message| self.item(message));
        items.map(|entry| entry.attempts).max().unwrap_or_default()
    }

    /// Notes of each of these messages, given or found, what became of it; `wait` is how long it backs off, and `count`
    /// counts what the failure says about the message.
    pub(super) async fn note_messages(
        &mut self,
        messages: &[Turn],
        outcome: &Outcome,
        wait: Duration,
        count: impl Fn(&mut Entry),
    ) -> Result<(), Stop> {
        let mut given_up = Vec::new();
        for message in messages {
            let mut entry = self.item(message).cloned();
            entry.iter_mut().for_each(&count);
            let tried = Tried {
                asked_in_vain: entry.as_ref().map_or(0, |entry| entry.asked_in_vain),
                backs_off_until: self.now() + wait,
            };
            let moved = match entry {
                Some(entry) => self.note(&entry, outcome.clone()).await?,
                None if matches!(outcome, Outcome::Dead { .. }) => Settled::Dead,
                None => Settled::Retried,
            };
            self.tried.insert(message.id.clone(), tried);
            if moved == Settled::Dead {
                given_up.push(message.clone());
            }
        }
        self.give_up(&given_up).await
    }

    /// Later messages go without these.
    async fn give_up(&mut self, messages: &[Turn]) -> Result<(), Stop> {
        let (conversations, id) = (&self.worker.conversations, &self.stored.conversation.id);
        for messages in messages.chunks(MAX_HANDED_OVER) {
            persist(move || conversations.give_up(id, messages)).await?;
        }
        for turn in &mut self.turns {
            if messages.iter().any(|message| message.id == turn.id) {
                turn.status = Some(TurnStatus::GivenUp);
            }
        }
        Ok(())
    }

    /// Sees to it that messages which are not handed over now wake a worker when their time comes, and not
    /// before. It counts as no attempt.
    pub(super) async fn postpone_messages(&mut self) -> Result<(), Stop> {
        let now = self.now();
        let waiting = self.waiting_messages();
        let told = self
            .stored
            .conversation
            .ask_not_before
            .filter(|until| *until > now);
        let all = told.max(self.asks_again_at);
        let together = all.max(held_until(&waiting, now));
        let moves = |entry: &Entry, until: Timestamp| entry.due_at.is_none_or(|due| due < until);
        let mut postponed: Vec<(Option<Turn>, Entry, Timestamp)> = waiting
            .iter()
            .filter(|message| !message.tried)
            .filter_map(|message| {
                let until = if message.goes_alone() { all } else { together }?;
                let entry = self.item(message.turn)?;
                moves(entry, until).then(|| (Some(message.turn.clone()), entry.clone(), until))
            })
            .collect();
        // Those behind can go no earlier.
        if let Some(until) = together {
            let behind = self.open().filter(|(key, entry)| {
                let id = key.strip_prefix(MESSAGE);
                id.is_some_and(|id| self.later.contains(id)) && moves(entry, until)
            });
            postponed.extend(behind.map(|(_, entry)| (None, entry.clone(), until)));
        }
        let mut put_off = Vec::new();
        for (turn, entry, until) in postponed {
            if let Some(turn) = turn.filter(|_| self.worker.settler.gives_up(&entry)) {
                let outcome = Outcome::dead(Reason::ExternalSystemDownForTooLong);
                self.note_messages(&[turn], &outcome, Duration::ZERO, |_| ())
                    .await?;
            } else {
                put_off.push((entry.event_key, until));
            }
        }
        let (outbox, subject) = (&self.worker.outbox, self.subject());
        let moves: Vec<_> = put_off
            .iter()
            .map(|(key, until)| outbox.postpone(subject, key, *until))
            .collect();
        stream::iter(moves)
            .buffer_unordered(POSTPONED_AT_ONCE)
            .try_collect::<()>()
            .await?;
        for (key, _) in put_off {
            self.became(&key, Outcome::Settled(Settled::Retried));
        }
        Ok(())
    }

    /// These messages are handed over.
    pub(super) async fn settle_handed_over(&mut self, messages: &[Turn]) {
        for turn in &mut self.turns {
            if messages.iter().any(|message| message.id == turn.id) {
                turn.status = Some(TurnStatus::HandedOver);
            }
        }
        let (given, found): (Vec<String>, Vec<String>) = messages
            .iter()
            .map(Self::message_key)
            .partition(|key| self.given.contains_key(key));
        let (outbox, subject) = (&self.worker.outbox, self.subject());
        let settled = found.iter().map(|key| outbox.done_key(subject, key));
        for settled in futures_util::future::join_all(settled).await {
            if let Err(error) = settled {
                // It wakes a worker once more, which finds nothing to do.
                let error: StoreError = error;
                tracing::warn!(%error, "a message's item is settled later");
            }
        }
        for key in given {
            self.became(&key, Outcome::Done);
        }
    }

    /// A message's item is only a wake-up: its turn says whether it still waits.
    pub(super) fn settle_messages(&mut self) {
        let open: Vec<(String, Kind)> = self
            .open()
            .map(|(key, entry)| (key.clone(), entry.kind))
            .collect();
        for (key, kind) in open {
            let Some(id) = key.strip_prefix(MESSAGE).filter(|_| kind == Kind::RelayMessage) else {
                continue;
            };
            let turn = self.turns.iter().find(|turn| turn.id == id);
            let outcome = match turn.map(|turn| turn.status) {
                Some(Some(TurnStatus::HandedOver)) => Outcome::Done,
                Some(_) => continue,
                None if self.later.contains(id) => continue,
                None if self.unreadable.contains(id) => Outcome::waiting(Reason::TurnUnreadable, UNREADABLE),
                None => Outcome::dead(Reason::TurnExpired),
            };
            self.became(&key, outcome);
        }
    }

    /// The event key of the item that wakes us for a message.
    pub(super) fn message_key(turn: &Turn) -> String {
        format!("{MESSAGE}{}", turn.id)
    }
}
