//! What was said to a third party, in words.

use serde_json::Value;

/// What came of a call.
pub(crate) fn status(status: Option<u16>) -> String {
    status.map_or_else(|| "connection closed".to_owned(), |status| status.to_string())
}

/// One line for each object of a request to Braze.
pub(crate) fn to_braze(body: &Value) -> Vec<String> {
    let objects = |name: &str| body.get(name).and_then(Value::as_array).into_iter().flatten();
    let mut lines: Vec<String> = Vec::new();
    for object in objects("attributes") {
        lines.push(attributes(object));
    }
    for event in objects("events") {
        let name = event.get("name").and_then(Value::as_str).unwrap_or_default();
        lines.push(format!("{} did {name}", who(event)));
    }
    for pair in objects("aliases_to_identify") {
        let user = pair
            .get("external_id")
            .and_then(Value::as_str)
            .unwrap_or_default();
        lines.push(format!("{} is user {user}", alias(pair)));
    }
    for recipient in objects("recipients") {
        let properties = recipient.get("trigger_properties");
        let properties = properties.map(Value::to_string).unwrap_or_default();
        lines.push(format!("to {} {properties}", who(recipient)));
    }
    lines
}

fn attributes(object: &Value) -> String {
    let written: Vec<String> = object
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| {
            !matches!(
                name.as_str(),
                "external_id" | "user_alias" | "_update_existing_only"
            )
        })
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    format!("{}: {}", who(object), written.join(", "))
}

fn who(object: &Value) -> String {
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    if let Some(user) = text("external_id").or_else(|| text("external_user_id")) {
        return format!("user {user}");
    }
    if let Some(id) = text("braze_id") {
        return format!("braze id {id}");
    }
    if let Some(phone) = text("phone") {
        return format!("phone {phone}");
    }
    alias(object)
}

fn alias(object: &Value) -> String {
    let text = |name: &str| {
        let pointer = format!("/user_alias/{name}");
        object
            .pointer(&pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    format!("alias {} {}", text("alias_label"), text("alias_name"))
}

/// A text, cut to so many characters where it is longer.
pub(crate) fn cut(text: &str, longest: usize) -> String {
    let mut short: String = text.chars().take(longest).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// A text in quotes, cut where it gets long.
pub(crate) fn quoted(text: &str) -> String {
    if text.is_empty() {
        return "(no text)".to_owned();
    }
    format!("{:?}", cut(text, 80))
}
