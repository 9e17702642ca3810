//! What the tests of the relay's rooms share, and the tests that lead through all of them.

mod payloads;
mod properties;

use std::time::Duration;

use jiff::Timestamp;

use super::conversation::{Conversation, Role, Turn, TurnStatus};
use super::message::{Content, ConversationId, InboundMessage, Person};
use crate::config::Env;
use crate::whatsapp::settings::{InboundSettings, RelaySettings};

pub(super) fn noon() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

pub(super) fn message(text: &str) -> InboundMessage {
    InboundMessage {
        conversation_id: ConversationId::parse("user:42").unwrap(),
        person: Person {
            user_id: Some("42".to_owned()),
            phone_number: Some("+15551234567".to_owned()),
            profile_name: Some("Ana".to_owned()),
            ..Person::default()
        },
        content: Content {
            text: text.to_owned(),
            ..Content::default()
        },
        dispatch_id: None,
        campaign_id: None,
        received_at: noon(),
    }
}

pub(super) fn conversation() -> Conversation {
    Conversation::opened_by(&message("hi"))
}

pub(super) fn turn(text: &str) -> Turn {
    Turn {
        id: format!("id of {text}"),
        at: noon() - Duration::from_mins(1),
        sequence: 1,
        role: Role::User,
        content: message(text).content,
        status: Some(TurnStatus::Pending),
        news: None,
    }
}

pub(super) fn assistant(text: &str) -> Turn {
    Turn {
        role: Role::Assistant,
        status: None,
        ..turn(text)
    }
}

pub(super) fn inbound_settings(pairs: &[(&str, &str)]) -> InboundSettings {
    Env::from_pairs(pairs).finish(InboundSettings::read).unwrap()
}

/// Settings with an external system and the reply campaign `c`, unless `pairs` say otherwise.
pub(super) fn relay_settings(pairs: &[(&str, &str)]) -> RelaySettings {
    let mut all = pairs.to_vec();
    all.extend([
        ("EXTERNAL_SYSTEM_URL", "https://ai.example"),
        ("REPLY_CAMPAIGN_ID", "c"),
        ("OPENAI_MODEL", "m"),
        ("OPENAI_SYSTEM_PROMPT", "p"),
    ]);
    Env::from_pairs(&all).finish(RelaySettings::read).unwrap()
}
