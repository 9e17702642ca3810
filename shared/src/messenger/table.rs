//! The contacts table: contacts, the `user_ref`s of people whose PSID is not known yet, and what Braze was told.
//!
//! Two writers share an item and do not disturb each other: the webhook function writes `facts` (conditional on
//! `version`), the dispatcher writes `synced` (under its lease). Users' records are the dispatcher's alone.

mod lease;
mod users;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem, Update};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Deserialize;

use crate::clock::Clock;
use crate::messenger::contact::Contact;
use crate::messenger::decide::Stored;
use crate::messenger::key::{ContactKey, UserRefKey};
use crate::messenger::sync::Synced;
use crate::messenger::user_ref::UserRef;
use crate::outbox::Outbox;
use crate::outbox::OutboxItem;
use crate::store::batch::{MAX_BATCH_GET, batch_get};
use crate::store::{
    Item, MAX_TRANSACT, Reason, StoreError, is_condition, is_conflict, number, reasons, string,
};
use crate::telemetry;

pub use lease::{Claim, Leased};
pub use users::UserLease;

/// Calls under way at once.
const CONCURRENCY: usize = 32;

/// A transaction that met another one is tried again this often before its writes are made one by one.
const TRANSACTION_TRIES: u32 = 3;

/// The contacts table, and the outbox that its transactions also write.
#[derive(Clone, Debug)]
pub struct Contacts {
    client: Client,
    table: String,
    outbox: Outbox,
    clock: Clock,
}

/// What is known of some people and `user_ref`s.
#[derive(Debug, Default)]
pub struct Known {
    /// Contacts by key.
    pub contacts: HashMap<ContactKey, Stored>,
    /// `user_ref` records by key.
    pub user_refs: HashMap<UserRefKey, UserRef>,
    /// Contacts whose record is there and cannot be read by this version: a newer one has written it.
    pub unreadable_contacts: HashSet<ContactKey>,
    /// The same of `user_ref`s.
    pub unreadable_user_refs: HashSet<UserRefKey>,
}

/// A record to write.
#[derive(Debug, Clone)]
pub enum Record {
    /// A contact's facts; its `version` is the one after the one that was read.
    Contact(Contact),
    /// A `user_ref`'s facts; the same holds.
    UserRef(UserRefKey, UserRef),
}

/// What has to be written together.
#[derive(Debug, Clone, Default)]
pub struct Unit {
    /// The record, if it changes.
    pub record: Option<Record>,
    /// Effects that follow from it.
    pub outbox: Vec<OutboxItem>,
}

impl Unit {
    /// Units that each fit a transaction. What goes into a second one are effects alone, and putting those
    /// again changes nothing, so a crash in between costs nothing: the redelivery completes it.
    #[must_use]
    pub fn split(mut self) -> Vec<Self> {
        let mut units = Vec::new();
        while usize::from(self.record.is_some()) + self.outbox.len() > MAX_TRANSACT {
            let rest = self.outbox.split_off(self.outbox.len() - MAX_TRANSACT + 1);
            units.push(Self {
                record: None,
                outbox: rest,
            });
        }
        units.push(self);
        units
    }
}

#[derive(Deserialize)]
struct ContactItem {
    facts: Contact,
    #[serde(default)]
    synced: Synced,
}

impl Contacts {
    /// The table `table`; `outbox` is what its transactions also write.
    #[must_use]
    pub fn new(client: Client, table: String, outbox: Outbox, clock: Clock) -> Self {
        Self {
            client,
            table,
            outbox,
            clock,
        }
    }

    /// Reads contacts and `user_ref`s consistently, 100 a call.
    pub async fn read(&self, contacts: &[ContactKey], user_refs: &[UserRefKey]) -> Result<Known, StoreError> {
        let keys: Vec<Item> = contacts
            .iter()
            .map(ToString::to_string)
            .chain(user_refs.iter().map(ToString::to_string))
            .map(|key| Item::from([("contact_key".to_owned(), string(key))]))
            .collect();
        let items: Vec<Vec<Item>> = stream::iter(keys.chunks(MAX_BATCH_GET).map(<[Item]>::to_vec))
            .map(|keys| batch_get(&self.client, &self.table, keys))
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        let user_refs: HashMap<&str, &UserRefKey> = user_refs.iter().map(|key| (key.as_str(), key)).collect();
        let mut known = Known::default();
        for mut item in items.into_iter().flatten() {
            let key = item.get("contact_key").and_then(|key| key.as_s().ok()).cloned();
            let key = key.unwrap_or_default();
            let unreadable = |error: &StoreError| {
                metrics::counter!(telemetry::UNREADABLE_ITEMS).increment(1);
                let subject = telemetry::pseudonym(&key);
                tracing::error!(%error, contact = subject, "a record cannot be read; others go on without it");
            };
            if let Some(user_ref) = user_refs.get(key.as_str()).copied() {
                let record = item.remove("facts").unwrap_or_else(|| string(""));
                match unpack(record) {
                    Ok(record) => drop(known.user_refs.insert(user_ref.clone(), record)),
                    Err(error) => {
                        unreadable(&error);
                        known.unreadable_user_refs.insert(user_ref.clone());
                    }
                }
                continue;
            }
            match read_contact(item) {
                Ok(stored) => drop(known.contacts.insert(stored.contact.key.clone(), stored)),
                Err(error) => {
                    unreadable(&error);
                    known.unreadable_contacts.extend(key.parse::<ContactKey>());
                }
            }
        }
        Ok(known)
    }

