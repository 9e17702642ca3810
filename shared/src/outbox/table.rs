//! The outbox table.
//!
//! Key: (`subject`, `event_key`). Only pending items carry `due_shard` and `due_at`, so the index over them
//! holds just what waits, spread over shards so that no partition is hot; only those of them that fail carry
//! `failing_shard` and `failing_since`, only dead ones `dead_shard` and `dead_at`. Settled and dead items stay for a while (`expires_at`): a redelivered webhook must find them.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::TransactWriteItem;
use jiff::Timestamp;
use serde_json::Value;

use super::entry::{Entry, KEEP_DEAD, KEEP_DONE, SHARDS, Status, shard, to_item};
use super::{Lane, OutboxItem, Reason};
use crate::clock::Clock;
use crate::store::table::{Table, find_all};
use crate::store::transact::transact;
use crate::store::update::Update;
use crate::store::{
    Claim, Item, Lease, Released, StoreError, milliseconds, number, readable, string, text, time,
};

/// The attribute by which the stream's filter finds the relay's items that need a worker woken.
const WAKES: &str = "wakes";

/// The outbox table.
#[derive(Clone, Debug)]
pub struct Outbox {
    pub(crate) table: Table,
}

impl Outbox {
    /// The table `table`.
    #[must_use]
    pub fn new(client: Client, table: String, clock: Clock) -> Self {
        Self {
            table: Table::new(client, table, clock),
        }
    }

    /// The write that adds `item` to a transaction; refused if the item is there already.
    pub fn put(&self, item: &OutboxItem) -> Result<TransactWriteItem, StoreError> {
        let item = to_item(&Entry::new(item, self.table.now()))?;
        self.table
            .put(item, Some(("attribute_not_exists(event_key)", Item::new())))
    }

    /// As [`Outbox::put`], for an item that needs a worker woken. Items of the relay that a worker puts for itself need
    /// none.
    pub(crate) fn put_waking(&self, item: &OutboxItem) -> Result<TransactWriteItem, StoreError> {
        let mut item = to_item(&Entry::new(item, self.table.now()))?;
        item.insert(WAKES.to_owned(), string(Lane::Relay.as_str()));
        self.table
            .put(item, Some(("attribute_not_exists(event_key)", Item::new())))
    }

    /// The highest event key of `subject` between `from` and `to`, whatever became of its item.
    pub(crate) async fn last_event_key(
        &self,
        subject: &str,
        (from, to): (&str, &str),
    ) -> Result<Option<String>, StoreError> {
        let query = self
            .between(subject, from, to)
            .projection_expression("event_key")
            .scan_index_forward(false)
            .consistent_read(true)
            .limit(1);
        let answer = query.send().await;
        let answer = answer.map_err(|error| StoreError::sdk("Query", &error))?;
        let last = answer.items.unwrap_or_default().pop();
        Ok(last.and_then(|item| Some(text(&item, "event_key")?.to_owned())))
    }

    /// A query of the items of `subject` whose event keys lie between `from` and `to`, both included.
    fn between(&self, subject: &str, from: &str, to: &str) -> QueryFluentBuilder {
        self.table
            .query()
            .key_condition_expression("subject = :subject AND event_key BETWEEN :from AND :to")
            .expression_attribute_values(":subject", string(subject))
            .expression_attribute_values(":from", string(from))
            .expression_attribute_values(":to", string(to))
    }

    /// Writes `states` and the effects that follow from them, wholly or not at all. `false` if the condition of a state
    /// does not hold. An effect that is there already is a redelivery's: it is taken care of, and stops nothing.
    pub(crate) async fn commit(
        &self,
        states: impl IntoIterator<Item = TransactWriteItem>,
        effects: &[OutboxItem],
    ) -> Result<bool, StoreError> {
        let states: Vec<_> = states.into_iter().map(|state| (None, state)).collect();
        let mut effects: Vec<&OutboxItem> = effects.iter().collect();
        loop {
            let mut writes = states.clone();
            for effect in &effects {
                writes.push((Some(*effect), self.put(effect)?));
            }
            let refused = transact(&self.table.client, writes).await?;
            if refused.is_empty() {
                return Ok(true);
            }
            if refused.contains(&None) {
                return Ok(false);
            }
            effects.retain(|effect| !refused.contains(&Some(*effect)));
        }
    }

