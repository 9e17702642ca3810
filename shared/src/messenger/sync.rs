//! The difference between a contact and the state that Braze last accepted ([`Synced`]).
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
//! | linked to U | another user V | V is left, everything on U; no identify |
//! | unlinked | V | V is left; from then on held |
//! | unlinked | held | nothing until it is linked again |
//!
//! Held, and no second identify: the alias may have moved to V with the first one, and what is written to the
//! alias would then be written to V. How a user is left, and what an attempt whose outcome nobody knows may have
//! done, is in [`transition`].

mod others;
mod transition;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::contact::Contact;
use super::key::{Channel, ContactKey};
use super::window::moved_enough;
use crate::messenger::settings::{MessengerSettings, UnlinkedContacts};
use crate::personal::Personal;

pub use others::Others;

/// The boolean attribute that says whether a person wants no messages.
pub const OPTED_OUT_ATTRIBUTE: &str = "messenger_opted_out";

/// A person's record as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The facts.
    pub contact: Contact,
    /// What Braze was last told.
    pub synced: Synced,
}

/// Which profile carries the contact's attributes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// None.
    #[default]
    None,
    /// The alias-only profile.
    Alias,
    /// The user of this `external_id`.
    User(Personal<String>),
}

/// What Braze was last told, and has accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Synced {
    /// Where it was told.
    #[serde(default)]
    pub profile: Profile,
    /// Every attribute that was written to that profile, with its value. Null = it may be there, with any value:
    /// nobody knows what came of the last attempt.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: Personal<BTreeMap<String, Value>>,
    /// The contact was unlinked from a user; nothing is sent for it until it is linked again.
    #[serde(default)]
    pub held: bool,
    /// Other users to whom attempts may have moved the contact, with the attributes that these may have written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tried: Personal<BTreeMap<String, BTreeSet<String>>>,
}

impl Synced {
    /// The state after an attempt with an unknown outcome: the lease on `contact` expired unreleased.
    #[must_use]
    pub fn interrupted(&self, contact: &Contact, settings: &MessengerSettings) -> Self {
        let first = self.profile == Profile::None && !self.held && self.tried.is_empty();
        if self.profile == Profile::None && !first {
            // Where it was to be moved was stored before.
            return self.clone();
        }
        let names = self.attributes.keys().cloned().collect::<Vec<_>>();
        let mut unsure = self.with_unknown(names.into_iter().chain(wanted(contact, settings).into_keys()));
        if first {
            unsure.profile = Profile::Alias;
        }
        unsure
    }

    /// The same, with `names` as attributes that may have any value.
    fn with_unknown(&self, names: impl IntoIterator<Item = String>) -> Self {
        let mut unsure = self.clone();
        unsure
            .attributes
            .extend(names.into_iter().map(|name| (name, Value::Null)));
        unsure
    }

    /// Whether the contact is where it should be, as far as is known.
    fn is_on(&self, user_id: Option<&str>) -> bool {
        self.tried.is_empty()
            && match (&self.profile, user_id) {
                (Profile::User(known), Some(user_id)) => known.as_str() == user_id,
                (Profile::User(_), None) => false,
                (_, user_id) => user_id.is_none(),
            }
    }
}

/// An alias that becomes a user: one member of `/users/identify`'s `aliases_to_identify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identify {
    /// The user.
    pub external_id: Personal<String>,
    /// The alias.
    pub user_alias: UserAlias,
}

/// A Braze user alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserAlias {
    /// `<channel>:<account_id>`
    pub alias_label: String,
    /// The scoped id.
    pub alias_name: Personal<String>,
}

impl UserAlias {
    /// The alias of a contact: its label is the scope in which its scoped id is a name.
    #[must_use]
    pub fn of(key: &ContactKey) -> Self {
        Self {
            alias_label: format!("{}:{}", key.channel, key.account_id),
            alias_name: key.scoped_id.clone(),
        }
    }
}

/// What is to be sent for a contact, and what Braze will have been told once it is accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncPlan {
    /// First this, if any.
    pub identify: Option<Identify>,
    /// Then these: objects for `/users/track`'s `attributes`, in one request. They are about different profiles,
    /// so that their order does not matter.
    pub attributes: Personal<Vec<Value>>,
    /// The state while the outcome is unknown. To be stored before anything is sent if [`SyncPlan::enters`] a user, and
    /// when it has failed.
    pub before: Synced,
    /// What to store when all of it was accepted.
    pub after: Synced,
}

