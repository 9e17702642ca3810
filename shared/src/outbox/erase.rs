//! Removing what the outbox holds of somebody.

use jiff::Timestamp;

use super::Outbox;
use super::entry::Entry;
use super::quarantine::{partition, partitions, unpacked};
use crate::outbox::OutboxItem;
use crate::store::table::find_all;
use crate::store::transact::transact;
use crate::store::{Item, StoreError, milliseconds, string, text};

impl Outbox {
    /// Adds an item, also in the place of one that is settled. `false` if one with its key is pending.
    pub(crate) async fn add_unless_pending(&self, item: &OutboxItem) -> Result<bool, StoreError> {
        let item = super::entry::to_item(&Entry::new(item, self.table.now()))?;
        let values = Item::from([(":pending".to_owned(), string("pending"))]);
        let put = self.table.put(
            item,
            Some(("attribute_not_exists(event_key) OR #status <> :pending", values)),
        )?;
        Ok(transact(&self.table.client, vec![((), put)]).await?.is_empty())
    }

    /// How many items `subject` has, in any state; with `until`, of those that were committed until then.
    pub async fn count(&self, subject: &str, until: Option<Timestamp>) -> Result<usize, StoreError> {
        Ok(self.keys(subject, until).await?.len())
    }

    /// Removes the items of `subject`, in any state; with `until`, those that were committed until then. Gives how many.
    pub async fn erase(&self, subject: &str, until: Option<Timestamp>) -> Result<usize, StoreError> {
        let keys = self.keys(subject, until).await?;
        let count = keys.len();
        self.table.delete_all(keys).await?;
        Ok(count)
    }

    /// Removes the quarantined bodies that hold `id`, reading through all of them. Gives how many.
    pub async fn erase_quarantined(&self, id: &str) -> Result<usize, StoreError> {
        let mut erased = 0;
        for (source, shard) in partitions() {
            let query = self.table.query_of("subject", partition(source, shard));
            let mut items = query.into_paginator().items().send();
            // The parts of a body follow each other: by their keys, which end with a number.
            let mut body: Option<(String, Vec<Item>)> = None;
            loop {
                let item = items.next().await.transpose();
                let item = item.map_err(|error| StoreError::sdk("Query", &error))?;
                let name = item.as_ref().map(body_name);
                if body.as_ref().map(|(name, _)| name) != name.as_ref()
                    && let Some((_, parts)) = body.take()
                    && holds(&parts, id)
                {
                    erased += 1;
                    self.table.delete_all(parts.iter().map(key_of).collect()).await?;
                }
                let (Some(item), Some(name)) = (item, name) else {
                    break;
                };
                body.get_or_insert((name, Vec::new())).1.push(item);
            }
        }
        Ok(erased)
    }

    async fn keys(&self, subject: &str, until: Option<Timestamp>) -> Result<Vec<Item>, StoreError> {
        let mut query = self
            .table
            .query_of("subject", subject)
            .projection_expression("subject, event_key")
            .consistent_read(true);
        if let Some(until) = until {
            query = query
                .filter_expression("created_at <= :until")
                .expression_attribute_values(":until", milliseconds(until));
        }
        find_all(query).await
    }
}

/// What the parts of a body have in common.
fn body_name(item: &Item) -> String {
    let name = text(item, "event_key").and_then(|key| key.rsplit_once('#'));
    name.map_or("", |(name, _)| name).to_owned()
}

fn key_of(item: &Item) -> Item {
    let of = |name: &str| Some((name.to_owned(), item.get(name)?.clone()));
    ["subject", "event_key"].into_iter().filter_map(of).collect()
}

/// Whether the body of these parts holds a text.
fn holds(parts: &[Item], text: &str) -> bool {
    let Some(body) = unpacked(parts) else {
        tracing::warn!("a quarantined body cannot be unpacked");
        return false;
    };
    body.windows(text.len().max(1))
        .any(|window| window == text.as_bytes())
}