    /// Settles `entry` and puts `items` in its place, in one transaction. `false` if it is no longer pending.
    pub async fn replace(&self, entry: &Entry, items: &[OutboxItem]) -> Result<bool, StoreError> {
        let done = self.done_update(&entry.subject, &entry.event_key);
        self.exchange(pending(done), items).await
    }

    /// Gives `entry` up and keeps `payload` of it; `item` does the rest of its work. In one transaction, `false` if it
    /// is no longer pending.
    pub async fn give_up_but(
        &self,
        entry: &Entry,
        reason: &str,
        payload: &Value,
        item: &OutboxItem,
    ) -> Result<bool, StoreError> {
        let dead = self.dead_update(entry, reason);
        let dead = dead.set("payload", string(payload.to_string()));
        self.exchange(dead, std::slice::from_ref(item)).await
    }

    async fn exchange(&self, settled: Update, items: &[OutboxItem]) -> Result<bool, StoreError> {
        let mut writes = vec![((), settled.in_transaction(&self.table.name)?)];
        for item in items {
            writes.push(((), self.put(item)?));
        }
        Ok(transact(&self.table.client, writes).await?.is_empty())
    }

    /// Adds one item. `false` if it was there already.
    pub async fn add(&self, item: &OutboxItem) -> Result<bool, StoreError> {
        let refused = transact(&self.table.client, vec![((), self.put(item)?)]).await?;
        Ok(refused.is_empty())
    }

    /// The item as it stands, read consistently.
    pub async fn get(&self, subject: &str, event_key: &str) -> Result<Option<Entry>, StoreError> {
        let item = self.table.get(key(subject, event_key)).await?;
        item.map(Entry::read).transpose()
    }

    /// Items of `subject` as they stand, in no order.
    pub async fn get_all(&self, subject: &str, event_keys: &[String]) -> Result<Vec<Entry>, StoreError> {
        let keys = event_keys.iter().map(|event_key| key(subject, event_key));
        self.read_all(keys.collect()).await
    }

    /// Claims a pending item for `length`. [`Claim::Missing`] if it is settled, or not there.
    pub async fn claim(
        &self,
        subject: &str,
        event_key: &str,
        length: Duration,
    ) -> Result<Claim<Entry>, StoreError> {
        let update = pending(Update::new(key(subject, event_key)));
        self.table.claim(update, length, Entry::read).await
    }

    /// Ends a claim before its time; one that has expired is left alone.
    pub async fn release(&self, lease: &Lease) -> Result<Released, StoreError> {
        self.table.release(lease, lease.update()).await
    }

