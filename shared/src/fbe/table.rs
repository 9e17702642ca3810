//! The installs table: what each business granted, and how far its catalog push has come.
//!
//! Writers share an item and do not disturb each other: whoever decides about an install writes `facts`
//! (conditional on `version`), the dispatcher writes `push` under its lease. `pixel_id`, `status` and `expires_at`
//! repeat what `facts` says for the index, the daily scan and DynamoDB's expiry.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::fbe::catalog_push::PushProgress;
use crate::fbe::install::{Install, Status};
use crate::outbox::Outbox;
use crate::outbox::OutboxItem;
use crate::store::batch::batch_get;
use crate::store::{
    Item, Reason, StoreError, is_condition, is_conflict, number, past_transactions, readable, reasons,
    string, until,
};

/// A transaction that met another one is tried again this often.
const TRANSACTION_TRIES: u32 = 3;

/// Meta redelivers for up to 36 h. A removal that came before its install is remembered that long, and then some.
const KEEP_TRACE: SignedDuration = SignedDuration::from_hours(48);

const KEY: &str = "external_business_id";

/// The installs table, and the outbox that its transactions also write.
#[derive(Clone, Debug)]
pub struct Installs {
    client: Client,
    table: String,
    outbox: Outbox,
    clock: Clock,
}

/// A catalog push: the last one of its business.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// Event key of the outbox item that asked for it.
    pub event_key: String,
    /// How far it has come.
    pub progress: PushProgress,
    /// When it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When its feed was last looked at since, and had not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchanged_at: Option<Timestamp>,
}

/// A business as stored.
#[derive(Debug, Clone, Deserialize)]
pub struct Stored {
    /// What it granted.
    #[serde(rename = "facts")]
    pub install: Install,
    /// Its last catalog push.
    #[serde(default)]
    pub push: Option<Push>,
    /// A new token has arrived since items of this business began to wait for one.
    #[serde(default)]
    pub wake: bool,
}

/// What trying to take a business came to.
#[derive(Debug)]
pub enum Claim {
    /// It is ours until the lease ends.
    Leased(Box<Stored>, Lease),
    /// Somebody else has it.
    Busy,
    /// There is no such business.
    Missing,
}

/// Our right to work for a business.
#[derive(Debug, Clone)]
pub struct Lease {
    business_id: String,
    owner: String,
    length: Duration,
}

/// A page of a scan.
#[derive(Debug, Default)]
pub struct Page {
    /// Installs, in no order.
    pub installs: Vec<Install>,
    /// Where the next page begins; `None` = this was the last.
    pub next: Option<Cursor>,
}

/// A position in a scan.
#[derive(Debug, Clone)]
pub struct Cursor(Item);

impl Installs {
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

