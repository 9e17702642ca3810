//! What is due.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::Outbox;
use super::entry::{Entry, SHARDS, Status};
use crate::outbox::Lane;
use crate::store::{Item, StoreError, milliseconds, string, time};

/// A page of a shard of the index: keys, and where the next page begins.
struct Page {
    shard: u16,
    keys: Vec<Item>,
    next: Option<Item>,
}

/// Items that are due, and how it goes on.
#[derive(Default)]
pub struct Due {
    /// Oldest first within a shard.
    pub entries: Vec<Entry>,
    /// When the oldest item that was looked at fell due, readable or not.
    pub oldest: Option<Timestamp>,
    /// What is due behind them; `None` = nothing.
    pub next: Option<Position>,
}

/// How far the shards have been looked at.
pub struct Position(Vec<(u16, Option<Item>)>);

impl Outbox {
    /// Pending items of `lane` that are due, at most about `limit`, from `position` on; `None` = from the beginning.
    pub async fn due(&self, lane: Lane, limit: usize, position: Option<Position>) -> Result<Due, StoreError> {
        let now = self.table.now();
        let per_shard = i32::try_from(limit.div_ceil(usize::from(SHARDS))).unwrap_or(i32::MAX);
        let beginning = || (0..SHARDS).map(|shard| (shard, None)).collect();
        let mut shards = position.map_or_else(beginning, |Position(shards)| shards);
        let mut due = Due::default();
        // What cannot be read stays due. Were nothing behind it looked at, the rest would never leave.
        while due.entries.is_empty() && !shards.is_empty() {
            let pages: Vec<Page> = stream::iter(shards)
                .map(|(shard, from)| self.page(lane, shard, from, now, per_shard))
                .buffer_unordered(usize::from(SHARDS))
                .try_collect()
                .await?;
            let keys: Vec<Item> = pages.iter().flat_map(|page| page.keys.clone()).collect();
            let times = keys.iter().filter_map(|key| time(key, "due_at"));
            due.oldest = times.chain(due.oldest).min();
            let entries = self.read_all(keys).await?;
            // The index lags behind the table a little.
            due.entries.extend(
                entries.into_iter().filter(|entry| {
                    entry.status == Status::Pending && entry.due_at.is_some_and(|at| at <= now)
                }),
            );
            shards = pages
                .into_iter()
                .filter_map(|page| Some((page.shard, Some(page.next?))))
                .collect();
        }
        due.next = (!shards.is_empty()).then_some(Position(shards));
        Ok(due)
    }

    /// Pending items of `lane`, due or not, at most about `limit`; the soonest of each shard. For people who look.
    pub async fn waiting(&self, lane: Lane, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let per_shard = i32::try_from(limit.div_ceil(usize::from(SHARDS))).unwrap_or(i32::MAX);
        let shards = self
            .first_of_shards(lane, ("due", "due_shard"), per_shard)
            .await?;
        let mut entries = self.read_all(shards.concat()).await?;
        entries.retain(|entry| entry.status == Status::Pending);
        Ok(entries)
    }

    async fn page(
        &self,
        lane: Lane,
        shard: u16,
        from: Option<Item>,
        now: Timestamp,
        limit: i32,
    ) -> Result<Page, StoreError> {
        let answer = self
            .table
            .query()
            .index_name("due")
            .key_condition_expression("due_shard = :shard AND due_at <= :now")
            .expression_attribute_values(":shard", string(format!("{}#{shard}", lane.as_str())))
            .expression_attribute_values(":now", milliseconds(now))
            .limit(limit)
            .set_exclusive_start_key(from)
            .send()
            .await
            .map_err(|error| StoreError::sdk("Query", &error))?;
        Ok(Page {
            shard,
            keys: answer.items.unwrap_or_default(),
            next: answer.last_evaluated_key.filter(|key| !key.is_empty()),
        })
    }
}
