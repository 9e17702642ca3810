//! The outbox table.
//!
//! Key: (`subject`, `event_key`). Only pending items carry `due_shard` and `due_at`, so the index over them
//! holds just what waits, spread over shards so that no partition is hot; only dead ones carry `dead_lane` and
//! `dead_at`. Settled and dead items stay for a while (`expires_at`): a redelivered webhook must find them.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, KeysAndAttributes, Put, PutRequest, ReturnValue, TransactWriteItem, WriteRequest,
};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Item, MAX_BATCH_GET, MAX_BATCH_WRITE, StoreError, number, string};
use crate::clock::Clock;
use crate::outbox::{Kind, Lane, OutboxItem};
use crate::telemetry;

/// Pending items of a lane lie in this many partitions of the index.
pub const SHARDS: u16 = 8;

/// The stream wakes the dispatcher within a second. The schedule leaves a new item alone for this long, so
/// that the two do not meet over it.
const STREAM_GRACE: SignedDuration = SignedDuration::from_secs(30);

/// Meta redelivers for up to 36 h; a settled item must be found that long.
const KEEP_DONE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How long somebody can look at, and redrive, what was given up or not understood.
const KEEP_DEAD: SignedDuration = SignedDuration::from_hours(30 * 24);

/// DynamoDB takes items of 400 KB.
const MAX_RAW_BYTES: usize = 350_000;

/// Calls under way at once; each carries many items.
const CONCURRENCY: usize = 8;

/// The outbox table.
#[derive(Clone, Debug)]
pub struct Outbox {
    client: Client,
    table: String,
    clock: Clock,
}

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
    payload: String,
    /// Where it stands.
    pub status: Status,
    /// Failed attempts so far.
    #[serde(default)]
    pub attempts: u32,
    /// When it was committed (ms).
    created_at: i64,
    /// When the schedule picks it up (ms); pending only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due_at: Option<i64>,
    /// `<lane>#<shard>`; pending only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due_shard: Option<String>,
    /// Not before this time (ms).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_before: Option<i64>,
    /// Somebody is at it until then (ms).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease_until: Option<i64>,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The lane; dead only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dead_lane: Option<Lane>,
    /// When it was given up (ms); dead only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dead_at: Option<i64>,
    /// When DynamoDB may remove it (s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
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

impl Entry {
    fn new(item: &OutboxItem, now: Timestamp) -> Self {
        let lane = item.kind.lane();
        let due = item.not_before.unwrap_or(now).max(now) + STREAM_GRACE;
        Self {
            subject: item.subject.clone(),
            event_key: item.event_key.clone(),
            kind: item.kind,
            lane,
            payload: item.payload.to_string(),
            status: Status::Pending,
            attempts: 0,
            created_at: now.as_millisecond(),
            due_at: Some(due.as_millisecond()),
            due_shard: Some(due_shard(lane, &item.subject)),
            not_before: item.not_before.map(Timestamp::as_millisecond),
            lease_until: None,
            reason: None,
            dead_lane: None,
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
        serde_dynamo::from_item(item).map_err(|error| StoreError::new("outbox read", error))
    }

    /// What the kind needs to know.
    #[must_use]
    pub fn payload(&self) -> Value {
        serde_json::from_str(&self.payload).unwrap_or_default()
    }

    /// When it was committed.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        Timestamp::from_millisecond(self.created_at).unwrap_or_default()
    }

    /// When it was given up, if it was.
    #[must_use]
    pub fn given_up(&self) -> Option<Timestamp> {
        self.dead_at.and_then(|at| Timestamp::from_millisecond(at).ok())
    }

    /// Not before this time.
    #[must_use]
    pub fn not_before(&self) -> Option<Timestamp> {
        self.not_before
            .and_then(|at| Timestamp::from_millisecond(at).ok())
    }

