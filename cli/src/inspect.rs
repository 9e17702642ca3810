//! What the tables of a local stack hold, in full.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aws_sdk_dynamodb::types::{AttributeValue, Select};
use jiff::Timestamp;
use serde_json::Value;
use shared::outbox::{Lane, Outbox, SHARDS};

pub(crate) use crate::item::plain_item;
pub use crate::item::{CONTACTS, CONVERSATIONS, INSTALLS, OUTBOX, contact};
use crate::stack::LocalStack;

/// Between two looks at what is pending.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);

/// All tables at one moment.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Snapshot {
    tables: BTreeMap<String, BTreeMap<String, Value>>,
}

/// An item that is new or was changed.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    /// The table's logical id.
    pub(crate) table: &'a str,
    pub(crate) key: &'a str,
    /// As it is now.
    pub(crate) item: &'a Value,
    pub(crate) is_new: bool,
}

impl Snapshot {
    /// Reads all tables, consistently item by item.
    ///
    /// # Errors
    ///
    /// When a table cannot be read.
    pub async fn take(stack: &LocalStack) -> anyhow::Result<Self> {
        let all: Vec<&str> = stack
            .template()
            .tables()
            .iter()
            .map(|table| table.logical_id.as_str())
            .collect();
        Self::default().with(stack, &all).await
    }

    /// The same with `logical_ids` read anew.
    pub(crate) async fn with(&self, stack: &LocalStack, logical_ids: &[&str]) -> anyhow::Result<Self> {
        let mut tables = self.tables.clone();
        for table in stack.template().tables() {
            if !logical_ids.contains(&table.logical_id.as_str()) {
                continue;
            }
            let items = scan(stack, &table.name).await?;
            let mut by_key = BTreeMap::new();
            for item in items {
                let key: Vec<&str> = table
                    .key
                    .iter()
                    .filter_map(|key| item.get(&key.name)?.as_s().ok())
                    .map(String::as_str)
                    .collect();
                by_key.insert(key.join("\n"), plain_item(&item));
            }
            tables.insert(table.logical_id.clone(), by_key);
        }
        Ok(Self { tables })
    }

    /// The items of one table, by their keys' parts joined with a line break.
    #[must_use]
    pub fn table(&self, logical_id: &str) -> &BTreeMap<String, Value> {
        static EMPTY: BTreeMap<String, Value> = BTreeMap::new();
        self.tables.get(logical_id).unwrap_or(&EMPTY)
    }

    /// What is new or changed since `before`. Nothing is ever removed but by its time to live.
    pub(crate) fn since<'a>(&'a self, before: &Self) -> Vec<Change<'a>> {
        let mut changes = Vec::new();
        for (table, items) in &self.tables {
            let known = before.table(table);
            for (key, item) in items {
                let was = known.get(key);
                if was != Some(item) {
                    changes.push(Change {
                        table,
                        key,
                        item,
                        is_new: was.is_none(),
                    });
                }
            }
        }
        changes
    }
}

/// Waits until no outbox item is pending, but for comparisons of installs with Graph that are planned for later. Says
/// whether that came to pass within `limit`.
///
/// # Errors
///
/// When the outbox cannot be read.
pub async fn drained(stack: &LocalStack, limit: Duration) -> anyhow::Result<bool> {
    let table = stack
        .template()
        .table(OUTBOX)
        .context("the template has no outbox")?;
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        if !is_work_in_sight(stack, &table.name).await? && pending(stack, &table.name).await? == 0 {
            return Ok(true);
        }
        if start.elapsed() > limit {
            return Ok(false);
        }
        // A long table takes its time, which is that of those who work on it.
        let pause = SHORTEST_PAUSE.max(asked.elapsed() * 2);
        tokio::time::sleep(pause).await;
    }
}

/// When the first of the pending outbox items falls due, or has fallen due; `None` if nothing is pending.
///
/// # Errors
///
/// When the outbox cannot be read.
pub async fn soonest_due(stack: &LocalStack) -> anyhow::Result<Option<Timestamp>> {
    let table = stack.template().table(OUTBOX);
    let table = table.context("the template has no outbox")?.name.clone();
    let outbox = Outbox::new(stack.dynamodb().clone(), table, stack.clock().clone());
    let first_of_shards = usize::from(SHARDS);
    let sync = outbox.waiting(Lane::Sync, first_of_shards).await?;
    let relay = outbox.waiting(Lane::Relay, first_of_shards).await?;
    let due = sync.iter().chain(&relay).filter_map(|entry| entry.due_at);
    Ok(due.min())
}

/// Whether one of the first items of the index is due. While many are, that is found out without reading a long table.
async fn is_work_in_sight(stack: &LocalStack, table: &str) -> anyhow::Result<bool> {
    let due = stack
        .dynamodb()
        .scan()
        .table_name(table)
        .index_name("due")
        .limit(50)
        .select(Select::Count)
        .filter_expression("due_at <= :now")
        .expression_attribute_values(":now", now(stack))
        .send()
        .await
        .with_context(|| format!("what is due in {table} cannot be read"))?;
    Ok(due.count() > 0)
}

fn now(stack: &LocalStack) -> AttributeValue {
    AttributeValue::N(stack.clock().now().as_millisecond().to_string())
}

/// How many items are still to be settled. Asked often, so no item travels.
async fn pending(stack: &LocalStack, table: &str) -> anyhow::Result<i32> {
    let mut pages = stack
        .dynamodb()
        .scan()
        .table_name(table)
        .consistent_read(true)
        .select(Select::Count)
        .filter_expression("#status = :pending AND NOT (#kind = :reconcile AND not_before > :now)")
        .expression_attribute_names("#status", "status")
        .expression_attribute_names("#kind", "kind")
        .expression_attribute_values(":pending", AttributeValue::S("pending".to_owned()))
        .expression_attribute_values(":reconcile", AttributeValue::S("fbe_reconcile".to_owned()))
        .expression_attribute_values(":now", now(stack))
        .into_paginator()
        .send();
    let mut pending = 0;
    while let Some(page) = pages.next().await {
        pending += page
            .with_context(|| format!("the table {table} cannot be read"))?
            .count();
    }
    Ok(pending)
}

async fn scan(stack: &LocalStack, table: &str) -> anyhow::Result<Vec<HashMap<String, AttributeValue>>> {
    stack
        .dynamodb()
        .scan()
        .table_name(table)
        .consistent_read(true)
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .with_context(|| format!("the table {table} cannot be read"))
}
