//! Consent to marketing messages, topic by topic.
//!
//! A topic is named by its title. An event may name it by its notification token alone, or not at all; then it is kept
//! under that, and counts for the titles that it is about when they are looked at. So each name is a register of its
//! own, and order does not matter.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::stamped::Stamped;
use crate::digest::Digest;
use crate::personal::Personal;

/// The latest of a person's topics are kept; a record must stay small.
const MOST_TOPICS: usize = 50;

/// The name of what is said of every topic.
const EVERY: &str = "*";

/// What begins the name of a topic that has a title.
const TITLE: &str = "title#";

/// What is known of a topic.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Whether the person wants its messages.
    pub subscribed: bool,
    /// The notification token.
    pub token: Option<Personal<String>>,
    /// `REFRESHED`, `NOT_REFRESHED`.
    pub token_status: Option<String>,
    /// Such as `Europe/Berlin`.
    pub time_zone: Option<String>,
    /// When the token ends.
    pub expires_at: Option<Timestamp>,
}

impl Topic {
    /// Whether a topic is named, be it by its title or by what belongs to its token.
    #[must_use]
    pub fn is_named(&self, title: Option<&str>) -> bool {
        title.is_some()
            || self.token.is_some()
            || self.token_status.is_some()
            || self.time_zone.is_some()
            || self.expires_at.is_some()
    }
}

/// Of two that were said at the same time the greater one counts: a stop, as with the keywords.
impl Ord for Topic {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |topic: &Self| {
            let token = (topic.token.clone(), topic.token_status.clone());
            (
                !topic.subscribed,
                token,
                topic.time_zone.clone(),
                topic.expires_at,
            )
        };
        rank(self).cmp(&rank(other))
    }
}

impl PartialOrd for Topic {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What was said of each topic, by `title#…`, `token#<hash>` or `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Topics(Personal<BTreeMap<String, Stamped<Topic>>>);

impl Topics {
    /// Notes what was said at a time of the topic with this title.
    pub fn say(&mut self, title: Option<&str>, said: Stamped<Topic>) {
        let name = match (title, &said.value.token) {
            (Some(title), _) => format!("{TITLE}{title}"),
            (None, Some(token)) => format!("token#{}", Digest::of(token.as_str())),
            (None, None) => EVERY.to_owned(),
        };
        self.merge_one(name, said);
        self.cut();
    }

    /// Takes over what another record says.
    pub fn merge(&mut self, other: &Self) {
        for (name, said) in &*other.0 {
            self.merge_one(name.clone(), said.clone());
        }
        self.cut();
    }

    fn merge_one(&mut self, name: String, said: Stamped<Topic>) {
        let mut known = self.0.remove(&name);
        Stamped::merge(&mut known, said);
        self.0.extend(known.map(|known| (name, known)));
    }

    fn cut(&mut self) {
        while self.0.len() > MOST_TOPICS {
            let oldest = self.0.iter().min_by_key(|(name, said)| (said.at, *name));
            let Some(name) = oldest.map(|(name, _)| name.clone()) else {
                return;
            };
            self.0.remove(&name);
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the person wants messages of any topic; `None` if they never said.
    #[must_use]
    pub fn is_subscribed(&self) -> Option<bool> {
        (!self.is_empty()).then(|| self.subscribed().next().is_some())
    }

    /// The notification token of the topic that was subscribed to last.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        let with_token = self
            .subscribed()
            .filter_map(|said| Some((said.at, said.value.token.as_deref()?)));
        with_token.max().map(|(_, token)| token.as_str())
    }

    /// What was subscribed to and not stopped since, be it by title, by token or for every topic. A stop whose topic
    /// cannot be told stops all that it may be about.
    fn subscribed(&self) -> impl Iterator<Item = &Stamped<Topic>> {
        let known: Vec<_> = self.0.iter().filter(|(_, said)| said.value.subscribed).collect();
        let stops: Vec<_> = self.0.iter().filter(|(_, said)| !said.value.subscribed).collect();
        let has_token = |token: &Personal<String>| {
            known
                .iter()
                .any(|(_, said)| said.value.token.as_ref() == Some(token))
        };
        let is_about = |(name, stop): &(&String, &Stamped<Topic>), topic: &str, said: &Topic| {
            match &stop.value.token {
                _ if *name == EVERY => true,
                Some(token) if has_token(token) => said.token.as_ref() == Some(token),
                // Its token has been replaced since.
                Some(_) => !name.starts_with(TITLE),
                None => !topic.starts_with(TITLE),
            }
        };
        let subscribed = known.iter().filter(|(topic, said)| {
            let mut stops = stops.iter();
            !stops.any(|stop| stop.1.at >= said.at && is_about(stop, topic, &said.value))
        });
        subscribed.map(|(_, said)| *said).collect::<Vec<_>>().into_iter()
    }
}
