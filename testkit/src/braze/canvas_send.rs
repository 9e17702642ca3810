//! `POST /canvas/trigger/send`: people enter an API-triggered Canvas, up to 50 in a request.
//!
//! - `canvas_id` must be known, else 400.
//! - Recipients are as those of a campaign, but what the steps read stands under `context` (50 KB); `trigger_properties` mean
//!   nothing here.
//! - A Canvas that is paused or archived answers 201 with a `notice`, and nobody enters.
//! - Whoever does not exist, or may not enter again, does not enter, and it is 201.

use serde_json::{Value, json};

use super::canvas::CanvasEntry;
use super::model::{Model, Outcome};
use super::recipient;
use crate::fault::Answer;

/// What Braze was seen to say of a wrong id.
const INVALID: &str = "canvas_id must be a string of the Canvas api identifier";

/// Runs a request whose credentials and size are right.
pub(super) fn process(model: &mut Model, body: &Value) -> Outcome {
    let id = body.get("canvas_id").and_then(Value::as_str).unwrap_or_default();
    let Some(canvas) = Some(id)
        .filter(|id| !id.is_empty())
        .and_then(|id| model.canvases.find(id))
    else {
        return Outcome::refused(400, INVALID);
    };
    let recipients = match recipient::read_all(body, "context", &model.options.text_attributes) {
        Ok(recipients) => recipients,
        Err(message) => return Outcome::refused(400, &message),
    };
    let dispatch_id = model.campaigns.dispatch_id();
    for recipient in recipients {
        let Some((_, braze_id)) = recipient.reach(model) else {
            continue;
        };
        if canvas.notice.is_none() {
            model.canvases.entries.push(CanvasEntry {
                dispatch_id: dispatch_id.clone(),
                canvas_id: canvas.id.clone(),
                recipient: recipient.identifier,
                braze_id,
                context: recipient.properties,
            });
        }
    }
    let mut answer = json!({"dispatch_id": dispatch_id, "message": "success"});
    if let (Some(notice), Some(answer)) = (canvas.notice, answer.as_object_mut()) {
        answer.insert("notice".to_owned(), notice.into());
    }
    Outcome::accepted(Answer::json(201, &answer))
}
