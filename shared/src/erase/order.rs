//! What is to be erased, and how far it has come.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::counts::Counts;
use super::settings::EraseInBraze;
use crate::outbox::{Kind, OutboxItem};
use crate::personal::Personal;

/// What the subjects of erasures begin with.
const SUBJECT: &str = "erasure#";
/// The event key of an order.
pub(super) const ORDER: &str = "order";

/// Whom an erasure is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A user, by Braze's external id: all contacts that are linked to them, and their conversation.
    User(Personal<String>),
    /// A contact, by its key.
    Contact(Personal<String>),
    /// A PSID or IGSID on some accounts, or an app-scoped id.
    Scoped {
        /// The id.
        id: Personal<String>,
        /// The accounts; none = those that the meta secret holds tokens of.
        #[serde(default)]
        accounts: Vec<String>,
    },
    /// A conversation, by its id.
    Conversation(Personal<String>),
    /// A business, by its external business id.
    Business(String),
}

/// Who asked for an erasure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Meta, for a person who removed the app.
    Callback,
    /// The person, by a word to the page.
    Keyword,
    /// Somebody with access to the stack.
    Operator,
}

/// An erasure: the payload of its outbox item.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Whom it is about.
    pub target: Target,
    /// Who asked for it.
    pub source: Source,
    /// When.
    pub requested_at: Timestamp,
    /// What becomes of the person in Braze, where that is not the setting's to say.
    pub braze: Option<EraseInBraze>,
    /// How far it has come.
    pub progress: Option<Progress>,
}

/// How far an erasure has come. Stored before anything is deleted: what was found by records that are gone by then is
/// still to be deleted after a crash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// When it began. What is newer is of somebody who came back.
    pub began_at: Timestamp,
    /// What there was.
    pub found: Found,
    /// What was removed so far.
    #[serde(default)]
    pub removed: Counts,
    /// When everything that was there had been removed. What was under way then is looked for once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swept_at: Option<Timestamp>,
}

/// What there is of somebody: names of records.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Found {
    /// Keys of contacts.
    pub contacts: Personal<Vec<String>>,
    /// Keys of `user_ref`s.
    pub user_refs: Personal<Vec<String>>,
    /// Users.
    pub users: Personal<Vec<String>>,
    /// Ids of conversations.
    pub conversations: Personal<Vec<String>>,
    /// Businesses.
    pub businesses: Vec<String>,
}

impl Found {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The names by which tables recognize late events.
    #[must_use]
    pub fn contact_names(&self) -> Vec<String> {
        let users = self.users.iter().map(|user| user_name(user));
        let keys = self.contacts.iter().chain(self.user_refs.iter());
        keys.cloned().chain(users).collect()
    }
}

/// A condition of a write: the one with this name was not erased since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnlessErased {
    /// The key of a contact or `user_ref`, or a [`user_name`].
    pub name: Personal<String>,
    /// The time of the oldest event that is to be written.
    pub since: Timestamp,
}

impl Order {
    /// An order that nobody has begun.
    #[must_use]
    pub fn new(target: Target, source: Source, requested_at: Timestamp) -> Self {
        Self {
            target,
            source,
            requested_at,
            braze: None,
            progress: None,
        }
    }

    /// The outbox item that carries it out. `code` is its confirmation code.
    #[must_use]
    pub fn item(&self, code: &str) -> OutboxItem {
        OutboxItem {
            subject: subject(code),
            event_key: ORDER.to_owned(),
            kind: Kind::Erase,
            payload: json!(self),
            not_before: None,
        }
    }
}

/// The key of a user's record and the name of their tombstone.
#[must_use]
pub fn user_name(user_id: &str) -> String {
    format!("user#{user_id}")
}

/// The subject of the items of an erasure.
#[must_use]
pub fn subject(code: &str) -> String {
    format!("{SUBJECT}{code}")
}

/// The confirmation code in a subject.
#[must_use]
pub fn code(subject: &str) -> Option<&str> {
    subject.strip_prefix(SUBJECT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_stored_and_shows_nobody() {
        let at = Timestamp::from_second(1_796_083_200).unwrap();
        let order = Order {
            progress: Some(Progress {
                began_at: at,
                found: Found {
                    contacts: vec!["messenger#1#7001".to_owned()].into(),
                    users: vec!["ana".to_owned()].into(),
                    ..Found::default()
                },
                removed: Counts::default(),
                swept_at: None,
            }),
            ..Order::new(Target::User("ana".into()), Source::Operator, at)
        };
        let item = order.item("c0de");
        assert_eq!(code(&item.subject), Some("c0de"));
        assert_eq!(serde_json::from_value::<Order>(item.payload).unwrap(), order);
        let shown = format!("{order:?}");
        assert!(!shown.contains("7001") && !shown.contains("ana"), "{shown}");
    }
}
