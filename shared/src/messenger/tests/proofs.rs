//! A link token links one contact, the first that is stored with it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::proof::{Claim, Token, asks_for_newer_keys, carry_tokens, hashes};
use super::super::sync::Synced;
use super::super::{ContactKey, Event, Holders, Judge, Stored, UserRef, UserRefKey, UserRefLink};
use super::super::{decide, decide_user_ref};
use super::{at, by_subject, link_keys, parsed, settings, token};

fn time(minutes: i64) -> Timestamp {
    at("2025-11-20T10:00:00Z") + SignedDuration::from_mins(minutes)
}

fn event(page: &str, psid: Option<&str>, minutes: i64, mut item: Value) -> Event {
    if let Some(psid) = psid {
        item["sender"] = json!({ "id": psid });
    }
    item["timestamp"] = time(minutes).as_millisecond().into();
    let body = json!({ "object": "page", "entry": [{ "id": page, "messaging": [item] }] });
    let event = parsed(body.to_string()).events.remove(0);
    // One that is later than it is received would not be believed.
    let at = time(minutes);
    Event { at, ..event }
}

/// The table, as the writes leave it.
#[derive(Default)]
struct World {
    holders: BTreeMap<String, (String, Timestamp)>,
    contacts: BTreeMap<ContactKey, Stored>,
    user_refs: BTreeMap<UserRefKey, UserRef>,
    refused: u64,
}

impl World {
    fn deliver(&mut self, events: &[Event]) {
        let keys = &link_keys();
        let (user_refs, people) = by_subject(events);
        let mut derived: Vec<UserRefLink> = Vec::new();
        for (key, events) in user_refs {
            let holders = &self.read();
            let plan = decide_user_ref(self.user_refs.get(&key), &events, Judge { keys, holders });
            self.refused += plan.counts.refused;
            self.write(&plan.claims);
            derived.extend(plan.derived);
            self.user_refs.extend(plan.record.map(|record| (key, record)));
        }
        let mut all: BTreeMap<ContactKey, Vec<Event>> = people;
        for link in &derived {
            all.entry(link.contact.clone()).or_default();
        }
        for (key, events) in all {
            let derived: Vec<_> = derived
                .iter()
                .filter(|link| link.contact == key)
                .cloned()
                .collect();
            let holders = &self.read();
            let stored = self.contacts.get(&key);
            let plan = decide(stored, &events, &derived, Judge { keys, holders }, &settings(&[]));
            self.refused += plan.counts.refused;
            self.write(&plan.claims);
            if let Some(contact) = plan.contact {
                let synced = Synced::default();
                self.contacts.insert(key, Stored { contact, synced });
            }
        }
    }

    fn read(&self) -> Holders {
        let mut holders = Holders::default();
        for (hash, (holder, _)) in &self.holders {
            holders.insert(hash.clone(), holder.clone());
        }
        holders
    }

    /// On the condition that the store holds the write to.
    fn write(&mut self, claims: &[Claim]) {
        for claim in claims {
            let holder = claim.holder.as_str();
            let Token { hash, expires_at } = claim.token.clone();
            let held = self.holders.insert(hash, (holder.to_owned(), expires_at));
            let user_ref = claim.user_ref.as_ref().map(|user_ref| user_ref.as_str());
            assert!(held.is_none_or(|(held, _)| held == holder || Some(held.as_str()) == user_ref));
        }
    }

    /// What DynamoDB does with what has expired by then.
    fn forget(&mut self, now: Timestamp) {
        self.holders.retain(|_, (_, expires_at)| *expires_at > now);
    }

    fn user(&self, page: &str, psid: &str) -> Option<&str> {
        let key = format!("messenger#{page}#{psid}").parse().unwrap();
        self.contacts.get(&key)?.contact.user_id()
    }
}

