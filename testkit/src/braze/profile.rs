//! Braze's user profiles and how a request names one.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

/// How an object names its user. The first three are *primary*: an object carries exactly one of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identifier {
    /// `external_id` (in campaign recipients `external_user_id`): the brand's own id.
    ExternalId(String),
    /// `user_alias`: unique as a pair, case-sensitive, one name per label and user.
    Alias {
        /// `alias_label`
        label: String,
        /// `alias_name`
        name: String,
    },
    /// `braze_id`: given by Braze, never creates a profile.
    BrazeId(String),
    /// `email`: looks a profile up only where there is no primary identifier.
    Email(String),
    /// `phone`: as `email`, and only after it.
    Phone(String),
}

/// One user as Braze holds it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// Braze's own id.
    pub braze_id: String,
    /// The brand's id; absent on alias-only profiles.
    pub external_id: Option<String>,
    /// Label → name.
    pub aliases: BTreeMap<String, String>,
    /// Standard and custom attributes with the JSON types that were sent.
    pub attributes: Map<String, Value>,
    /// Custom events in order of processing.
    pub events: Vec<CustomEvent>,
    /// Purchases as they were sent.
    pub purchases: Vec<Value>,
}

impl Profile {
    /// The attribute's value; `None` if it was never set or was removed with null.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.get(name)
    }
}

/// A custom event on a profile. Braze does not de-duplicate them.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomEvent {
    /// `name`
    pub name: String,
    /// `time` as sent
    pub time: String,
    /// `properties`, empty if there were none
    pub properties: Map<String, Value>,
}

/// The workspace's profiles with their unique keys.
#[derive(Default)]
pub(super) struct Profiles {
    by_id: BTreeMap<u64, Profile>,
    by_external_id: HashMap<String, u64>,
    by_alias: HashMap<(String, String), u64>,
    by_braze_id: HashMap<String, u64>,
    created: u64,
}

impl Profiles {
    pub(super) fn find(&self, identifier: &Identifier) -> Option<u64> {
        match identifier {
            Identifier::ExternalId(id) => self.by_external_id.get(id).copied(),
            Identifier::Alias { label, name } => self.by_alias.get(&(label.clone(), name.clone())).copied(),
            Identifier::BrazeId(id) => self.by_braze_id.get(id).copied(),
            Identifier::Email(email) => self.with_attribute("email", email),
            Identifier::Phone(phone) => self.with_attribute("phone", phone),
        }
    }

    /// Of several matches, the newest that has an external id, else the newest.
    fn with_attribute(&self, name: &str, value: &str) -> Option<u64> {
        self.by_id
            .iter()
            .filter(|(_, profile)| profile.attribute(name).and_then(Value::as_str) == Some(value))
            .max_by_key(|(id, profile)| (profile.external_id.is_some(), **id))
            .map(|(id, _)| *id)
    }

    /// The profile, made if need be. `None` for a `braze_id` that Braze never gave out.
    pub(super) fn find_or_create(&mut self, identifier: &Identifier) -> Option<u64> {
        if let Some(id) = self.find(identifier) {
            return Some(id);
        }
        let mut profile = Profile::default();
        let id = self.created + 1;
        match identifier {
            Identifier::ExternalId(external_id) => {
                profile.external_id = Some(external_id.clone());
                self.by_external_id.insert(external_id.clone(), id);
            }
            Identifier::Alias { label, name } => {
                profile.aliases.insert(label.clone(), name.clone());
                self.by_alias.insert((label.clone(), name.clone()), id);
            }
            Identifier::Email(email) => {
                profile
                    .attributes
                    .insert("email".to_owned(), email.as_str().into());
            }
            Identifier::Phone(phone) => {
                profile
                    .attributes
                    .insert("phone".to_owned(), phone.as_str().into());
            }
            Identifier::BrazeId(_) => return None,
        }
        self.created = id;
        profile.braze_id = format!("{id:024x}");
        self.by_braze_id.insert(profile.braze_id.clone(), id);
        self.by_id.insert(id, profile);
        Some(id)
    }

    pub(super) fn get(&self, id: u64) -> Option<&Profile> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Profile> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Profile> {
        self.by_id.values()
    }

    /// What `/users/identify` does with one pair: see [`super::identify`].
    pub(super) fn identify(&mut self, external_id: &str, label: &str, name: &str) {
        let Some(source) = self.by_alias.get(&(label.to_owned(), name.to_owned())).copied() else {
            return;
        };
        if self
            .get(source)
            .is_none_or(|profile| profile.external_id.is_some())
        {
            return; // Already a known user: nothing anonymous is left to combine.
        }
        match self.by_external_id.get(external_id).copied() {
            None => {
                if let Some(profile) = self.by_id.get_mut(&source) {
                    profile.external_id = Some(external_id.to_owned());
                    self.by_external_id.insert(external_id.to_owned(), source);
                }
            }
            Some(target) => self.merge(source, target, label),
        }
    }

    /// Removes a profile. `false` if there is none.
    pub(super) fn delete(&mut self, identifier: &Identifier) -> bool {
        let Some(gone) = self.find(identifier).and_then(|id| self.by_id.remove(&id)) else {
            return false;
        };
        self.by_braze_id.remove(&gone.braze_id);
        if let Some(external_id) = &gone.external_id {
            self.by_external_id.remove(external_id);
        }
        for alias in gone.aliases {
            self.by_alias.remove(&alias);
        }
        true
    }

    fn merge(&mut self, source: u64, target: u64, label: &str) {
        if self
            .get(target)
            .is_none_or(|target| target.aliases.contains_key(label))
        {
            return; // One name per label: the profiles stay apart, and the answer is 201 all the same.
        }
        let Some(gone) = self.by_id.remove(&source) else {
            return;
        };
        self.by_braze_id.remove(&gone.braze_id);
        for (label, name) in &gone.aliases {
            self.by_alias.remove(&(label.clone(), name.clone()));
        }
        let Some(target_profile) = self.by_id.get_mut(&target) else {
            return;
        };
        for (label, name) in gone.aliases {
            if let Entry::Vacant(free) = target_profile.aliases.entry(label) {
                self.by_alias.insert((free.key().clone(), name.clone()), target);
                free.insert(name);
            }
        }
        for (name, value) in gone.attributes {
            target_profile.attributes.entry(name).or_insert(value);
        }
        target_profile.events.extend(gone.events);
        target_profile.purchases.extend(gone.purchases);
    }
}
