//! The contacts table: contacts, the `user_ref`s of people whose PSID is not known yet, what Braze was told, and under
//! `user#<external_id>` the users to whose Braze profiles contacts were ever moved.
//!
//! Beside the facts stand numbers (milliseconds since 1970) that one conditional write decides on: `latest`, an act that
//! opened the window and was noted without a decision, and from when (`quiet_from`) until when (`quiet_until`) such acts
//! may be noted so. `link_token#<hash>` says which contact or `user_ref` a link token has linked.
//!
//! Two writers share a contact and do not disturb each other: the webhook function writes `facts` (conditional on
//! `version`), the dispatcher writes `synced` (under its lease). Users' records are the dispatcher's alone.

mod turns;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, TransactWriteItem};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Deserialize;

use crate::clock::Clock;
use crate::messenger::contact::Contact;
use crate::messenger::key::{ContactKey, UserRefKey};
use crate::messenger::proof::{Claim as TokenClaim, Holders};
use crate::messenger::sync::{Stored, Synced};
use crate::messenger::user_ref::UserRef;
use crate::outbox::{Outbox, OutboxItem};
use crate::store::table::{Table, Updated, send_update};
use crate::store::transact::{MAX_TRANSACT, Transacted, transact_once};
use crate::store::update::Update;
use crate::store::{Claim, Item, Lease, Released, StoreError, attribute, number, string};
use crate::telemetry;

pub use turns::Turn;

/// What the keys of link tokens begin with.
const TOKEN: &str = "link_token#";

/// Calls under way at once.
const CONCURRENCY: usize = 32;

/// The contacts table, and the outbox that its transactions also write.
#[derive(Clone, Debug)]
pub struct Contacts {
    table: Table,
    outbox: Outbox,
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
    /// Who holds the link tokens that were asked for.
    pub holders: Holders,
}

/// What noting an act came to.
#[expect(
    clippy::large_enum_variant,
    reason = "there are few at a time, and none is kept"
)]
#[derive(Debug)]
pub enum Acted {
    /// It is noted, and nothing else follows from it.
    Noted,
    /// It has to be decided on, given what is known of the contact.
    Undecided(Known),
    /// The update met a running transaction: read the contact, then decide.
    Busy,
}

/// A record to write.
#[expect(
    clippy::large_enum_variant,
    reason = "there are few at a time, and none is kept"
)]
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
    /// Link tokens that it is to hold, with the record or not at all.
    pub claims: Vec<TokenClaim>,
    /// Effects that follow from it.
    pub outbox: Vec<OutboxItem>,
}