fn carriers(token: &str) -> Vec<Value> {
    let referral = json!({ "ref": token, "source": "SHORTLINK" });
    vec![
        json!({ "referral": referral }),
        json!({ "postback": { "mid": "p", "referral": referral } }),
        json!({ "message": { "mid": "m", "text": "hi", "referral": referral } }),
        json!({ "message": { "mid": "m", "text": "hi" }, "referral": referral }),
        json!({ "reaction": { "mid": "m", "action": "react" }, "referral": referral }),
        json!({ "optin": { "ref": token } }),
        json!({ "account_linking": { "status": "linked", "authorization_code": token } }),
    ]
}

#[test]
fn the_second_contact_that_shows_a_token_is_refused_and_counted() {
    let token = token("ana", time(0));
    for first in carriers(&token) {
        for second in carriers(&format!(" {token} ")) {
            for (page, psid) in [("101", "7002"), ("102", "7001"), ("102", "7002")] {
                let mut world = World::default();
                world.deliver(&[event("101", Some("7001"), 0, first.clone())]);
                world.deliver(&[event(page, Some(psid), 1, second.clone())]);
                assert_eq!(world.user("101", "7001"), Some("ana"), "{first}");
                assert_eq!((world.user(page, psid), world.refused), (None, 1), "{second}");
            }
        }
    }
}

#[test]
fn a_redelivery_and_a_second_showing_by_the_same_contact_are_harmless() {
    let token = token("ana", time(0));
    let mut world = World::default();
    let shown = event("101", Some("7001"), 0, carriers(&token).remove(0));
    for _ in 0..3 {
        world.deliver(std::slice::from_ref(&shown));
    }
    let unlinked = json!({ "account_linking": { "status": "unlinked" } });
    world.deliver(&[event("101", Some("7001"), 1, unlinked)]);
    assert_eq!(world.user("101", "7001"), None);
    world.deliver(&[event("101", Some("7001"), 2, carriers(&token).remove(1))]);
    assert_eq!((world.user("101", "7001"), world.refused), (Some("ana"), 0));
}

#[test]
fn another_token_of_the_same_user_links_another_contact() {
    let mut world = World::default();
    world.deliver(&[event(
        "101",
        Some("7001"),
        0,
        carriers(&token("ana", time(0))).remove(0),
    )]);
    world.deliver(&[event(
        "102",
        Some("7002"),
        1,
        carriers(&token("ana", time(1))).remove(0),
    )]);
    assert_eq!(
        (world.user("101", "7001"), world.user("102", "7002")),
        (Some("ana"), Some("ana"))
    );
}

#[test]
fn the_holder_is_forgotten_once_no_redelivery_can_carry_the_token() {
    // 30 days in which a `user_ref` may lead to a contact, a minute of leeway, and 36 hours of redeliveries.
    let shown = event("101", Some("7001"), 0, carriers(&token("ana", time(0))).remove(0));
    let (keys, holders) = (&link_keys(), &Holders::default());
    let plan = decide(None, &[shown], &[], Judge { keys, holders }, &settings(&[]));
    assert_eq!(plan.claims[0].token.expires_at, time(30 * 24 * 60 + 1 + 36 * 60));
    assert!(!format!("{:?}", plan.claims).contains("7001"));
}

/// Whenever somebody else comes who names the same `user_ref`, also once all that expires is gone.
#[test]
fn a_token_links_nobody_else_by_a_user_ref_once_its_holder_is_forgotten() {
    const HOUR: i64 = 60;
    let token = token("ana", time(0));
    let of_form = |sender: Option<&str>, minutes| {
        let optin = json!({ "optin": { "ref": token, "user_ref": "form-1" } });
        event("101", sender, minutes, optin)
    };
    let answer = |psid: &str, minutes| {
        let prior = json!({ "source": "checkbox_plugin", "identifier": "form-1" });
        let message = json!({ "message": { "mid": "m", "text": "hi" }, "prior_message": prior });
        event("101", Some(psid), minutes, message)
    };
    let shown = |psid: &str| event("101", Some(psid), 0, carriers(&token).remove(0));
    for hours in [1, 39, 24 * 29, 24 * 31, 24 * 32, 24 * 400] {
        for first in [
            vec![of_form(None, 0), answer("7001", 1)],
            vec![shown("7001"), of_form(Some("7002"), 1)],
            vec![of_form(Some("7001"), 0)],
        ] {
            let mut world = World::default();
            for event in &first {
                world.deliver(std::slice::from_ref(event));
            }
            assert!(world.refused <= 1, "{first:?}");
            // Also where Meta tells of it a day and a half later.
            for told_later in [0, 36] {
                world.forget(time((hours + told_later) * HOUR));
                world.deliver(&[answer("7002", hours * HOUR)]);
                let users = (world.user("101", "7001"), world.user("101", "7002"));
                assert_eq!(users, (Some("ana"), None), "{hours} {first:?}");
            }
        }
    }
    // Somebody answers weeks later, and is who ticked the box.
    let mut world = World::default();
    world.deliver(&[of_form(None, 0)]);
    world.forget(time(24 * 29 * HOUR));
    world.deliver(&[answer("7001", 24 * 29 * HOUR)]);
    assert_eq!(world.user("101", "7001"), Some("ana"));
}

