//! The Send API: `POST /{v}/{page}/messages`, for Instagram accounts `me/messages`.
//!
//! Everyone can be reached until [`FakeGraph::set_reach`](super::FakeGraph::set_reach) says otherwise.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::error::GraphError;
use super::parameters::Parameters;

/// Whether a person can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// Yes.
    #[default]
    Open,
    /// 10/2018278: the window is closed, but for tags and utility templates.
    WindowClosed,
    /// 551/1545041: blocked, deactivated or muted.
    Unavailable,
    /// 100/2018001: of another page, or deleted.
    Unknown,
    /// 10/2018300: another app has the thread.
    OtherApp,
}

impl Reach {
    fn refusal(self, messaging_type: &str) -> Option<GraphError> {
        let error = |code, subcode, message| Some(GraphError::new(code, message).subcode(subcode));
        match self {
            Self::Open => None,
            Self::WindowClosed if matches!(messaging_type, "MESSAGE_TAG" | "UTILITY") => None,
            Self::WindowClosed => error(
                10,
                2_018_278,
                "(#10) This message is sent outside of allowed window.",
            ),
            Self::Unavailable => error(551, 1_545_041, "(#551) This person isn't available right now."),
            Self::Unknown => error(100, 2_018_001, "(#100) No matching user found"),
            Self::OtherApp => error(
                10,
                2_018_300,
                "(#10) Message failed to send because another app is controlling this thread now.",
            ),
        }
    }
}

/// A message that was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct SentMessage {
    /// The page, or `me`.
    pub sender: String,
    /// The PSID or IGSID.
    pub recipient: String,
    /// The call's `messaging_type`.
    pub messaging_type: String,
    /// The call's `tag`.
    pub tag: Option<String>,
    /// The call's `message`.
    pub message: Value,
    /// Its `mid`.
    pub message_id: String,
    /// When it was taken.
    pub received_at: Instant,
}

/// Reads a call as Meta does; `number` makes the message's id.
pub(super) fn send(
    sender: &str,
    parameters: &Parameters<'_>,
    reach: impl FnOnce(&str) -> Reach,
    number: usize,
) -> Result<SentMessage, (GraphError, bool)> {
    let wrong = |error: GraphError| (error, false);
    let recipient: Value = parameters.json("recipient").map_err(wrong)?;
    let recipient = recipient.get("id").and_then(Value::as_str);
    let recipient = recipient.ok_or_else(|| wrong(GraphError::missing("recipient[id]")))?;
    let message: Value = parameters.json("message").map_err(wrong)?;
    let content = ["text", "attachment", "template", "sticker_id"];
    if !content.iter().any(|name| {
        message
            .get(name)
            .is_some_and(|value| !value.is_null() && value != "")
    }) {
        return Err(wrong(GraphError::invalid("Empty text").subcode(2_018_034)));
    }
    let text = message.get("text").and_then(Value::as_str).unwrap_or_default();
    if text.chars().count() > 2_000 {
        return Err(wrong(GraphError::invalid(
            "Param message[text] must be at most 2000 characters",
        )));
    }
    if message
        .get("metadata")
        .is_some_and(|metadata| metadata.as_str().is_none_or(|text| text.len() >= 1_000))
    {
        return Err(wrong(GraphError::invalid("Param message[metadata] is too long")));
    }
    let messaging_type = parameters
        .text("messaging_type")
        .unwrap_or_else(|| "RESPONSE".to_owned());
    let tag = parameters.text("tag");
    match (messaging_type.as_str(), tag.as_deref()) {
        ("RESPONSE" | "UPDATE", None) | ("MESSAGE_TAG", Some("HUMAN_AGENT" | "CUSTOMER_FEEDBACK")) => {}
        ("UTILITY", None) if message.get("template").is_some() => {}
        ("MESSAGE_TAG", Some(_)) => {
            return Err(wrong(GraphError::invalid("Invalid parameter").subcode(1_893_061)));
        }
        _ => return Err(wrong(GraphError::invalid("Param messaging_type or tag is wrong"))),
    }
    if let Some(error) = reach(recipient).refusal(&messaging_type) {
        return Err((error, true));
    }
    Ok(SentMessage {
        sender: sender.to_owned(),
        recipient: recipient.to_owned(),
        messaging_type,
        tag,
        message,
        message_id: format!("m_fake_{number}"),
        received_at: Instant::now(),
    })
}

impl SentMessage {
    pub(super) fn answer(&self) -> Value {
        json!({"recipient_id": self.recipient, "message_id": self.message_id})
    }
}
