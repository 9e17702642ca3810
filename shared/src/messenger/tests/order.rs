//! Order and repetition do not matter: not to the facts, and not to what Braze ends up with.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::sync::{Others, Profile, SyncPlan, Synced, UserAlias, plan};
use super::super::{Contact, Event, Stored, UserRef};
use super::{at, by_subject, decide, decide_user_ref, link_keys, parsed, settings, token};
use crate::messenger::settings::MessengerSettings;
use crate::outbox::Kind;

const PAGE: &str = "1134597043258171";
const PSID: &str = "5275811702471834";

fn slot(slot: i64) -> Timestamp {
    // Twenty minutes apart, so that some are within the hour of the window's throttle and some are not.
    Timestamp::from_second(at("2025-11-20T10:00:00Z").as_second() + slot * 1200).unwrap()
}

/// One item: what happens, when, whether under standby, and whom its token names.
fn an_item() -> impl Strategy<Value = Value> {
    (0..18_u8, 0..12_i64, prop::bool::weighted(0.2), prop::sample::select(vec!["ana", "bo"])).prop_map(
        |(what, when, standby, user)| {
            let time = slot(when);
            let proof = token(user, time);
            let mid = format!("m_{what}_{when}_{user}");
            let mut item = match what {
                0 | 1 => json!({ "message": { "mid": mid, "text": "hi" } }),
                2 => json!({ "message": { "mid": mid, "text": " Stop " } }),
                3 => json!({ "message": { "mid": mid, "text": "START" } }),
                4 => json!({ "message": { "mid": mid, "is_echo": true, "text": "STOP" } }),
                5 => json!({ "delivery": { "watermark": when } }),
                6 => json!({ "referral": { "ref": proof, "source": "SHORTLINK" } }),
                7 => json!({ "referral": { "ref": "summer_sale", "source": "ADS", "ad_id": user } }),
                8 => json!({ "referral": { "ref": token(user, slot(when - 100)) } }),
                9 => json!({ "postback": { "mid": mid, "referral": { "ref": proof } } }),
                10 => json!({ "account_linking": { "status": "unlinked" } }),
                11 => json!({ "account_linking": { "status": "linked", "authorization_code": proof } }),
                12 => json!({ "pass_thread_control": {} }),
                13 => json!({ "message": { "mid": mid, "text": "hello" }, "prior_message": { "identifier": "a-box" } }),
                14 => json!({ "optin": { "ref": proof, "user_ref": "a-box" }, "sender": {} }),
                15 => json!({ "optin": { "ref": proof, "user_ref": "a-box" } }),
                16 => json!({ "reaction": { "mid": mid, "action": if user == "bo" { "react" } else { "unreact" } } }),
                _ => json!({ "optout": {} }),
            };
            item["timestamp"] = time.as_millisecond().into();
            let echo = item["message"]["is_echo"] == true;
            if item.get("sender").is_none() {
                item["sender"] = json!({ "id": if echo { PAGE } else { PSID } });
            }
            item["recipient"] = json!({ "id": if echo { PSID } else { PAGE } });
            json!([standby, item])
        },
    )
}

fn events(items: &[Value]) -> Vec<Event> {
    let of = |standby: bool| -> Vec<&Value> {
        items
            .iter()
            .filter(|item| item[0] == standby)
            .map(|item| &item[1])
            .collect()
    };
    let body =
        json!({ "object": "page", "entry": [{ "id": PAGE, "messaging": of(false), "standby": of(true) }] });
    let parsed = parsed(body.to_string());
    assert_eq!(parsed.events.len(), items.len(), "{:?}", parsed.quarantined);
    parsed.events
}

/// A store, an outbox and a Braze for one person.
#[derive(Default)]
struct World {
    user_ref: Option<UserRef>,
    contact: Option<Contact>,
    outbox: BTreeSet<String>,
    pending: bool,
    synced: Synced,
    braze: Braze,
}

impl World {
    fn deliver(&mut self, batch: &[Event], settings: &MessengerSettings) {
        let (user_refs, people) = by_subject(batch);
        assert!(user_refs.len() <= 1 && people.len() <= 1);
        let mut derived = Vec::new();
        for events in user_refs.values() {
            let plan = decide_user_ref(self.user_ref.as_ref(), events, &link_keys());
            if let Some(record) = plan.record {
                assert_eq!(
                    record.version,
                    self.user_ref.as_ref().map_or(0, |known| known.version) + 1
                );
                self.user_ref = Some(record);
            }
            derived.extend(plan.derived);
        }
        let own = people.into_values().next().unwrap_or_default();
        let stored = self.contact.clone().map(|contact| Stored {
            contact,
            synced: self.synced.clone(),
        });
        let plan = decide(stored.as_ref(), &own, &derived, &link_keys(), settings);
        if let Some(contact) = plan.contact {
            assert_eq!(
                contact.version,
                self.contact.as_ref().map_or(0, |known| known.version) + 1
            );
            self.contact = Some(contact);
        }
        for item in plan.outbox {
            assert_eq!(item.subject, self.contact.as_ref().unwrap().key.to_string());
            let new = self.outbox.insert(item.event_key);
            if item.kind == Kind::ContactSync {
                assert!(new, "a sync must not be taken for a redelivery of another");
                self.pending = true;
            }
        }
    }