/// A checkbox plugin's optin has no sender, and any kind of act may tie it to a person.
#[test]
fn a_checkbox_ties_to_whatever_the_person_does_in_either_order() {
    let prior = json!({ "source": "checkbox_plugin", "identifier": "form-1" });
    let answers = [
        json!({ "message": { "mid": "m", "text": "hi" } }),
        json!({ "postback": { "mid": "p", "title": "Yes", "payload": "YES" } }),
        json!({ "reaction": { "mid": "m", "action": "react" } }),
        json!({ "referral": { "ref": "x", "source": "SHORTLINK" } }),
        json!({ "optin": { "ref": "x" } }),
        json!({ "read": { "watermark": 1 } }),
        json!({ "something_new": {} }),
    ];
    for mut answer in answers {
        answer["prior_message"] = prior.clone();
        for backwards in [false, true] {
            let mut world = World::default();
            let optin = json!({ "optin": { "ref": token("ana", time(0)), "user_ref": "form-1" } });
            let mut events = [
                event("101", None, 0, optin),
                event("101", Some("7001"), 1, answer.clone()),
            ];
            if backwards {
                events.reverse();
            }
            for event in &events {
                world.deliver(std::slice::from_ref(event));
            }
            assert_eq!(world.user("101", "7001"), Some("ana"), "{answer} {backwards}");
            // Both again, and then another person who names the same `user_ref`.
            world.deliver(&events);
            assert_eq!(
                (world.user("101", "7001"), world.refused),
                (Some("ana"), 0),
                "{answer}"
            );
            world.deliver(&[event("101", Some("7002"), 2, answer.clone())]);
            assert_eq!(world.user("101", "7002"), None, "{answer}");
        }
    }
}

/// The version before kept no token with a `user_ref`, and nobody held one.
#[test]
fn a_checkbox_of_the_version_before_ties_to_one_person() {
    let answer = |psid: &str, minutes| {
        let answer =
            json!({ "message": { "mid": "m", "text": "hi" }, "prior_message": { "identifier": "form-1" } });
        event("101", Some(psid), minutes, answer)
    };
    for has_acted in [true, false] {
        let mut world = World::default();
        let optin = json!({ "optin": { "ref": token("ana", time(0)), "user_ref": "form-1" } });
        world.deliver(&[event("101", None, 0, optin)]);
        if has_acted {
            world.deliver(&[answer("7001", 1)]);
        }
        world.holders.clear();
        world
            .user_refs
            .values_mut()
            .for_each(|record| record.token = None);
        world.deliver(&[answer("7001", 2), answer("7002", 3)]);
        world.deliver(&[answer("7002", 4)]);
        world.deliver(&[answer("7001", 5)]);
        let users = (world.user("101", "7001"), world.user("101", "7002"));
        assert_eq!(users, (Some("ana"), None), "{has_acted}");
    }
}

#[test]
fn an_echo_with_a_prior_message_is_about_nobody() {
    let echo = json!({
        "sender": { "id": "101" }, "recipient": { "id": "7001" }, "prior_message": { "identifier": "form-1" },
        "message": { "mid": "m", "is_echo": true },
    });
    let body = json!({ "object": "page", "entry": [{ "id": "101", "messaging": [echo] }] });
    assert_eq!(parsed(body.to_string()).events[0].user_ref(), None);
}

