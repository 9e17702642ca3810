//! The pure part of the Messenger job: `cargo bench -p shared --bench messenger`.
//!
//! A request has to be answered within Meta's 5 seconds; what is measured here is the share of it that is
//! ours alone, without the store.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up should stop")]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use divan::Bencher;
use divan::counter::ItemsCount;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use shared::config::Env;
use shared::messenger::link::mint;
use shared::messenger::settings::MessengerSettings;
use shared::messenger::{Contact, ContactKey, Event, Holders, Judge, LinkKeys, decide, parse, sync};
use shared::webhook::signature::{Received, Verified, sign};

const EVENTS: usize = 1000;

fn main() {
    divan::main();
}

fn now() -> Timestamp {
    "2025-11-20T10:00:00Z".parse().expect("a time")
}

fn link_key() -> SecretString {
    SecretString::from("development-link-signing-key-000000")
}

fn settings() -> MessengerSettings {
    Env::from_pairs(&[])
        .finish(MessengerSettings::read)
        .expect("settings")
}

/// 1,000 messages of 1,000 people, as Meta spells them.
fn body() -> String {
    let items: Vec<String> = (0..EVENTS)
        .map(|n| {
            format!(
                r#"{{"sender":{{"id":"52758117024{n:05}"}},"recipient":{{"id":"1134597043258171"}},"timestamp":1763632800{n:03},"message":{{"mid":"m_QLJEESZB3XjdT5O2yRkN1G4AmRlNWkQle3761u-f9Gg9oe2gJERIyzQ6poj10-_XMU2v5YCsC8vxFa7Kno3BFECyRBEmQd143{n:05}","text":"\u00bfD\u00f3nde est\u00e1 mi pedido? https:\/\/shop.example\/","attachments":[{{"type":"image","payload":{{"url":"https:\/\/scontent.xx.fbcdn.net\/v\/t1.15752-9\/{n}.jpg"}}}}]}}}}"#
            )
        })
        .collect();
    format!(
        r#"{{"object":"page","entry":[{{"id":"1134597043258171","time":1763632801000,"messaging":[{}]}}]}}"#,
        items.join(",")
    )
}

fn verified(body: String) -> Verified {
    let secret = SecretString::from("app secret");
    let signature = sign(&secret, body.as_bytes());
    Received::new(body, Some(&signature))
        .verify([&secret])
        .expect("its own signature")
}

fn people() -> BTreeMap<ContactKey, Vec<Event>> {
    let mut people: BTreeMap<ContactKey, Vec<Event>> = BTreeMap::new();
    for event in parse(&verified(body()), now()).events {
        if let Some(key) = event.contact_key() {
            people.entry(key).or_default().push(event);
        }
    }
    people
}

#[divan::bench]
fn verify_1000_events(bencher: Bencher) {
    let body = body();
    let secret = SecretString::from("app secret");
    let signature = sign(&secret, body.as_bytes());
    bencher.bench(|| {
        Received::new(body.clone(), Some(&signature))
            .verify([&secret])
            .is_ok()
    });
}

#[divan::bench]
fn parse_1000_events(bencher: Bencher) {
    let body = verified(body());
    assert_eq!(parse(&body, now()).events.len(), EVENTS);
    bencher
        .counter(ItemsCount::new(EVENTS))
        .bench(|| parse(&body, now()));
}

#[divan::bench]
fn decide_1000_new_people(bencher: Bencher) {
    let (people, settings) = (people(), settings());
    let links = LinkKeys::new(&link_key(), None);
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
        people
            .values()
            .map(|events| decide(None, events, &[], judge(&links), &settings))
            .collect::<Vec<_>>()
    });
}

#[divan::bench]
fn decide_1000_events_of_one_person(bencher: Bencher) {
    let settings = settings();
    let links = LinkKeys::new(&link_key(), None);
    let mut events: Vec<Event> = people().into_values().flatten().collect();
    let person = events.first().expect("there are events").person.clone();
    for event in &mut events {
        event.person = person.clone();
    }
    bencher
        .counter(ItemsCount::new(EVENTS))
        .bench(|| decide(None, &events, &[], judge(&links), &settings));
}

#[divan::bench]
fn plan_1000_syncs(bencher: Bencher) {
    let settings = settings();
    let links = LinkKeys::new(&link_key(), None);
    let contacts: Vec<Contact> = people()
        .values()
        .filter_map(|events| decide(None, events, &[], judge(&links), &settings).contact)
        .collect();
    let synced = sync::Synced::default();
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
        contacts
            .iter()
            .map(|contact| sync::plan(contact, &synced, &sync::Others::default(), &settings))
            .collect::<Vec<_>>()
    });
}

#[divan::bench]
fn verify_link_token(bencher: Bencher) {
    let token = mint(&link_key(), "user-42", SignedDuration::from_hours(1), now()).expect("a token");
    let links = LinkKeys::new(&link_key(), None);
    bencher.bench(|| links.verify(&token, now()));
}

fn judge(keys: &LinkKeys) -> Judge<'_> {
    static NOBODY: LazyLock<Holders> = LazyLock::new(Holders::default);
    Judge {
        keys,
        holders: &NOBODY,
    }
}