    /// Pending items of `subject` whose event keys lie between `from` and `to` (both included), in their order.
    pub async fn pending(&self, subject: &str, from: &str, to: &str) -> Result<Vec<Entry>, StoreError> {
        let query = self
            .between(subject, from, to)
            .filter_expression("#status = :pending")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":pending", string("pending"))
            .consistent_read(true);
        Ok(readable(find_all(query).await?, "subject", Entry::read))
    }

    /// Pending items of `subject` whose event keys begin with a number, as all do that begin with a time; in the
    /// order of the keys.
    pub async fn pending_all(&self, subject: &str) -> Result<Vec<Entry>, StoreError> {
        self.pending(subject, "0", ":").await
    }

    /// Settles an item as done of which only the key is known, also if it was given up, and whoever works on it: what it
    /// was to do is known to be done. Without such an item nothing happens.
    pub async fn done_key(&self, subject: &str, event_key: &str) -> Result<(), StoreError> {
        let done = self.done_update(subject, event_key);
        self.settle(done.when("attribute_exists(#event_key) AND #status <> :status"))
            .await
    }

    fn done_update(&self, subject: &str, event_key: &str) -> Update {
        Update::new(key(subject, event_key))
            .set("status", string("done"))
            // A settled item is kept to be found, not to be read: nothing personal stays in it.
            .set("payload", string("null"))
            .set("expires_at", number((self.table.now() + KEEP_DONE).as_second()))
            .remove(&["due_at", "due_shard", "lease_until", "dead_shard", "dead_at"])
            .remove(&["failing_since", "failing_shard"])
    }

    /// Settles items as done. Call only for items whose subject or self is under our lease.
    pub async fn done(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let now = self.table.now();
        let entries = entries.iter().map(|entry| to_item(&entry.done(now)));
        self.table.put_all(entries.collect::<Result<_, _>>()?).await
    }

    /// Notes a failed attempt and when to try again.
    pub async fn retry(&self, entry: &Entry, reason: &str, due: Timestamp) -> Result<(), StoreError> {
        let update = self.failed(entry, reason);
        self.settle(update.set("due_at", milliseconds(due))).await
    }

    /// Notes an attempt that could not be finished because something has yet to come, and when to look again. That is
    /// no failure.
    pub async fn hold(&self, entry: &Entry, reason: &str, due: Timestamp) -> Result<(), StoreError> {
        let update = attempted(entry, reason)
            .set("due_at", milliseconds(due))
            .remove(&["failing_since", "failing_shard"]);
        self.settle(update).await
    }

    /// Notes an attempt that failed for something that must be mended outside, and when to try again. The time until
    /// it is mended does not count: the item then has all of it before it.
    pub async fn wait(&self, entry: &Entry, reason: &str, due: Timestamp) -> Result<(), StoreError> {
        let update = self
            .failed(entry, reason)
            .set("due_at", milliseconds(due))
            .set("created_at", milliseconds(self.table.now()));
        self.settle(update).await
    }

    /// Moves a pending item to another time. It counts as no attempt.
    pub async fn postpone(&self, subject: &str, event_key: &str, due: Timestamp) -> Result<(), StoreError> {
        let update = Update::new(key(subject, event_key)).set("due_at", milliseconds(due));
        self.settle(pending(update)).await
    }

    /// Gives an item up.
    pub async fn dead(&self, entry: &Entry, reason: &str) -> Result<(), StoreError> {
        self.settle(self.dead_update(entry, reason)).await
    }

    fn dead_update(&self, entry: &Entry, reason: &str) -> Update {
        let now = self.table.now();
        attempted(entry, reason)
            .set("status", string("dead"))
            .set("dead_shard", string(shard(entry.lane, &entry.subject)))
            .set("dead_at", milliseconds(now))
            .set("expires_at", number((now + KEEP_DEAD).as_second()))
            .remove(&["due_at", "due_shard", "failing_shard"])
    }

    /// One more attempt, which failed.
    fn failed(&self, entry: &Entry, reason: &str) -> Update {
        attempted(entry, reason)
            .set_once("failing_since", milliseconds(self.table.now()))
            .set("failing_shard", string(shard(entry.lane, &entry.subject)))
    }

    /// Dead items of `lane`, oldest first, at most `limit`.
    pub async fn list_dead(&self, lane: Lane, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let most = i32::try_from(limit).unwrap_or(i32::MAX);
        let shards = self.first_of_shards(lane, ("dead", "dead_shard"), most).await?;
        let mut entries = self.read_all(shards.concat()).await?;
        entries.retain(|entry| entry.status == Status::Dead);
        entries.sort_by_key(|entry| entry.dead_at);
        entries.truncate(limit);
        Ok(entries)
    }

    /// Since when something of `lane` fails: of all pending items, the one that has done so for longest.
    pub async fn failing_since(&self, lane: Lane) -> Result<Option<Timestamp>, StoreError> {
        let shards = self
            .first_of_shards(lane, ("failing", "failing_shard"), 1)
            .await?;
        let since = shards
            .iter()
            .flatten()
            .filter_map(|key| time(key, "failing_since"));
        Ok(since.min())
    }

    /// The keys of the first items of each shard of an index.
    pub(super) async fn first_of_shards(
        &self,
        lane: Lane,
        (index, attribute): (&str, &str),
        limit: i32,
    ) -> Result<Vec<Vec<Item>>, StoreError> {
        let queries = (0..SHARDS).map(|shard| async move {
            let query = self
                .table
                .query_of(attribute, format!("{}#{shard}", lane.as_str()));
            let answer = query.index_name(index).limit(limit).send().await;
            let answer = answer.map_err(|error| StoreError::sdk("Query", &error))?;
            Ok(answer.items.unwrap_or_default())
        });
        futures_util::future::try_join_all(queries).await
    }

    /// Makes a dead item pending again, due at once and with all its attempts before it. `false` if it is not
    /// dead.
    pub async fn redrive(&self, entry: &Entry) -> Result<bool, StoreError> {
        let now = milliseconds(self.table.now());
        let update = Update::new(key(&entry.subject, &entry.event_key))
            .set("status", string("pending"))
            .set("attempts", number(0))
            .set("due_at", now.clone())
            .set("due_shard", string(shard(entry.lane, &entry.subject)))
            .set("created_at", now)
            .remove(&["dead_shard", "dead_at", "expires_at", "failing_since"])
            .remove(&["asked_in_vain", "malformed_answers"])
            .value("dead", string("dead"))
            .when("#status = :dead");
        self.table.update(update).await
    }

    /// Makes items of `subject` that wait for `reason` due at once, with all their attempts before them. Gives
    /// how many.
    pub async fn wake(&self, subject: &str, reason: Reason) -> Result<usize, StoreError> {
        let now = milliseconds(self.table.now());
        let query = self
            .table
            .query_of("subject", subject)
            .filter_expression("#status = :pending AND reason = :reason")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":pending", string("pending"))
            .expression_attribute_values(":reason", string(reason))
            // What is missed is woken by nobody else.
            .consistent_read(true);
        let waiting = readable(find_all(query).await?, "subject", Entry::read);
        for entry in &waiting {
            let update = Update::new(key(&entry.subject, &entry.event_key))
                .set("due_at", now.clone())
                .set("created_at", now.clone())
                .set("attempts", number(0))
                .remove(&["reason", "failing_since", "failing_shard"])
                .remove(&["asked_in_vain", "malformed_answers"]);
            self.settle(pending(update)).await?;
        }
        Ok(waiting.len())
    }

    /// If it was not pending any more, another worker has settled it; that is as good.
    async fn settle(&self, update: Update) -> Result<(), StoreError> {
        self.table.update(update).await.map(drop)
    }

    /// The items with these keys, which may have more attributes, as an index gives them.
    pub(super) async fn read_all(&self, mut keys: Vec<Item>) -> Result<Vec<Entry>, StoreError> {
        for key in &mut keys {
            key.retain(|name, _| matches!(name.as_str(), "subject" | "event_key"));
        }
        let items = self.table.get_all(&keys).await?;
        Ok(readable(items, "subject", Entry::read))
    }
}

/// One more attempt.
fn attempted(entry: &Entry, reason: &str) -> Update {
    let mut update = Update::new(key(&entry.subject, &entry.event_key))
        .set("attempts", number(entry.attempts + 1))
        .set("reason", string(reason))
        .remove(&["lease_until"]);
    let of_messages = [
        ("asked_in_vain", entry.asked_in_vain),
        ("malformed_answers", entry.malformed_answers),
    ];
    for (name, times) in of_messages {
        if times > 0 {
            update = update.set(name, number(times));
        }
    }
    pending(update)
}

/// Only if the item is pending.
fn pending(update: Update) -> Update {
    update
        .value("pending", string("pending"))
        .when("#status = :pending")
}

/// The key of an item.
pub(crate) fn key(subject: &str, event_key: &str) -> Item {
    Item::from([
        ("subject".to_owned(), string(subject)),
        ("event_key".to_owned(), string(event_key)),
    ])
}
