//! A planned reply, as it waits in the outbox. Window and campaign are looked at when it is sent, not when it was
//! planned: in between, Braze may have been down for hours.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::conversation::Conversation;
use super::settings::Rules;
use crate::outbox::{Kind, OutboxItem};

/// The payload of [`Kind::RelayReply`]: one message, or attributes alone.
#[serde_with::skip_serializing_none]
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplyPayload {
    /// What to send; `None` = what the campaign or the Canvas says by itself, or attributes alone.
    pub text: Option<String>,
    /// The route or campaign that the answer named.
    pub campaign: Option<String>,
    /// The Canvas that the answer named.
    pub canvas: Option<String>,
    /// Further trigger properties, or entry properties of the Canvas.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub properties: Map<String, Value>,
    /// The conversation's route when the reply was planned.
    pub route: Option<String>,
    /// What is written to the profile, before the text is sent.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub attributes: Map<String, Value>,
}

impl fmt::Debug for ReplyPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyPayload")
            .field("text_bytes", &self.text.as_ref().map(String::len))
            .field("campaign", &self.campaign)
            .field("canvas", &self.canvas)
            .field("properties", &self.properties.len())
            .field("route", &self.route)
            .field("attributes", &self.attributes.len())
            .finish()
    }
}

impl ReplyPayload {
    /// Whether something is sent, beside the attributes.
    #[must_use]
    pub fn says_something(&self) -> bool {
        self.text.is_some() || self.campaign.is_some() || self.canvas.is_some()
    }

    /// The outbox item. `event_key` orders a conversation's sends.
    #[must_use]
    pub fn item(&self, conversation: &Conversation, event_key: String) -> OutboxItem {
        OutboxItem {
            subject: conversation.id.as_str().to_owned(),
            event_key,
            kind: Kind::RelayReply,
            payload: json!(self),
            not_before: None,
        }
    }
}

/// The event key of a conversation's send number `number`: sorts as the numbers do.
#[must_use]
pub fn event_key(number: u64) -> String {
    format!("{}{number:010}", SENDS.0)
}

/// The number of the send that `event_key`, or the piece of it, belongs to.
#[must_use]
pub fn send_number(event_key: &str) -> Option<u64> {
    let number = event_key.strip_prefix(SENDS.0)?;
    number.split('.').next()?.parse().ok()
}

/// Between these lie the event keys of a conversation's sends.
pub const SENDS: (&str, &str) = ("reply#", "reply#~");

/// An item that writes `attributes` to the profile and sends nothing.
pub(super) fn profile_item(conversation: &mut Conversation, attributes: Map<String, Value>) -> OutboxItem {
    let key = event_key(conversation.number_send());
    let payload = ReplyPayload {
        attributes,
        ..ReplyPayload::default()
    };
    payload.item(conversation, key)
}

/// Whether a reply that names `campaign` (a route or campaign, if anything) can be sent at `now`: the window is open,
/// it is sent as it is named, or there is a template.
#[must_use]
pub fn can_be_sent(
    conversation: &Conversation,
    campaign: Option<&str>,
    rules: &Rules,
    now: Timestamp,
) -> bool {
    conversation.window_is_open(now)
        || rules.own_campaign(campaign).is_some()
        || rules
            .template_campaign(campaign, conversation.route.as_deref())
            .is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_is_known_by_its_number() {
        assert_eq!(event_key(7), "reply#0000000007");
        assert_eq!(send_number(&event_key(7)), Some(7));
        assert_eq!(send_number("reply#0000000007.003"), Some(7));
        assert_eq!(send_number("message#7"), None);
        assert!(event_key(u64::MAX).as_str() < SENDS.1);
    }

    #[test]
    fn what_an_older_version_stored_is_read() {
        let stored = r#"{"text":"hi","route":"orders","attributes":{"topic":"x"}}"#;
        let reply: ReplyPayload = serde_json::from_str(stored).unwrap();
        assert_eq!((reply.text.as_deref(), reply.canvas), (Some("hi"), None));
        assert_eq!(
            json!({"text": "hi"}),
            json!(ReplyPayload {
                text: Some("hi".into()),
                ..ReplyPayload::default()
            })
        );
    }

    #[test]
    fn debug_shows_no_text() {
        let reply = ReplyPayload {
            text: Some("secret".to_owned()),
            properties: Map::from_iter([("a".to_owned(), "secret".into())]),
            ..ReplyPayload::default()
        };
        assert!(!format!("{reply:?}").contains("secret"));
    }
}
