//! External systems of kind `openai`: any OpenAI-compatible `/chat/completions`.
//! (<https://platform.openai.com/docs/api-reference/chat/create>)

use serde::Serialize;
use serde_json::Value;

use shared::json;
use shared::whatsapp::answer::{Answer, AnswerError, MAX_ANSWER_BYTES, fault, latest};
use shared::whatsapp::conversation::{Role, Turn};
use shared::whatsapp::message::Content;

/// The most that is told of what was said before, in bytes: some thousand tokens, which every model's context
/// has room for beside the prompt and the messages.
const MAX_HISTORY_BYTES: usize = 24_000;

/// The body of a request.
#[derive(Serialize)]
pub(super) struct ChatRequest<'a> {
    model: &'a str,
    messages: Vec<ChatMessage>,
}

#[derive(Serialize)]
struct ChatMessage {
    role: &'static str,
    content: String,
}

impl<'a> ChatRequest<'a> {
    /// The body for answering `messages`: the system prompt, what was said before (the latest of it, as far as
    /// there is room), and each message, in order.
    #[must_use]
    pub(super) fn new(model: &'a str, system_prompt: &str, messages: &[Turn], history: &[Turn]) -> Self {
        let system = ChatMessage {
            role: "system",
            content: system_prompt.to_owned(),
        };
        let said = remembered(history).into_iter().chain(messages.iter().map(said));
        Self {
            model,
            messages: std::iter::once(system).chain(said).collect(),
        }
    }
}

fn said(turn: &Turn) -> ChatMessage {
    ChatMessage {
        role: match turn.role {
            Role::User => "user",
            Role::Assistant => "assistant",
        },
        content: words(&turn.content),
    }
}

/// The latest of `history` that there is room for, in order.
fn remembered(history: &[Turn]) -> Vec<ChatMessage> {
    let mut room = MAX_HISTORY_BYTES;
    let mut remembered: Vec<ChatMessage> = latest(history)
        .iter()
        .rev()
        .map(said)
        .map_while(|message| {
            room = room.checked_sub(message.content.len())?;
            Some(message)
        })
        .collect();
    remembered.reverse();
    remembered
}

/// The content in words: what is no text follows it in lines of their own, since not every model takes
/// pictures.
fn words(content: &Content) -> String {
    let mut lines = Vec::new();
    if !content.text.trim().is_empty() {
        lines.push(content.text.clone());
    }
    lines.extend(
        content
            .media_urls
            .iter()
            .map(|url| format!("[attachment: {url}]")),
    );
    if let Some(form) = &content.flow_response {
        lines.push(format!("[form: {form}]"));
    }
    if let Some(product) = &content.product_id {
        lines.push(format!("[about product: {product}]"));
    }
    lines.join("\n")
}

