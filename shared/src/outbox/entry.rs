//! One item of the outbox table.

use std::fmt;

use jiff::fmt::serde::timestamp::millisecond;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::outbox::{Kind, Lane, OutboxItem};
use crate::store::{Item, StoreError};
use crate::telemetry;

/// What would be one hot partition lies in this many: a lane's items in each index, a source's quarantined bodies.
pub const SHARDS: u16 = 8;

/// The stream wakes the dispatcher within a second. The schedule leaves a new item alone for this long, so
/// that the two do not meet over it.
const STREAM_GRACE: SignedDuration = SignedDuration::from_secs(30);

/// Meta redelivers for up to 36 h; a settled item must be found that long.
pub(super) const KEEP_DONE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How long somebody can look at, and redrive, what was given up or not understood.
pub(super) const KEEP_DEAD: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Where an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Still to be settled.
    Pending,
    /// Settled.
    Done,
    /// Given up; can be redriven.
    Dead,
}

/// An item as stored.
#[serde_with::skip_serializing_none]
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Partition key.
    pub subject: String,
    /// Sort key.
    pub event_key: String,
    /// What is to be done.
    pub kind: Kind,
    /// Who does it; the stream's filter reads it.
    pub lane: Lane,
    /// JSON.
    pub(super) payload: String,
    /// Where it stands.
    pub status: Status,
    /// Failed attempts so far.
    #[serde(default)]
    pub attempts: u32,
    /// Of these, how often the external system had a message and there was no answer; the relay's only. What had to wait
    /// for a setting, or for DynamoDB, says nothing about the message.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub asked_in_vain: u32,
    /// Of these, how often the answer was of another shape than is agreed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub malformed_answers: u32,
    /// Since when it is tried: its commit, or when it was last redriven, woken or found to wait for a setting.
    #[serde(with = "millisecond::required")]
    pub created_at: Timestamp,
    /// When the schedule picks it up; pending only.
    #[serde(default, with = "millisecond::optional")]
    pub due_at: Option<Timestamp>,
    /// `<lane>#<shard>`; pending only.
    pub(super) due_shard: Option<String>,
    /// Not before this time.
    #[serde(default, with = "millisecond::optional")]
    pub not_before: Option<Timestamp>,
    /// Why the last attempt failed.
    pub reason: Option<String>,
    /// Since when its attempts fail: from the first that failed until one succeeds, or it is redriven.
    #[serde(default, with = "millisecond::optional")]
    pub failing_since: Option<Timestamp>,
    /// `<lane>#<shard>`; pending and failing only.
    failing_shard: Option<String>,
    /// `<lane>#<shard>`; dead only.
    dead_shard: Option<String>,
    /// When it was given up; dead only.
    #[serde(default, with = "millisecond::optional")]
    pub dead_at: Option<Timestamp>,
    /// When DynamoDB may remove it (s).
    pub(super) expires_at: Option<i64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

// The subject names a person and the payload may quote them.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("subject", &telemetry::pseudonym(&self.subject))
            .field("kind", &self.kind)
            .field("status", &self.status)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

/// A payload is not of its kind's type. The deserializer's own words would quote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an outbox item's payload is not of the expected shape")]
pub struct UnreadablePayload;

impl Entry {
    /// The item as it is stored if it is put at `now`.
    #[must_use]
    pub fn new(item: &OutboxItem, now: Timestamp) -> Self {
        let lane = item.kind.lane();
        // What the stream does not bring is the schedule's at once.
        let grace = if item.kind.is_quick() {
            STREAM_GRACE
        } else {
            SignedDuration::ZERO
        };
        let due = item.not_before.unwrap_or(now).max(now) + grace;
        Self {
            subject: item.subject.clone(),
            event_key: item.event_key.clone(),
            kind: item.kind,
            lane,
            payload: item.payload.to_string(),
            status: Status::Pending,
            attempts: 0,
            asked_in_vain: 0,
            malformed_answers: 0,
            created_at: now,
            due_at: Some(due),
            due_shard: Some(shard(lane, &item.subject)),
            not_before: item.not_before,
            reason: None,
            failing_since: None,
            failing_shard: None,
            dead_shard: None,
            dead_at: None,
            expires_at: None,
        }
    }

    /// Reads an item of the table or of its stream.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it is not an outbox item.
    pub fn read(item: Item) -> Result<Self, StoreError> {
        serde_dynamo::from_item(item).map_err(|_| StoreError::unreadable("outbox read"))
    }

    /// What the kind needs to know.
    ///
    /// # Errors
    ///
    /// [`UnreadablePayload`] if another version has written it, or somebody by hand.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, UnreadablePayload> {
        serde_json::from_str(&self.payload).map_err(|_| UnreadablePayload)
    }

    /// (`subject`, `event_key`).
    #[must_use]
    pub fn key(&self) -> (String, String) {
        (self.subject.clone(), self.event_key.clone())
    }

    pub(super) fn done(&self, now: Timestamp) -> Self {
        let mut done = self.clone();
        done.status = Status::Done;
        (done.due_at, done.due_shard) = (None, None);
        (done.failing_since, done.failing_shard) = (None, None);
        done.expires_at = Some((now + KEEP_DONE).as_second());
        // A settled item is kept to be found, not to be read: nothing personal stays in it.
        "null".clone_into(&mut done.payload);
        done
    }
}

/// The partition of the indexes that an item lies in.
pub(super) fn shard(lane: Lane, subject: &str) -> String {
    format!("{}#{}", lane.as_str(), Digest::of(subject).shard(SHARDS))
}

/// As DynamoDB holds it.
pub(super) fn to_item(entry: &Entry) -> Result<Item, StoreError> {
    serde_dynamo::to_item(entry).map_err(|error| StoreError::new("outbox write", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::string;

    fn item() -> OutboxItem {
        OutboxItem {
            subject: "messenger#1#2".into(),
            event_key: "sync#a".into(),
            kind: Kind::ContactSync,
            payload: serde_json::json!({"text": "private"}),
            not_before: None,
        }
    }

    #[test]
    fn an_entry_survives_dynamodb_and_done_keeps_nothing_personal() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let entry = Entry::new(&item(), now);
        let read = Entry::read(to_item(&entry).unwrap()).unwrap();
        assert!(read == entry && read.payload() == Ok(serde_json::json!({"text": "private"})));
        let done = to_item(&entry.done(now)).unwrap();
        assert!(!done.contains_key("due_shard") && !done.contains_key("due_at"));
        assert_eq!(done["payload"], string("null"));
    }

    #[test]
    fn an_item_that_cannot_be_read_is_not_quoted() {
        let mut item = to_item(&Entry::new(&item(), Timestamp::UNIX_EPOCH)).unwrap();
        item.insert("kind".to_owned(), string("what somebody wrote"));
        let error = Entry::read(item).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("somebody"), "{error}");
    }

    #[test]
    fn debug_shows_no_person() {
        let entry = Entry::new(&item(), Timestamp::UNIX_EPOCH);
        let shown = format!("{entry:?}");
        assert!(
            !shown.contains("messenger#1#2") && !shown.contains("private"),
            "{shown}"
        );
    }
}
