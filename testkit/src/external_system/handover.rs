//! Messages as they were handed over, and what is checked of them.

use jiff::Timestamp;
use serde_json::{Value, json};
use url::Url;

/// How the external system was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `POST /messages`, signed by Standard Webhooks.
    Webhook,
    /// `POST /v1/chat/completions`, OpenAI's form.
    ChatCompletion,
}

/// One handover.
#[derive(Debug, Clone)]
pub struct Handover {
    /// How.
    pub kind: Kind,
    /// The path as sent.
    pub path: String,
    /// The body.
    pub body: Value,
    /// The `webhook-id`; chat completions have none.
    pub webhook_id: Option<String>,
    /// Whether an earlier handover had the same `webhook-id`.
    pub repeated: bool,
    /// The status answered; `None` if the connection was closed instead.
    pub status: Option<u16>,
}

impl Handover {
    /// The conversation; empty for chat completions.
    #[must_use]
    pub fn conversation_id(&self) -> &str {
        text(&self.body, "conversation_id")
    }

    /// `bot` or `human`; empty for chat completions.
    #[must_use]
    pub fn mode(&self) -> &str {
        text(&self.body, "mode")
    }

    /// The texts of the new messages in order. For chat completions: the person's since the last answer.
    #[must_use]
    pub fn texts(&self) -> Vec<&str> {
        let messages = self
            .body
            .get("messages")
            .and_then(Value::as_array)
            .map(Vec::as_slice);
        let messages = messages.unwrap_or_default();
        match self.kind {
            Kind::Webhook => messages.iter().map(|message| text(message, "text")).collect(),
            Kind::ChatCompletion => {
                let new = messages
                    .rsplit(|message| text(message, "role") == "assistant")
                    .next();
                let new = new.unwrap_or_default().iter();
                new.filter(|message| text(message, "role") == "user")
                    .map(|message| text(message, "content"))
                    .collect()
            }
        }
    }
}

fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a body is what the relay promises to external systems of the kind `webhook`.
pub(super) fn check_webhook(body: &Value) -> Result<(), String> {
    let present = |name: &str| match text(body, name) {
        "" => Err(format!("'{name}' is missing or no text")),
        value => Ok(value),
    };
    present("conversation_id")?;
    if !matches!(present("mode")?, "bot" | "human") {
        return Err("'mode' is neither 'bot' nor 'human'".to_owned());
    }
    let user = body.get("user").ok_or("'user' is missing")?;
    if ["user_id", "braze_id", "phone_number"]
        .iter()
        .all(|name| text(user, name).is_empty())
    {
        return Err("'user' names nobody".to_owned());
    }
    let messages = body
        .get("messages")
        .and_then(Value::as_array)
        .ok_or("'messages' is no list")?;
    if messages.is_empty() {
        return Err("'messages' is empty".to_owned());
    }
    for message in messages {
        if text(message, "id").is_empty() {
            return Err("a message has no 'id'".to_owned());
        }
        let media = message.get("media_urls").and_then(Value::as_array);
        if message
            .get("text")
            .is_none_or(|text| !text.is_string() && !text.is_null())
            || media.is_none()
        {
            return Err("a message lacks 'text' or 'media_urls'".to_owned());
        }
        check_time(message, "received_at")?;
    }
    for turn in body
        .get("history")
        .and_then(Value::as_array)
        .ok_or("'history' is no list")?
    {
        if !matches!(text(turn, "role"), "user" | "assistant") || turn.get("text").is_none() {
            return Err("a turn of 'history' lacks 'role' or 'text'".to_owned());
        }
        check_time(turn, "at")?;
    }
    check_time(body, "window_closes_at")?;
    Url::parse(present("reply_url")?)
        .map(drop)
        .map_err(|_| "'reply_url' is no URL".to_owned())
}

fn check_time(of: &Value, name: &str) -> Result<(), String> {
    let time = text(of, name).parse::<Timestamp>();
    time.map(drop)
        .map_err(|_| format!("'{name}' is no ISO 8601 time with a zone"))
}

/// Whether a body is a chat completion request that any OpenAI-compatible server takes.
pub(super) fn check_chat_completion(body: &Value) -> Result<(), String> {
    if text(body, "model").is_empty() {
        return Err("you must provide a model parameter".to_owned());
    }
    if body
        .get("stream")
        .is_some_and(|stream| *stream != Value::Bool(false))
    {
        return Err("this fake does not stream".to_owned());
    }
    let messages = body
        .get("messages")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    if !messages.iter().any(|message| text(message, "role") == "user") {
        return Err("'messages' holds nothing that the user said".to_owned());
    }
    for message in messages {
        if !matches!(
            text(message, "role"),
            "system" | "developer" | "user" | "assistant"
        ) {
            return Err("a message's 'role' is unknown".to_owned());
        }
        if text(message, "content").is_empty() {
            return Err("a message's 'content' is missing or empty".to_owned());
        }
    }
    Ok(())
}

/// The answer to a chat completion request.
pub(super) fn chat_completion(
    request: &Value,
    number: usize,
    content: Option<&str>,
    now: Timestamp,
) -> Value {
    json!({
        "id": format!("chatcmpl-{number}"),
        "object": "chat.completion",
        "created": now.as_second(),
        "model": text(request, "model"),
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": content, "refusal": null},
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    })
}