    fn settle(&mut self, settings: &MessengerSettings) {
        if std::mem::take(&mut self.pending) {
            let plan = plan(
                self.contact.as_ref().unwrap(),
                &self.synced,
                &Others::default(),
                settings,
            );
            self.braze.take(&plan);
            self.synced = plan.after;
        }
    }
}

#[derive(Default)]
enum Alias {
    #[default]
    None,
    Own(BTreeMap<String, Value>),
    MovedTo(String),
}

/// What Braze does with aliases and merges, as far as it is documented.
#[derive(Default)]
struct Braze {
    users: BTreeMap<String, BTreeMap<String, Value>>,
    alias: Alias,
}

impl Braze {
    fn take(&mut self, plan: &SyncPlan) {
        if let Some(identify) = &plan.identify {
            let Alias::Own(attributes) =
                std::mem::replace(&mut self.alias, Alias::MovedTo(identify.external_id.0.clone()))
            else {
                panic!("identified an alias that has no profile of its own");
            };
            let user = self.users.entry(identify.external_id.0.clone()).or_default();
            for (name, value) in attributes {
                user.entry(name).or_insert(value);
            }
        }
        for object in plan.attributes.iter() {
            self.track(object.as_object().unwrap().clone(), plan.identify.is_some());
        }
    }

    fn track(&mut self, mut object: Map<String, Value>, merged: bool) {
        let update_only = object.remove("_update_existing_only");
        let user = object
            .remove("external_id")
            .map(|id| id.as_str().unwrap().to_owned());
        let alias = object.remove("user_alias");
        assert!(user.is_some() != alias.is_some(), "one identifier an object");
        assert!(!object.is_empty(), "Braze bills for it");
        let profile = match user {
            Some(user) if update_only == Some(json!(true)) && !self.users.contains_key(&user) => return,
            Some(user) => self.users.entry(user).or_default(),
            None => {
                assert_eq!(update_only, Some(json!(false)), "no profile would be made");
                if matches!(self.alias, Alias::None) {
                    self.alias = Alias::Own(BTreeMap::new());
                }
                match &mut self.alias {
                    Alias::Own(profile) => profile,
                    Alias::MovedTo(user) => self.users.get_mut(user).unwrap(),
                    Alias::None => unreachable!(),
                }
            }
        };
        for (name, value) in object {
            if value.is_null() {
                assert!(
                    profile.remove(&name).is_some(),
                    "took back `{name}`, which was not there"
                );
            } else {
                // What a merge leaves on the user cannot be known, so it is written whatever it is.
                assert!(
                    merged || profile.get(&name) != Some(&value),
                    "paid for an unchanged `{name}`"
                );
                profile.insert(name, value);
            }
        }
    }

    /// The profiles that a campaign would reach this person by.
    fn holders(&self) -> Vec<String> {
        let is_held = |profile: &BTreeMap<String, Value>| profile.get("messenger_id") == Some(&json!(PSID));
        let alias = matches!(&self.alias, Alias::Own(profile) if is_held(profile));
        let users = self
            .users
            .iter()
            .filter(|(_, profile)| is_held(profile))
            .map(|(user, _)| user.clone());
        alias
            .then(|| "alias".to_owned())
            .into_iter()
            .chain(users)
            .collect()
    }
}

/// Which events in which order, in how large batches, and whether the dispatcher runs in between.
fn a_history() -> impl Strategy<Value = (Vec<Value>, Vec<usize>, Vec<(usize, bool)>)> {
    prop::collection::vec(an_item(), 1..12).prop_flat_map(|items| {
        let once: Vec<usize> = (0..items.len()).collect();
        let again = prop::collection::vec(0..items.len(), 0..8);
        let order = again.prop_flat_map(move |again| Just([once.clone(), again].concat()).prop_shuffle());
        (
            Just(items),
            order,
            prop::collection::vec((1..5_usize, any::<bool>()), 20),
        )
    })
}

