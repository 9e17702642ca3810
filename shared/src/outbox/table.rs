//! The outbox table.
//!
//! Key: (`subject`, `event_key`). Only pending items carry `due_shard` and `due_at`, so the index over them
//! holds just what waits, spread over shards so that no partition is hot; only dead ones carry `dead_lane` and
//! `dead_at`. Settled and dead items stay for a while (`expires_at`): a redelivered webhook must find them.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, Put, ReturnValue, TransactWriteItem};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::entry::{Entry, KEEP_DEAD, KEEP_DONE, Status, due_shard, to_item};
use super::{Lane, OutboxItem};
use crate::clock::Clock;
use crate::store::batch::{MAX_BATCH_GET, MAX_BATCH_WRITE, batch_get, batch_put};
use crate::store::{
    Item, StoreError, is_condition, is_conflict, number, past_transactions, readable, string,
};

/// Calls under way at once; each carries many items.
const CONCURRENCY: usize = 8;

/// The outbox table.
#[derive(Clone, Debug)]
pub struct Outbox {
    pub(super) client: Client,
    pub(super) table: String,
    pub(super) clock: Clock,
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
        self.settle(&entry.clone().done(self.clock.now()))
    }

    fn settle(&self, settled: &Entry) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(to_item(settled)?))
            .condition_expression("#status = :pending")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":pending", string("pending"))
            .build()
            .map_err(|error| StoreError::new("outbox settle", error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    /// The write that gives `entry` up as part of somebody's transaction, with `payload` in place of its own; it
    /// fails if it is no longer pending.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the item cannot be written as a DynamoDB item.
    pub fn settle_dead(
        &self,
        entry: &Entry,
        reason: &str,
        payload: &Value,
    ) -> Result<TransactWriteItem, StoreError> {
        self.settle(&entry.clone().dead(self.clock.now(), reason, payload))
    }

    /// Adds one item. `false` if it was there already.
    pub async fn add(&self, item: &OutboxItem) -> Result<bool, StoreError> {
        let entry = Entry::new(item, self.clock.now());
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(to_item(&entry)?))
            .condition_expression("attribute_not_exists(event_key)");
        let answer = past_transactions(|| put.clone().send()).await;
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

    /// Items of `subject` as they stand, in no order.
    pub async fn get_all(&self, subject: &str, event_keys: &[String]) -> Result<Vec<Entry>, StoreError> {
        let key = |event_key: &String| {
            Item::from([
                ("subject".to_owned(), string(subject)),
                ("event_key".to_owned(), string(event_key)),
            ])
        };
        self.read_all(&event_keys.iter().map(key).collect::<Vec<_>>())
            .await
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
            // Or a transaction is at it.
            Err(error) if is_condition(&error) || is_conflict(&error) => Ok(None),
            Err(error) => Err(StoreError::sdk("UpdateItem", &error)),
        }
    }

    /// Ends the claim that `claimed` was taken by, before its time; one that has run out is left alone.
    pub async fn unclaim(&self, claimed: &Entry) -> Result<(), StoreError> {
        let Some(until) = claimed.lease_until else {
            return Ok(());
        };
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("subject", string(&claimed.subject))
            .key("event_key", string(&claimed.event_key))
            .update_expression("REMOVE lease_until")
            .condition_expression("#status = :pending AND lease_until = :until")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":pending", string("pending"))
            .expression_attribute_values(":until", number(until));
        let answer = past_transactions(|| update.clone().send()).await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) if is_condition(&error) => Ok(()),
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
        Ok(readable(items, "subject", Entry::read))
    }

    /// Pending items of `subject` whose event keys begin with a number, as all do that begin with a time; in the
    /// order of the keys.
    pub async fn pending_all(&self, subject: &str) -> Result<Vec<Entry>, StoreError> {
        self.pending(subject, "0", ":").await
    }

    /// Settles an item as done of which only the key is known, also if it was given up. Call only under the
    /// lease of its subject.
    pub async fn done_key(&self, subject: &str, event_key: &str) -> Result<(), StoreError> {
        let expires = (self.clock.now() + KEEP_DONE).as_second();
        let update = self
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
            .expression_attribute_values(":expires", number(expires));
        let answer = past_transactions(|| update.clone().send()).await;
        match answer {
            Ok(_) => Ok(()),
            // Removed long ago.
            Err(error) if is_condition(&error) => Ok(()),
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

    /// Notes an attempt that failed for something somebody has to mend, and when to try again. The time until
    /// it is mended does not count: the item then has all of it before it.
    pub async fn wait(&self, entry: &Entry, reason: &str, due: Timestamp) -> Result<(), StoreError> {
        self.update(
            entry,
            "SET attempts = :attempts, reason = :reason, due_at = :due, created_at = :now REMOVE lease_until",
            &[
                (":attempts", number(entry.attempts + 1)),
                (":reason", string(reason)),
                (":due", number(due.as_millisecond())),
                (":now", number(self.clock.now().as_millisecond())),
            ],
        )
        .await
    }

    /// Moves a pending item to another time. It counts as no attempt.
    pub async fn postpone(&self, subject: &str, event_key: &str, due: Timestamp) -> Result<(), StoreError> {
        self.update_key(
            subject,
            event_key,
            "SET due_at = :due",
            &[(":due", number(due.as_millisecond()))],
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
        let update = self
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
            .expression_attribute_values(":shard", string(due_shard(entry.lane, &entry.subject)));
        let answer = past_transactions(|| update.clone().send()).await;
        match answer {
            Ok(_) => Ok(true),
            Err(error) if is_condition(&error) => Ok(false),
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
        let waiting = readable(waiting, "subject", Entry::read);
        for entry in &waiting {
            self.update(
                entry,
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
        self.update_key(&entry.subject, &entry.event_key, expression, values)
            .await
    }

    async fn update_key(
        &self,
        subject: &str,
        event_key: &str,
        expression: &str,
        values: &[(&str, AttributeValue)],
    ) -> Result<(), StoreError> {
        let mut update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("subject", string(subject))
            .key("event_key", string(event_key))
            .update_expression(expression)
            .condition_expression("#status = :pending")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":pending", string("pending"));
        for (name, value) in values {
            update = update.expression_attribute_values(*name, value.clone());
        }
        match past_transactions(|| update.clone().send()).await {
            Ok(_) => Ok(()),
            // Somebody else has settled it; that is as good.
            Err(error) if is_condition(&error) => Ok(()),
            Err(error) => Err(StoreError::sdk("UpdateItem", &error)),
        }
    }

    pub(super) async fn read_all(&self, keys: &[Item]) -> Result<Vec<Entry>, StoreError> {
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
        Ok(readable(items.into_iter().flatten(), "subject", Entry::read))
    }

    pub(super) async fn write_all(&self, items: Vec<Item>) -> Result<(), StoreError> {
        stream::iter(items.chunks(MAX_BATCH_WRITE).map(<[Item]>::to_vec))
            .map(|items| batch_put(&self.client, &self.table, items))
            .buffer_unordered(CONCURRENCY)
            .try_collect::<Vec<()>>()
            .await
            .map(drop)
    }
}
