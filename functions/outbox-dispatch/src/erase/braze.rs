//! What Braze is told of somebody who is erased.

use serde_json::{Map, Value};
use shared::erase::EraseInBraze;
use shared::messenger::contact::Contact;
use shared::messenger::settings::MessengerSettings;
use shared::messenger::sync::{self, Others, Profile, Stored, Synced, UserAlias};
use shared::whatsapp::Person;
use shared::whatsapp::attributes::HUMAN_AGENT_ATTRIBUTE;

use crate::braze::delete::Deletion;
use crate::whatsapp::profile_update;

/// What is to be written and deleted.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Objects for `/users/track`.
    pub(super) attributes: Vec<Value>,
    /// Profiles for `/users/delete`.
    pub(super) deletions: Vec<Deletion>,
}

impl Told {
    /// Of a contact. `interrupted` = what was told last may or may not have arrived.
    pub(super) fn contact(
        &mut self,
        stored: &Stored,
        interrupted: bool,
        others: &Others,
        in_braze: EraseInBraze,
        settings: &MessengerSettings,
    ) {
        let contact = &stored.contact;
        let synced = if interrupted {
            stored.synced.interrupted(contact, settings)
        } else {
            stored.synced.clone()
        };
        if in_braze == EraseInBraze::Keep {
            return;
        }
        if in_braze == EraseInBraze::Delete {
            self.deletions.extend(contact.user_id().map(user));
            if let (Profile::User(known), None) = (&synced.profile, contact.user_id()) {
                self.deletions.push(user(known));
            }
        }
        if synced.profile == Profile::Alias {
            // Only what was never identified: an alias that was is one more name of the user's own profile.
            if synced.tried.is_empty() || in_braze == EraseInBraze::Delete {
                self.deletions.push(Deletion::Alias(UserAlias::of(&contact.key)));
            }
        }
        self.leave(contact, synced, others, settings);
    }

    /// Takes back what was written to users' profiles, as if the contact had been unlinked.
    fn leave(
        &mut self,
        contact: &Contact,
        mut synced: Synced,
        others: &Others,
        settings: &MessengerSettings,
    ) {
        let mut unlinked = contact.clone();
        unlinked.link = None;
        // At most two: where an alias may be a user's, it is emptied first.
        for _ in 0..2 {
            let is_on_a_user = matches!(synced.profile, Profile::User(_)) || !synced.tried.is_empty();
            if !is_on_a_user {
                return;
            }
            let plan = sync::plan(&unlinked, &synced, others, settings);
            self.attributes.extend(plan.attributes.iter().cloned());
            synced = plan.after;
        }
    }

    /// Of a user, whatever is known of them.
    pub(super) fn user(&mut self, user_id: &str, in_braze: EraseInBraze) {
        if in_braze == EraseInBraze::Delete {
            self.deletions.push(user(user_id));
        }
    }

    /// Of the person of a conversation. Their profile is Braze's own, also where it has nothing but a phone number.
    pub(super) fn person(&mut self, person: &Person, told_of_agent: bool, in_braze: EraseInBraze) {
        match in_braze {
            EraseInBraze::Keep => {}
            EraseInBraze::Delete => self.deletions.extend(named(person)),
            EraseInBraze::Attributes if !told_of_agent => {}
            EraseInBraze::Attributes => {
                let null = Map::from_iter([(HUMAN_AGENT_ATTRIBUTE.to_owned(), Value::Null)]);
                self.attributes.extend(profile_update(person, &null));
            }
        }
    }

    /// Once is enough.
    pub(super) fn dedup(&mut self) {
        let mut deletions: Vec<Deletion> = Vec::with_capacity(self.deletions.len());
        for deletion in self.deletions.drain(..) {
            if !deletions.contains(&deletion) {
                deletions.push(deletion);
            }
        }
        self.deletions = deletions;
        let gone = |object: &Value| {
            let id = object.get("external_id").and_then(Value::as_str);
            id.is_some_and(|id| self.deletions.contains(&user(id)))
        };
        // A profile that is deleted in the same breath needs no null; and Braze keeps no order between the two.
        self.attributes.retain(|object| !gone(object));
    }
}

fn user(user_id: &str) -> Deletion {
    Deletion::ExternalId(user_id.into())
}

fn named(person: &Person) -> Option<Deletion> {
    if let Some(id) = &person.user_id {
        Some(user(id))
    } else if let Some(id) = &person.braze_id {
        Some(Deletion::BrazeId(id.as_str().into()))
    } else {
        Some(Deletion::Alias(UserAlias {
            alias_label: "phone".to_owned(),
            alias_name: person.phone_number.as_deref()?.into(),
        }))
    }
}
