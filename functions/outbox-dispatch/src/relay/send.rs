//! Replies, one after the other.

use jiff::Timestamp;
use serde_json::Value;
use shared::clients::braze::{BrazeError, TrackBody};
use shared::outbox::dispatch::Outcome;
use shared::store::outbox::{Entry, Status};
use shared::whatsapp::reply::{ReplyPayload, Send, decide_send};

use super::drain::{BRAZE_TIMEOUT, Drain, Stop, Waiting, dead};
use crate::contacts;

/// A reply is ours for as long as Braze may take, and until the lease on its conversation has run out.
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
            let event_key = first.event_key.clone();
            self.hold(BRAZE_TIMEOUT).await?;
            let outbox = &self.worker.outbox;
            let Some(entry) = outbox.claim_key(self.subject, &event_key, CLAIM).await? else {
                let stored = outbox.get(self.subject, &event_key).await?;
                if stored.is_some_and(|entry| entry.status == Status::Pending) {
                    // Whoever had it died over it. It may have been sent; its claim has to run out first.
                    self.blocked = true;
                    break;
                }
                self.passed(&event_key);
                if let Some((position, _)) = self.given.get(event_key.as_str()) {
                    self.outcomes.insert(*position, Outcome::Settled);
                }
                continue;
            };
            self.send(&entry).await?;
        }
        Ok(())
    }

    async fn send(&mut self, entry: &Entry) -> Result<(), Stop> {
        let Ok(reply) = serde_json::from_value::<ReplyPayload>(entry.payload()) else {
            self.note(entry, dead("unreadable_payload")).await?;
            self.passed(&entry.event_key);
            return Ok(());
        };
        let conversation = &self.leased.conversation;
        let settings = &self.worker.settings;
        let sent = match decide_send(&entry.event_key, &reply, conversation, settings, self.now()) {
            Send::Trigger(body) => self.worker.braze.trigger_send(&body).await,
            Send::Track(body) => self.worker.braze.track(&track_body(body)).await,
            Send::Dead(reason) => {
                self.note(entry, dead(reason)).await?;
                self.passed(&entry.event_key);
                return Ok(());
            }
            Send::Replace(pieces) => {
                if !self.worker.conversations.replace(entry, &pieces).await? {
                    return Err(Stop::Lost);
                }
                self.passed(&entry.event_key);
                if let Some((position, _)) = self.given.get(entry.event_key.as_str()) {
                    self.outcomes.insert(*position, Outcome::Settled);
                }
                for piece in pieces.into_iter().rev() {
                    self.replies.push_front(Waiting {
                        event_key: piece.event_key,
                        backs_off_until: None,
                    });
                }
                return Ok(());
            }
        };
        let outcome = match &sent {
            Ok(taken) if taken.errors.is_empty() => Outcome::Done,
            Ok(_) => dead("braze_object_rejected"),
            // A campaign that our settings name has to be mended there, and the replies wait for it.
            Err(BrazeError::Rejected { reason, .. })
                if reply.campaign.is_none() && reason.contains("Invalid Campaign ID") =>
            {
                Outcome::Misconfigured {
                    reason: reason.clone(),
                    wait: None,
                }
            }
            Err(error) => contacts::outcome(error),
        };
        let waits = matches!(outcome, Outcome::Retry { .. } | Outcome::Misconfigured { .. });
        self.note(entry, outcome).await?;
        if waits {
            self.blocked = true;
            if let Some(first) = self.replies.front_mut() {
                // When exactly is in the table now.
                first.backs_off_until = Some(Timestamp::MAX);
            }
        } else {
            self.passed(&entry.event_key);
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

fn track_body(body: Value) -> TrackBody {
    let attributes = match body {
        Value::Object(mut fields) => fields.remove("attributes"),
        _ => None,
    };
    TrackBody {
        attributes: match attributes {
            Some(Value::Array(attributes)) => attributes,
            _ => Vec::new(),
        },
        events: Vec::new(),
    }
}
