//! What the dispatcher reads and writes: what Braze was told of a contact, and users' records.

use std::time::Duration;

use super::{BESIDE, Contacts, key, read_contact};
use crate::erase::order::user_name;
use crate::messenger::key::ContactKey;
use crate::messenger::sync::{Stored, Synced};
use crate::store::update::Update;
use crate::store::{Claim, Item, Lease, Released, StoreError, attribute};

impl Contacts {
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
        let mut update = Update::new(key(user_name(user_id)));
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

    /// [`Contacts::claim_user`], if there is a record of the user.
    pub async fn claim_known_user(
        &self,
        user_id: &str,
        length: Duration,
    ) -> Result<Claim<Vec<ContactKey>>, StoreError> {
        let update = Update::new(key(user_name(user_id))).when("attribute_exists(#contacts)");
        self.table
            .claim(update, length, |item| Ok(on_profile(&item)))
            .await
    }

    /// The contacts that may ever have been on a user's profile.
    pub async fn on_user(&self, user_id: &str) -> Result<Vec<ContactKey>, StoreError> {
        let item = self.table.get(key(user_name(user_id))).await?;
        Ok(item.as_ref().map(on_profile).unwrap_or_default())
    }

    /// Stores the state before a request is sent. `false` if the lease was lost: then nothing is written.
    pub async fn note(&self, lease: &Lease, synced: &Synced) -> Result<bool, StoreError> {
        let mut update = lease.update().set("synced", attribute(synced)?);
        let users: Vec<String> = synced.tried.keys().map(|user| user_name(user)).collect();
        if !users.is_empty() {
            update = update.add(BESIDE, users);
        }
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
}

/// The contacts that a user's record names.
pub(super) fn on_profile(user: &Item) -> Vec<ContactKey> {
    let keys = user.get("contacts").and_then(|keys| keys.as_ss().ok());
    keys.into_iter()
        .flatten()
        .filter_map(|key| key.parse().ok())
        .collect()
}