impl SyncPlan {
    /// Whether Braze need not be called.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identify.is_none() && self.attributes.is_empty()
    }

    /// Whether it writes to a profile that `synced`, which it was made from, does not name. Then `before` has to be stored
    /// first, or an attempt that is cut off leaves no trace.
    #[must_use]
    pub fn enters(&self, synced: &Synced) -> bool {
        self.before.tried != synced.tried
    }

    /// Whether another plan has to follow, in a request of its own and some time later: Braze keeps no order
    /// between requests.
    #[must_use]
    pub fn is_half(&self) -> bool {
        !self.after.tried.is_empty()
    }
}

/// The users whose profiles a plan would move `contact` to or from: while it is made and carried out, nobody else may
/// move theirs to or from them. The one whom it enters comes with `true`.
#[must_use]
pub fn users_at_stake(contact: &Contact, synced: &Synced) -> BTreeMap<String, bool> {
    let target = contact.user_id();
    let mut users = BTreeMap::new();
    if !synced.is_on(target) {
        users.extend(synced.tried.keys().map(|user_id| (user_id.clone(), false)));
        if let Profile::User(user_id) = &synced.profile {
            users.insert(user_id.as_str().to_owned(), false);
        }
        users.extend(target.map(|user_id| (user_id.to_owned(), true)));
    }
    users
}

/// What Braze must be told of `contact`, given what it was told, and who else is on the profiles of
/// [`users_at_stake`].
#[must_use]
pub fn plan(contact: &Contact, synced: &Synced, others: &Others, settings: &MessengerSettings) -> SyncPlan {
    let target = contact.user_id();
    if !synced.is_on(target) {
        return transition::plan(contact, synced, others, settings);
    }
    match target {
        Some(user_id) => on_profile(user_fields(user_id), contact, synced, settings),
        None if synced.held || settings.unlinked_contacts == UnlinkedContacts::Hold => SyncPlan {
            identify: None,
            attributes: Personal::default(),
            before: synced.clone(),
            after: synced.clone(),
        },
        None => {
            let mut on_alias = alias_fields(&contact.key);
            // Without it Braze would only update an alias that exists.
            on_alias.insert("_update_existing_only".to_owned(), false.into());
            let mut synced = synced.clone();
            synced.profile = Profile::Alias;
            on_profile(on_alias, contact, &synced, settings)
        }
    }
}

/// The user on whose profile `contact` stands, as far as is known.
#[must_use]
pub fn stands_on<'a>(contact: &'a Contact, synced: &Synced) -> Option<&'a str> {
    contact.user_id().filter(|_| synced.is_on(contact.user_id()))
}

/// [`plan`] for a contact that [`stands_on`] a user's profile with others. All that it says is written together: its
/// window and its consent must not stand beside the id of another.
#[must_use]
pub fn plan_whole(contact: &Contact, synced: &Synced, settings: &MessengerSettings) -> SyncPlan {
    let wanted = wanted(contact, settings);
    let names = wanted.keys().cloned().chain(unwanted(contact, settings));
    let before = synced.with_unknown(names);
    let mut object = contact.user_id().map(user_fields).unwrap_or_default();
    object.extend(wanted.clone());
    object.extend(unwanted(contact, settings).map(|name| (name, Value::Null)));
    SyncPlan {
        identify: None,
        attributes: vec![Value::Object(object)].into(),
        before,
        after: Synced {
            attributes: wanted.into(),
            ..synced.clone()
        },
    }
}

/// The difference, on the profile that carries the contact already.
fn on_profile(
    fields: Map<String, Value>,
    contact: &Contact,
    synced: &Synced,
    settings: &MessengerSettings,
) -> SyncPlan {
    let changed = difference(contact, &synced.attributes, settings);
    let mut after = synced.clone();
    after.attributes.extend(changed.clone());
    after
        .attributes
        .retain(|name, value| !value.is_null() || !changed.contains_key(name));
    let before = synced.with_unknown(changed.keys().cloned());
    let mut object = fields;
    let attributes = if changed.is_empty() {
        Vec::new()
    } else {
        object.extend(changed);
        vec![Value::Object(object)]
    };
    SyncPlan {
        identify: None,
        attributes: attributes.into(),
        before,
        after,
    }
}

