//! Several contacts of the same users, moved about while answers are lost and dispatchers die.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::Stamped;
use super::super::contact::{Link, LinkedVia};
use super::super::sync::{Others, Profile, SyncPlan, Synced, plan, users_at_stake};
use super::super::{Channel, Contact, ContactKey, Stored};
use super::{at, settings};
use crate::messenger::settings::{MessengerSettings, UnlinkedContacts};
use crate::messenger::topic::Topic;

const USERS: [&str; 2] = ["ana", "bo"];

/// What happens to the contact of this number.
#[derive(Debug, Clone, Copy)]
enum Step {
    Linked(usize, usize),
    Unlinked(usize),
    OptedOut(usize, bool),
    Synced(usize, Fate),
}

/// How far an attempt gets.
#[derive(Debug, Clone, Copy)]
struct Fate {
    upto: Upto,
    /// The process does not live to write down that it failed.
    dies: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Upto {
    /// Braze certainly did nothing.
    Refused,
    Nothing,
    Identified,
    Tracked,
    Answered,
}

const WELL: Fate = Fate {
    upto: Upto::Answered,
    dies: false,
};

fn a_step() -> impl Strategy<Value = Step> {
    let all = vec![
        Upto::Refused,
        Upto::Nothing,
        Upto::Identified,
        Upto::Tracked,
        Upto::Answered,
    ];
    let fate = (prop::sample::select(all), any::<bool>()).prop_map(|(upto, dies)| Fate { upto, dies });
    prop_oneof![
        3 => (0..4_usize, 0..2_usize).prop_map(|(who, user)| Step::Linked(who, user)),
        2 => (0..4_usize).prop_map(Step::Unlinked),
        1 => (0..4_usize, any::<bool>()).prop_map(|(who, says)| Step::OptedOut(who, says)),
        6 => (0..4_usize, fate).prop_map(|(who, fate)| Step::Synced(who, fate)),
    ]
}

struct Person {
    stored: Stored,
    interrupted: bool,
}

/// A store, and a Braze that applies the objects of a request in one order or the other.
struct World {
    people: Vec<Person>,
    /// By user, who was ever about to be moved there.
    users: BTreeMap<String, BTreeSet<usize>>,
    braze: Braze,
    now: i64,
    settings: MessengerSettings,
}

impl World {
    fn new(mode: &str, backwards: bool) -> Self {
        // Two on one page, one on another page, one on Instagram.
        let keys = [
            (Channel::Messenger, "101", "7001"),
            (Channel::Messenger, "101", "7002"),
            (Channel::Messenger, "102", "7003"),
            (Channel::Instagram, "201", "7004"),
        ];
        let people = keys.map(|(channel, account_id, scoped_id)| {
            let key = ContactKey {
                channel,
                account_id: account_id.to_owned(),
                scoped_id: scoped_id.into(),
            };
            Person {
                stored: Stored {
                    contact: Contact::new(key, at("2025-11-20T10:00:00Z")),
                    synced: Synced::default(),
                },
                interrupted: false,
            }
        });
        Self {
            people: people.into(),
            users: BTreeMap::new(),
            braze: Braze {
                backwards,
                ..Braze::default()
            },
            now: 0,
            settings: settings(&[("UNLINKED_CONTACTS", mode)]),
        }
    }

    fn take(&mut self, step: Step) {
        self.now += 1;
        let at = at("2025-11-20T10:00:00Z") + jiff::SignedDuration::from_mins(self.now);
        let link = |user_id: Option<&str>| {
            let link = Link {
                user_id: user_id.map(Into::into),
                via: LinkedVia::AccountLinking,
            };
            Some(Stamped { at, value: link })
        };
        match step {
            Step::Linked(who, user) => self.contact(who).link = link(Some(USERS[user])),
            Step::Unlinked(who) => {
                // Of somebody who never was linked nothing is undone.
                if self.contact(who).link.is_some() {
                    self.contact(who).link = link(None);
                }
            }
            Step::OptedOut(who, value) => self.contact(who).opted_out = Some(Stamped { at, value }),
            Step::Synced(who, fate) => {
                self.sync(who, fate);
            }
        }
    }

    fn contact(&mut self, who: usize) -> &mut Contact {
        &mut self.people[who].stored.contact
    }