#[test]
fn keys_are_asked_for_only_where_a_token_may_be() {
    let plain = event(
        "101",
        Some("7001"),
        0,
        json!({ "referral": { "ref": "summer.sale.x", "source": "ADS" } }),
    );
    let message = event(
        "101",
        Some("7001"),
        0,
        json!({ "message": { "mid": "m", "text": token("ana", time(0)) } }),
    );
    let events = [plain, message];
    assert!(!carry_tokens(&events) && hashes(&events).is_empty());
    assert!(!asks_for_newer_keys(&events, &link_keys()));
    for carrier in carriers(&token("ana", time(0))) {
        let events = [event("101", Some("7001"), 0, carrier)];
        assert!(carry_tokens(&events));
        assert_eq!(hashes(&events).len(), 1);
    }
}

/// What happens: who (by page and PSID, or by a `user_ref`) shows which token, or names which `user_ref`.
fn a_showing() -> impl Strategy<Value = Event> {
    let who = prop::sample::select(vec![("101", "7001"), ("101", "7002"), ("102", "7003")]);
    let form = prop::sample::select(vec!["form-1", "form-2"]);
    (who, form, 0..3_usize, 0..60_i64, 0..12_usize).prop_map(|((page, psid), form, proof, minutes, how)| {
        let proof = token("ana", time(i64::try_from(proof).unwrap()));
        let mut carriers = carriers(&proof);
        match how {
            0..7 => event(page, Some(psid), minutes, carriers.remove(how)),
            7 | 8 => event("101", None, minutes, json!({ "optin": { "ref": proof, "user_ref": form } })),
            9 => event("101", Some(psid), minutes, json!({ "optin": { "ref": proof, "user_ref": form } })),
            10 => event(page, Some(psid), minutes, json!({ "account_linking": { "status": "unlinked" } })),
            _ => event("101", Some(psid), minutes, json!({
                "postback": { "mid": format!("p_{minutes}"), "payload": "x" }, "prior_message": { "identifier": form },
            })),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn at_no_time_are_two_contacts_linked_by_one_token(
        showings in prop::collection::vec(a_showing(), 1..16),
        size in 1..4_usize,
    ) {
        let mut world = World::default();
        let redelivered = showings.iter().rev();
        for batch in showings.chunks(size).map(<[Event]>::to_vec).chain(redelivered.map(|event| vec![event.clone()])) {
            world.deliver(&batch);
            // Linked at the time of the showing, so the holder of a token that linked is that very contact.
            let linked: BTreeSet<&ContactKey> = world
                .contacts
                .iter()
                .filter(|(_, stored)| stored.contact.user_id().is_some())
                .map(|(key, _)| key)
                .collect();
            let holders: BTreeSet<&str> = world.holders.values().map(|(holder, _)| holder.as_str()).collect();
            for key in &linked {
                prop_assert!(holders.contains(key.to_string().as_str()), "{} holds no token", key);
            }
            prop_assert!(linked.len() <= world.holders.len());
        }
    }
}

#[test]
fn a_token_beside_the_kind_counts_also_where_the_kind_has_a_referral_of_its_own() {
    let reference = token("user-1", time(0));
    for own in [
        json!({}),
        json!({ "product": { "id": "1" } }),
        json!({ "ref": "summer_sale", "source": "ADS" }),
    ] {
        for kind in ["message", "postback"] {
            let mut item = json!({ "referral": { "ref": reference, "source": "SHORTLINK" } });
            item[kind] = json!({ "mid": "m", "referral": own });
            let event = event("101", Some("7001"), 1, item);
            assert_eq!(hashes(std::slice::from_ref(&event)).len(), 1, "{kind} {own}");
            let contact = decide(
                None,
                &[event],
                &[],
                Judge {
                    keys: &link_keys(),
                    holders: &Holders::default(),
                },
                &settings(&[]),
            );
            let contact = contact.contact.unwrap();
            assert_eq!(contact.user_id(), Some("user-1"), "{kind} {own}");
        }
    }
}
