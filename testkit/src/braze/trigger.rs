//! `POST /campaigns/trigger/send`: one API-triggered campaign to up to 50 people.
//!
//! - `campaign_id` must be known, else 400 `Invalid Campaign ID`.
//! - Every recipient has exactly one identifier; there is none by phone number.
//! - The same person twice in one request gets one message, the last entry's.
//! - A recipient's `attributes` are written before the send.
//! - Somebody who does not exist (`send_to_existing_only` defaults to true), a campaign that is stopped, and a campaign that
//!   is not re-eligible for this person all answer 201 with a `dispatch_id`, and nobody gets a message.
//! - Nothing is idempotent: the same request twice sends twice.
//!
//! `broadcast` and `audience` are not modelled and refused: a relay never means everybody.

use serde_json::{Value, json};

use super::campaign::{Campaign, SentMessage};
use super::model::{Model, Outcome};
use super::recipient::{self, Recipient};
use crate::fault::Answer;

/// Runs a request whose credentials and size are right.
pub(super) fn process(model: &mut Model, body: &Value) -> Outcome {
    let campaign = body
        .get("campaign_id")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let Some(campaign) = Some(campaign)
        .filter(|id| !id.is_empty())
        .and_then(|id| model.campaigns.find(id))
    else {
        return Outcome::refused(400, "Invalid Campaign ID");
    };
    let recipients = match recipient::read_all(body, "trigger_properties", &model.options.text_attributes) {
        Ok(recipients) => recipients,
        Err(message) => return Outcome::refused(400, &message),
    };
    let dispatch_id = model.campaigns.dispatch_id();
    send(model, &campaign, &dispatch_id, recipients);
    Outcome::accepted(Answer::json(
        201,
        &json!({"dispatch_id": dispatch_id, "message": "success"}),
    ))
}

fn send(model: &mut Model, campaign: &Campaign, dispatch_id: &str, recipients: Vec<Recipient<'_>>) {
    let mut messages: Vec<(u64, SentMessage)> = Vec::new();
    for recipient in recipients {
        let Some((id, braze_id)) = recipient.reach(model) else {
            continue;
        };
        let message = SentMessage {
            dispatch_id: dispatch_id.to_owned(),
            campaign_id: campaign.id.clone(),
            recipient: recipient.identifier,
            braze_id,
            trigger_properties: recipient.properties,
        };
        messages.retain(|(other, _)| *other != id);
        messages.push((id, message));
    }
    for (id, message) in messages {
        let again = !model.campaigns.had.insert((campaign.id.clone(), id));
        if campaign.live && (campaign.re_eligible || !again) {
            model.sent.push(message);
        }
    }
}