    /// As the dispatcher does it. Says whether there was anything to do.
    fn sync(&mut self, who: usize, fate: Fate) -> bool {
        let Person { stored, interrupted } = &self.people[who];
        let contact = stored.contact.clone();
        let synced = if *interrupted {
            stored.synced.interrupted(&contact, &self.settings)
        } else {
            stored.synced.clone()
        };
        let mut others = Others::default();
        for (user_id, enters) in users_at_stake(&contact, &synced) {
            let users = self.users.entry(user_id.clone()).or_default();
            if enters {
                users.insert(who);
            }
            for other in users.iter().filter(|other| **other != who) {
                let stored = &self.people[*other].stored;
                others.add(&user_id, stored.contact.key.clone(), Some(stored.clone()));
            }
        }
        let plan = plan(&contact, &synced, &others, &self.settings);
        let person = &mut self.people[who];
        if plan.enters(&synced) {
            person.stored.synced = plan.before.clone();
        }
        self.braze.take(&plan, fate);
        let answered = fate.upto == Upto::Answered;
        if answered {
            person.stored.synced = plan.after.clone();
        } else if !fate.dies {
            let refused = fate.upto == Upto::Refused;
            person.stored.synced = if refused { synced } else { plan.before.clone() };
        }
        person.interrupted = !answered && fate.dies;
        !plan.is_empty()
    }

    /// Everything passes in the end.
    fn settle(&mut self) {
        for _ in 0..5 {
            let worked: Vec<bool> = (0..self.people.len()).map(|who| self.sync(who, WELL)).collect();
            if !worked.contains(&true) {
                return;
            }
        }
        panic!("Braze is told without end");
    }

    fn check(&self) {
        for user in USERS {
            for (name, channel) in [
                ("messenger", Channel::Messenger),
                ("instagram", Channel::Instagram),
            ] {
                let there: Vec<&Contact> = self
                    .people
                    .iter()
                    .map(|person| &person.stored.contact)
                    .filter(|contact| contact.user_id() == Some(user) && contact.key.channel == channel)
                    .collect();
                let ids: Vec<Value> = there
                    .iter()
                    .map(|contact| contact.key.scoped_id.as_str().into())
                    .collect();
                let held = self.braze.user(user, &format!("{name}_id"));
                assert_eq!(held.is_some(), !ids.is_empty(), "{user} {name}: {held:?}");
                assert!(held.iter().all(|id| ids.contains(id)), "{user} {name}: {held:?}");
                let opted_out = self.braze.user(user, &format!("{name}_opted_out"));
                if let [one] = there.as_slice() {
                    assert_eq!(opted_out, one.is_opted_out().map(Value::from), "{user} {name}");
                } else if there.is_empty() {
                    assert_eq!(opted_out, None, "{user} {name}");
                }
            }
        }
        for person in &self.people {
            let key = &person.stored.contact.key;
            let silent = self.settings.unlinked_contacts == UnlinkedContacts::Hold;
            let is_alias = !silent && person.stored.synced.profile == Profile::Alias;
            let alias = self.braze.aliases.get(&alias_of(key));
            let held = match alias {
                Some(Alias::Own(profile)) => profile.contains_key(&format!("{}_id", key.channel)),
                _ => false,
            };
            assert_eq!(held, is_alias, "the alias of {}", key.scoped_id.as_str());
            // Unlinked again it is one only if Braze never heard of the link.
            match &person.stored.contact.link {
                None => assert!(is_alias || silent),
                Some(link) => assert!(!is_alias || link.value.user_id.is_none()),
            }
        }
    }
}

fn alias_of(key: &ContactKey) -> (String, String) {
    (
        format!("{}:{}", key.channel, key.account_id),
        key.scoped_id.0.clone(),
    )
}

enum Alias {
    Own(BTreeMap<String, Value>),
    MovedTo(String),
}

/// What Braze does with aliases and merges, as far as it is documented.
#[derive(Default)]
struct Braze {
    users: BTreeMap<String, BTreeMap<String, Value>>,
    aliases: BTreeMap<(String, String), Alias>,
    backwards: bool,
}

impl Braze {
    fn user(&self, user_id: &str, name: &str) -> Option<Value> {
        self.users.get(user_id)?.get(name).cloned()
    }

    fn take(&mut self, plan: &SyncPlan, fate: Fate) {
        if let (Some(identify), true) = (&plan.identify, fate.upto >= Upto::Identified) {
            let alias = (
                identify.user_alias.alias_label.clone(),
                identify.user_alias.alias_name.0.clone(),
            );
            self.identify(&identify.external_id, alias);
        }
        if fate.upto >= Upto::Tracked {
            let mut objects = plan.attributes.0.clone();
            if self.backwards {
                objects.reverse();
            }
            for object in objects {
                self.track(object.as_object().unwrap().clone());
            }
        }
    }

