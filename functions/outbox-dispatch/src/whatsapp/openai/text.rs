//! The text of a message's content.

use serde_json::Value;

/// The text of a content: a string, or the parts of it that are text. What is thought aloud has other types.
pub(super) fn text_of(content: Option<&Value>) -> String {
    let part = |part: &Value| {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
        let is_text = matches!(kind, "text" | "output_text");
        let text = part.get("text").filter(|_| is_text)?;
        text.as_str().map(str::to_owned)
    };
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().filter_map(part).collect(),
        _ => String::new(),
    }
}