/// Reads the answer: `choices[0].message.content`, as text or as a list of text parts.
///
/// # Errors
///
/// [`AnswerError`] if there is no text, the model refused, or a filter took the text away.
pub(super) fn parse_completion(body: &[u8]) -> Result<Answer, AnswerError> {
    let body: Value = json::read(body).map_err(|_| fault("body", "is not JSON"))?;
    if body.get("error").is_some_and(|error| !error.is_null()) {
        return Err(fault("error", "was answered instead of a completion"));
    }
    let choice = body
        .pointer("/choices/0")
        .ok_or_else(|| fault("choices", "must have at least one"))?;
    if choice.get("finish_reason").and_then(Value::as_str) == Some("content_filter") {
        return Err(fault(
            "choices[0].finish_reason",
            "says that a filter took the text away",
        ));
    }
    let message = choice
        .get("message")
        .ok_or_else(|| fault("choices[0].message", "is missing"))?;
    if message
        .get("refusal")
        .and_then(Value::as_str)
        .is_some_and(|refusal| !refusal.trim().is_empty())
    {
        return Err(fault("choices[0].message.refusal", "says that the model refused"));
    }
    let field = "choices[0].message.content";
    let text = match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts
            .iter()
            .filter_map(|part| part.get("text").and_then(Value::as_str))
            .collect(),
        _ => return Err(fault(field, "is missing")),
    };
    if text.trim().is_empty() {
        return Err(fault(field, "must not be blank"));
    }
    if text.len() > MAX_ANSWER_BYTES {
        return Err(fault(field, "must not be longer than 64,000 bytes"));
    }
    Ok(Answer::of(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::tests::{assistant, turn};

    #[test]
    fn history_and_messages_become_chat_messages() {
        let mut media = turn("look");
        media.content.media_urls = vec!["https://media/1".to_owned()];
        let mut form = turn("");
        form.content.flow_response = Some("{\"size\":\"L\"}".to_owned());
        let messages = [media, form];
        let history = [turn("hello"), assistant("Hi!")];
        let request = ChatRequest::new("gpt-x", "Be kind.", &messages, &history);
        let expected = serde_json::json!({
            "model": "gpt-x",
            "messages": [
                { "role": "system", "content": "Be kind." },
                { "role": "user", "content": "hello" },
                { "role": "assistant", "content": "Hi!" },
                { "role": "user", "content": "look\n[attachment: https://media/1]" },
                { "role": "user", "content": "[form: {\"size\":\"L\"}]" },
            ]
        });
        assert_eq!(serde_json::to_value(request).unwrap(), expected);
    }

    #[test]
    fn the_history_has_an_end() {
        let long = "x".repeat(MAX_HISTORY_BYTES / 2);
        let history = [turn("first"), assistant(&long), turn(&long), assistant("")];
        let request = ChatRequest::new("gpt-x", "Be kind.", &[turn("and?")], &history);
        let lengths: Vec<_> = request
            .messages
            .iter()
            .map(|message| message.content.len())
            .collect();
        assert_eq!(lengths, [8, long.len(), long.len(), 0, 4]);
    }

    #[test]
    fn a_completion_is_one_reply() {
        let body = br#"{"choices":[{"index":0,"message":{"role":"assistant","content":"Hi!","refusal":null},"finish_reason":"stop"}]}"#;
        assert_eq!(parse_completion(body), Ok(Answer::of("Hi!")));
        let parts = br#"{"choices":[{"message":{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}}]}"#;
        assert_eq!(parse_completion(parts), Ok(Answer::of("ab")));
    }

    #[test]
    fn what_json_allows_and_others_refuse_is_read() {
        let body =
            "\u{FEFF}{\"choices\":[{\"message\":{\"content\":\"see you \\ud83d\",\"\\ude00\":1e400}}]}";
        assert_eq!(
            parse_completion(body.as_bytes()),
            Ok(Answer::of("see you \u{FFFD}"))
        );
    }

    #[test]
    fn what_is_no_answer_names_the_field() {
        for (body, expected) in [
            ("nope", "`body` is not JSON"),
            (
                r#"{"error":{"message":"quota"}}"#,
                "`error` was answered instead of a completion",
            ),
            (r#"{"choices":[]}"#, "`choices` must have at least one"),
            (r#"{"choices":[{}]}"#, "`choices[0].message` is missing"),
            (
                r#"{"choices":[{"message":{"content":null}}]}"#,
                "`choices[0].message.content` is missing",
            ),
            (
                r#"{"choices":[{"message":{"content":" "}}]}"#,
                "`choices[0].message.content` must not be blank",
            ),
            (
                r#"{"choices":[{"message":{"content":null,"refusal":"I cannot"}}]}"#,
                "`choices[0].message.refusal` says that the model refused",
            ),
            (
                r#"{"choices":[{"message":{"content":"x"},"finish_reason":"content_filter"}]}"#,
                "`choices[0].finish_reason` says that a filter took the text away",
            ),
        ] {
            assert_eq!(
                parse_completion(body.as_bytes()).unwrap_err().to_string(),
                expected,
                "{body}"
            );
        }
    }
}