    fn identify(&mut self, user_id: &str, alias: (String, String)) {
        let has_label = self.aliases.iter().any(|((label, _), at)| {
            *label == alias.0 && matches!(at, Alias::MovedTo(other) if other == user_id)
        });
        if has_label || !matches!(self.aliases.get(&alias), Some(Alias::Own(_))) {
            return;
        }
        let moved = self.aliases.insert(alias, Alias::MovedTo(user_id.to_owned()));
        let Some(Alias::Own(attributes)) = moved else {
            unreachable!()
        };
        let user = self.users.entry(user_id.to_owned()).or_default();
        for (name, value) in attributes {
            user.entry(name).or_insert(value);
        }
    }

    fn track(&mut self, mut object: Map<String, Value>) {
        let only_existing = object.remove("_update_existing_only") == Some(json!(true));
        let alias = object.remove("user_alias").map(|alias| {
            let part = |name: &str| alias[name].as_str().unwrap().to_owned();
            (part("alias_label"), part("alias_name"))
        });
        let mut user_id = object
            .remove("external_id")
            .map(|id| id.as_str().unwrap().to_owned());
        if let Some(Alias::MovedTo(user)) = alias.as_ref().and_then(|alias| self.aliases.get(alias)) {
            user_id = Some(user.clone());
        }
        let profile = match (user_id, alias) {
            (Some(user_id), _) if only_existing => self.users.get_mut(&user_id),
            (Some(user_id), _) => Some(self.users.entry(user_id).or_default()),
            (None, alias) => {
                let alias = alias.expect("one identifier");
                if !only_existing {
                    self.aliases
                        .entry(alias.clone())
                        .or_insert_with(|| Alias::Own(BTreeMap::new()));
                }
                match self.aliases.get_mut(&alias) {
                    Some(Alias::Own(profile)) => Some(profile),
                    _ => None,
                }
            }
        };
        let Some(profile) = profile else { return };
        for (name, value) in object {
            if value.is_null() {
                profile.remove(&name);
            } else {
                profile.insert(name, value);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn every_id_ends_where_it_belongs(steps in prop::collection::vec(a_step(), 1..24), backwards in any::<bool>(), hold in any::<bool>()) {
        let mut world = World::new(if hold { "hold" } else { "alias" }, backwards);
        for step in steps {
            world.take(step);
        }
        world.settle();
        world.check();
    }
}

#[test]
fn who_leaves_gives_way_to_who_is_still_there() {
    let mut world = World::new("alias", false);
    for who in [0, 1] {
        world.take(Step::Linked(who, 0));
        world.take(Step::Synced(who, WELL));
    }
    assert_eq!(world.braze.user("ana", "messenger_id"), Some(json!("7002")));
    world.take(Step::Unlinked(1));
    world.take(Step::Synced(1, WELL));
    assert_eq!(world.braze.user("ana", "messenger_id"), Some(json!("7001")));
    world.take(Step::Linked(0, 1));
    world.take(Step::Synced(0, WELL));
    assert_eq!(world.braze.user("ana", "messenger_id"), None);
    assert_eq!(world.braze.user("bo", "messenger_id"), Some(json!("7001")));
}

#[test]
fn the_consent_of_one_does_not_stand_beside_the_id_of_another() {
    let mut world = World::new("alias", false);
    let said = Stamped {
        at: at("2025-11-20T10:00:00Z"),
        value: Topic {
            subscribed: true,
            ..Topic::default()
        },
    };
    world.contact(0).topics.say(Some("News"), said);
    for (who, consent) in [(0, Some(json!(true))), (1, None)] {
        world.take(Step::Linked(who, 0));
        world.take(Step::Synced(who, WELL));
        assert_eq!(world.braze.user("ana", "messenger_marketing_opted_in"), consent);
    }
    assert_eq!(world.braze.user("ana", "messenger_id"), Some(json!("7002")));
}

#[test]
fn an_alias_that_braze_will_not_combine_is_emptied() {
    let mut world = World::new("alias", false);
    for who in [0, 1] {
        world.take(Step::Synced(who, WELL));
        world.take(Step::Linked(who, 0));
        world.take(Step::Synced(who, WELL));
    }
    world.settle();
    world.check();
    assert!(matches!(
        world.braze.aliases.get(&alias_of(&world.people[1].stored.contact.key)),
        Some(Alias::Own(profile)) if profile.is_empty()
    ));
}