    /// When the schedule picks it up; pending only.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        self.due_at.and_then(|at| Timestamp::from_millisecond(at).ok())
    }

    /// (`subject`, `event_key`).
    #[must_use]
    pub fn key(&self) -> (String, String) {
        (self.subject.clone(), self.event_key.clone())
    }

    fn done(mut self, now: Timestamp) -> Self {
        self.status = Status::Done;
        (self.due_at, self.due_shard, self.lease_until) = (None, None, None);
        self.expires_at = Some((now + KEEP_DONE).as_second());
        // A settled item is kept to be found, not to be read: nothing personal stays in it.
        "null".clone_into(&mut self.payload);
        self
    }
}

fn due_shard(lane: Lane, subject: &str) -> String {
    let digest = Sha256::digest(subject);
    let shard = digest.first().map_or(0, |byte| u16::from(*byte) % SHARDS);
    format!("{}#{shard}", lane.as_str())
}

/// A body, or one item of a body, that was correctly signed and not understood.
#[derive(Clone)]
pub struct Quarantined {
    /// `messenger`, `fbe` or `whatsapp`.
    pub source: &'static str,
    /// Stable code.
    pub reason: &'static str,
    /// The bytes as they came.
    pub raw: Bytes,
}

impl fmt::Debug for Quarantined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, reason, raw } = self;
        write!(f, "Quarantined({source}, {reason}, {} bytes)", raw.len())
    }
}

impl Outbox {
    /// The table `table`.
    #[must_use]
    pub fn new(client: Client, table: String, clock: Clock) -> Self {
        Self { client, table, clock }
    }

    /// The write that adds `item` to somebody's transaction; it fails if the item is there already.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the item cannot be written as a DynamoDB item.
    pub fn put(&self, item: &OutboxItem) -> Result<TransactWriteItem, StoreError> {
        let entry = Entry::new(item, self.clock.now());
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(to_item(&entry)?))
            .condition_expression("attribute_not_exists(event_key)")
            .build()
            .map_err(|error| StoreError::new("outbox put", error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    /// The write that settles `entry` as part of somebody's transaction; it fails if it is no longer pending.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the item cannot be written as a DynamoDB item.
    pub fn settle_done(&self, entry: &Entry) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(to_item(&entry.clone().done(self.clock.now()))?))
            .condition_expression("#status = :pending")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":pending", string("pending"))
            .build()
            .map_err(|error| StoreError::new("outbox settle", error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    /// Adds one item. `false` if it was there already.
    pub async fn add(&self, item: &OutboxItem) -> Result<bool, StoreError> {
        let entry = Entry::new(item, self.clock.now());
        let answer = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(to_item(&entry)?))
            .condition_expression("attribute_not_exists(event_key)")
            .send()
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(aws_sdk_dynamodb::operation::put_item::PutItemError::is_conditional_check_failed_exception) =>
            {
                Ok(false)
            }
            Err(error) => Err(StoreError::sdk("PutItem", &error)),
        }
    }

