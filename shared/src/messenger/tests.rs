//! The whole of the module, from bytes to plans.

mod changes;
mod consent;
mod fixtures;
mod lenient;
mod order;
mod proofs;
mod several;
mod syncing;
mod tokens;
mod windows;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;

use super::link::mint;
use super::user_ref::UserRefPlan;
use super::{
    ContactKey, Event, Holders, Judge, LinkKeys, Parsed, Plan, Stored, UserRef, UserRefKey, UserRefLink,
    parse,
};
use crate::config::Env;
use crate::messenger::settings::MessengerSettings;
use crate::webhook::signature::{Received, Verified, sign};

const LINK_KEY: &str = "development-link-signing-key-000000";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn received_at() -> Timestamp {
    at("2025-11-21T12:00:00Z")
}

/// Signs and verifies, as there is no other way to a parser.
fn verified(body: impl Into<Vec<u8>>) -> Verified {
    let body = body.into();
    let secret = SecretString::from("app secret");
    let signature = sign(&secret, &body);
    Received::new(body, Some(&signature)).verify([&secret]).unwrap()
}

fn parsed(body: impl Into<Vec<u8>>) -> Parsed {
    parse(&verified(body), received_at())
}

fn link_keys() -> LinkKeys {
    LinkKeys::new(&SecretString::from(LINK_KEY), None)
}

/// Decides with the keys of the tests, as if no token had a holder.
fn decide(
    stored: Option<&Stored>,
    events: &[Event],
    derived: &[UserRefLink],
    keys: &LinkKeys,
    settings: &MessengerSettings,
) -> Plan {
    let holders = &Holders::default();
    super::decide(stored, events, derived, Judge { keys, holders }, settings)
}

fn decide_user_ref(stored: Option<&UserRef>, events: &[Event], keys: &LinkKeys) -> UserRefPlan {
    let holders = &Holders::default();
    super::decide_user_ref(stored, events, Judge { keys, holders })
}

fn token(user_id: &str, now: Timestamp) -> String {
    mint(
        &SecretString::from(LINK_KEY),
        user_id,
        SignedDuration::from_hours(1),
        now,
    )
    .unwrap()
}

fn settings(pairs: &[(&str, &str)]) -> MessengerSettings {
    Env::from_pairs(pairs).finish(MessengerSettings::read).unwrap()
}

type Subjects = (BTreeMap<UserRefKey, Vec<Event>>, BTreeMap<ContactKey, Vec<Event>>);

/// The events of each `user_ref` and of each person.
fn by_subject(events: &[Event]) -> Subjects {
    let mut subjects = Subjects::default();
    for event in events {
        if let Some(key) = event.user_ref_key() {
            subjects.0.entry(key).or_default().push(event.clone());
        }
        if let Some(key) = event.contact_key() {
            subjects.1.entry(key).or_default().push(event.clone());
        }
    }
    subjects
}
