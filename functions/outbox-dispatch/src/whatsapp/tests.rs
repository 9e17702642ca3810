//! Conversations, turns and settings for the unit tests of this folder.

use jiff::Timestamp;
use shared::config::Env;
use shared::whatsapp::conversation::Conversation;
use shared::whatsapp::conversation::{Role, Turn, TurnStatus};
use shared::whatsapp::message::{Content, ConversationId, InboundMessage, Person};
use shared::whatsapp::settings::RelaySettings;

pub(super) fn turn(text: &str) -> Turn {
    Turn {
        id: format!("id of {text}"),
        at: Timestamp::UNIX_EPOCH,
        sequence: 1,
        role: Role::User,
        content: Content {
            text: text.to_owned(),
            ..Content::default()
        },
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

pub(super) fn conversation() -> Conversation {
    Conversation::opened_by(&InboundMessage {
        conversation_id: ConversationId::parse("user:42").unwrap(),
        person: Person {
            user_id: Some("42".to_owned()),
            phone_number: Some("+15551234567".to_owned()),
            ..Person::default()
        },
        content: turn("hi").content,
        dispatch_id: None,
        campaign_id: None,
        received_at: "2026-11-21T12:00:00Z".parse().unwrap(),
    })
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
