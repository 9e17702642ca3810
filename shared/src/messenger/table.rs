//! The contacts table: contacts, the `user_ref`s of people whose PSID is not known yet, what Braze was told, and under
//! `user#<external_id>` the users to whose Braze profiles contacts were ever moved.
//!
//! Beside the facts stand numbers (milliseconds since 1970) that one conditional write decides on: `latest`, an act that
//! opened the window and was noted without a decision, and from when (`quiet_from`) until when (`quiet_until`) such acts
//! may be noted so. `link_token#<hash>` says which contact or `user_ref` a link token has linked, `erased#<hash>` who was
//! erased.
//!
//! Two writers share a contact and do not disturb each other: the webhook function writes `facts` (conditional on
//! `version`), the dispatcher writes `synced` (under its lease). Users' records are the dispatcher's alone.

mod erase;
mod sync;
mod turns;

use std::collections::{BTreeMap, HashMap, HashSet};

use aws_sdk_dynamodb::types::{
    self, AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Deserialize;

use crate::erase::{UnlessErased, tombstone};
use crate::messenger::contact::Contact;
use crate::messenger::key::{ContactKey, UserRefKey};
use crate::messenger::proof::{Claim as TokenClaim, Holders, KEEP_USER_REF};
use crate::messenger::sync::{Stored, Synced};
use crate::messenger::user_ref::UserRef;
use crate::outbox::{Outbox, OutboxItem};
use crate::store::table::{Table, Updated, find_all, send_update};
use crate::store::transact::{MAX_TRANSACT, Transacted, transact, transact_once};
use crate::store::update::Update;
use crate::store::{Item, StoreError, attribute, number, string, text};
use crate::telemetry;

pub use turns::Turn;

/// What the keys of link tokens begin with.
const TOKEN: &str = "link_token#";

/// What the keys of the other items that name a contact are kept in.
const BESIDE: &str = "beside";

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

/// What came of adding an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Added {
    /// It is added.
    Now,
    /// Nothing is: the contact is not there any more.
    NoContact,
    /// It was there already.
    Before,
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
    /// Whose late events it must not be made of.
    pub unless_erased: Vec<UnlessErased>,
    /// Keys of other items that name the contact.
    pub beside: Vec<String>,
    /// The first sight of the contact that the record replaces: one that was erased meanwhile, and has come back, has
    /// the same versions.
    pub replaces: Option<Timestamp>,
}

pub use erase::Whole;

