//! Moving a contact from one profile to another.
//!
//! # Leaving a user
//!
//! An attribute that another contact of the user has written as well gets that contact's value, all else null. Null
//! alone would leave a user without an id who can still be reached.
//!
//! # Entering a user
//!
//! Braze combines an alias profile with the user by identify, unless the user has an alias of the same label: then it
//! says 201 and leaves both as they are. So if another contact of the same account was ever moved there, the alias
//! profile is not identified but emptied.
//!
//! # Attempts with an unknown outcome
//!
//! An answer may be lost, and so may the process. What an attempt may have done is stored before it
//! ([`Synced::tried`]), and the next one undoes or completes it. The alias of such a contact may be a profile of its
//! own or one more name of the user whom it was identified as. If that user is no longer the one to enter, the alias is
//! emptied first, wherever it is, and the rest follows in a later request.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    Identify, Others, Profile, SyncPlan, Synced, UserAlias, alias_fields, unwanted, user_fields, wanted,
};
use crate::messenger::contact::Contact;
use crate::messenger::settings::MessengerSettings;
use crate::personal::Personal;

pub(super) fn plan(
    contact: &Contact,
    synced: &Synced,
    others: &Others,
    settings: &MessengerSettings,
) -> SyncPlan {
    let target = contact.user_id();
    let wanted = wanted(contact, settings);
    let has_alias = synced.profile == Profile::Alias;
    let only_target_tried = synced
        .tried
        .keys()
        .all(|user_id| Some(user_id.as_str()) == target);
    let to_identify =
        target.filter(|user_id| has_alias && only_target_tried && !others.share_label(user_id, &contact.key));
    let unsure = unsure(contact, synced, &wanted);
    if has_alias && !synced.tried.is_empty() && to_identify.is_none() {
        return empty_alias(contact, synced);
    }

    let mut attributes: Vec<Value> = written_to(synced)
        .into_iter()
        .filter(|(user_id, _)| Some(user_id.as_str()) != target)
        .filter_map(|(user_id, names)| {
            let left = others.left_with(&user_id, names, settings);
            existing(user_fields(&user_id), left)
        })
        .collect();
    if has_alias && to_identify.is_none() {
        let names = synced.attributes.keys().cloned();
        attributes.extend(nulls_on_alias(contact, names));
    }
    if let Some(user_id) = target {
        let mut object = user_fields(user_id);
        object.extend(wanted.clone());
        // Attributes that come along with the alias, or that other contacts have left.
        let comes_along = |name: &String| {
            others.are_on(user_id) || (to_identify.is_some() && synced.attributes.contains_key(name))
        };
        let gone = unwanted(contact, settings).filter(comes_along);
        object.extend(gone.map(|name| (name, Value::Null)));
        attributes.push(Value::Object(object));
    }
    SyncPlan {
        identify: to_identify.map(|user_id| Identify {
            external_id: user_id.into(),
            user_alias: UserAlias::of(&contact.key),
        }),
        attributes: attributes.into(),
        before: unsure,
        after: Synced {
            profile: target.map_or(Profile::None, |user_id| Profile::User(user_id.into())),
            attributes: if target.is_some() {
                wanted.into()
            } else {
                Personal::default()
            },
            held: target.is_none(),
            tried: Personal::default(),
        },
    }
}

/// Step 1 of 2, where the alias may already belong to a user: its attributes are cleared first.
fn empty_alias(contact: &Contact, synced: &Synced) -> SyncPlan {
    let mut names: BTreeSet<String> = synced.attributes.keys().cloned().collect();
    names.extend(synced.tried.values().flatten().cloned());
    let mut before = synced.with_unknown(synced.attributes.keys().cloned());
    for tried in before.tried.values_mut() {
        tried.extend(names.iter().cloned());
    }
    SyncPlan {
        identify: None,
        attributes: Personal(nulls_on_alias(contact, names).into_iter().collect()),
        after: Synced {
            profile: Profile::None,
            attributes: Personal::default(),
            held: true,
            tried: before.tried.clone(),
        },
        before,
    }
}

fn nulls_on_alias(contact: &Contact, names: impl IntoIterator<Item = String>) -> Option<Value> {
    let nulls = names.into_iter().map(|name| (name, Value::Null)).collect();
    existing(alias_fields(&contact.key), nulls)
}

/// What is true while the move is under way: the user to enter is one more that may carry the contact.
fn unsure(contact: &Contact, synced: &Synced, wanted: &BTreeMap<String, Value>) -> Synced {
    let names = || wanted.keys().cloned();
    let mut unsure = synced.with_unknown(synced.attributes.keys().cloned());
    match (contact.user_id(), &synced.profile) {
        (Some(user_id), Profile::User(known)) if known.as_str() == user_id => {
            unsure = unsure.with_unknown(names());
        }
        (Some(user_id), _) => unsure
            .tried
            .entry(user_id.to_owned())
            .or_default()
            .extend(names()),
        (None, _) => {}
    }
    unsure
}

/// The users that may carry something of the contact, with the names of it.
fn written_to(synced: &Synced) -> BTreeMap<String, BTreeSet<String>> {
    let mut written = (*synced.tried).clone();
    if let Profile::User(user_id) = &synced.profile {
        let names = synced.attributes.keys().cloned();
        written
            .entry(user_id.as_str().to_owned())
            .or_default()
            .extend(names);
    }
    written
}

/// An object that does not bring a deleted profile back to life.
fn existing(fields: Map<String, Value>, values: BTreeMap<String, Value>) -> Option<Value> {
    if values.is_empty() {
        return None;
    }
    let mut object = fields;
    object.insert("_update_existing_only".to_owned(), true.into());
    object.extend(values);
    Some(Value::Object(object))
}
