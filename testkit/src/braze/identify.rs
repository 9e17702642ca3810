//! `POST /users/identify`: an alias profile becomes a known user.
//!
//! - At most 50 pairs. The answer counts pairs, not matches: 201 even where nothing happened.
//! - No user has the external id: it is added to the alias profile.
//! - A user has it: what is missing there (attributes, aliases; events are added) moves over, and the alias
//!   profile is gone. What both have stays as it was on the known user.
//! - That user already has an alias with the same label: the two are **not** combined, and it is 201 all the same.
//! - The alias belongs to a known user already: nothing happens (our reading, the documentation is silent).
//!
//! `emails_to_identify` and `phone_numbers_to_identify` are not modelled and refused.

use serde_json::{Value, json};

use super::model::{Model, Outcome};
use super::{faults, identifier};
use crate::fault::Answer;

/// Most pairs in one request.
pub const MAX_PAIRS: usize = 50;

/// Runs a request whose credentials and size are right.
pub(super) fn process(model: &mut Model, body: &Value) -> Outcome {
    if body.get("emails_to_identify").is_some() || body.get("phone_numbers_to_identify").is_some() {
        return Outcome::refused(400, "this fake models 'aliases_to_identify' alone");
    }
    let Some(pairs) = body.get("aliases_to_identify").and_then(Value::as_array) else {
        return Outcome::refused(400, "'aliases_to_identify' must be an array");
    };
    if pairs.is_empty() {
        return Outcome::refused(400, "'aliases_to_identify' is empty");
    }
    if pairs.len() > MAX_PAIRS {
        return Outcome::refused(
            400,
            "The max number of external_ids and aliases per request was exceeded",
        );
    }
    if let Some(poison) = model.poisoned(body) {
        return Outcome::scripted(faults::answer(400, &poison));
    }
    let (mut valid, mut errors, mut refused) = (Vec::new(), Vec::new(), None);
    for (index, pair) in pairs.iter().enumerate() {
        match check(pair) {
            Ok(pair) => valid.push(pair),
            Err(kind) => {
                refused.get_or_insert_with(|| format!("aliases_to_identify[{index}]: {kind}"));
                errors.push(json!({"type": kind, "input_array": "aliases_to_identify", "index": index}));
            }
        }
    }
    let mut answer = if valid.is_empty() {
        json!({"message": "Valid data must be provided in the 'aliases_to_identify' field."})
    } else {
        json!({"message": "success", "aliases_processed": valid.len()})
    };
    if let (Some(answer), false) = (answer.as_object_mut(), errors.is_empty()) {
        answer.insert("errors".to_owned(), errors.into());
    }
    let status = if valid.is_empty() { 400 } else { 201 };
    for (external_id, label, name) in valid {
        model.profiles.identify(&external_id, &label, &name);
    }
    Outcome {
        answer: Answer::json(status, &answer),
        refused,
    }
}

fn check(pair: &Value) -> Result<(String, String, String), String> {
    let external_id = pair.get("external_id").ok_or("'external_id' is required")?;
    let alias = pair.get("user_alias").ok_or("'user_alias' is required")?;
    let (label, name) = identifier::alias(alias)?;
    Ok((identifier::external_id(external_id, "external_id")?, label, name))
}
