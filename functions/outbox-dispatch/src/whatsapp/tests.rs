//! Turns for the unit tests of this folder.

use jiff::Timestamp;
use shared::whatsapp::conversation::{Role, Turn, TurnStatus};
use shared::whatsapp::message::Content;

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
    }
}

pub(super) fn assistant(text: &str) -> Turn {
    Turn {
        role: Role::Assistant,
        status: None,
        ..turn(text)
    }
}
