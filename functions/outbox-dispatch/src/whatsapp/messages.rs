//! The messages that wait, and what becomes of their items: when they are tried again, and when they are
//! given up.

use std::time::Duration;

use crate::settle::{Outcome, Settled};
use crate::whatsapp::pace::{Waiting, held_until};
use jiff::Timestamp;
use shared::outbox::{Entry, Status};
use shared::outbox::{Kind, Reason};
use shared::whatsapp::conversation::{Turn, TurnStatus};
use shared::whatsapp::settle::MAX_HANDED_OVER;

use super::drain::{Drain, Stop, persist, signed};

/// What the keys of the items begin with that wake us for a message.
const MESSAGE: &str = "message#";

/// What a failure in this run means for a message.
pub(super) struct Tried {
    attempts: u32,
    backs_off_until: Timestamp,
}

impl Drain<'_> {
    /// Reads what was said, and the items of messages that wait though we were not given them.
    pub(super) async fn read_turns(&mut self) -> Result<(), Stop> {
        let id = &self.stored.conversation.id;
        let given = self.given.iter();
        let wanted: Vec<&str> = given
            .filter(|(_, given)| given.outcome.is_none())
            .filter_map(|(key, _)| key.strip_prefix(MESSAGE))
            .collect();
        let turns = self.worker.conversations.turns(id, &wanted).await?;
        let found: Vec<String> = turns
            .iter()
            .filter(|turn| turn.status == Some(TurnStatus::Pending))
            .map(message_key)
            .filter(|key| !self.given.contains_key(key.as_str()))
            .collect();
        self.turns = turns;
        self.found.clear();
        if found.is_empty() {
            return Ok(());
        }
        for entry in self.worker.outbox.get_all(&self.subject, &found).await? {
            self.found.insert(entry.event_key.clone(), entry);
        }
        // Whoever gave an item up may have died before it could say so of the message.
        let is_dead = |turn: &&Turn| {
            let entry = self.found.get(&message_key(turn));
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
                let given = self.given.get(&message_key(turn));
                given.is_some_and(|given| given.outcome.is_none())
            }
            Some(TurnStatus::HandedOver) | None => false,
        };
        let waiting = |turn| {
            let entry = self.item(turn);
            let failed = entry.filter(|entry| entry.attempts > 0);
            match self.tried.get(&turn.id) {
                Some(tried) => Waiting {
                    turn,
                    attempts: tried.attempts,
                    backs_off_until: Some(tried.backs_off_until),
                    tried: true,
                },
                None => Waiting {
                    turn,
                    attempts: failed.map_or(0, |entry| entry.attempts),
                    backs_off_until: failed.and_then(Entry::due),
                    tried: false,
                },
            }
        };
        self.turns.iter().filter(waits).map(waiting).collect()
    }

    fn item(&self, turn: &Turn) -> Option<&Entry> {
        let key = message_key(turn);
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

    /// Notes of each of these messages, given or found, what became of it; `wait` is how long it backs off.
    pub(super) async fn note_messages(
        &mut self,
        messages: &[Turn],
        outcome: &Outcome,
        wait: Duration,
    ) -> Result<(), Stop> {
        let mut given_up = Vec::new();
        for message in messages {
            let entry = self.item(message).cloned();
            let tried = Tried {
                attempts: entry.as_ref().map_or(0, |entry| entry.attempts) + 1,
                backs_off_until: self.now() + signed(wait),
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

    /// Sees to it that messages which are not handed over now wake somebody when their time comes, and not
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
        let postponed: Vec<(Turn, Entry, Timestamp)> = waiting
            .iter()
            .filter(|message| !message.tried)
            .filter_map(|message| {
                let until = if message.goes_alone() { all } else { together }?;
                let entry = self.item(message.turn)?;
                let moves = entry.due().is_none_or(|due| due < until);
                moves.then(|| (message.turn.clone(), entry.clone(), until))
            })
            .collect();
        for (turn, entry, until) in postponed {
            if self.worker.settler.gives_up(&entry) {
                let outcome = Outcome::dead(Reason::ExternalSystemDownForTooLong);
                self.note_messages(&[turn], &outcome, Duration::ZERO).await?;
                continue;
            }
            let key = entry.event_key.as_str();
            self.worker.outbox.postpone(&self.subject, key, until).await?;
            self.know(key, Outcome::Settled(Settled::Retried));
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
        let mut found = Vec::new();
        for key in messages.iter().map(message_key) {
            if !self.know(&key, Outcome::Done) {
                found.push(key);
            }
        }
        let (outbox, subject) = (&self.worker.outbox, &self.subject);
        let settled = found.iter().map(|key| outbox.done_key(subject, key));
        for settled in futures_util::future::join_all(settled).await {
            if let Err(error) = settled {
                // It wakes a worker once more, which finds nothing to do.
                tracing::warn!(%error, "a message's item is settled later");
            }
        }
    }

    /// A message's item is only a wake-up: its turn says whether it still waits.
    pub(super) fn settle_messages(&mut self) {
        for (event_key, given) in &mut self.given {
            if !given.is_open(Kind::RelayMessage) {
                continue;
            }
            given.outcome = match self.turns.iter().find(|turn| message_key(turn) == *event_key) {
                Some(turn) if turn.status == Some(TurnStatus::HandedOver) => Some(Outcome::Done),
                Some(_) => None,
                None => Some(Outcome::dead(Reason::TurnExpired)),
            };
        }
    }
}

/// The event key of the item that wakes us for a message.
fn message_key(turn: &Turn) -> String {
    format!("{MESSAGE}{}", turn.id)
}