fn run(events: &[Event], order: &[usize], batches: &[(usize, bool)], settings: &MessengerSettings) -> World {
    let mut world = World::default();
    let mut rest = order;
    for (size, settle) in batches.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (batch, later) = rest.split_at((*size).min(rest.len()));
        let batch: Vec<Event> = batch.iter().map(|position| events[*position].clone()).collect();
        world.deliver(&batch, settings);
        if *settle {
            world.settle(settings);
        }
        rest = later;
    }
    world.settle(settings);
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_repetition_ends_in_the_same_place((items, order, batches) in a_history(), hold in any::<bool>()) {
        let mode = if hold { "hold" } else { "alias" };
        let settings = settings(&[("UNLINKED_CONTACTS", mode), ("MESSENGER_EVENTS", "message,postback")]);
        let events = events(&items);
        let straight: Vec<usize> = (0..events.len()).collect();
        let expected = run(&events, &straight, &[(events.len(), true)], &settings);
        let world = run(&events, &order, &batches, &settings);

        prop_assert_eq!(world.contact.is_some(), expected.contact.is_some());
        let Some(contact) = &world.contact else { return Ok(()) };
        prop_assert!(contact.same_facts(expected.contact.as_ref().unwrap()), "{:#?}\n{:#?}", contact, expected.contact);

        // No sync was forgotten: there is nothing left that Braze would have to be told.
        prop_assert!(plan(contact, &world.synced, &Others::default(), &settings).is_empty());
        // One profile at most reaches the person, and it is the right one.
        let reached_by = match (contact.user_id(), &world.synced.profile) {
            (Some(user), _) => vec![user.to_owned()],
            (None, Profile::Alias) => vec!["alias".to_owned()],
            (None, _) => vec![],
        };
        prop_assert_eq!(world.braze.holders(), reached_by);
        if contact.link.is_none() {
            prop_assert_eq!(world.synced.profile == Profile::Alias, !hold);
        }
    }

    #[test]
    fn a_redelivery_changes_nothing((items, order, batches) in a_history()) {
        let settings = settings(&[("MESSENGER_EVENTS", "message")]);
        let events = events(&items);
        let mut world = run(&events, &order, &batches, &settings);
        let (contact, outbox) = (world.contact.clone(), world.outbox.clone());
        world.deliver(&events, &settings);
        prop_assert_eq!(world.contact, contact);
        prop_assert_eq!(world.outbox, outbox);
    }

    #[test]
    fn merging_is_a_join((items, _, _) in a_history()) {
        let settings = settings(&[]);
        let contacts: Vec<Contact> = events(&items)
            .iter()
            .filter_map(|event| decide(None, std::slice::from_ref(event), &[], &link_keys(), &settings).contact)
            .collect();
        for a in &contacts {
            let mut twice = a.clone();
            twice.merge(a);
            prop_assert_eq!(&twice, a);
            for b in &contacts {
                let (mut ab, mut ba) = (a.clone(), b.clone());
                ab.merge(b);
                ba.merge(a);
                prop_assert!(ab.same_facts(&ba));
                for c in &contacts {
                    let (mut left, mut bc) = (ab.clone(), b.clone());
                    left.merge(c);
                    bc.merge(c);
                    let mut right = a.clone();
                    right.merge(&bc);
                    prop_assert!(left.same_facts(&right));
                }
            }
        }
    }
}

// Others let a late event set a conversation back.
#[test]
fn late_events_move_nothing_back() {
    let settings = settings(&[]);
    let message = |when: i64, text: &str| {
        json!([false, {
            "sender": { "id": PSID }, "timestamp": slot(when).as_millisecond(),
            "message": { "mid": format!("m_{when}"), "text": text },
        }])
    };
    let linking = |when: i64, linking: Value| json!([false, { "sender": { "id": PSID }, "timestamp": slot(when).as_millisecond(), "account_linking": linking }]);
    let proof = token("ana", slot(2));
    let events = events(&[
        message(1, "STOP"),
        linking(2, json!({ "status": "linked", "authorization_code": proof })),
        linking(3, json!({ "status": "unlinked" })),
        message(4, "START"),
    ]);
    let mut world = World::default();
    for event in events.iter().rev() {
        world.deliver(std::slice::from_ref(event), &settings);
    }
    let contact = world.contact.unwrap();
    assert_eq!(contact.user_id(), None);
    assert!(contact.link.is_some(), "unlinked is not the same as never linked");
    assert_eq!(contact.is_opted_out(), Some(false));
    assert_eq!(contact.first_seen, slot(1));
    assert_eq!(contact.last_interaction, Some(slot(4)));
    assert_eq!(contact.window_closes_at(), Some(slot(4 + 72)));
    assert_eq!(
        UserAlias::of(&contact.key).alias_label,
        format!("messenger:{PAGE}")
    );
}
