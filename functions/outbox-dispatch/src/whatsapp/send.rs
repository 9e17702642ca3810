//! Replies, one after the other.

use futures_util::future::try_join_all;
use jiff::Timestamp;
use shared::outbox::{Entry, OutboxItem};
use shared::store::Claim;
use shared::telemetry;
use shared::whatsapp::reply::ReplyPayload;

use super::drain::{BRAZE_TIMEOUT, Drain, Stop, Waiting, persist};
use super::outgoing::{Send, decide_send, without_attributes};
use crate::braze::{BrazeError, Objects};
use crate::settle::{Outcome, Settled};

/// A reply that was found is ours for as long as Braze may take, and until the lease on its conversation has run out.
const CLAIM: std::time::Duration = std::time::Duration::from_mins(1);

impl Drain<'_> {
    /// Sends the replies that wait, until one has to wait longer: none overtakes another.
    pub(super) async fn send_replies(&mut self) -> Result<(), Stop> {
        while !self.blocked
            && let Some(first) = self.replies.front()
        {
            if first.backs_off_until.is_some_and(|until| until > self.now()) {
                self.blocked = true;
                break;
            }
            if !self.has_time_for(BRAZE_TIMEOUT) {
                return Err(Stop::OutOfTime);
            }
            let (event_key, own) = (first.event_key.clone(), first.own.clone());
            self.hold(BRAZE_TIMEOUT).await?;
            if let Some(entry) = own {
                self.send(&entry).await?;
                continue;
            }
            match self
                .worker
                .outbox
                .claim(self.subject(), &event_key, CLAIM)
                .await?
            {
                Claim::Leased(entry, _) => self.send(&entry).await?,
                // The worker that had it died over it. It may have been sent; its claim has to run out first.
                Claim::Busy => self.block(self.now() + CLAIM),
                Claim::Missing => {
                    self.passed(&event_key);
                    self.became(&event_key, Outcome::Settled(Settled::Done));
                }
            }
        }
        self.hold_back().await
    }

    async fn send(&mut self, entry: &Entry) -> Result<(), Stop> {
        let reply: ReplyPayload = match entry.payload() {
            Ok(reply) => reply,
            Err(unreadable) => return self.end(entry, unreadable.into()).await,
        };
        let conversation = &self.stored.conversation;
        let settings = &self.worker.settings;
        let sent = match decide_send(&entry.event_key, &reply, conversation, settings, self.now()) {
            Send::Trigger(body) => self.worker.braze.trigger_send(&body).await,
            Send::Canvas(body) => self.worker.braze.canvas_send(&body).await,
            Send::Track(object) => {
                let objects = Objects::of_attributes(vec![object.0]);
                self.worker.braze.track(&objects).await
            }
            Send::Dead(reason) => return self.give_up_reply(entry, &reply, reason.as_str()).await,
            Send::Misconfigured(reason) => {
                return self.try_again(entry, Outcome::misconfigured(reason)).await;
            }
            Send::Replace(pieces) => return self.replace(entry, pieces).await,
        };
        let outcome = match &sent {
            Ok(taken) => taken
                .refusal()
                .map_or(Outcome::Done, |reason| Outcome::Dead { reason }),
            // A campaign that our settings name has to be mended there, and the replies wait for it.
            Err(BrazeError::Rejected { reason, .. })
                if reply.campaign.is_none()
                    && reply.canvas.is_none()
                    && reason.contains("Invalid Campaign ID") =>
            {
                Outcome::misconfigured(reason)
            }
            Err(error) => error.into(),
        };
        match outcome {
            Outcome::Dead { reason } => self.give_up_reply(entry, &reply, &reason).await,
            Outcome::Retry { reason, .. } if self.worker.settler.gives_up(entry) => {
                self.give_up_reply(entry, &reply, &reason).await
            }
            Outcome::Retry { .. } | Outcome::Misconfigured { .. } => self.try_again(entry, outcome).await,
            outcome => self.end(entry, outcome).await,
        }
    }

    /// It waits no longer.
    async fn end(&mut self, entry: &Entry, outcome: Outcome) -> Result<(), Stop> {
        self.note(entry, outcome).await?;
        self.passed(&entry.event_key);
        Ok(())
    }

    /// It waits, and those behind it with it.
    async fn try_again(&mut self, entry: &Entry, outcome: Outcome) -> Result<(), Stop> {
        self.note(entry, outcome).await?;
        let stored = self.worker.outbox.get(self.subject(), &entry.event_key).await?;
        let due = stored.and_then(|entry| entry.due_at);
        self.block(due.unwrap_or(Timestamp::MAX));
        Ok(())
    }

    /// It is not sent; what it would have written to the profile is written all the same.
    async fn give_up_reply(&mut self, entry: &Entry, reply: &ReplyPayload, reason: &str) -> Result<(), Stop> {
        let Some((rest, attributes)) = without_attributes(&entry.event_key, reply, &self.stored.conversation)
        else {
            return self.end(entry, Outcome::dead(reason)).await;
        };
        let (outbox, item) = (&self.worker.outbox, &attributes);
        // If it was not pending any more, then because an earlier try was carried out and its answer lost.
        persist(|| outbox.give_up_but(entry, reason, &rest, item)).await?;
        let subject = telemetry::pseudonym(self.subject());
        tracing::error!(outbox.kind = ?entry.kind, outbox.subject = subject, reason, "an outbox item is dead");
        self.noted(&entry.event_key, Settled::Dead);
        self.replies.pop_front();
        self.replies.push_front(Waiting::put(&attributes, self.now()));
        Ok(())
    }

    async fn replace(&mut self, entry: &Entry, pieces: Vec<OutboxItem>) -> Result<(), Stop> {
        if !self.worker.outbox.replace(entry, &pieces).await? {
            return Err(Stop::Lost);
        }
        self.became(&entry.event_key, Outcome::Settled(Settled::Done));
        // Not all up to this one is settled: the pieces come behind it.
        self.replies.pop_front();
        let now = self.now();
        for piece in pieces.iter().rev() {
            self.replies.push_front(Waiting::put(piece, now));
        }
        Ok(())
    }

    /// The first of the waiting replies has to wait until then.
    fn block(&mut self, until: Timestamp) {
        self.blocked = true;
        if let Some(first) = self.replies.front_mut() {
            first.backs_off_until = Some(until);
        }
    }

    /// Replies behind one that has to wait fall due when it does: they can go no earlier, and would lie in the
    /// way of what can.
    async fn hold_back(&mut self) -> Result<(), Stop> {
        let first = self.replies.front().filter(|_| self.blocked);
        let Some(until) = first.and_then(|first| first.backs_off_until) else {
            return Ok(());
        };
        let (outbox, subject) = (&self.worker.outbox, self.stored.conversation.id.as_str());
        let behind = self.replies.iter_mut().skip(1);
        let early: Vec<&mut Waiting> = behind
            .filter(|reply| reply.due.is_none_or(|due| due < until))
            .collect();
        let moves = early
            .iter()
            .map(|reply| outbox.postpone(subject, &reply.event_key, until));
        try_join_all(moves).await?;
        let mut held_back = Vec::new();
        for reply in early {
            reply.due = Some(until);
            held_back.push(reply.event_key.clone());
        }
        for key in held_back {
            self.became(&key, Outcome::Settled(Settled::Retried));
        }
        Ok(())
    }

    /// The first of the waiting replies waits no longer.
    fn passed(&mut self, event_key: &str) {
        self.replies.pop_front();
        if self
            .settled_sends
            .as_deref()
            .is_none_or(|settled| settled < event_key)
        {
            self.settled_sends = Some(event_key.to_owned());
        }
    }
}
