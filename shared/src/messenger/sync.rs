//! The difference between a contact and what Braze was last told of it.
//!
//! Braze bills every attribute that is written, so only differences leave. What it was told is a record of
//! the dispatcher ([`Synced`]), because it is true only once Braze has accepted it.
//!
//! | contact is | Braze knows | what is sent |
//! |---|---|---|
//! | not linked | nothing, or the alias | one object on the alias (nothing in `hold` mode) |
//! | linked to U | nothing | one object on `external_id` U |
//! | linked to U | the alias | identify, then everything on U, as a merge keeps U's older values |
//! | linked to U | U | what differs, on U |
//! | linked to U | another user V | nulls on V, everything on U; no identify |
//! | unlinked | V | nulls on V; from then on held |
//! | unlinked | held | nothing until it is linked again |
//!
//! Held, and no second identify: the alias may have moved to V with the first one, and what is written to the
//! alias would then be written to V.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::contact::Contact;
use super::decide::moved_enough;
use super::key::{Channel, ContactKey};
use crate::config::{ContactSettings, UnlinkedContacts};

/// The boolean attribute that says whether a person wants no messages.
pub const OPTED_OUT_ATTRIBUTE: &str = "messenger_opted_out";

/// Which profile carries the contact's attributes.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// None.
    #[default]
    None,
    /// The alias-only profile.
    Alias,
    /// The user of this `external_id`.
    User(String),
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Alias => "Alias",
            Self::User(_) => "User([redacted])",
        })
    }
}

/// What Braze was last told, and has accepted.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Synced {
    /// Where it was told.
    #[serde(default)]
    pub profile: Profile,
    /// Every attribute that was written to that profile, with its value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Value>,
    /// The contact was unlinked from a user; nothing is sent for it until it is linked again.
    #[serde(default)]
    pub held: bool,
}

impl fmt::Debug for Synced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Synced")
            .field("profile", &self.profile)
            .field("attributes", &self.attributes.keys().collect::<Vec<_>>())
            .field("held", &self.held)
            .finish()
    }
}

/// An alias that becomes a user: one member of `/users/identify`'s `aliases_to_identify`.
#[derive(Clone, PartialEq, Eq)]
pub struct Identify {
    /// The user.
    pub external_id: String,
    /// `<channel>:<account_id>`
    pub alias_label: String,
    /// The scoped id.
    pub alias_name: String,
}

impl fmt::Debug for Identify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identify")
            .field("alias_label", &self.alias_label)
            .finish_non_exhaustive()
    }
}

impl Identify {
    /// The member of `aliases_to_identify`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        serde_json::json!({
            "external_id": self.external_id,
            "user_alias": { "alias_label": self.alias_label, "alias_name": self.alias_name },
        })
    }
}

/// What is to be sent for a contact, and what Braze will have been told once it is accepted.
#[derive(Clone, PartialEq)]
pub struct SyncPlan {
    /// First this, if any.
    pub identify: Option<Identify>,
    /// Then these: objects for `/users/track`'s `attributes`, in this order, in one request.
    pub attributes: Vec<Value>,
    /// What to store when all of it was accepted.
    pub after: Synced,
}

impl fmt::Debug for SyncPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncPlan")
            .field("identify", &self.identify)
            .field("attributes", &self.attributes.len())
            .field("after", &self.after)
            .finish()
    }
}

impl SyncPlan {
    /// Whether Braze need not be called.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identify.is_none() && self.attributes.is_empty()
    }
}

/// What Braze must be told of `contact`, given what it was told.
#[must_use]
pub fn plan(contact: &Contact, synced: &Synced, settings: &ContactSettings) -> SyncPlan {
    match contact.user_id() {
        Some(user_id) => linked(contact, user_id, synced, settings),
        None => unlinked(contact, synced, settings),
    }
}

fn linked(contact: &Contact, user_id: &str, synced: &Synced, settings: &ContactSettings) -> SyncPlan {
    let on_user = || {
        let mut object = Map::new();
        object.insert("external_id".to_owned(), user_id.into());
        object
    };
    let wanted = wanted(contact, settings);
    let mut identify = None;
    let mut attributes = Vec::new();
    let told = match &synced.profile {
        Profile::User(known) if known == user_id => {
            let (object, told) = difference(on_user(), &wanted, &synced.attributes, settings);
            attributes.extend(object);
            told
        }
        before => {
            if let Profile::User(other) = before {
                attributes.extend(nulls(other, &synced.attributes));
            }
            if *before == Profile::Alias {
                identify = Some(Identify {
                    external_id: user_id.to_owned(),
                    alias_label: alias_label(&contact.key),
                    alias_name: contact.key.scoped_id.clone(),
                });
            }
            let mut object = on_user();
            object.extend(wanted.clone());
            attributes.push(Value::Object(object));
            wanted
        }
    };
    SyncPlan {
        identify,
        attributes,
        after: Synced {
            profile: Profile::User(user_id.to_owned()),
            attributes: told,
            held: false,
        },
    }
}