/// The identifier of a custom event for `contact`, given what Braze was told *after* the contact's own sync:
/// `external_id` or `user_alias`. `None` = there is no profile to put it on (held).
#[must_use]
pub fn event_target(contact: &Contact, synced: &Synced) -> Option<Map<String, Value>> {
    match &synced.profile {
        Profile::User(user_id) => Some(user_fields(user_id)),
        Profile::Alias => Some(alias_fields(&contact.key)),
        Profile::None => None,
    }
}

fn user_fields(user_id: &str) -> Map<String, Value> {
    Map::from_iter([("external_id".to_owned(), user_id.into())])
}

fn alias_fields(key: &ContactKey) -> Map<String, Value> {
    Map::from_iter([("user_alias".to_owned(), json!(UserAlias::of(key)))])
}

/// Everything that the profile should carry.
fn wanted(contact: &Contact, settings: &MessengerSettings) -> BTreeMap<String, Value> {
    let key = &contact.key;
    let mut wanted = BTreeMap::new();
    if let Some(opted_out) = contact.is_opted_out() {
        wanted.insert(of_channel(OPTED_OUT_ATTRIBUTE, key), opted_out.into());
    }
    let passing = passing(contact, settings).into_iter();
    wanted.extend(passing.filter_map(|(name, value)| Some((name, value?))));
    wanted.remove("");
    wanted
}

/// The attributes that may cease to be, each with its value as long as there is one.
fn passing(contact: &Contact, settings: &MessengerSettings) -> Vec<(String, Option<Value>)> {
    let key = &contact.key;
    let id_attribute = match key.channel {
        Channel::Messenger => &settings.messenger_id_attribute,
        Channel::Instagram => &settings.instagram_id_attribute,
    };
    // A string, as ids have more digits than a JSON number keeps. Null is what a campaign's segment can leave out.
    let id = (!contact.is_unreachable()).then(|| Value::from(key.scoped_id.as_str()));
    let window = settings.window_attribute.as_ref().map(|name| {
        let closes_at = contact.window_closes_at();
        (name, closes_at.map(|closes_at| format!("{closes_at:.0}").into()))
    });
    let token = settings.marketing_token_attribute.as_ref();
    let token = token.map(|name| (name, contact.topics.token().map(Value::from)));
    // Another contact's consent must not stand beside the id of one who never gave it.
    let marketing = settings.marketing_attribute.as_ref();
    let marketing = marketing.map(|name| (name, contact.topics.is_subscribed().map(Value::from)));
    let named = window.into_iter().chain(token).chain(marketing);
    let named = named.map(|(name, value)| (of_channel(name, key), value));
    std::iter::once((filled(id_attribute, key), id))
        .chain(named)
        .collect()
}

/// The names of attributes that the profile should not carry.
fn unwanted(contact: &Contact, settings: &MessengerSettings) -> impl Iterator<Item = String> {
    let passing = passing(contact, settings).into_iter();
    passing.filter_map(|(name, value)| value.is_none().then_some(name))
}

/// The window that Braze was last told.
pub(super) fn told_window(
    contact: &Contact,
    synced: &Synced,
    settings: &MessengerSettings,
) -> Option<Timestamp> {
    let name = of_channel(settings.window_attribute.as_ref()?, &contact.key);
    time(synced.attributes.get(&name)?)
}

/// What must be written over `told`: null takes back what is no longer true. The window alone is written only if it
/// moved far enough.
fn difference(
    contact: &Contact,
    told: &BTreeMap<String, Value>,
    settings: &MessengerSettings,
) -> BTreeMap<String, Value> {
    let mut changed = wanted(contact, settings);
    changed.retain(|name, value| told.get(name) != Some(value));
    let gone = unwanted(contact, settings).filter(|name| told.contains_key(name));
    changed.extend(gone.map(|name| (name, Value::Null)));
    let worth_it = changed.iter().any(
        |(name, value)| match (told.get(name).and_then(time), time(value)) {
            (Some(told), Some(now)) => moved_enough(told, now, settings),
            _ => true,
        },
    );
    if worth_it { changed } else { BTreeMap::new() }
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
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