    /// The item as it stands, read consistently.
    pub async fn get(&self, subject: &str, event_key: &str) -> Result<Option<Entry>, StoreError> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.table)
            .key("subject", string(subject))
            .key("event_key", string(event_key))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| StoreError::sdk("GetItem", &error))?;
        answer.item.map(Entry::read).transpose()
    }

    /// Keeps bodies or items that were not understood, for 30 days. The key is made of the bytes, so keeping
    /// the same thing again changes nothing.
    pub async fn quarantine(&self, quarantined: &[Quarantined]) -> Result<(), StoreError> {
        if quarantined.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let writes = quarantined
            .iter()
            .map(|one| quarantine_items(one, now))
            .collect::<Result<Vec<_>, _>>()?;
        metrics::counter!(telemetry::QUARANTINED).increment(quarantined.len() as u64);
        for one in quarantined {
            tracing::warn!(
                reason = one.reason,
                source = one.source,
                bytes = one.raw.len(),
                "a payload was quarantined"
            );
        }
        self.write_all(writes.concat()).await
    }

    /// Pending items of `lane` that are due, oldest first within a shard, at most about `limit`; and when the
    /// oldest fell due.
    pub async fn due(&self, lane: Lane, limit: usize) -> Result<(Vec<Entry>, Option<Timestamp>), StoreError> {
        let now = self.clock.now().as_millisecond();
        let per_shard = i32::try_from(limit.div_ceil(usize::from(SHARDS))).unwrap_or(i32::MAX);
        let keys: Vec<Vec<Item>> = stream::iter(0..SHARDS)
            .map(|shard| async move {
                let answer = self
                    .client
                    .query()
                    .table_name(&self.table)
                    .index_name("due")
                    .key_condition_expression("due_shard = :shard AND due_at <= :now")
                    .expression_attribute_values(":shard", string(format!("{}#{shard}", lane.as_str())))
                    .expression_attribute_values(":now", number(now))
                    .limit(per_shard)
                    .send()
                    .await
                    .map_err(|error| StoreError::sdk("Query", &error))?;
                Ok::<_, StoreError>(answer.items.unwrap_or_default())
            })
            .buffer_unordered(usize::from(SHARDS))
            .try_collect()
            .await?;
        let keys: Vec<Item> = keys.into_iter().flatten().collect();
        let oldest = keys
            .iter()
            .filter_map(|key| key.get("due_at")?.as_n().ok()?.parse().ok())
            .min();
        let entries = self.read_all(&keys).await?;
        // The index lags behind the table a little.
        let due = entries
            .into_iter()
            .filter(|entry| entry.status == Status::Pending && entry.due_at.is_some_and(|at| at <= now));
        Ok((
            due.collect(),
            oldest.and_then(|at| Timestamp::from_millisecond(at).ok()),
        ))
    }

    /// Takes the item for `lease`. `None` if somebody else has it or it is settled.
    pub async fn claim(&self, entry: &Entry, lease: Duration) -> Result<Option<Entry>, StoreError> {
        self.claim_key(&entry.subject, &entry.event_key, lease).await
    }

    /// [`Outbox::claim`] of an item of which only the key is known.
    pub async fn claim_key(
        &self,
        subject: &str,
        event_key: &str,
        lease: Duration,
    ) -> Result<Option<Entry>, StoreError> {
        let now = self.clock.now();
        let until = now + SignedDuration::try_from(lease).unwrap_or(SignedDuration::from_mins(1));
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("subject", string(subject))
            .key("event_key", string(event_key))
            .update_expression("SET lease_until = :until")
            .condition_expression(
                "#status = :pending AND (attribute_not_exists(lease_until) OR lease_until < :now)",
            )
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":until", number(until.as_millisecond()))
            .expression_attribute_values(":pending", string("pending"))
            .expression_attribute_values(":now", number(now.as_millisecond()))
            .return_values(ReturnValue::AllNew)
            .send()
            .await;
        match answer {
            Ok(answer) => answer.attributes.map(Entry::read).transpose(),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(aws_sdk_dynamodb::operation::update_item::UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Ok(None)
            }
            Err(error) => Err(StoreError::sdk("UpdateItem", &error)),
        }
    }

    /// Pending items of `subject` whose event keys lie between `from` and `to` (both included), in their order.
    pub async fn pending(&self, subject: &str, from: &str, to: &str) -> Result<Vec<Entry>, StoreError> {
        let items: Vec<Item> = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("subject = :subject AND event_key BETWEEN :from AND :to")
            .filter_expression("#status = :pending")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":subject", string(subject))
            .expression_attribute_values(":from", string(from))
            .expression_attribute_values(":to", string(to))
            .expression_attribute_values(":pending", string("pending"))
            .consistent_read(true)
            .into_paginator()
            .items()
            .send()
            .collect::<Result<_, _>>()
            .await
            .map_err(|error| StoreError::sdk("Query", &error))?;
        items.into_iter().map(Entry::read).collect()
    }

    /// Settles an item as done of which only the key is known, also if it was given up. Call only under the
    /// lease of its subject.
    pub async fn done_key(&self, subject: &str, event_key: &str) -> Result<(), StoreError> {
        let expires = (self.clock.now() + KEEP_DONE).as_second();
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("subject", string(subject))
            .key("event_key", string(event_key))
            .update_expression(
                "SET #status = :done, payload = :nothing, expires_at = :expires \
                 REMOVE due_at, due_shard, lease_until, dead_lane, dead_at",
            )
            .condition_expression("attribute_exists(event_key)")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":done", string("done"))
            .expression_attribute_values(":nothing", string("null"))
            .expression_attribute_values(":expires", number(expires))
            .send()
            .await;
        match answer {
            Ok(_) => Ok(()),
            // Removed long ago.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(aws_sdk_dynamodb::operation::update_item::UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Ok(())
            }
            Err(error) => Err(StoreError::sdk("UpdateItem", &error)),
        }
    }

    /// Settles items as done. Call only for items whose subject or self is under our lease.
    pub async fn done(&self, entries: impl IntoIterator<Item = Entry>) -> Result<(), StoreError> {
        let now = self.clock.now();
        let writes = entries
            .into_iter()
            .map(|entry| to_item(&entry.done(now)))
            .collect::<Result<Vec<_>, _>>()?;
        self.write_all(writes).await
    }

    /// Notes a failed attempt and when to try again.
    pub async fn retry(&self, entry: &Entry, reason: &str, due: Timestamp) -> Result<(), StoreError> {
        self.update(
            entry,
            "SET attempts = :attempts, reason = :reason, due_at = :due REMOVE lease_until",
            &[
                (":attempts", number(entry.attempts + 1)),
                (":reason", string(reason)),
                (":due", number(due.as_millisecond())),
            ],
        )
        .await
    }

    /// Gives an item up.
    pub async fn dead(&self, entry: &Entry, reason: &str) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.update(
            entry,
            "SET #status = :dead, attempts = :attempts, reason = :reason, dead_lane = :lane, dead_at = :now, \
             expires_at = :expires REMOVE lease_until, due_at, due_shard",
            &[
                (":dead", string("dead")),
                (":attempts", number(entry.attempts + 1)),
                (":reason", string(reason)),
                (":lane", string(entry.lane.as_str())),
                (":now", number(now.as_millisecond())),
                (":expires", number((now + KEEP_DEAD).as_second())),
            ],
        )
        .await
    }

    /// Dead items of `lane`, oldest first, at most `limit`.
    pub async fn list_dead(&self, lane: Lane, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let answer = self
            .client
            .query()
            .table_name(&self.table)
            .index_name("dead")
            .key_condition_expression("dead_lane = :lane")
            .expression_attribute_values(":lane", string(lane.as_str()))
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .send()
            .await
            .map_err(|error| StoreError::sdk("Query", &error))?;
        let entries = self.read_all(&answer.items.unwrap_or_default()).await?;
        Ok(entries
            .into_iter()
            .filter(|entry| entry.status == Status::Dead)
            .collect())
    }

    /// Makes a dead item pending again, due at once and with all its attempts before it. `false` if it is not
    /// dead.
    pub async fn redrive(&self, entry: &Entry) -> Result<bool, StoreError> {
        let now = self.clock.now().as_millisecond();
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("subject", string(&entry.subject))
            .key("event_key", string(&entry.event_key))
            .update_expression(
                "SET #status = :pending, attempts = :zero, due_at = :now, due_shard = :shard, created_at = :now \
                 REMOVE dead_lane, dead_at, expires_at",
            )
            .condition_expression("#status = :dead")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":pending", string("pending"))
            .expression_attribute_values(":dead", string("dead"))
            .expression_attribute_values(":zero", number(0))
            .expression_attribute_values(":now", number(now))
            .expression_attribute_values(":shard", string(due_shard(entry.lane, &entry.subject)))
            .send()
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(aws_sdk_dynamodb::operation::update_item::UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Ok(false)
            }
            Err(error) => Err(StoreError::sdk("UpdateItem", &error)),
        }
    }

    /// Makes items of `subject` that wait for `reason` due at once, with all their attempts before them. Gives
    /// how many.
    pub async fn wake(&self, subject: &str, reason: &str) -> Result<usize, StoreError> {
        let now = self.clock.now().as_millisecond();
        let waiting: Vec<Item> = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("subject = :subject")
            .filter_expression("#status = :pending AND reason = :reason")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":subject", string(subject))
            .expression_attribute_values(":pending", string("pending"))
            .expression_attribute_values(":reason", string(reason))
            .into_paginator()
            .items()
            .send()
            .collect::<Result<_, _>>()
            .await
            .map_err(|error| StoreError::sdk("Query", &error))?;
        for item in &waiting {
            let entry = Entry::read(item.clone())?;
            self.update(
                &entry,
                "SET due_at = :now, created_at = :now, attempts = :zero REMOVE reason",
                &[(":now", number(now)), (":zero", number(0))],
            )
            .await?;
        }
        Ok(waiting.len())
    }

    async fn update(
        &self,
        entry: &Entry,
        expression: &str,
        values: &[(&str, AttributeValue)],
    ) -> Result<(), StoreError> {
        let mut update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("subject", string(&entry.subject))
            .key("event_key", string(&entry.event_key))
            .update_expression(expression)
            .condition_expression("#status = :pending")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":pending", string("pending"));
        for (name, value) in values {
            update = update.expression_attribute_values(*name, value.clone());
        }
        match update.send().await {
            Ok(_) => Ok(()),
            // Somebody else has settled it; that is as good.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(aws_sdk_dynamodb::operation::update_item::UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Ok(())
            }
            Err(error) => Err(StoreError::sdk("UpdateItem", &error)),
        }
    }

    async fn read_all(&self, keys: &[Item]) -> Result<Vec<Entry>, StoreError> {
        let keys: Vec<Item> = keys
            .iter()
            .map(|key| {
                key.iter()
                    .filter(|(name, _)| matches!(name.as_str(), "subject" | "event_key"))
                    .map(|(n, v)| (n.clone(), v.clone()))
                    .collect()
            })
            .collect();
        let items: Vec<Vec<Item>> = stream::iter(keys.chunks(MAX_BATCH_GET).map(<[Item]>::to_vec))
            .map(|keys| batch_get(&self.client, &self.table, keys))
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        items.into_iter().flatten().map(Entry::read).collect()
    }

    async fn write_all(&self, items: Vec<Item>) -> Result<(), StoreError> {
        stream::iter(items.chunks(MAX_BATCH_WRITE).map(<[Item]>::to_vec))
            .map(|items| batch_put(&self.client, &self.table, items))
            .buffer_unordered(CONCURRENCY)
            .try_collect::<Vec<()>>()
            .await
            .map(drop)
    }
}

