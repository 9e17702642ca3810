//! What values an attribute takes, and what they do to a profile.
//!
//! A value that a profile cannot hold is refused in `errors[]`. Where the documentation does not say what the REST
//! API does (texts over 255 characters, a value of another type than the dashboard fixes), the model refuses
//! too: that is the reading in which a mistake shows.

use serde_json::{Map, Value};

/// Longest text value, in characters, and longest name.
const TEXT_CHARACTERS: usize = 255;
/// Most elements of an array attribute.
const ARRAY_ELEMENTS: usize = 500;
/// Largest nested object.
const OBJECT_BYTES: usize = 100_000;

/// Keys of an attributes object that are not attributes.
const CONTROL_KEYS: [&str; 5] = [
    "external_id",
    "user_alias",
    "braze_id",
    "_update_existing_only",
    "push_token_import",
];

/// Attributes that Braze does not bill.
const FREE: [&str; 6] = [
    "country",
    "language",
    "email_subscribe",
    "push_subscribe",
    "subscription_groups",
    "time_zone",
];

/// The attributes among an object's members, names with the spaces around them stripped as Braze does.
pub(super) fn of_object(object: &Map<String, Value>) -> impl Iterator<Item = (&str, &Value)> {
    object
        .iter()
        .map(|(name, value)| (name.trim(), value))
        .filter(|(name, _)| !CONTROL_KEYS.contains(name))
}

/// Data points that sending these attributes costs, whether they change anything or not.
pub(super) fn data_points(object: &Map<String, Value>) -> usize {
    of_object(object).filter(|(name, _)| !FREE.contains(name)).count()
}

/// Refuses what no attribute can hold. `text_only`: names whose type the dashboard fixes as text.
pub(super) fn check(object: &Map<String, Value>, text_only: &[String]) -> Result<(), String> {
    if object.contains_key("_merge_objects") {
        return Err("'_merge_objects' is not modelled by this fake".to_owned());
    }
    for (name, value) in of_object(object) {
        if name.is_empty() || name.chars().count() > TEXT_CHARACTERS {
            return Err("an attribute's name has 1 to 255 characters".to_owned());
        }
        if text_only.iter().any(|fixed| fixed == name) && !(value.is_string() || value.is_null()) {
            return Err(format!(
                "the attribute '{name}' is a string, and this value is not"
            ));
        }
        check_value(name, value)?;
    }
    Ok(())
}

fn check_value(name: &str, value: &Value) -> Result<(), String> {
    let (size, limit, unit) = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => return Ok(()),
        Value::String(text) => (text.chars().count(), TEXT_CHARACTERS, "characters"),
        Value::Array(elements) => (elements.len(), ARRAY_ELEMENTS, "elements"),
        Value::Object(_) => (value.to_string().len(), OBJECT_BYTES, "bytes"),
    };
    if size > limit {
        return Err(format!(
            "the value of '{name}' has {size} {unit}, the limit is {limit}"
        ));
    }
    Ok(())
}

/// Writes the object's attributes. Null removes one; `{"inc"}`, `{"add"}` and `{"remove"}` change one in place.
pub(super) fn apply(attributes: &mut Map<String, Value>, object: &Map<String, Value>) {
    for (name, value) in of_object(object) {
        let current = attributes.get(name);
        match new_value(current, value) {
            Some(value) => drop(attributes.insert(name.to_owned(), value)),
            None => drop(attributes.remove(name)),
        }
    }
}

fn new_value(current: Option<&Value>, sent: &Value) -> Option<Value> {
    let Some(operation) = sent.as_object().filter(|object| object.len() == 1) else {
        return (!sent.is_null()).then(|| unique(sent));
    };
    if let Some(step) = operation.get("inc").and_then(Value::as_i64) {
        return Some((current.and_then(Value::as_i64).unwrap_or_default() + step).into());
    }
    let elements = || current.and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(Value::Array(added)) = operation.get("add") {
        let mut elements = elements();
        // Adding what is there moves it to the end.
        elements.retain(|element| !added.contains(element));
        elements.extend(added.iter().cloned());
        return Some(unique(&Value::Array(elements)));
    }
    if let Some(Value::Array(removed)) = operation.get("remove") {
        let mut elements = elements();
        elements.retain(|element| !removed.contains(element));
        return Some(elements.into());
    }
    Some(sent.clone())
}

/// Duplicate elements of an array collapse.
fn unique(value: &Value) -> Value {
    let Value::Array(elements) = value else {
        return value.clone();
    };
    let mut kept: Vec<Value> = Vec::with_capacity(elements.len());
    for element in elements {
        if !kept.contains(element) {
            kept.push(element.clone());
        }
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn after(start: &Value, sent: &Value) -> Value {
        let mut attributes = object(start);
        apply(&mut attributes, &object(sent));
        attributes.into()
    }

    #[test]
    fn values_keep_their_json_type_and_null_removes() {
        assert_eq!(
            after(
                &json!({"b": 1}),
                &json!({"external_id": "u", " id ": "42", "n": 42, "b": null, "e": ""})
            ),
            json!({"id": "42", "n": 42, "e": ""})
        );
    }

    #[test]
    fn operations_change_in_place() {
        assert_eq!(
            after(&json!({"n": 2}), &json!({"n": {"inc": -1}, "m": {"inc": 5}})),
            json!({"n": 1, "m": 5})
        );
        assert_eq!(
            after(&json!({"a": ["x", "y"]}), &json!({"a": {"add": ["x", "z"]}})),
            json!({"a": ["y", "x", "z"]})
        );
        assert_eq!(
            after(&json!({"a": ["x", "y"]}), &json!({"a": {"remove": ["x"]}})),
            json!({"a": ["y"]})
        );
        assert_eq!(after(&json!({}), &json!({"a": ["x", "x"]})), json!({"a": ["x"]}));
    }

    #[test]
    fn every_attribute_sent_is_billed_but_identifiers_and_the_free_ones_are_not() {
        let sent = object(&json!({"external_id": "u", "messenger_id": "1", "old": null, "language": "es"}));
        assert_eq!(data_points(&sent), 2);
    }

    #[test]
    fn what_an_attribute_cannot_hold_is_refused() {
        let fixed = ["messenger_id".to_owned()];
        let long = |length| "ä".repeat(length);
        assert!(check(&object(&json!({"a": long(255), "messenger_id": "1"})), &fixed).is_ok());
        assert!(check(&object(&json!({"messenger_id": null})), &fixed).is_ok());
        assert!(check(&object(&json!({"a": long(256)})), &fixed).is_err());
        assert!(check(&object(&json!({"messenger_id": 1})), &fixed).is_err());
        assert!(check(&object(&json!({"a": vec![0; 501]})), &fixed).is_err());
    }
}
