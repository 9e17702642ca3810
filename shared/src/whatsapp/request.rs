//! What an external system of kind `webhook` is asked.

use jiff::Timestamp;
use serde::Serialize;

use super::conversation::{Conversation, Mode, Role, Turn};

/// How many turns of what was said before are told along.
pub const HISTORY_TURNS: usize = 30;

/// What the external system is posted.
#[derive(Serialize)]
pub struct ExternalRequest<'a> {
    conversation_id: &'a str,
    mode: Mode,
    user: Identity<'a>,
    messages: Vec<Message<'a>>,
    history: Vec<Said<'a>>,
    window_closes_at: Timestamp,
    reply_url: Option<&'a str>,
}

#[derive(Serialize)]
struct Identity<'a> {
    user_id: Option<&'a str>,
    braze_id: Option<&'a str>,
    phone_number: Option<&'a str>,
    profile_name: Option<&'a str>,
    language: Option<&'a str>,
}

#[derive(Serialize)]
struct Message<'a> {
    id: &'a str,
    text: &'a str,
    media_urls: &'a [String],
    flow_response: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    product_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    catalog_id: Option<&'a str>,
    received_at: Timestamp,
}

#[derive(Serialize)]
struct Said<'a> {
    role: Role,
    text: &'a str,
    at: Timestamp,
}

impl<'a> ExternalRequest<'a> {
    /// The body for handing over `messages`. `history` is what was said before them; of it the last
    /// [`HISTORY_TURNS`] are told. Both come in their order.
    #[must_use]
    pub fn new(
        conversation: &'a Conversation,
        messages: &'a [Turn],
        history: &'a [Turn],
        reply_url: Option<&'a str>,
    ) -> Self {
        let person = &conversation.person;
        let message = |turn: &'a Turn| Message {
            id: &turn.id,
            text: &turn.content.text,
            media_urls: &turn.content.media_urls,
            flow_response: turn.content.flow_response.as_deref(),
            product_id: turn.content.product_id.as_deref(),
            catalog_id: turn.content.catalog_id.as_deref(),
            received_at: turn.at,
        };
        let said = |turn: &'a Turn| Said {
            role: turn.role,
            text: &turn.content.text,
            at: turn.at,
        };
        Self {
            conversation_id: conversation.id.as_str(),
            mode: conversation.mode,
            user: Identity {
                user_id: person.user_id.as_deref(),
                braze_id: person.braze_id.as_deref(),
                phone_number: person.phone_number.as_deref(),
                profile_name: person.profile_name.as_deref(),
                language: person.language.as_deref(),
            },
            messages: messages.iter().map(message).collect(),
            history: latest(history).iter().map(said).collect(),
            window_closes_at: conversation.window_closes_at,
            reply_url,
        }
    }
}

/// The last [`HISTORY_TURNS`] of `history`.
#[must_use]
pub fn latest(history: &[Turn]) -> &[Turn] {
    history
        .get(history.len().saturating_sub(HISTORY_TURNS)..)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::tests::{assistant, conversation, turn};

    #[test]
    fn the_request_is_the_documented_one() {
        let mut conversation = conversation();
        conversation.person.language = Some("es".to_owned());
        let mut message = turn("where is my \"order\"?");
        message.content.media_urls = vec!["https://media/1".to_owned()];
        let (messages, history) = ([message], [turn("hello"), assistant("Hi!")]);
        let request = ExternalRequest::new(
            &conversation,
            &messages,
            &history,
            Some("https://us/whatsapp/reply"),
        );
        let expected = concat!(
            r#"{"conversation_id":"user:42","mode":"bot","user":{"user_id":"42","braze_id":null,"#,
            r#""phone_number":"+15551234567","profile_name":"Ana","language":"es"},"#,
            r#""messages":[{"id":"id of where is my \"order\"?","text":"where is my \"order\"?","#,
            r#""media_urls":["https://media/1"],"flow_response":null,"received_at":"2026-11-21T11:59:00Z"}],"#,
            r#""history":[{"role":"user","text":"hello","at":"2026-11-21T11:59:00Z"},"#,
            r#"{"role":"assistant","text":"Hi!","at":"2026-11-21T11:59:00Z"}],"#,
            r#""window_closes_at":"2026-11-22T12:00:00Z","reply_url":"https://us/whatsapp/reply"}"#,
        );
        assert_eq!(serde_json::to_string(&request).unwrap(), expected);
    }

    #[test]
    fn the_history_ends_with_the_latest_turns() {
        let conversation = conversation();
        let history: Vec<_> = (0..HISTORY_TURNS + 5)
            .map(|number| turn(&number.to_string()))
            .collect();
        let request = serde_json::to_value(ExternalRequest::new(&conversation, &[], &history, None)).unwrap();
        let told = request["history"].as_array().unwrap();
        assert_eq!(told.len(), HISTORY_TURNS);
        assert_eq!(told[0]["text"], "5");
    }
}
