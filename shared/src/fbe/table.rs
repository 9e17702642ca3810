//! The installs table: what each business granted, and how far its catalog push has come.
//!
//! Two writers share an item: a decision about an install writes `facts` (conditional on `version`), the dispatcher
//! writes `push` under its lease. `pixel_id`, `status` and `expires_at`
//! repeat what `facts` says for the index, the daily scan and DynamoDB's expiry.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::install::Install;
use super::push::Push;
use crate::erase::tombstone;
use crate::outbox::{Outbox, OutboxItem};
use crate::store::table::{Table, find_all};
use crate::store::update::Update;
use crate::store::{Claim, Item, Lease, Released, StoreError, attribute, number, readable, string};

/// Meta redelivers for up to 36 h. A removal that came before its install is remembered that long, and then some.
const KEEP_TRACE: SignedDuration = SignedDuration::from_hours(48);

const KEY: &str = "external_business_id";

/// The installs table, and the outbox that its transactions also write.
#[derive(Clone, Debug)]
pub struct Installs {
    table: Table,
    outbox: Outbox,
}

/// A business as stored.
#[derive(Debug, Clone, Deserialize)]
pub struct Stored {
    /// What it granted.
    #[serde(rename = "facts")]
    pub install: Install,
    /// Its last catalog push.
    pub push: Option<Push>,
    /// A new token has arrived since items of this business began to wait for one.
    #[serde(default)]
    pub wake: bool,
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
    pub fn new(table: String, outbox: Outbox) -> Self {
        Self {
            table: outbox.table.beside(table),
            outbox,
        }
    }

    /// Reads a business consistently.
    pub async fn read(&self, business_id: &str) -> Result<Option<Stored>, StoreError> {
        self.table.get(key(business_id)).await?.map(unpack).transpose()
    }

    /// Writes an install and the effects that follow from it, wholly or not at all. `false` means that another writer
    /// wrote the install in between, or that it would be a new one of events before the business was
    /// [erased](Self::is_erased): read, decide and commit again. Effects that are there already are a
    /// redelivery's, and do not stop the rest. `wake` notes that waiting items are to be woken.
    pub async fn commit(
        &self,
        install: &Install,
        outbox: &[OutboxItem],
        wake: bool,
    ) -> Result<bool, StoreError> {
        let mut states = vec![self.update(install, wake)?.in_transaction(&self.table.name)?];
        if let Some(at) = install.newest_event().filter(|_| install.version <= 1) {
            let stone = tombstone_key(&install.business_id);
            states.push(tombstone::unless_erased(&self.table, stone, at)?);
        }
        self.outbox.commit(states, outbox).await
    }

    /// Claims a business for `length` and reads it in the same call.
    pub async fn claim(&self, business_id: &str, length: Duration) -> Result<Claim<Stored>, StoreError> {
        let update = Update::new(key(business_id)).when("attribute_exists(#facts)");
        self.table.claim(update, length, unpack).await
    }

    /// Writes how far a push has come, and prolongs the lease to `length` from now. [`Claim::Busy`] if the lease had
    /// expired and another worker has claimed the business since: then nothing is written.
    pub async fn keep_push(
        &self,
        lease: &Lease,
        push: &Push,
        length: Duration,
    ) -> Result<Claim<()>, StoreError> {
        let update = lease.update().set("push", attribute(push)?);
        self.table.renew(lease, update, length, |_| Ok(())).await
    }

    /// Ends a lease; `woken` = what waited for a token has been woken. One that had expired is left alone.
    pub async fn release(&self, lease: &Lease, woken: bool) -> Result<Released, StoreError> {
        let update = lease.update();
        let update = if woken { update.remove(&["wake"]) } else { update };
        self.table.release(lease, update).await
    }

    /// Whether there is a record of a business, readable or not.
    pub async fn exists(&self, business_id: &str) -> Result<bool, StoreError> {
        Ok(self.table.get(key(business_id)).await?.is_some())
    }

