//! What a chat server is posted: the form that the strictest of them takes.
//!
//! One system message first; then user and assistant by turns, beginning and ending with the user, none of them blank.
//! Only fields that every server knows.

use serde::Serialize;
use serde_json::{Value, json};

use shared::whatsapp::conversation::{Role, Turn};
use shared::whatsapp::message::Content;
use shared::whatsapp::request::latest;

/// The most that is told of what was said before, in bytes: some thousand tokens, which every model's context
/// has room for beside the prompt and the messages.
const MAX_HISTORY_BYTES: usize = 24_000;

/// What media are no pictures, by the ends of their addresses.
const NO_PICTURES: [&str; 22] = [
    "aac", "amr", "m4a", "mp3", "oga", "ogg", "opus", "wav", "3gp", "avi", "mov", "mp4", "mpeg", "mpg",
    "webm", "csv", "doc", "docx", "pdf", "ppt", "txt", "xls",
];

/// What may be left out of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct With {
    pub(super) tools: bool,
    pub(super) images: bool,
    pub(super) history: bool,
}

/// The body of a request.
#[derive(Serialize)]
pub(in crate::whatsapp) struct ChatRequest<'a> {
    model: &'a str,
    messages: Vec<Value>,
    // Some gateways stream where it is left out.
    stream: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
}

/// A message of one side, made of neighbouring turns.
struct Said {
    role: Role,
    text: String,
    images: Vec<String>,
}

impl<'a> ChatRequest<'a> {
    /// The body for answering `messages`: the system prompt, what was said before (the latest of it, as far as
    /// there is room), and the messages.
    pub(super) fn new(
        model: &'a str,
        system_prompt: &str,
        messages: &[Turn],
        history: &[Turn],
        tools: Vec<Value>,
        with: With,
    ) -> Self {
        let before = if with.history {
            remembered(history)
        } else {
            Vec::new()
        };
        let new = messages.iter().map(|turn| said(turn, with.images));
        let mut all: Vec<Said> = Vec::new();
        for one in before.into_iter().chain(new) {
            match all.last_mut() {
                Some(last) if last.role == one.role => last.join(one),
                None if one.role == Role::Assistant => {}
                _ => all.push(one),
            }
        }
        let system = json!({"role": "system", "content": system_prompt});
        Self {
            model,
            messages: std::iter::once(system)
                .chain(all.into_iter().map(Said::message))
                .collect(),
            stream: false,
            tools: if with.tools { tools } else { Vec::new() },
        }
    }

    /// Adds what the model called, as received, and what came of it.
    pub(super) fn add_results(&mut self, called: Value, results: Vec<(String, String)>) {
        self.messages.push(called);
        for (id, content) in results {
            self.messages
                .push(json!({"role": "tool", "tool_call_id": id, "content": content}));
        }
    }
}

impl Said {
    fn join(&mut self, other: Self) {
        self.text.push_str("\n\n");
        self.text.push_str(&other.text);
        self.images.extend(other.images);
    }