    /// Writes all units, each of them wholly or not at all, in as few calls as DynamoDB's limits allow. The
    /// result says of each, in the same order, whether it is written; `false` means that somebody else wrote
    /// the record in between: read, decide and write again.
    pub async fn write(&self, units: &[Unit]) -> Result<Vec<bool>, StoreError> {
        let (alone, together): (Vec<usize>, Vec<usize>) = (0..units.len())
            .partition(|position| units.get(*position).is_some_and(|unit| unit.outbox.is_empty()));
        let alone = stream::iter(alone)
            .map(|position| async move { Ok((position, self.write_record(units.get(position)).await?)) })
            .buffer_unordered(CONCURRENCY)
            .try_collect::<Vec<_>>();
        let together = stream::iter(groups(units, &together))
            .map(|group| self.write_group(units, group))
            .buffer_unordered(CONCURRENCY)
            .try_collect::<Vec<_>>();
        let (alone, together) = futures_util::try_join!(alone, together)?;
        let mut written = vec![false; units.len()];
        for (position, fate) in alone.into_iter().chain(together.into_iter().flatten()) {
            if let Some(slot) = written.get_mut(position) {
                *slot = fate;
            }
        }
        Ok(written)
    }

    async fn write_record(&self, unit: Option<&Unit>) -> Result<bool, StoreError> {
        let Some(record) = unit.and_then(|unit| unit.record.as_ref()) else {
            return Ok(true);
        };
        let write = Write::of(record)?;
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(write.key))
            .update_expression(write.expression)
            .condition_expression(write.condition)
            .set_expression_attribute_values(Some(write.values))
            .send()
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(error) if is_condition(&error) || is_conflict(&error) => Ok(false),
            Err(error) => Err(StoreError::sdk("UpdateItem", &error)),
        }
    }

    /// One transaction for the whole group; one for each unit if that meets a conflict.
    async fn write_group(&self, units: &[Unit], group: Vec<usize>) -> Result<Vec<(usize, bool)>, StoreError> {
        if group.len() > 1 {
            let members = group.iter().filter_map(|position| units.get(*position));
            let writes = members
                .map(|unit| self.writes(unit))
                .collect::<Result<Vec<_>, _>>()?;
            if self.transact(writes.concat()).await?.is_ok() {
                return Ok(group.into_iter().map(|position| (position, true)).collect());
            }
        }
        stream::iter(group)
            .map(|position| async move {
                let Some(unit) = units.get(position) else {
                    return Ok((position, true));
                };
                Ok((position, self.write_unit(unit).await?))
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await
    }

    async fn write_unit(&self, unit: &Unit) -> Result<bool, StoreError> {
        let mut unit = unit.clone();
        let mut tries = 0;
        loop {
            if unit.outbox.is_empty() {
                return self.write_record(Some(&unit)).await;
            }
            let Err(reasons) = self.transact(self.writes(&unit)?).await? else {
                return Ok(true);
            };
            let mut reasons = reasons.into_iter();
            if unit.record.is_some() && reasons.next() == Some(Reason::Condition) {
                return Ok(false);
            }
            // An outbox item that is there already is a redelivery's: its effect is taken care of.
            let before = unit.outbox.len();
            unit.outbox.retain(|_| reasons.next() != Some(Reason::Condition));
            if unit.outbox.len() == before {
                tries += 1;
                if tries == TRANSACTION_TRIES {
                    return Err(StoreError::new(
                        "TransactWriteItems",
                        "another transaction keeps getting in the way",
                    ));
                }
                tokio::time::sleep(Duration::from_millis(25 << tries)).await;
            }
        }
    }

    fn writes(&self, unit: &Unit) -> Result<Vec<TransactWriteItem>, StoreError> {
        let mut writes = Vec::with_capacity(1 + unit.outbox.len());
        if let Some(record) = &unit.record {
            let write = Write::of(record)?;
            let update = Update::builder()
                .table_name(&self.table)
                .set_key(Some(write.key))
                .update_expression(write.expression)
                .condition_expression(write.condition)
                .set_expression_attribute_values(Some(write.values))
                .build()
                .map_err(|error| StoreError::new("contact write", error))?;
            writes.push(TransactWriteItem::builder().update(update).build());
        }
        for item in &unit.outbox {
            writes.push(self.outbox.put(item)?);
        }
        Ok(writes)
    }

    /// `Ok(Err(reasons))` if the transaction was cancelled, with the reason of each write.
    async fn transact(&self, writes: Vec<TransactWriteItem>) -> Result<Result<(), Vec<Reason>>, StoreError> {
        match self
            .client
            .transact_write_items()
            .set_transact_items(Some(writes))
            .send()
            .await
        {
            Ok(_) => Ok(Ok(())),
            Err(error) => match reasons(&error) {
                Some(reasons) => Ok(Err(reasons)),
                None => Err(StoreError::sdk("TransactWriteItems", &error)),
            },
        }
    }

    /// Contacts that are linked to a user.
    pub async fn of_user(&self, user_id: &str) -> Result<Vec<Stored>, StoreError> {
        let answer = self
            .client
            .query()
            .table_name(&self.table)
            .index_name("by_user")
            .key_condition_expression("user_id = :user")
            .expression_attribute_values(":user", string(user_id))
            .send()
            .await
            .map_err(|error| StoreError::sdk("Query", &error))?;
        let keys: Vec<ContactKey> = answer
            .items
            .unwrap_or_default()
            .iter()
            .filter_map(|item| item.get("contact_key")?.as_s().ok()?.parse().ok())
            .collect();
        Ok(self.read(&keys, &[]).await?.contacts.into_values().collect())
    }

    /// The time, as the store sees it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

struct Write {
    key: Item,
    expression: String,
    condition: &'static str,
    values: Item,
}

impl Write {
    fn of(record: &Record) -> Result<Self, StoreError> {
        let (key, version, user_id, facts) = match record {
            Record::Contact(contact) => (
                contact.key.to_string(),
                contact.version,
                contact.user_id(),
                serde_dynamo::to_attribute_value(contact),
            ),
            Record::UserRef(key, user_ref) => (
                key.to_string(),
                user_ref.version,
                None,
                serde_dynamo::to_attribute_value(user_ref),
            ),
        };
        let facts = facts.map_err(|error| StoreError::new("contact write", error))?;
        let mut values = Item::from([
            (":facts".to_owned(), facts),
            (":version".to_owned(), number(version)),
        ]);
        let mut expression = "SET facts = :facts, version = :version".to_owned();
        if let Some(user_id) = user_id {
            expression.push_str(", user_id = :user");
            values.insert(":user".to_owned(), string(user_id));
        } else {
            expression.push_str(" REMOVE user_id");
        }
        let condition = if version <= 1 {
            "attribute_not_exists(version)"
        } else {
            values.insert(":read".to_owned(), number(version - 1));
            "version = :read"
        };
        let key = Item::from([("contact_key".to_owned(), string(key))]);
        Ok(Write {
            key,
            expression,
            condition,
            values,
        })
    }
}

/// Positions of units that share a transaction.
fn groups(units: &[Unit], positions: &[usize]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut writes = MAX_TRANSACT;
    for position in positions {
        let size = units
            .get(*position)
            .map_or(0, |unit| usize::from(unit.record.is_some()) + unit.outbox.len());
        if writes + size > MAX_TRANSACT {
            groups.push(Vec::new());
            writes = 0;
        }
        writes += size;
        if let Some(group) = groups.last_mut() {
            group.push(*position);
        }
    }
    groups
}

fn read_contact(item: Item) -> Result<Stored, StoreError> {
    let ContactItem { facts, synced } =
        serde_dynamo::from_item(item).map_err(|_| StoreError::unreadable("contact read"))?;
    Ok(Stored {
        contact: facts,
        synced,
    })
}

fn unpack(value: AttributeValue) -> Result<UserRef, StoreError> {
    serde_dynamo::from_attribute_value(value).map_err(|_| StoreError::unreadable("user_ref read"))
}