impl Unit {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes() == 0
    }

    fn writes(&self) -> usize {
        self.states() + self.outbox.len()
    }

    fn states(&self) -> usize {
        usize::from(self.record.is_some()) + self.claims.len()
    }

    /// Units that each fit a transaction. What goes into a second one are effects alone, and putting those
    /// again changes nothing, so a crash in between costs nothing: the redelivery completes it.
    fn split(mut self) -> Vec<Self> {
        let mut units = Vec::new();
        while self.writes() > MAX_TRANSACT {
            let most = self.outbox.len().saturating_sub(MAX_TRANSACT);
            let rest = self
                .outbox
                .split_off(most.max(MAX_TRANSACT - self.states()).min(self.outbox.len() - 1));
            units.push(Self {
                outbox: rest,
                ..Self::default()
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
    latest: Option<i64>,
}

impl Contacts {
    /// The table `table`; `outbox` is what its transactions also write.
    #[must_use]
    pub fn new(client: Client, table: String, outbox: Outbox, clock: Clock) -> Self {
        Self {
            table: Table::new(client, table, clock),
            outbox,
        }
    }

    /// Reads contacts, `user_ref`s and the holders of link tokens (by hash) consistently, 100 a call.
    pub async fn read(
        &self,
        contacts: &[ContactKey],
        user_refs: &[UserRefKey],
        tokens: &[String],
    ) -> Result<Known, StoreError> {
        let contacts = contacts.iter().map(ToString::to_string);
        let keys = contacts.chain(user_refs.iter().map(ToString::to_string));
        let keys = keys.chain(tokens.iter().map(|hash| token_key(hash)));
        let keys: Vec<Item> = keys.map(key).collect();
        let items = self.table.get_all(&keys).await?;
        Ok(known(items, user_refs))
    }

    /// The contacts that are linked to a user, as the index knows them: a moment late, without the acts that were noted
    /// beside the facts, and without what Braze was told.
    pub async fn of_user(&self, user_id: &str) -> Result<Known, StoreError> {
        let query = self
            .table
            .query()
            .index_name("by_user")
            .key_condition_expression("user_id = :user_id")
            .expression_attribute_values(":user_id", string(user_id));
        let items: Result<Vec<Item>, _> = query.into_paginator().items().send().collect().await;
        let items = items.map_err(|error| StoreError::sdk("Query", &error))?;
        Ok(known(items, &[]))
    }

    /// Connects to DynamoDB, by reading a key that no contact has.
    pub async fn connect(&self) -> Result<(), StoreError> {
        self.table.get_all(&[key("-")]).await?;
        Ok(())
    }

    /// Notes that a contact acted in a way that opens the window, if nothing else follows from it.
    pub async fn acted(&self, contact: &ContactKey, at: Timestamp) -> Result<Acted, StoreError> {
        let update = Update::new(key(contact.to_string()))
            .set("latest", number(at.as_millisecond()))
            .when("attribute_exists(#facts)")
            .when(":latest >= #quiet_from AND :latest <= #quiet_until")
            .when("attribute_not_exists(#latest) OR #latest < :latest")
            .build(&self.table.name)?;
        Ok(
            match send_update(&self.table.client, ReturnValue::None, update).await? {
                Updated::Made(_) => Acted::Noted,
                Updated::Refused(item) => {
                    let items = Some(item).filter(|item| !item.is_empty());
                    Acted::Undecided(known(items, &[]))
                }
                Updated::Conflict => Acted::Busy,
            },
        )
    }

    /// Writes all units in as few calls as DynamoDB's limits allow: each wholly or not at all, and of one that does not
    /// fit a transaction the record with the first of its effects. Gives the names of those that are not written, because
    /// another writer wrote the record in between: read, decide and write again.
    pub async fn write<Name: Clone>(&self, units: Vec<(Name, Unit)>) -> Result<Vec<Name>, StoreError> {
        let split =
            |(name, unit): (Name, Unit)| unit.split().into_iter().map(move |unit| (name.clone(), unit));
        let units = units.into_iter().flat_map(split);
        let (alone, together): (Vec<_>, Vec<_>) =
            units.partition(|(_, unit)| unit.outbox.is_empty() && unit.claims.is_empty());
        let alone = alone.into_iter().map(|unit| vec![unit]);
        let refused: Vec<Vec<Name>> = stream::iter(alone.chain(groups(together)))
            .map(|group| self.write_group(group))
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        Ok(refused.concat())
    }

    /// One transaction for the whole group; one for each unit if that is not written.
    async fn write_group<Name>(&self, group: Vec<(Name, Unit)>) -> Result<Vec<Name>, StoreError> {
        if group.len() > 1 {
            let mut writes = Vec::new();
            for (_, unit) in &group {
                writes.extend(self.states(unit)?);
                for item in &unit.outbox {
                    writes.push(self.outbox.put(item)?);
                }
            }
            let writes = writes.into_iter().map(|write| ((), write)).collect();
            if let Transacted::Written = transact_once(&self.table.client, writes).await? {
                return Ok(Vec::new());
            }
        }
        stream::iter(group)
            .map(|(name, unit)| async move {
                let written = self.outbox.commit(self.states(&unit)?, &unit.outbox).await?;
                Ok((!written).then_some(name))
            })
            .buffer_unordered(CONCURRENCY)
            .try_filter_map(async |refused| Ok(refused))
            .try_collect()
            .await
    }

    fn states(&self, unit: &Unit) -> Result<Vec<TransactWriteItem>, StoreError> {
        let record = unit.record.iter().map(|record| self.record(record));
        record
            .chain(unit.claims.iter().map(|claim| self.token(claim)))
            .collect()
    }

    /// A link token links the one that is stored with it first.
    fn token(&self, claim: &TokenClaim) -> Result<TransactWriteItem, StoreError> {
        let mut update = Update::new(key(token_key(&claim.token.hash)))
            .set("holder", string(claim.holder.as_str()))
            .set("expires_at", number(claim.token.expires_at.as_second()));
        update = match &claim.user_ref {
            Some(user_ref) => update
                .value("user_ref", string(user_ref.as_str()))
                .when("attribute_not_exists(#holder) OR #holder = :holder OR #holder = :user_ref"),
            None => update.when("attribute_not_exists(#holder) OR #holder = :holder"),
        };
        update.in_transaction(&self.table.name)
    }

    fn record(&self, record: &Record) -> Result<TransactWriteItem, StoreError> {
        let (name, version, user_id, facts) = match record {
            Record::Contact(contact) => (
                contact.key.to_string(),
                contact.version,
                contact.user_id(),
                attribute(contact)?,
            ),
            Record::UserRef(key, user_ref) => (key.to_string(), user_ref.version, None, attribute(user_ref)?),
        };
        let mut update = Update::new(key(name))
            .set("facts", facts)
            .version(version)
            .set_or_remove("user_id", user_id.map(string));
        if let Record::Contact(Contact {
            quiet: Some(quiet), ..
        }) = record
        {
            update = update
                .set("quiet_from", number(quiet.from))
                .set("quiet_until", number(quiet.until));
        }
        update.in_transaction(&self.table.name)
    }

    /// Claims a contact for `length` and reads it in the same call.
    pub async fn claim(&self, contact: &str, length: Duration) -> Result<Claim<Stored>, StoreError> {
        let update = Update::new(key(contact)).when("attribute_exists(#facts)");
        self.table.claim(update, length, read_contact).await
    }

    /// Claims a user for `length`, and notes `entering` as a contact that may be on the user's profile from now on.
    /// Gives the contacts that may ever have been there.
    ///
    /// Two contacts of one user write and take back the same attributes of one profile, and Braze keeps no order between
    /// requests: so a move claims the user first. The record is kept for good, since an alias stays with its user.
    pub async fn claim_user(
        &self,
        user_id: &str,
        entering: Option<&ContactKey>,
        length: Duration,
    ) -> Result<Claim<Vec<ContactKey>>, StoreError> {
        let mut update = Update::new(key(format!("user#{user_id}")));
        if let Some(contact) = entering {
            update = update.add("contacts", vec![contact.to_string()]);
        }
        let read = |item: Item| {
            let mut contacts = on_profile(&item);
            contacts.extend(entering.filter(|key| !contacts.contains(key)).cloned());
            Ok(contacts)
        };
        self.table.claim(update, length, read).await
    }

    /// The contacts that may ever have been on a user's profile.
    pub async fn on_user(&self, user_id: &str) -> Result<Vec<ContactKey>, StoreError> {
        let item = self.table.get(key(format!("user#{user_id}"))).await?;
        Ok(item.as_ref().map(on_profile).unwrap_or_default())
    }

    /// Stores the state before a request is sent. `false` if the lease was lost: then nothing is written.
    pub async fn note(&self, lease: &Lease, synced: &Synced) -> Result<bool, StoreError> {
        let update = lease.update().set("synced", attribute(synced)?);
        self.table.update(update).await
    }

    /// Ends the lease on a contact or user, and writes what Braze was told, if it changed.
    pub async fn release(&self, lease: &Lease, synced: Option<&Synced>) -> Result<Released, StoreError> {
        let mut update = lease.update();
        if let Some(synced) = synced {
            update = update.set("synced", attribute(synced)?);
        }
        self.table.release(lease, update).await
    }

    /// The time, as the store sees it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.table.now()
    }
}

/// The contacts that a user's record names.
fn on_profile(user: &Item) -> Vec<ContactKey> {
    let keys = user.get("contacts").and_then(|keys| keys.as_ss().ok());
    keys.into_iter()
        .flatten()
        .filter_map(|key| key.parse().ok())
        .collect()
}

/// What items of the table say.
fn known(items: impl IntoIterator<Item = Item>, user_refs: &[UserRefKey]) -> Known {
    let user_refs: HashMap<&str, &UserRefKey> = user_refs.iter().map(|key| (key.as_str(), key)).collect();
    let mut known = Known::default();
    for mut item in items {
        let key = item.get("contact_key").and_then(|key| key.as_s().ok()).cloned();
        let key = key.unwrap_or_default();
        if let Some(hash) = key.strip_prefix(TOKEN) {
            let holder = item.get("holder").and_then(|holder| holder.as_s().ok());
            known
                .holders
                .insert(hash.to_owned(), holder.cloned().unwrap_or_default());
            continue;
        }
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
    known
}

/// Units that share a transaction.
fn groups<Name>(units: Vec<(Name, Unit)>) -> Vec<Vec<(Name, Unit)>> {
    let mut groups: Vec<Vec<(Name, Unit)>> = Vec::new();
    let mut writes = 0;
    for (name, unit) in units {
        writes += unit.writes();
        match groups.last_mut() {
            Some(group) if writes <= MAX_TRANSACT => group.push((name, unit)),
            _ => {
                writes = unit.writes();
                groups.push(vec![(name, unit)]);
            }
        }
    }
    groups
}

fn key(contact_key: impl Into<String>) -> Item {
    Item::from([("contact_key".to_owned(), string(contact_key))])
}

fn token_key(hash: &str) -> String {
    format!("{TOKEN}{hash}")
}

fn read_contact(item: Item) -> Result<Stored, StoreError> {
    let ContactItem {
        facts,
        synced,
        latest,
    } = serde_dynamo::from_item(item).map_err(|_| StoreError::unreadable("contact read"))?;
    let mut contact: Contact = facts;
    if let Some(latest) = latest.and_then(|latest| Timestamp::from_millisecond(latest).ok()) {
        contact.acted(latest);
    }
    Ok(Stored { contact, synced })
}

fn unpack(value: AttributeValue) -> Result<UserRef, StoreError> {
    serde_dynamo::from_attribute_value(value).map_err(|_| StoreError::unreadable("user_ref read"))
}