    fn message(self) -> Value {
        let role = match self.role {
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        // A list only where there is a picture: not every server takes one.
        if self.images.is_empty() {
            return json!({"role": role, "content": self.text});
        }
        let images = self.images.into_iter();
        let images = images.map(|url| json!({"type": "image_url", "image_url": {"url": url}}));
        let mut parts: Vec<Value> = images.collect();
        if !self.text.trim().is_empty() {
            parts.insert(0, json!({"type": "text", "text": self.text}));
        }
        json!({"role": role, "content": parts})
    }
}

fn said(turn: &Turn, with_images: bool) -> Said {
    let urls = turn.content.media_urls.iter();
    let (images, other): (Vec<&String>, Vec<&String>) = urls.partition(|url| with_images && is_picture(url));
    Said {
        role: turn.role,
        text: words(&turn.content, &other),
        images: images.into_iter().cloned().collect(),
    }
}

/// Braze tells no media types. What is no known other kind may be a picture.
fn is_picture(url: &str) -> bool {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    let end = name.rsplit_once('.').map_or("", |(_, end)| end);
    url.starts_with("https://") && !NO_PICTURES.iter().any(|kind| end.eq_ignore_ascii_case(kind))
}

/// The latest of `history` that there is room for, in order and beginning with the person.
fn remembered(history: &[Turn]) -> Vec<Said> {
    let mut room = MAX_HISTORY_BYTES;
    let mut remembered: Vec<Said> = latest(history)
        .iter()
        .rev()
        // Pictures of earlier messages may be gone.
        .map(|turn| said(turn, false))
        .filter(|said| !said.text.trim().is_empty())
        .map_while(|said| {
            room = room.checked_sub(said.text.len())?;
            Some(said)
        })
        .collect();
    remembered.reverse();
    remembered
}

/// The content in words: what is no text follows it in lines of their own.
fn words(content: &Content, media_urls: &[&String]) -> String {
    let mut lines = Vec::new();
    if !content.text.trim().is_empty() {
        lines.push(content.text.clone());
    }
    lines.extend(media_urls.iter().map(|url| format!("[attachment: {url}]")));
    if let Some(form) = &content.flow_response {
        lines.push(format!("[form: {form}]"));
    }
    if let Some(product) = &content.product_id {
        lines.push(format!("[about product: {product}]"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatsapp::tests::{assistant, turn};

    const ALL: With = With {
        tools: true,
        images: true,
        history: true,
    };

    fn request(messages: &[Turn], history: &[Turn], with: With) -> Value {
        json!(ChatRequest::new(
            "gpt-x",
            "Be kind.",
            messages,
            history,
            Vec::new(),
            with
        ))
    }

    fn roles(request: &Value) -> Vec<&str> {
        let messages = request["messages"].as_array().unwrap().iter();
        messages
            .map(|message| message["role"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn history_and_messages_become_turns_of_either_side() {
        let mut media = turn("look");
        media.content.media_urls = vec!["https://media/1.pdf".to_owned()];
        let mut form = turn("");
        form.content.flow_response = Some("{\"size\":\"L\"}".to_owned());
        let history = [
            assistant("Welcome!"),
            turn("hello"),
            assistant("Hi!"),
            assistant("Anything?"),
        ];
        let expected = json!({
            "model": "gpt-x",
            "messages": [
                { "role": "system", "content": "Be kind." },
                { "role": "user", "content": "hello" },
                { "role": "assistant", "content": "Hi!\n\nAnything?" },
                { "role": "user", "content": "look\n[attachment: https://media/1.pdf]\n\n[form: {\"size\":\"L\"}]" },
            ],
            "stream": false,
        });
        assert_eq!(request(&[media, form], &history, ALL), expected);
    }

    #[test]
    fn the_history_has_an_end_and_begins_with_the_person() {
        let long = "x".repeat(MAX_HISTORY_BYTES / 2);
        let history = [turn("first"), assistant(&long), turn(&long), assistant("")];
        let cut = request(&[turn("and?")], &history, ALL);
        assert_eq!(roles(&cut), ["system", "user"]);
        assert!(cut["messages"][1]["content"].as_str().unwrap().len() > long.len());
        let without = With {
            history: false,
            ..ALL
        };
        assert_eq!(
            request(&[turn("and?")], &history, without)["messages"][1]["content"],
            "and?"
        );
    }

    #[test]
    fn pictures_go_along_only_where_there_are_some() {
        let mut photo = turn("what is this?");
        photo.content.media_urls = vec![
            "https://media/1?sig=a.pdf".to_owned(),
            "https://media/2.OGG".to_owned(),
        ];
        let messages = [photo];
        let with = request(&messages, &[], ALL);
        let parts = json!([
            {"type": "text", "text": "what is this?\n[attachment: https://media/2.OGG]"},
            {"type": "image_url", "image_url": {"url": "https://media/1?sig=a.pdf"}},
        ]);
        assert_eq!(with["messages"][1]["content"], parts);
        let without = request(&messages, &[], With { images: false, ..ALL });
        assert!(without["messages"][1]["content"].is_string());
        assert!(request(&[turn("hi")], &messages, ALL)["messages"][1]["content"].is_string());
    }
}