/// Reads up to [`MAX_BATCH_GET`] items consistently, asking again for what DynamoDB left out.
pub(crate) async fn batch_get(
    client: &Client,
    table: &str,
    mut keys: Vec<Item>,
) -> Result<Vec<Item>, StoreError> {
    let mut found = Vec::with_capacity(keys.len());
    let mut pause = Duration::from_millis(20);
    while !keys.is_empty() {
        let request = KeysAndAttributes::builder()
            .set_keys(Some(keys))
            .consistent_read(true)
            .build()
            .map_err(|error| StoreError::new("BatchGetItem", error))?;
        let answer = client
            .batch_get_item()
            .request_items(table, request)
            .send()
            .await
            .map_err(|error| StoreError::sdk("BatchGetItem", &error))?;
        found.extend(
            answer
                .responses
                .into_iter()
                .filter_map(|mut tables| tables.remove(table))
                .flatten(),
        );
        keys = answer
            .unprocessed_keys
            .and_then(|mut tables| tables.remove(table))
            .map(|left| left.keys)
            .unwrap_or_default();
        pause = between(pause, keys.is_empty()).await;
    }
    Ok(found)
}

async fn batch_put(client: &Client, table: &str, items: Vec<Item>) -> Result<(), StoreError> {
    let mut writes = items
        .into_iter()
        .map(|item| {
            let put = PutRequest::builder().set_item(Some(item)).build();
            put.map(|put| WriteRequest::builder().put_request(put).build())
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| StoreError::new("BatchWriteItem", error))?;
    let mut pause = Duration::from_millis(20);
    while !writes.is_empty() {
        let answer = client
            .batch_write_item()
            .request_items(table, writes)
            .send()
            .await
            .map_err(|error| StoreError::sdk("BatchWriteItem", &error))?;
        writes = answer
            .unprocessed_items
            .and_then(|mut tables| tables.remove(table))
            .unwrap_or_default();
        pause = between(pause, writes.is_empty()).await;
    }
    Ok(())
}

// DynamoDB leaves items out when it is throttled; asking again at once makes that worse.
async fn between(pause: Duration, finished: bool) -> Duration {
    if finished {
        return pause;
    }
    tokio::time::sleep(pause).await;
    (pause * 2).min(Duration::from_secs(1))
}

fn to_item(entry: &Entry) -> Result<Item, StoreError> {
    serde_dynamo::to_item(entry).map_err(|error| StoreError::new("outbox write", error))
}

fn quarantine_items(one: &Quarantined, now: Timestamp) -> Result<Vec<Item>, StoreError> {
    let digest = hex::encode(Sha256::digest(&one.raw));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let packed = encoder.write_all(&one.raw).and_then(|()| encoder.finish());
    let packed = packed.map_err(|error| StoreError::new("quarantine", error))?;
    // Even a body of 4 MiB that does not shrink fits, in parts.
    let parts: Vec<&[u8]> = packed.chunks(MAX_RAW_BYTES).collect();
    let item = |(index, part): (usize, &&[u8])| {
        Item::from([
            ("subject".to_owned(), string(format!("quarantine#{}", one.source))),
            (
                "event_key".to_owned(),
                string(format!("{}#{digest}#{index}", one.reason)),
            ),
            ("status".to_owned(), string("quarantined")),
            ("reason".to_owned(), string(one.reason)),
            (
                "part".to_owned(),
                string(format!("{} of {}", index + 1, parts.len())),
            ),
            ("raw_gzip".to_owned(), AttributeValue::B(Blob::new(part.to_vec()))),
            ("created_at".to_owned(), number(now.as_millisecond())),
            ("expires_at".to_owned(), number((now + KEEP_DEAD).as_second())),
        ])
    };
    Ok(parts.iter().enumerate().map(item).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(read == entry && read.payload() == serde_json::json!({"text": "private"}));
        let done = to_item(&entry.done(now)).unwrap();
        assert!(!done.contains_key("due_shard") && !done.contains_key("due_at"));
        assert_eq!(done["payload"], string("null"));
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

    #[test]
    fn a_large_body_is_kept_in_parts() {
        // Digests do not compress.
        let raw: Vec<u8> = (0..40_000_u32)
            .flat_map(|n| Sha256::digest(n.to_le_bytes()))
            .collect();
        let one = Quarantined {
            source: "messenger",
            reason: "not_json",
            raw: raw.clone().into(),
        };
        let items = quarantine_items(&one, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(items.len(), 4);
        let packed: Vec<u8> = items
            .iter()
            .flat_map(|item| item["raw_gzip"].as_b().unwrap().as_ref().to_vec())
            .collect();
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(
            &mut flate2::read::GzDecoder::new(packed.as_slice()),
            &mut unpacked,
        )
        .unwrap();
        assert!(unpacked == raw);
    }
}
