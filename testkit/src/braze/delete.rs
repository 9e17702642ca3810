//! `POST /users/delete`: profiles are gone, with everything on them.
//!
//! - At most 50 identifiers, and only one kind of them in a request: `external_ids`, `user_aliases` or `braze_ids`.
//! - An alias names the profile that it is on, known user or not.
//! - 201 with the number of profiles that were there. That an unknown one is no error is our reading; the documentation
//!   is silent.

use serde_json::{Value, json};

use super::model::{Model, Outcome};
use super::profile::Identifier;
use super::{faults, identifier};
use crate::fault::Answer;

/// Most identifiers in one request.
const MAX_IDENTIFIERS: usize = 50;

const KINDS: [&str; 3] = ["external_ids", "user_aliases", "braze_ids"];

/// Runs a request whose credentials and size are right.
pub(super) fn process(model: &mut Model, body: &Value) -> Outcome {
    let Some(fields) = body.as_object() else {
        return Outcome::refused(400, "the body must be an object");
    };
    let given: Vec<&str> = fields.keys().map(String::as_str).collect();
    let [kind] = given.as_slice() else {
        return Outcome::refused(400, "exactly one kind of identifier may be given");
    };
    if !KINDS.contains(kind) {
        return Outcome::refused(400, "this fake knows external_ids, user_aliases and braze_ids");
    }
    let identifiers = fields
        .get(*kind)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if identifiers.is_empty() {
        return Outcome::refused(400, "there is no identifier");
    }
    if identifiers.len() > MAX_IDENTIFIERS {
        return Outcome::refused(400, "The max number of ids per request was exceeded");
    }
    if let Some(poison) = model.poisoned(body) {
        return Outcome::scripted(faults::answer(400, &poison));
    }
    let read: Result<Vec<Identifier>, String> = identifiers.iter().map(|one| read(kind, one)).collect();
    match read {
        Err(reason) => Outcome::refused(400, &reason),
        Ok(read) => {
            let deleted = read.iter().filter(|one| model.profiles.delete(one)).count();
            let answer = json!({"deleted": deleted, "message": "success"});
            Outcome::accepted(Answer::json(201, &answer))
        }
    }
}

fn read(kind: &str, value: &Value) -> Result<Identifier, String> {
    Ok(match kind {
        "external_ids" => Identifier::ExternalId(identifier::external_id(value, "external_ids")?),
        "user_aliases" => {
            let (label, name) = identifier::alias(value)?;
            Identifier::Alias { label, name }
        }
        _ => Identifier::BrazeId(value.as_str().ok_or("a braze_id must be a text")?.to_owned()),
    })
}
