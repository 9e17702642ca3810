//! People who are known by a plugin's `user_ref` before their PSID is.
//!
//! The checkbox plugin reports an optin with a `user_ref` and no sender. The PSID comes with the person's
//! first message, whose `prior_message` names the `user_ref`. The two may arrive in either order, so what is
//! known of a `user_ref` is kept in a record of its own, again as facts that only grow.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::contact::{Link, LinkedVia, Stamped};
use super::decide::{LinkCounts, token_of};
use super::event::{Event, EventKind, Person};
use super::key::{Channel, ContactKey};
use super::link::LinkKeys;
use crate::personal::Personal;

/// What is known of one `user_ref`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UserRef {
    /// The user whom a token proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Stamped<Link>>,
    /// The PSID that the person wrote with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scoped_id: Option<Stamped<Personal<String>>>,
    /// Bookkeeping: how many times the record was written; 0 = not yet.
    #[serde(default)]
    pub version: u64,
}

/// A link that follows from a [`UserRef`] of which both sides are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRefLink {
    /// Whom it is about.
    pub contact: ContactKey,
    /// The link, at the time of the event that carried the token.
    pub link: Stamped<Link>,
}

/// What the events say about one `user_ref`: the record if it must be written, the link if both sides are
/// known, and what became of the tokens.
///
/// `events` are those with the same [`Event::user_ref_key`], in any order; others in between do no harm as
/// long as they are of the same `user_ref`. The link is given whenever both sides are known, also if nothing
/// changed: the contact may not have been written last time.
#[must_use]
pub fn decide_user_ref(stored: Option<&UserRef>, events: &[Event], links: &LinkKeys) -> UserRefPlan {
    let mut counts = LinkCounts::default();
    let mut record = stored.cloned().unwrap_or_default();
    let mut account = None;
    for event in events.iter().filter(|event| event.user_ref().is_some()) {
        account = Some((event.channel, event.account_id.as_str()));
        fold(&mut record, event, links, &mut counts);
    }
    let derived = account.and_then(|account| derive(&record, account));
    let changed = record != stored.cloned().unwrap_or_default();
    if changed {
        record.version += 1;
    }
    UserRefPlan {
        record: changed.then_some(record),
        derived,
        counts,
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
}

fn fold(record: &mut UserRef, event: &Event, links: &LinkKeys, counts: &mut LinkCounts) {
    // A message's own token is about its sender and is the contact's business.
    if !matches!(event.kind, EventKind::Message(_))
        && let Some((token, _)) = token_of(&event.kind)
    {
        let verdict = links.verify(token, event.at);
        // With a PSID the contact counts the same token.
        if matches!(event.person, Person::UserRef(_)) {
            counts.record(verdict.as_ref().map(drop).map_err(|error| *error));
        }
        if let Ok(user_id) = verdict {
            let link = Link {
                user_id: Some(user_id.into()),
                via: LinkedVia::UserRef,
            };
            Stamped::merge(
                &mut record.link,
                Stamped {
                    at: event.at,
                    value: link,
                },
            );
        }
    }
    if let Person::Scoped(scoped_id) = &event.person {
        let scoped_id = scoped_id.clone();
        Stamped::merge(
            &mut record.scoped_id,
            Stamped {
                at: event.at,
                value: scoped_id,
            },
        );
    }
}

fn derive(record: &UserRef, (channel, account_id): (Channel, &str)) -> Option<UserRefLink> {
    let scoped_id = record.scoped_id.as_ref()?;
    Some(UserRefLink {
        contact: ContactKey {
            channel,
            account_id: account_id.to_owned(),
            scoped_id: scoped_id.value.clone(),
        },
        link: record.link.clone()?,
    })
}

impl UserRefLink {
    /// When the token was shown.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.link.at
    }
}
