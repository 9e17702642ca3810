//! `POST /users/track`: attributes, custom events and purchases, processed in that order.
//!
//! - At most 75 objects over the three arrays (the current contracts' rule), else 400.
//! - One invalid object costs itself: 201, with its place in `errors[]`. Only when all are invalid it is 400.
//! - An attributes object with an unknown `external_id` creates a profile; one with an unknown alias does so only
//!   under `_update_existing_only: false`. Events and purchases never create an alias profile.
//! - 201 means queued. The counters count what was valid, and appear only for arrays that held something valid.

use serde_json::{Map, Value, json};

use super::input::{InputArray, Rejection};
use super::model::{Model, Outcome};
use super::profile::{CustomEvent, Identifier, Profiles};
use super::{attribute, faults, identifier};
use crate::fault::Answer;

/// Most objects in one request, over all three arrays.
pub const MAX_OBJECTS: usize = 75;

const NOTHING_VALID: &str =
    "Valid data must be provided in the 'attributes', 'events', or 'purchases' fields.";
/// Longest text among an event's properties, in characters; also the longest name and key.
const TEXT_CHARACTERS: usize = 255;
const EVENT_PROPERTIES_BYTES: usize = 100_000;
const PURCHASE_PROPERTIES_BYTES: usize = 50_000;

/// Runs a request whose credentials and size are right.
pub(super) fn process(model: &mut Model, body: &Value, scripted: &[Rejection]) -> Outcome {
    let mut objects = Vec::new();
    for array in InputArray::ALL {
        match body.get(array.name()) {
            None => {}
            Some(Value::Array(sent)) => {
                objects.extend(
                    sent.iter()
                        .enumerate()
                        .map(|(index, object)| (array, index, object)),
                );
            }
            Some(_) => return Outcome::refused(400, &format!("'{}' must be an array", array.name())),
        }
    }
    if objects.len() > MAX_OBJECTS {
        return Outcome::refused(400, "Max Input Length Exceeded");
    }
    if objects.is_empty() {
        return Outcome::refused(400, NOTHING_VALID);
    }
    if let Some(poison) = model.poisoned(body) {
        return Outcome::scripted(faults::answer(400, &poison));
    }

    let (mut valid, mut errors, mut unscripted) = (Vec::new(), Vec::new(), None);
    for (array, index, object) in objects {
        let forced = scripted
            .iter()
            .find(|rejection| (rejection.array, rejection.index) == (array, index));
        let checked = check(array, object, &model.options.text_attributes);
        let kind = match (forced, checked) {
            (Some(forced), _) => forced.kind.clone(),
            (None, Err(kind)) => {
                unscripted.get_or_insert_with(|| format!("{}[{index}]: {kind}", array.name()));
                kind
            }
            (None, Ok(identified)) => {
                valid.push((array, identified));
                continue;
            }
        };
        errors.push(json!({"type": kind, "input_array": array.name(), "index": index}));
    }

    let mut answer = Map::new();
    answer.insert("message".to_owned(), "success".into());
    for array in InputArray::ALL {
        let count = valid.iter().filter(|(valid, _)| *valid == array).count();
        if count > 0 {
            answer.insert(format!("{}_processed", array.name()), count.into());
        }
    }
    let mut status = 201;
    if valid.is_empty() {
        status = 400;
        answer.insert("message".to_owned(), NOTHING_VALID.into());
    }
    if !errors.is_empty() {
        answer.insert("errors".to_owned(), errors.into());
    }
    for (array, object) in valid {
        model.data_points += match array {
            InputArray::Attributes => attribute::data_points(object.members),
            InputArray::Events | InputArray::Purchases => 1,
        };
        apply(&mut model.profiles, array, &object);
    }
    Outcome {
        answer: Answer::json(status, &answer.into()),
        refused: unscripted,
    }
}

/// A valid object and its user.
struct Identified<'a> {
    identifier: Identifier,
    members: &'a Map<String, Value>,
}

