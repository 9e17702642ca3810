//! Messenger and Instagram: what leaves for Braze.

mod pace;
pub(crate) mod send;
pub(crate) mod sync;

use serde_json::{Map, Value};
use shared::messenger::key::ContactKey;
use shared::messenger::sync::Others;
use shared::messenger::table::Contacts;
use shared::outbox::Reason;

use crate::settle::Outcome;

/// What is to be done for a contact.
pub(crate) enum MessengerEffect {
    /// Bring the profile up to date.
    Sync,
    /// Send this custom event.
    Event(Map<String, Value>),
}

/// Adds contacts that were ever moved to a user, with their records.
pub(crate) async fn add_others(
    others: &mut Others,
    contacts: &Contacts,
    user_id: &str,
    keys: Vec<ContactKey>,
) -> Result<(), Outcome> {
    let mut known = contacts.read(&keys, &[], &[]).await?;
    if !known.unreadable_contacts.is_empty() {
        return Err(Outcome::retry(Reason::UnreadableContact));
    }
    for key in keys {
        let stored = known.contacts.remove(&key);
        others.add(user_id, key, stored);
    }
    Ok(())
}
