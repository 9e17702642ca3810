//! Removing a person from the contacts table.
//!
//! A contact's item names, in `beside`, the keys of the table's other items that name the contact: its link tokens, the
//! `user_ref`s that it was known by, and the users to whose profiles it was moved.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::sync::on_profile;
use super::{BESIDE, Contacts, TOKEN, key, read_contact, token_key, unpack};
use crate::erase::order::user_name;
use crate::erase::tombstone;
use crate::messenger::key::ContactKey;
use crate::messenger::sync::Stored;
use crate::personal::Personal;
use crate::store::update::Update;
use crate::store::{Claim, Item, StoreError, text};

/// What the keys of users' records begin with.
const USER: &str = "user#";

/// A contact with everything that names it.
#[derive(Debug)]
pub struct Whole {
    /// The contact; `None` if this version cannot read it.
    pub stored: Option<Stored>,
    /// Keys of other items that name it.
    beside: Personal<Vec<String>>,
}

impl Whole {
    /// The keys of its `user_ref`s.
    pub fn user_refs(&self) -> impl Iterator<Item = &String> {
        let others = |key: &&String| !key.starts_with(TOKEN) && !key.starts_with(USER);
        self.beside.iter().filter(others)
    }

    /// The users to whose profiles it was moved.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.beside.iter().filter_map(|key| key.strip_prefix(USER))
    }
}

impl Contacts {
    /// Notes that those with these names were erased at `at`: what is older makes no new record.
    pub async fn bury(&self, names: &[String], at: Timestamp) -> Result<(), StoreError> {
        let stones = names
            .iter()
            .map(|name| tombstone::put(key(tombstone::name(name)), at));
        self.table.put_all(stones.collect()).await
    }

    /// When those with these names were erased, as far as they were.
    pub async fn buried(&self, names: &[String]) -> Result<HashMap<String, Timestamp>, StoreError> {
        let by_key: HashMap<String, &String> =
            names.iter().map(|name| (tombstone::name(name), name)).collect();
        let keys: Vec<Item> = by_key.keys().cloned().map(key).collect();
        let items = self.table.get_all(&keys).await?;
        let buried = items.iter().filter_map(|item| {
            let name = by_key.get(text(item, "contact_key")?)?;
            Some(((*name).clone(), tombstone::erased_at(item)?))
        });
        Ok(buried.collect())
    }

    /// Whether there are records of a user and of contacts or `user_ref`s with these keys: those that there are.
    pub async fn existing(&self, keys: &[String]) -> Result<Vec<String>, StoreError> {
        let items = self
            .table
            .get_all(&keys.iter().map(key).collect::<Vec<_>>())
            .await?;
        Ok(items.iter().filter_map(name).collect())
    }

    /// The keys of everything that is linked to a user, `user_ref`s too, as the index knows it: a moment late.
    pub async fn keys_of_user(&self, user_id: &str) -> Result<Vec<String>, StoreError> {
        let items = self.by_user(user_id).await?;
        Ok(items.iter().filter_map(name).collect())
    }

    /// Claims a contact for `length`, and reads what names it as well.
    pub async fn claim_whole(&self, contact: &str, length: Duration) -> Result<Claim<Whole>, StoreError> {
        let update = Update::new(key(contact)).when("attribute_exists(#facts)");
        let read = |mut item: Item| {
            let beside = item.remove(BESIDE);
            let beside = beside.and_then(|keys| keys.as_ss().ok().cloned());
            let stored = read_contact(item);
            if let Err(error) = &stored {
                error.count_unreadable("contact");
            }
            Ok(Whole {
                stored: stored.ok(),
                beside: beside.unwrap_or_default().into(),
            })
        };
        self.table.claim(update, length, read).await
    }

    /// Removes a contact that is under our lease, and everything that names it but users' records. Gives how many other
    /// records went.
    pub async fn erase(&self, contact: &ContactKey, whole: &Whole) -> Result<usize, StoreError> {
        let records = whole.beside.iter().filter(|key| !key.starts_with(USER));
        let mut keys: Vec<Item> = records.map(key).collect();
        let count = keys.len();
        keys.push(key(contact.to_string()));
        self.table.delete_all(keys).await?;
        Ok(count)
    }

    /// Takes a contact out of a user's record, and removes a record that names nobody any more.
    pub async fn leave(&self, user_id: &str, contact: &ContactKey) -> Result<(), StoreError> {
        let user = || key(user_name(user_id));
        let left = Update::new(user())
            .take_out("contacts", vec![contact.to_string()])
            .when("attribute_exists(#contact_key)");
        self.table.update(left).await?;
        self.table
            .delete_if(user(), "attribute_not_exists(#contacts)")
            .await
    }

    /// Removes a user's record and these `user_ref`s with their link tokens, and the user from contacts that were on their
    /// profile and are another user's now. Gives how many records went.
    pub async fn erase_user(&self, user_id: &str, user_refs: &[String]) -> Result<usize, StoreError> {
        let record = self.table.get(key(user_name(user_id))).await?;
        let others = record.as_ref().map(on_profile).unwrap_or_default();
        for contact in others {
            let forgotten = Update::new(key(contact.to_string()))
                .take_out(BESIDE, vec![user_name(user_id)])
                .when("attribute_exists(#facts)");
            self.table.update(forgotten).await?;
        }
        let mut keys: Vec<Item> = user_refs.iter().map(key).collect();
        let records = self.table.get_all(&keys).await?;
        let record_of = |mut item: Item| unpack(item.remove("facts")?).ok();
        let tokens = records
            .into_iter()
            .filter_map(record_of)
            .filter_map(|record| record.token);
        keys.extend(tokens.map(|token| key(token_key(&token.value.hash))));
        let count = keys.len() + usize::from(record.is_some());
        keys.push(key(user_name(user_id)));
        self.table.delete_all(keys).await?;
        Ok(count)
    }
}

/// The key of an item of the table.
fn name(item: &Item) -> Option<String> {
    Some(text(item, "contact_key")?.to_owned())
}