fn check<'a>(array: InputArray, object: &'a Value, text_only: &[String]) -> Result<Identified<'a>, String> {
    let members = object.as_object().ok_or("must be an object")?;
    let identifier = identifier::of_object(members)?;
    if members
        .get("_update_existing_only")
        .is_some_and(|value| !value.is_boolean())
    {
        return Err("'_update_existing_only' must be a boolean".to_owned());
    }
    match array {
        InputArray::Attributes => attribute::check(members, text_only)?,
        InputArray::Events => {
            check_text(members, "name")?;
            check_time(members)?;
            check_properties(members, EVENT_PROPERTIES_BYTES)?;
        }
        InputArray::Purchases => {
            check_text(members, "product_id")?;
            check_text(members, "currency")?;
            check_time(members)?;
            if !members.get("price").is_some_and(Value::is_number) {
                return Err("'price' is required".to_owned());
            }
            if !members
                .get("quantity")
                .is_none_or(|value| matches!(value.as_u64(), Some(1..=100)))
            {
                return Err("'quantity' is a whole number up to 100".to_owned());
            }
            check_properties(members, PURCHASE_PROPERTIES_BYTES)?;
        }
    }
    Ok(Identified { identifier, members })
}

fn check_text(members: &Map<String, Value>, key: &str) -> Result<(), String> {
    let text = members.get(key).and_then(Value::as_str).unwrap_or_default();
    match text.chars().count() {
        0 => Err(format!("'{key}' is required")),
        1..=TEXT_CHARACTERS => Ok(()),
        _ => Err(format!("'{key}' has more than {TEXT_CHARACTERS} characters")),
    }
}

/// `time` is required on every event and purchase, as ISO 8601 with a zone.
fn check_time(members: &Map<String, Value>) -> Result<(), String> {
    let time = members
        .get("time")
        .and_then(Value::as_str)
        .ok_or("'time' is required")?;
    time.parse::<jiff::Timestamp>()
        .map(drop)
        .map_err(|_| "'time' is not an ISO 8601 time with a zone".to_owned())
}

fn check_properties(members: &Map<String, Value>, limit: usize) -> Result<(), String> {
    let Some(properties) = members.get("properties") else {
        return Ok(());
    };
    let named = properties.as_object().ok_or("'properties' must be an object")?;
    if properties.to_string().len() > limit {
        return Err(format!("'properties' has more than {limit} bytes"));
    }
    for (key, value) in named {
        if key.is_empty() || key.starts_with('$') || key.chars().count() > TEXT_CHARACTERS {
            return Err(format!("'{key}' cannot name a property"));
        }
        if matches!(key.as_str(), "time" | "event_name") {
            return Err(format!("the property '{key}' is reserved"));
        }
        if value
            .as_str()
            .is_some_and(|text| text.chars().count() > TEXT_CHARACTERS)
        {
            return Err(format!(
                "the property '{key}' has more than {TEXT_CHARACTERS} characters"
            ));
        }
    }
    Ok(())
}

fn apply(profiles: &mut Profiles, array: InputArray, object: &Identified<'_>) {
    let only_existing = object
        .members
        .get("_update_existing_only")
        .and_then(Value::as_bool);
    let by_alias = matches!(object.identifier, Identifier::Alias { .. });
    let creates = match array {
        InputArray::Attributes => !only_existing.unwrap_or(by_alias),
        InputArray::Events | InputArray::Purchases => !by_alias && only_existing != Some(true),
    };
    let found = if creates {
        profiles.find_or_create(&object.identifier)
    } else {
        profiles.find(&object.identifier)
    };
    let Some(profile) = found.and_then(|id| profiles.get_mut(id)) else {
        return;
    };
    let text = |key: &str| {
        object
            .members
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    match array {
        InputArray::Attributes => attribute::apply(&mut profile.attributes, object.members),
        InputArray::Events => profile.events.push(CustomEvent {
            name: text("name"),
            time: text("time"),
            properties: object
                .members
                .get("properties")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
        }),
        InputArray::Purchases => profile.purchases.push(object.members.clone().into()),
    }
}
