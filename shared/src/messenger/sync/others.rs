//! The other contacts on a user's profile: a user may write from two accounts, or to two pages whose ids are kept in
//! one attribute.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Profile, Stored, wanted};
use crate::messenger::key::ContactKey;
use crate::messenger::settings::MessengerSettings;
use crate::personal::Personal;

/// By user, the contacts that were ever about to be moved there, but for the one that a plan is made for.
#[derive(Debug, Clone, Default)]
pub struct Others(Personal<BTreeMap<String, Vec<Other>>>);

/// A contact, with its record if it still has one.
type Other = (ContactKey, Option<Stored>);

impl Others {
    /// Adds a contact of `user_id`, with its record if it still has one.
    pub fn add(&mut self, user_id: &str, key: ContactKey, stored: Option<Stored>) {
        self.0.entry(user_id.to_owned()).or_default().push((key, stored));
    }

    /// Whether the user may have got an alias with the label of `key` from somebody else. Braze keeps one name a
    /// label, and leaves a second alias where it is.
    pub(super) fn share_label(&self, user_id: &str, key: &ContactKey) -> bool {
        self.of(user_id)
            .any(|(other, _)| (other.channel, &other.account_id) == (key.channel, &key.account_id))
    }

    /// What the attributes `names` of the user must be once the contact has left: what somebody else who is there
    /// has written, else null.
    pub(super) fn left_with(
        &self,
        user_id: &str,
        names: BTreeSet<String>,
        settings: &MessengerSettings,
    ) -> BTreeMap<String, Value> {
        // Only what the other has written and will take back. One that is about to leave counts as well: the move may
        // be cancelled.
        let there = self.of(user_id).filter_map(|(_, stored)| {
            let Stored { contact, synced } = stored.as_ref()?;
            let written: BTreeSet<&String> = match &synced.profile {
                Profile::User(known) if known.as_str() == user_id => synced.attributes.keys().collect(),
                _ => synced.tried.get(user_id)?.iter().collect(),
            };
            let mut wanted = wanted(contact, settings);
            wanted.retain(|name, _| written.contains(name) && names.contains(name));
            let stays = contact.user_id() == Some(user_id);
            (!wanted.is_empty()).then_some(((stays, contact.last_interaction), wanted))
        });
        // All from one, for the window that is open is that of the id beside it.
        let latest = there.max_by_key(|(rank, _)| *rank);
        let mut left: BTreeMap<String, Value> = names.into_iter().map(|name| (name, Value::Null)).collect();
        left.extend(latest.map(|(_, wanted)| wanted).unwrap_or_default());
        left
    }

    /// Whether another contact is on the user's profile, as far as is known.
    #[must_use]
    pub fn stand_on(&self, user_id: &str) -> bool {
        self.of(user_id).any(|(_, stored)| {
            stored.as_ref().is_some_and(|Stored { synced, .. }| {
                let is_there = matches!(&synced.profile, Profile::User(known) if known.as_str() == user_id);
                is_there || synced.tried.contains_key(user_id)
            })
        })
    }

    /// Whether another contact was ever moved to the user.
    pub(super) fn are_on(&self, user_id: &str) -> bool {
        self.of(user_id).next().is_some()
    }

    fn of(&self, user_id: &str) -> impl Iterator<Item = &Other> {
        self.0.get(user_id).into_iter().flatten()
    }
}
