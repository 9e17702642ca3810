//! Reading the identifiers of one object, with their limits.

use serde_json::{Map, Value};

use super::profile::Identifier;

/// Longest `external_id` in bytes; longer ones get `EXTERNAL_USER_ID_TOO_LARGE`.
const EXTERNAL_ID_BYTES: usize = 987;
/// Longest alias name and alias label, in bytes each.
const ALIAS_BYTES: usize = 236;

/// The identifier of an object of `/users/track`. The error is the `type` for `errors[]`; only
/// `'external_id' is required` and the code for long ids are recorded from Braze, the rest says it in our words.
pub(super) fn of_object(object: &Map<String, Value>) -> Result<Identifier, String> {
    if let Some(primary) = primary(object, "external_id")? {
        return Ok(primary);
    }
    match (text(object, "email"), text(object, "phone")) {
        (Some(email), _) => Ok(Identifier::Email(email.to_owned())),
        (None, Some(phone)) => Ok(Identifier::Phone(phone.to_owned())),
        (None, None) => Err("'external_id' is required".to_owned()),
    }
}

/// The identifier of a recipient of a message. There is no recipient by phone number.
pub(super) fn of_recipient(recipient: &Map<String, Value>) -> Result<Identifier, String> {
    let email = recipient.get("email");
    let primary = primary(recipient, "external_user_id")?;
    match (primary, email) {
        (Some(primary), None) => Ok(primary),
        (None, Some(Value::String(email))) if recipient.contains_key("prioritization") => {
            Ok(Identifier::Email(email.clone()))
        }
        (None, Some(_)) => Err("an email recipient needs a text and 'prioritization'".to_owned()),
        (Some(_), Some(_)) => Err(several("external_user_id")),
        (None, None) => {
            Err("a recipient needs 'external_user_id', 'user_alias', 'braze_id' or 'email'".to_owned())
        }
    }
}

/// `user_alias` with its two parts.
pub(super) fn alias(value: &Value) -> Result<(String, String), String> {
    let part = |name: &str| -> Result<String, String> {
        let text = value.get(name).and_then(Value::as_str).unwrap_or_default();
        match text.len() {
            0 => Err(format!("'user_alias' needs a non-empty text '{name}'")),
            1..=ALIAS_BYTES => Ok(text.to_owned()),
            bytes => Err(format!("'{name}' has {bytes} bytes, the limit is {ALIAS_BYTES}")),
        }
    };
    Ok((part("alias_label")?, part("alias_name")?))
}

/// `value` as an external id.
pub(super) fn external_id(value: &Value, key: &str) -> Result<String, String> {
    match value {
        Value::String(id) if id.is_empty() => Err(format!("'{key}' is empty")),
        Value::String(id) if id.len() > EXTERNAL_ID_BYTES => Err("EXTERNAL_USER_ID_TOO_LARGE".to_owned()),
        Value::String(id) => Ok(id.clone()),
        _ => Err(format!("'{key}' must be a text")),
    }
}

fn primary(object: &Map<String, Value>, external_key: &str) -> Result<Option<Identifier>, String> {
    let keys = [external_key, "user_alias", "braze_id"];
    if keys.iter().filter(|key| object.contains_key(**key)).count() > 1 {
        return Err(several(external_key));
    }
    if let Some(value) = object.get(external_key) {
        return Ok(Some(Identifier::ExternalId(external_id(value, external_key)?)));
    }
    if let Some(value) = object.get("user_alias") {
        let (label, name) = alias(value)?;
        return Ok(Some(Identifier::Alias { label, name }));
    }
    match object.get("braze_id") {
        None => Ok(None),
        Some(Value::String(id)) if !id.is_empty() => Ok(Some(Identifier::BrazeId(id.clone()))),
        Some(_) => Err("'braze_id' must be a non-empty text".to_owned()),
    }
}

fn several(external_key: &str) -> String {
    format!("only one of '{external_key}', 'user_alias' and 'braze_id' may be given")
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str().filter(|text| !text.is_empty())
}
