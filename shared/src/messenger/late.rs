//! Events of people who were erased since.
//!
//! A record that is made anew, or of events older than it, is written on condition that nobody whom they name was erased
//! since. If somebody was, their late events are left out and the rest is decided again. A contact that is known, and what
//! it does now, take no condition.

use std::collections::HashMap;

use jiff::Timestamp;

use super::contact::Contact;
use super::event::Event;
use super::link::LinkKeys;
use super::proof;
use super::user_ref::{UserRef, UserRefLink};
use crate::erase::UnlessErased;
use crate::erase::order::user_name;

/// When people were erased, by their names.
pub type Buried = HashMap<String, Timestamp>;

/// Whom an event names.
#[must_use]
pub fn names(event: &Event, keys: &LinkKeys) -> Vec<String> {
    let contact = event.contact_key().map(|key| key.to_string());
    let user_ref = event.user_ref_key().map(|key| key.to_string());
    let users = proof::users(event, keys).map(|user| user_name(&user));
    contact.into_iter().chain(user_ref).chain(users).collect()
}

/// Whom a derived link names.
#[must_use]
pub fn names_of_link(link: &UserRefLink) -> Vec<String> {
    let user = link.link.value.user_id.as_ref().map(|user| user_name(user));
    let own = [link.contact.to_string(), link.user_ref.as_str().to_owned()];
    own.into_iter().chain(user).collect()
}

/// Whether somebody with one of these names was erased at `at` or later.
#[must_use]
pub fn is_late(names: &[String], at: Timestamp, buried: &Buried) -> bool {
    let mut erased = names.iter().filter_map(|name| buried.get(name));
    erased.any(|erased_at| *erased_at >= at)
}

/// On what a contact's record is written. `stored` is the record that it replaces; `claims` = it takes a link token.
#[must_use]
pub fn of_contact(
    stored: Option<&Contact>,
    events: &[Event],
    derived: &[UserRefLink],
    claims: bool,
    keys: &LinkKeys,
) -> Vec<UnlessErased> {
    let own = events
        .iter()
        .filter_map(|event| Some((event.contact_key()?.to_string(), event.at)));
    let derived_own = derived.iter().map(|link| (link.contact.to_string(), link.at()));
    let is_old = |at: Timestamp| stored.is_none_or(|stored| at < stored.first_seen);
    let own = own.chain(derived_own).filter(|(_, at)| is_old(*at));
    let users = events.iter().filter(|_| claims).flat_map(|event| {
        let users = proof::users(event, keys);
        users.map(|user| (user_name(&user), event.at))
    });
    let derived_users = derived.iter().filter(|_| claims).filter_map(|link| {
        let user = link.link.value.user_id.as_ref()?;
        Some((user_name(user), link.at()))
    });
    oldest(own.chain(users).chain(derived_users))
}

/// On what a `user_ref`'s record is written.
#[must_use]
pub fn of_user_ref(stored: Option<&UserRef>, events: &[Event], keys: &LinkKeys) -> Vec<UnlessErased> {
    let own = events.iter().filter(|_| stored.is_none()).filter_map(|event| {
        let key = event.user_ref_key()?;
        Some((key.to_string(), event.at))
    });
    let named = events.iter().flat_map(|event| {
        let contact = event.contact_key().map(|key| key.to_string());
        let users = proof::users(event, keys).map(|user| user_name(&user));
        contact
            .into_iter()
            .chain(users)
            .map(|name| (name, event.at))
            .collect::<Vec<_>>()
    });
    oldest(own.chain(named))
}

fn oldest(names: impl Iterator<Item = (String, Timestamp)>) -> Vec<UnlessErased> {
    let mut oldest: HashMap<String, Timestamp> = HashMap::new();
    for (name, at) in names {
        let since = oldest.entry(name).or_insert(at);
        *since = at.min(*since);
    }
    let conditions = oldest.into_iter();
    conditions
        .map(|(name, since)| UnlessErased {
            name: name.into(),
            since,
        })
        .collect()
}
