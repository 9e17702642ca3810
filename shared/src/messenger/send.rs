//! Messages that Braze sends through us: what may be sent to whom, and what Meta's answers mean.
//!
//! * [`request`]: the body that Braze's webhook campaign posts.
//! * [`answer`]: Meta's errors, sorted by what to do.

pub mod answer;
pub mod request;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::contact::Contact;
use super::custom_event::{LONGEST_PROPERTY, cut};
use super::key::ContactKey;
use super::settings::SEND_FAILED;
use crate::digest::Digest;
use crate::outbox::{Kind, OutboxItem};
use crate::personal::Personal;

pub use answer::Verdict;
pub use request::SendRequest;

/// How long a human agent, and the feedback template, may answer after the person's last act.
/// (<https://developers.facebook.com/docs/messenger-platform/send-messages/message-tags>)
const TAGGED: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What Meta is told of the reason why a message may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// An answer, inside the window.
    Response,
    /// Something unasked, inside the window.
    Update,
    /// Written by a human, within seven days.
    HumanAgent,
    /// The feedback template, within seven days.
    CustomerFeedback,
    /// A utility template, at any time.
    Utility,
}

impl Way {
    fn parameters(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Response => ("RESPONSE", None),
            Self::Update => ("UPDATE", None),
            Self::HumanAgent => ("MESSAGE_TAG", Some("HUMAN_AGENT")),
            Self::CustomerFeedback => ("MESSAGE_TAG", Some("CUSTOMER_FEEDBACK")),
            Self::Utility => ("UTILITY", None),
        }
    }
}

/// A message on its way; the payload of its outbox item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Ours; Meta gives it back in the echo.
    pub send_id: String,
    /// What may be sent.
    pub way: Way,
    /// The Send API's `message`.
    pub message: Personal<Value>,
    /// Braze's campaign, for the report of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign_id: Option<String>,
}

impl Message {
    /// The outbox item that sends it to `contact`.
    #[must_use]
    pub fn item(&self, contact: &ContactKey) -> OutboxItem {
        OutboxItem {
            subject: contact.to_string(),
            event_key: event_key(&self.send_id),
            kind: Kind::MessengerSend,
            payload: json!(self),
            not_before: None,
        }
    }

    /// The body of the call to Meta.
    #[must_use]
    pub fn body(&self, contact: &ContactKey) -> Value {
        let (messaging_type, tag) = self.way.parameters();
        let mut message = self.message.clone();
        if let Some(fields) = message.as_object_mut() {
            fields.insert("metadata".to_owned(), self.send_id.clone().into());
        }
        let mut body = json!({
            "recipient": {"id": contact.scoped_id},
            "messaging_type": messaging_type,
            "message": message,
        });
        if let (Some(tag), Some(body)) = (tag, body.as_object_mut()) {
            body.insert("tag".to_owned(), tag.into());
        }
        body
    }

    /// The custom event `messenger_send_failed`, if `events` (`MESSENGER_EVENTS`) lists it.
    #[must_use]
    pub fn failed(
        &self,
        contact: &ContactKey,
        reason: &str,
        now: Timestamp,
        events: &[String],
    ) -> Option<OutboxItem> {
        events.iter().any(|name| name == SEND_FAILED).then(|| {
            let mut properties = Map::new();
            properties.insert("channel".to_owned(), contact.channel.as_str().into());
            properties.insert("account_id".to_owned(), contact.account_id.clone().into());
            properties.insert("reason".to_owned(), reason.into());
            if let Some(campaign) = &self.campaign_id {
                let campaign = cut(campaign, LONGEST_PROPERTY);
                properties.insert("campaign_id".to_owned(), campaign.into());
            }
            OutboxItem {
                subject: contact.to_string(),
                event_key: format!("event#send_failed#{}", self.send_id),
                kind: Kind::ContactEvent,
                payload: json!({
                    "name": "messenger_send_failed",
                    "time": format!("{now:.3}"),
                    "properties": properties,
                }),
                not_before: None,
            }
        })
    }
}

/// The id of a message that is sent once for each dispatch and person.
#[must_use]
pub fn send_id(dispatch_id: &str, contact: &ContactKey) -> String {
    Digest::of_parts([dispatch_id, &contact.to_string()]).short()
}

/// The key of a message's outbox item.
#[must_use]
pub fn event_key(send_id: &str) -> String {
    format!("send#{send_id}")
}

/// Why a message is not sent to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Refusal {
    /// The person wants no messages.
    OptedOut,
    /// Meta could not reach the person, and they have not acted since.
    Unreachable,
    /// Too long since the person last opened the window.
    WindowClosed,
}

/// Why `contact` may not be written to at the time `now`, if so.
#[must_use]
pub fn refusal(contact: &Contact, way: Way, now: Timestamp) -> Option<Refusal> {
    let until = match way {
        Way::Response | Way::Update => contact.window_closes_at(),
        Way::HumanAgent | Way::CustomerFeedback => contact
            .opened_at
            .map(|opened_at| opened_at.saturating_add(TAGGED).unwrap_or(Timestamp::MAX)),
        Way::Utility => Some(Timestamp::MAX),
    };
    if contact.is_opted_out() == Some(true) {
        Some(Refusal::OptedOut)
    } else if contact.is_unreachable() {
        Some(Refusal::Unreachable)
    } else {
        until
            .is_none_or(|until| until <= now)
            .then_some(Refusal::WindowClosed)
    }
}

/// What an answer of Meta's teaches about the recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lesson {
    /// The window is closed.
    WindowClosed,
    /// The person cannot be reached.
    Unreachable,
}
