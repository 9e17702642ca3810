//! The whole of the module, from bytes to plans.

mod fixtures;
mod lenient;
mod order;
mod several;
mod syncing;
mod tokens;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;

use super::link::mint;
use super::{ContactKey, Event, LinkKeys, Parsed, UserRefKey, parse};
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