fn unlinked(contact: &Contact, synced: &Synced, settings: &ContactSettings) -> SyncPlan {
    let nothing = SyncPlan {
        identify: None,
        attributes: Vec::new(),
        after: synced.clone(),
    };
    if let Profile::User(user_id) = &synced.profile {
        return SyncPlan {
            attributes: nulls(user_id, &synced.attributes).into_iter().collect(),
            after: Synced {
                profile: Profile::None,
                attributes: BTreeMap::new(),
                held: true,
            },
            ..nothing
        };
    }
    if synced.held || settings.unlinked_contacts == UnlinkedContacts::Hold {
        return nothing;
    }
    let mut on_alias = alias_fields(&contact.key);
    // Without it Braze would only update an alias that exists.
    on_alias.insert("_update_existing_only".to_owned(), false.into());
    let wanted = wanted(contact, settings);
    let (object, told) = difference(on_alias, &wanted, &synced.attributes, settings);
    SyncPlan {
        attributes: object.into_iter().collect(),
        after: Synced {
            profile: Profile::Alias,
            attributes: told,
            held: false,
        },
        ..nothing
    }
}

/// The identifier of a custom event for `contact`, given what Braze was told *after* the contact's own sync:
/// `external_id` or `user_alias`. `None` = there is no profile to put it on (held).
#[must_use]
pub fn event_target(contact: &Contact, synced: &Synced) -> Option<Map<String, Value>> {
    match &synced.profile {
        Profile::User(user_id) => {
            let mut fields = Map::new();
            fields.insert("external_id".to_owned(), user_id.clone().into());
            Some(fields)
        }
        Profile::Alias => Some(alias_fields(&contact.key)),
        Profile::None => None,
    }
}

/// Braze's alias label for a contact: the scope in which its scoped id is a name.
#[must_use]
pub fn alias_label(key: &ContactKey) -> String {
    format!("{}:{}", key.channel, key.account_id)
}

fn alias_fields(key: &ContactKey) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert(
        "user_alias".to_owned(),
        serde_json::json!({ "alias_label": alias_label(key), "alias_name": key.scoped_id }),
    );
    fields
}

/// Everything that the profile should carry.
fn wanted(contact: &Contact, settings: &ContactSettings) -> BTreeMap<String, Value> {
    let key = &contact.key;
    let id_attribute = match key.channel {
        Channel::Messenger => &settings.messenger_id_attribute,
        Channel::Instagram => &settings.instagram_id_attribute,
    };
    let mut wanted = BTreeMap::new();
    // A string, as ids have more digits than a JSON number keeps.
    wanted.insert(filled(id_attribute, key), Value::from(key.scoped_id.clone()));
    if let (Some(name), Some(closes_at)) = (&settings.window_attribute, contact.window_closes_at) {
        wanted.insert(of_channel(name, key), format!("{closes_at:.0}").into());
    }
    if let Some(opted_out) = contact.is_opted_out() {
        wanted.insert(of_channel(OPTED_OUT_ATTRIBUTE, key), opted_out.into());
    }
    wanted.remove("");
    wanted
}

/// What of `wanted` must be written over `told`, as one object that starts with `fields`, and what is told
/// then. The window alone is written only if it moved far enough.
fn difference(
    fields: Map<String, Value>,
    wanted: &BTreeMap<String, Value>,
    told: &BTreeMap<String, Value>,
    settings: &ContactSettings,
) -> (Option<Value>, BTreeMap<String, Value>) {
    let changed: BTreeMap<&String, &Value> = wanted
        .iter()
        .filter(|(name, value)| told.get(*name) != Some(value))
        .collect();
    let worth_it = changed.iter().any(
        |(name, value)| match (told.get(*name).and_then(time), time(value)) {
            (Some(told), Some(now)) => moved_enough(told, now, settings),
            _ => true,
        },
    );
    if !worth_it {
        return (None, told.clone());
    }
    let mut object = fields;
    let mut after = told.clone();
    for (name, value) in changed {
        object.insert(name.clone(), value.clone());
        after.insert(name.clone(), value.clone());
    }
    (Some(Value::Object(object)), after)
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// Takes back what was written to a user, without bringing a deleted one back to life.
fn nulls(user_id: &str, told: &BTreeMap<String, Value>) -> Option<Value> {
    if told.is_empty() {
        return None;
    }
    let mut object = Map::new();
    object.insert("external_id".to_owned(), user_id.into());
    object.insert("_update_existing_only".to_owned(), true.into());
    for name in told.keys() {
        object.insert(name.clone(), Value::Null);
    }
    Some(Value::Object(object))
}

fn filled(name: &str, key: &ContactKey) -> String {
    name.replace("{account_id}", &key.account_id)
}

/// The name of an attribute that both channels have: what starts with `messenger` for Messenger starts with
/// `instagram` for Instagram, so that the two do not overwrite each other on one user's profile.
fn of_channel(name: &str, key: &ContactKey) -> String {
    let name = filled(name, key);
    match (key.channel, name.strip_prefix("messenger")) {
        (Channel::Instagram, Some(rest)) => format!("instagram{rest}"),
        _ => name,
    }
}