    /// Notes that these businesses were erased at `at`: what is older makes no new install.
    pub async fn bury(&self, businesses: &[String], at: Timestamp) -> Result<(), StoreError> {
        let stones = businesses
            .iter()
            .map(|business| tombstone::put(tombstone_key(business), at));
        self.table.put_all(stones.collect()).await
    }

    /// Whether a business was erased at `at` or later.
    pub async fn is_erased(&self, business_id: &str, at: Timestamp) -> Result<bool, StoreError> {
        let stone = self.table.get(tombstone_key(business_id)).await?;
        let erased_at = stone.as_ref().and_then(tombstone::erased_at);
        Ok(erased_at.is_some_and(|erased_at| at <= erased_at))
    }

    /// Removes a business. Gives how many installs went: one or none.
    pub async fn erase(&self, business_id: &str) -> Result<usize, StoreError> {
        let there = self.exists(business_id).await?;
        self.table.delete_all(vec![key(business_id)]).await?;
        Ok(usize::from(there))
    }

    /// The installs that hold a pixel. It should be one business.
    pub async fn by_pixel(&self, pixel_id: &str) -> Result<Vec<Install>, StoreError> {
        let answer = self
            .table
            .query_of("pixel_id", pixel_id)
            .index_name("by_pixel")
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
        let items = self.table.get_all(&keys).await?;
        Ok(readable(items, KEY, |item| Ok(unpack(item)?.install)))
    }

    /// The businesses that belong to a Business Manager and have the app installed.
    pub async fn by_manager(&self, business_manager_id: &str) -> Result<Vec<String>, StoreError> {
        let query = self.table.query_of("business_manager_id", business_manager_id);
        let items = find_all(query.index_name("by_manager")).await?;
        let ids = items.into_iter().filter_map(|mut item| match item.remove(KEY) {
            Some(AttributeValue::S(id)) => Some(id),
            _ => None,
        });
        Ok(ids.collect())
    }

    /// One page of all installs, or of those that are in place alone, with a working token or not.
    pub async fn scan(&self, installed_only: bool, from: Option<Cursor>) -> Result<Page, StoreError> {
        let scan = self.table.client.scan().table_name(&self.table.name);
        let mut scan = scan
            .set_exclusive_start_key(from.map(|cursor| cursor.0))
            // Not the tombstones.
            .filter_expression("attribute_exists(facts)");
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
        let items = answer.items.unwrap_or_default();
        Ok(Page {
            installs: readable(items, KEY, |item| Ok(unpack(item)?.install)),
            next: answer.last_evaluated_key.map(Cursor),
        })
    }

    fn update(&self, install: &Install, wake: bool) -> Result<Update, StoreError> {
        let is_trace = install.is_trace() && install.integrations.is_empty();
        let expires_at = is_trace.then(|| number((self.table.now() + KEEP_TRACE).as_second()));
        let manager = install.assets.business_manager_id.as_ref();
        let manager = manager.filter(|_| install.is_installed());
        let update = Update::new(key(&install.business_id))
            .set("facts", attribute(install)?)
            .version(install.version)
            .set("status", string(<&str>::from(install.status)))
            .set_or_remove("pixel_id", install.assets.pixel_id.as_ref().map(string))
            .set_or_remove("business_manager_id", manager.map(string))
            .set_or_remove("expires_at", expires_at);
        Ok(if wake {
            update.set("wake", AttributeValue::Bool(true))
        } else {
            update
        })
    }
}

fn key(business_id: &str) -> Item {
    Item::from([(KEY.to_owned(), string(business_id))])
}

fn tombstone_key(business_id: &str) -> Item {
    key(&tombstone::name(business_id))
}

fn unpack(item: Item) -> Result<Stored, StoreError> {
    serde_dynamo::from_item(item).map_err(|_| StoreError::unreadable("install read"))
}