    /// Reads a business consistently.
    pub async fn read(&self, business_id: &str) -> Result<Option<Stored>, StoreError> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.table)
            .key(KEY, string(business_id))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| StoreError::sdk("GetItem", &error))?;
        // An item without facts can only be what is left of a lease.
        let item = answer.item.filter(|item| item.contains_key("facts"));
        item.map(unpack).transpose()
    }

    /// Writes an install and the effects that follow from it, wholly or not at all. `false` means that somebody
    /// else wrote the install in between: read, decide and commit again. Effects that are there already are a
    /// redelivery's, and do not stop the rest. `wake` notes that waiting items are to be woken.
    pub async fn commit(
        &self,
        install: &Install,
        outbox: &[OutboxItem],
        wake: bool,
    ) -> Result<bool, StoreError> {
        let write = self.write(install, wake)?;
        let mut effects: Vec<&OutboxItem> = outbox.iter().collect();
        let mut tries = 0;
        loop {
            if effects.is_empty() {
                return self.update(write).await;
            }
            let mut writes = vec![write.clone().transact(&self.table)?];
            for item in &effects {
                writes.push(self.outbox.put(item)?);
            }
            let answer = self
                .client
                .transact_write_items()
                .set_transact_items(Some(writes))
                .send()
                .await;
            let Err(error) = answer else {
                return Ok(true);
            };
            let Some(reasons) = reasons(&error) else {
                return Err(StoreError::sdk("TransactWriteItems", &error));
            };
            let mut reasons = reasons.into_iter();
            if reasons.next() == Some(Reason::Condition) {
                return Ok(false);
            }
            let before = effects.len();
            effects.retain(|_| reasons.next() != Some(Reason::Condition));
            if effects.len() == before {
                tries += 1;
                if tries == TRANSACTION_TRIES {
                    return Err(StoreError::conflict(
                        "another transaction keeps getting in the way",
                    ));
                }
                tokio::time::sleep(Duration::from_millis(25 << tries)).await;
            }
        }
    }

    /// Takes a business for `length` and reads it in the same call.
    pub async fn claim(&self, business_id: &str, length: Duration) -> Result<Claim, StoreError> {
        let now = self.clock.now();
        let lease = Lease {
            business_id: business_id.to_owned(),
            owner: uuid::Uuid::new_v4().to_string(),
            length,
        };
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(KEY, string(business_id))
            .update_expression("SET lease_until = :until, lease_owner = :owner")
            .condition_expression(
                "attribute_exists(facts) AND (attribute_not_exists(lease_until) OR lease_until < :now)",
            )
            .expression_attribute_values(":until", until(now, length))
            .expression_attribute_values(":owner", string(&lease.owner))
            .expression_attribute_values(":now", number(now.as_millisecond()))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match answer {
            Ok(answer) => {
                let stored = unpack(answer.attributes.unwrap_or_default())?;
                Ok(Claim::Leased(Box::new(stored), lease))
            }
            // A webhook is at it.
            Err(error) if is_conflict(&error) => Ok(Claim::Busy),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                    let there = failed.item().is_some_and(|item| item.contains_key("facts"));
                    Ok(if there { Claim::Busy } else { Claim::Missing })
                }
                _ => Err(StoreError::sdk("UpdateItem", &error)),
            },
        }
    }

    /// Writes how far a push has come, and prolongs the lease. `false` if the lease had run out and somebody
    /// else has the business: then nothing is written.
    pub async fn keep_push(&self, lease: &Lease, push: &Push) -> Result<bool, StoreError> {
        let push = serde_dynamo::to_attribute_value(push)
            .map_err(|error| StoreError::new("install write", error))?;
        let values = Item::from([
            (":push".to_owned(), push),
            (":until".to_owned(), until(self.clock.now(), lease.length)),
        ]);
        self.under(lease, "SET push = :push, lease_until = :until", values)
            .await
    }

    /// Ends a lease; `woken` = what waited for a token has been woken. One that had run out is left alone.
    pub async fn release(&self, lease: &Lease, woken: bool) -> Result<(), StoreError> {
        let expression = if woken {
            "REMOVE lease_until, lease_owner, wake"
        } else {
            "REMOVE lease_until, lease_owner"
        };
        self.under(lease, expression, Item::new()).await.map(drop)
    }

    /// The installs that hold a pixel. It should be one; [`crate::fbe::install::pixel_owner`] settles it.
    pub async fn by_pixel(&self, pixel_id: &str) -> Result<Vec<Install>, StoreError> {
        let answer = self
            .client
            .query()
            .table_name(&self.table)
            .index_name("by_pixel")
            .key_condition_expression("pixel_id = :pixel")
            .expression_attribute_values(":pixel", string(pixel_id))
            .limit(50)
            .send()
            .await
            .map_err(|error| StoreError::sdk("Query", &error))?;
        let keys: Vec<Item> = answer
            .items
            .unwrap_or_default()
            .into_iter()
            .filter_map(|mut item| Some(Item::from([(KEY.to_owned(), item.remove(KEY)?)])))
            .collect();
        let items = batch_get(&self.client, &self.table, keys).await?;
        Ok(readable(items, KEY, |item| Ok(unpack(item)?.install)))
    }

    /// The businesses that belong to a Business Manager and have the app installed.
    pub async fn by_manager(&self, business_manager_id: &str) -> Result<Vec<String>, StoreError> {
        let items: Vec<Item> = self
            .client
            .query()
            .table_name(&self.table)
            .index_name("by_manager")
            .key_condition_expression("business_manager_id = :manager")
            .expression_attribute_values(":manager", string(business_manager_id))
            .into_paginator()
            .items()
            .send()
            .collect::<Result<_, _>>()
            .await
            .map_err(|error| StoreError::sdk("Query", &error))?;
        let ids = items.into_iter().filter_map(|mut item| match item.remove(KEY) {
            Some(AttributeValue::S(id)) => Some(id),
            _ => None,
        });
        Ok(ids.collect())
    }

    /// One page of all installs, or of those that are in place alone, with a working token or not.
    pub async fn scan(&self, installed_only: bool, from: Option<Cursor>) -> Result<Page, StoreError> {
        let mut scan = self
            .client
            .scan()
            .table_name(&self.table)
            .set_exclusive_start_key(from.map(|cursor| cursor.0));
        if installed_only {
            scan = scan
                .filter_expression("#status IN (:active, :token_invalid)")
                .expression_attribute_names("#status", "status")
                .expression_attribute_values(":active", string("active"))
                .expression_attribute_values(":token_invalid", string("token_invalid"));
        }
        let answer = scan
            .send()
            .await
            .map_err(|error| StoreError::sdk("Scan", &error))?;
        let items = answer.items.unwrap_or_default().into_iter();
        Ok(Page {
            installs: readable(items.filter(|item| item.contains_key("facts")), KEY, |item| {
                Ok(unpack(item)?.install)
            }),
            next: answer.last_evaluated_key.map(Cursor),
        })
    }

    async fn under(&self, lease: &Lease, expression: &str, values: Item) -> Result<bool, StoreError> {
        let mut update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(KEY, string(&lease.business_id))
            .update_expression(expression)
            .condition_expression("lease_owner = :owner")
            .expression_attribute_values(":owner", string(&lease.owner));
        for (name, value) in values {
            update = update.expression_attribute_values(name, value);
        }
        match past_transactions(|| update.clone().send()).await {
            Ok(_) => Ok(true),
            Err(error) if is_condition(&error) => Ok(false),
            Err(error) => Err(StoreError::sdk("UpdateItem", &error)),
        }
    }

    async fn update(&self, write: Write) -> Result<bool, StoreError> {
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(write.key))
            .update_expression(write.expression)
            .condition_expression(write.condition)
            .expression_attribute_names("#status", "status")
            .set_expression_attribute_values(Some(write.values))
            .send()
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(error) if is_condition(&error) || is_conflict(&error) => Ok(false),
            Err(error) => Err(StoreError::sdk("UpdateItem", &error)),
        }
    }

    fn write(&self, install: &Install, wake: bool) -> Result<Write, StoreError> {
        let facts = serde_dynamo::to_attribute_value(install)
            .map_err(|error| StoreError::new("install write", error))?;
        let status = match install.status {
            Status::Active => "active",
            Status::Uninstalled => "uninstalled",
            Status::TokenInvalid => "token_invalid",
        };
        let mut values = Item::from([
            (":facts".to_owned(), facts),
            (":version".to_owned(), number(install.version)),
            (":status".to_owned(), string(status)),
        ]);
        let mut set = vec!["facts = :facts", "version = :version", "#status = :status"];
        let mut remove = Vec::new();
        match &install.assets.pixel_id {
            Some(pixel_id) => {
                set.push("pixel_id = :pixel");
                values.insert(":pixel".to_owned(), string(pixel_id));
            }
            None => remove.push("pixel_id"),
        }
        match install.assets.business_manager_id.as_ref().filter(|_| install.is_installed()) {
            Some(manager) => {
                set.push("business_manager_id = :manager");
                values.insert(":manager".to_owned(), string(manager));
            }
            None => remove.push("business_manager_id"),
        }
        if install.is_trace() && install.integrations.is_empty() {
            let expires = (self.clock.now() + KEEP_TRACE).as_second();
            set.push("expires_at = :expires");
            values.insert(":expires".to_owned(), number(expires));
        } else {
            remove.push("expires_at");
        }
        if wake {
            set.push("wake = :wake");
            values.insert(":wake".to_owned(), AttributeValue::Bool(true));
        }
        let mut expression = format!("SET {}", set.join(", "));
        if !remove.is_empty() {
            expression = format!("{expression} REMOVE {}", remove.join(", "));
        }
        let condition = if install.version <= 1 {
            "attribute_not_exists(version)"
        } else {
            values.insert(":read".to_owned(), number(install.version - 1));
            "version = :read"
        };
        Ok(Write {
            key: Item::from([(KEY.to_owned(), string(&install.business_id))]),
            expression,
            condition,
            values,
        })
    }
}

#[derive(Clone)]
struct Write {
    key: Item,
    expression: String,
    condition: &'static str,
    values: Item,
}

impl Write {
    fn transact(self, table: &str) -> Result<TransactWriteItem, StoreError> {
        let update = Update::builder()
            .table_name(table)
            .set_key(Some(self.key))
            .update_expression(self.expression)
            .condition_expression(self.condition)
            .expression_attribute_names("#status", "status")
            .set_expression_attribute_values(Some(self.values))
            .build()
            .map_err(|error| StoreError::new("install write", error))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

fn unpack(item: Item) -> Result<Stored, StoreError> {
    serde_dynamo::from_item(item).map_err(|_| StoreError::unreadable("install read"))
}
