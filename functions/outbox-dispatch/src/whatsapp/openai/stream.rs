//! Server-sent events, from servers that stream though they were told not to.

use serde_json::{Map, Value, json};

/// Whether a body is a stream of events, whatever its content type says.
pub(super) fn is_stream(body: &str) -> bool {
    let first = body.trim_start().split('\n').next().unwrap_or_default();
    ["data:", ":", "event:", "id:", "retry:"]
        .iter()
        .any(|field| first.starts_with(field))
}

/// The completion that the events make up; `None` if the stream was cut off before its end.
pub(super) fn completion(body: &str) -> Option<Value> {
    let mut whole = Whole::default();
    for line in body.lines() {
        let Some(data) = line.strip_prefix("data:").map(str::trim) else {
            continue;
        };
        if data == "[DONE]" {
            whole.ended = true;
            break;
        }
        if let Ok(event) = shared::json::read::<Value>(data.as_bytes()) {
            if event.get("error").is_some_and(|error| !error.is_null()) {
                return Some(event);
            }
            whole.add(event);
        }
    }
    whole.completion()
}

#[derive(Default)]
struct Whole {
    content: String,
    calls: Vec<Call>,
    finish_reason: Value,
    message: Option<Value>,
    ended: bool,
}

#[derive(Default)]
struct Call {
    id: String,
    name: String,
    arguments: String,
}

impl Whole {
    fn add(&mut self, mut event: Value) {
        let Some(choice) = event.pointer_mut("/choices/0").map(Value::take) else {
            return;
        };
        if let Some(reason) = choice.get("finish_reason").filter(|reason| !reason.is_null()) {
            self.finish_reason = reason.clone();
        }
        if let Some(message) = choice.get("message").filter(|message| message.is_object()) {
            self.message = Some(message.clone());
        }
        let Some(delta) = choice.get("delta") else { return };
        self.content.push_str(&super::text::text_of(delta.get("content")));
        for call in delta
            .get("tool_calls")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            self.add_call(call);
        }
    }

    fn add_call(&mut self, delta: &Value) {
        let text = |path: &str| delta.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let at = delta.get("index").and_then(Value::as_u64);
        let at = at
            .and_then(|at| usize::try_from(at).ok())
            .unwrap_or(self.calls.len());
        // More than any model asks for at once.
        if at >= 32 {
            return;
        }
        if self.calls.len() <= at {
            self.calls.resize_with(at + 1, Call::default);
        }
        if let Some(call) = self.calls.get_mut(at) {
            call.id.push_str(text("/id"));
            call.name.push_str(text("/function/name"));
            call.arguments.push_str(text("/function/arguments"));
        }
    }

    fn completion(self) -> Option<Value> {
        if !self.ended && self.finish_reason.is_null() {
            return None;
        }
        let message = self.message.unwrap_or_else(|| {
            let mut message = Map::from_iter([("content".to_owned(), self.content.into())]);
            let calls = self.calls.into_iter().map(|call| {
                json!({"id": call.id, "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments}})
            });
            let calls: Vec<Value> = calls.collect();
            if !calls.is_empty() {
                message.insert("tool_calls".to_owned(), calls.into());
            }
            message.into()
        });
        Some(json!({"choices": [{"message": message, "finish_reason": self.finish_reason}]}))
    }
}