impl Unit {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes() == 0
    }

    fn writes(&self) -> usize {
        self.states() + self.outbox.len() + self.unless_erased.len()
    }

    fn states(&self) -> usize {
        usize::from(self.record.is_some()) + self.claims.len()
    }

    /// Units that each fit a transaction. What goes into a second one are effects alone, and putting those
    /// again changes nothing, so a crash in between costs nothing: the redelivery completes it.
    fn split(mut self) -> Vec<Self> {
        let mut units = Vec::new();
        let conditions = self.unless_erased.len();
        while self.writes() > MAX_TRANSACT {
            let room = MAX_TRANSACT - conditions;
            let most = self.outbox.len().saturating_sub(room);
            let rest = self
                .outbox
                .split_off(most.max(room - self.states()).min(self.outbox.len() - 1));
            units.push(Self {
                outbox: rest,
                unless_erased: self.unless_erased.clone(),
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
    pub fn new(table: String, outbox: Outbox) -> Self {
        Self {
            table: outbox.table.beside(table),
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
        let items = self.by_user(user_id).await?;
        // The index holds `user_ref`s as well.
        let is_contact =
            |item: &Item| text(item, "contact_key").is_some_and(|key| key.parse::<ContactKey>().is_ok());
        Ok(known(items.into_iter().filter(is_contact), &[]))
    }

    /// What the index holds of a user.
    async fn by_user(&self, user_id: &str) -> Result<Vec<Item>, StoreError> {
        find_all(self.table.query_of("user_id", user_id).index_name("by_user")).await
    }

    /// Connects to DynamoDB, by reading a key that no contact has.
    pub async fn connect(&self) -> Result<(), StoreError> {
        self.table.get_all(&[key("-")]).await?;
        Ok(())
    }

    /// Notes that a contact acted in a way that opens the window, if nothing else follows from it.
    pub async fn acted(&self, contact: &ContactKey, at: Timestamp) -> Result<Acted, StoreError> {
        // Nearly every message comes to this one call, so it is spelled out; none of its names is reserved.
        let update = types::Update::builder()
            .table_name(&self.table.name)
            .set_key(Some(key(contact.to_string())))
            .update_expression("SET latest = :at")
            .condition_expression(
                ":at BETWEEN quiet_from AND quiet_until AND (attribute_not_exists(latest) OR latest < :at)",
            )
            .expression_attribute_values(":at", number(at.as_millisecond()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(|error| StoreError::new("UpdateItem", error))?;
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
        let (alone, together): (Vec<_>, Vec<_>) = units.partition(|(_, unit)| unit.writes() == 1);
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
            let mut writes = self.conditions(group.iter().map(|(_, unit)| unit))?;
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
                let mut states = self.conditions(std::iter::once(&unit))?;
                states.extend(self.states(&unit)?);
                let written = self.outbox.commit(states, &unit.outbox).await?;
                Ok((!written).then_some(name))
            })
            .buffer_unordered(CONCURRENCY)
            .try_filter_map(async |refused| Ok(refused))
            .try_collect()
            .await
    }

    /// A transaction takes one condition an item.
    fn conditions<'a>(
        &self,
        units: impl Iterator<Item = &'a Unit>,
    ) -> Result<Vec<TransactWriteItem>, StoreError> {
        let mut oldest: BTreeMap<&str, Timestamp> = BTreeMap::new();
        for condition in units.flat_map(|unit| &unit.unless_erased) {
            let since = oldest.entry(condition.name.as_str()).or_insert(condition.since);
            *since = condition.since.min(*since);
        }
        let conditions = oldest.into_iter();
        conditions
            .map(|(name, since)| tombstone::unless_erased(&self.table, key(tombstone::name(name)), since))
            .collect()
    }

    fn states(&self, unit: &Unit) -> Result<Vec<TransactWriteItem>, StoreError> {
        let record = unit.record.iter().map(|record| self.record(record, unit));
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

    fn record(&self, record: &Record, unit: &Unit) -> Result<TransactWriteItem, StoreError> {
        let (name, version, user_id, facts) = match record {
            Record::Contact(contact) => (
                contact.key.to_string(),
                contact.version,
                contact.user_id(),
                attribute(contact)?,
            ),
            Record::UserRef(key, user_ref) => (
                key.to_string(),
                user_ref.version,
                user_ref.user_id(),
                attribute(user_ref)?,
            ),
        };
        let mut update = Update::new(key(name))
            .set("facts", facts)
            .version(version)
            .set_or_remove("user_id", user_id.map(string));
        match record {
            Record::Contact(contact) => {
                if let Some(quiet) = &contact.quiet {
                    update = update
                        .set("quiet_from", number(quiet.from))
                        .set("quiet_until", number(quiet.until));
                }
                if !unit.beside.is_empty() {
                    update = update.add(BESIDE, unit.beside.clone());
                }
                if let Some(first_seen) = unit.replaces {
                    update = update
                        .value("replaces", attribute(&first_seen)?)
                        .when("#facts.#first_seen = :replaces");
                }
            }
            Record::UserRef(..) => {
                let expires_at = self.table.now() + KEEP_USER_REF;
                update = update.set("expires_at", number(expires_at.as_second()));
            }
        }
        update.in_transaction(&self.table.name)
    }

    /// Adds an effect that is about a contact, if the contact is still there.
    pub async fn add_effect(&self, contact: &ContactKey, item: &OutboxItem) -> Result<Added, StoreError> {
        let exists = self
            .table
            .check(key(contact.to_string()), "attribute_exists(#facts)", Item::new())?;
        let writes = vec![
            (Added::NoContact, exists),
            (Added::Before, self.outbox.put(item)?),
        ];
        let refused = transact(&self.table.client, writes).await?;
        // What was taken before stays taken.
        Ok(refused.into_iter().max().unwrap_or(Added::Now))
    }

    /// The time, as the store sees it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.table.now()
    }
}

/// What items of the table say.
fn known(items: impl IntoIterator<Item = Item>, user_refs: &[UserRefKey]) -> Known {
    let user_refs: HashMap<&str, &UserRefKey> = user_refs.iter().map(|key| (key.as_str(), key)).collect();
    let mut known = Known::default();
    for mut item in items {
        let key = text(&item, "contact_key").unwrap_or_default().to_owned();
        if let Some(hash) = key.strip_prefix(TOKEN) {
            let holder = text(&item, "holder").unwrap_or_default();
            known.holders.insert(hash.to_owned(), holder.to_owned());
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

/// The key under which the table keeps who holds a token.
#[must_use]
pub fn token_key(hash: &str) -> String {
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
