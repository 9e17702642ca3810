//! People who are known by a plugin's `user_ref` before their PSID is.
//!
//! The checkbox plugin reports an optin with a `user_ref` and no sender. The PSID comes with the person's
//! first act, whose `prior_message` names the `user_ref`. The two may arrive in either order, so what is
//! known of a `user_ref` is kept in a record of its own, again as facts that only grow.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::contact::{Link, LinkedVia};
use super::event::{Event, EventKind, Person};
use super::key::{Channel, ContactKey, UserRefKey};
use super::proof::{Claim, Judge, Judged, LinkCounts, Token};
use super::stamped::Stamped;
use crate::personal::Personal;

/// What is known of one `user_ref`.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UserRef {
    /// The user whom a token proved.
    pub link: Option<Stamped<Link>>,
    /// The token of that link; none in records of the version before.
    pub token: Option<Stamped<Token>>,
    /// The PSID that the person wrote with.
    pub scoped_id: Option<Stamped<Personal<String>>>,
    /// Bookkeeping: how many times the record was written; 0 = not yet.
    #[serde(default)]
    pub version: u64,
}

impl UserRef {
    /// Braze's `external_id` of the user whom a token proved.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.link.as_ref()?.value.user_id.as_deref().map(String::as_str)
    }

    /// Whether it has linked somebody by the version before, of whom no token would keep another contact away.
    fn has_linked_without_token(&self) -> bool {
        self.link.is_some() && self.token.is_none() && self.scoped_id.is_some()
    }

    /// The key of the contact on this account that the person has, once the PSID is known.
    fn contact_key(&self, channel: Channel, account_id: &str) -> Option<ContactKey> {
        let scoped_id = self.scoped_id.as_ref()?.value.clone();
        Some(ContactKey::new(channel, account_id, scoped_id))
    }
}

/// A link that follows from a [`UserRef`] of which both sides are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRefLink {
    /// Whom it is about.
    pub contact: ContactKey,
    /// The link, at the time of the event that carried the token.
    pub link: Stamped<Link>,
    /// The token, and the key of the `user_ref`: the contact takes it over.
    pub token: Option<Token>,
    /// The key of the `user_ref`.
    pub user_ref: Personal<String>,
}

/// What the events say about one `user_ref`: the record if it must be written, the link if both sides are
/// known, and what became of the tokens.
///
/// `events` are those with the same [`Event::user_ref_key`], in any order; others in between do no harm as
/// long as they are of the same `user_ref`. The link is given whenever both sides are known, also if nothing
/// changed: the contact may not have been written last time.
#[must_use]
pub fn decide_user_ref(stored: Option<&UserRef>, events: &[Event], judge: Judge<'_>) -> UserRefPlan {
    let mut judged = Judged::default();
    let mut record = stored.cloned().unwrap_or_default();
    let mut names = None;
    for event in events {
        let Some(key) = event.user_ref_key() else { continue };
        fold(&mut record, &key, event, &mut judged, judge);
        names = Some((key, event.channel, event.account_id.as_str()));
    }
    let derived = names.and_then(|(key, channel, account_id)| derive(&record, &key, channel, account_id));
    let changed = record != stored.cloned().unwrap_or_default();
    if changed {
        record.version += 1;
    }
    if derived.is_some() {
        // The contact claims them.
        judged.claims.clear();
    }
    UserRefPlan {
        record: changed.then_some(record),
        derived,
        counts: judged.counts,
        claims: judged.claims,
    }
}

/// What is to be done about a `user_ref`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRefPlan {
    /// The record, if it must be written (under the condition that the stored version is one less).
    pub record: Option<UserRef>,
    /// The link to hand to [`decide`](super::decide::decide) for its contact.
    pub derived: Option<UserRefLink>,
    /// What became of the tokens of people who have no contact yet.
    pub counts: LinkCounts,
    /// The tokens that it is to hold until a contact takes them over; to be written with the record.
    pub claims: Vec<Claim>,
}

fn fold(record: &mut UserRef, key: &UserRefKey, event: &Event, judged: &mut Judged, judge: Judge<'_>) {
    let proof = match (&event.person, &event.kind) {
        (Person::UserRef(_), _) => {
            let contact = record.contact_key(event.channel, &event.account_id);
            let holder = contact.map_or_else(|| key.to_string(), |contact| contact.to_string());
            judged.judge(event, &holder, judge)
        }
        // With a PSID the contact counts and claims the same token.
        (_, EventKind::Optin(optin)) if optin.user_ref.is_some() => {
            let contact = event.contact_key().map(|contact| contact.to_string());
            contact.and_then(|contact| Judged::default().judge(event, &contact, judge))
        }
        // The token of an answer is about its sender and is the contact's business.
        _ => None,
    };
    if let Some((token, user_id, _)) = proof {
        let at = event.at;
        let link = Link {
            user_id: Some(user_id.into()),
            via: LinkedVia::UserRef,
        };
        Stamped::merge(&mut record.link, Stamped { at, value: link });
        Stamped::merge(&mut record.token, Stamped { at, value: token });
    }
    if let Person::Scoped(scoped_id) = &event.person
        && !record.has_linked_without_token()
    {
        let value = scoped_id.clone();
        Stamped::merge(&mut record.scoped_id, Stamped { at: event.at, value });
    }
}

fn derive(record: &UserRef, key: &UserRefKey, channel: Channel, account_id: &str) -> Option<UserRefLink> {
    let token = record.token.as_ref().map(|token| token.value.clone());
    let acted_at = record.scoped_id.as_ref()?.at;
    if token.as_ref().is_some_and(|token| !token.links_at(acted_at)) {
        return None;
    }
    Some(UserRefLink {
        contact: record.contact_key(channel, account_id)?,
        link: record.link.clone()?,
        token,
        user_ref: key.to_string().into(),
    })
}

impl UserRefLink {
    /// When the token was shown.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.link.at
    }
}
