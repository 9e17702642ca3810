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

use serde_json::{Map, Value, json};

use super::campaign::{Campaign, SentMessage};
use super::model::{Model, Outcome};
use super::profile::Identifier;
use super::{attribute, identifier};
use crate::fault::Answer;

/// Most recipients in one request.
pub const MAX_RECIPIENTS: usize = 50;
/// Largest `trigger_properties`, in bytes of compact JSON. Documented as 50 KB; this is the smaller reading.
pub const MAX_TRIGGER_PROPERTIES: usize = 50_000;

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
    if body
        .get("broadcast")
        .is_some_and(|value| *value != Value::Bool(false))
        || body.get("audience").is_some()
    {
        return Outcome::refused(400, "this fake does not model 'broadcast' and 'audience'");
    }
    let recipients = body
        .get("recipients")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    if recipients.is_empty() {
        return Outcome::refused(400, "No Recipients");
    }
    if recipients.len() > MAX_RECIPIENTS {
        return Outcome::refused(
            400,
            "The max number of external_ids and aliases per request was exceeded",
        );
    }
    let common = match trigger_properties(body) {
        Ok(common) => common,
        Err(message) => return Outcome::refused(400, &message),
    };
    let mut checked = Vec::new();
    for (index, recipient) in recipients.iter().enumerate() {
        match Recipient::read(recipient, &common, &model.options.text_attributes) {
            Ok(recipient) => checked.push(recipient),
            Err(message) => return Outcome::refused(400, &format!("recipients[{index}]: {message}")),
        }
    }
    let dispatch_id = model.campaigns.dispatch_id();
    send(model, &campaign, &dispatch_id, checked);
    Outcome::accepted(Answer::json(
        201,
        &json!({"dispatch_id": dispatch_id, "message": "success"}),
    ))
}

fn send(model: &mut Model, campaign: &Campaign, dispatch_id: &str, recipients: Vec<Recipient<'_>>) {
    let mut messages: Vec<(u64, SentMessage)> = Vec::new();
    for recipient in recipients {
        let found = if recipient.creates {
            model.profiles.find_or_create(&recipient.identifier)
        } else {
            model.profiles.find(&recipient.identifier)
        };
        let Some((id, profile)) = found.and_then(|id| Some((id, model.profiles.get_mut(id)?))) else {
            continue;
        };
        if let Some(attributes) = recipient.attributes {
            attribute::apply(&mut profile.attributes, attributes);
            model.data_points += attribute::data_points(attributes);
        }
        let message = SentMessage {
            dispatch_id: dispatch_id.to_owned(),
            campaign_id: campaign.id.clone(),
            recipient: recipient.identifier,
            braze_id: profile.braze_id.clone(),
            trigger_properties: recipient.trigger_properties,
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

struct Recipient<'a> {
    identifier: Identifier,
    trigger_properties: Map<String, Value>,
    attributes: Option<&'a Map<String, Value>>,
    creates: bool,
}

impl<'a> Recipient<'a> {
    fn read(value: &'a Value, common: &Map<String, Value>, text_only: &[String]) -> Result<Self, String> {
        let members = value.as_object().ok_or("must be an object")?;
        let identifier = identifier::of_recipient(members)?;
        let attributes = match members.get("attributes") {
            None => None,
            Some(attributes) => Some(attributes.as_object().ok_or("'attributes' must be an object")?),
        };
        if let Some(attributes) = attributes {
            attribute::check(attributes, text_only)?;
        }
        let creates = match members.get("send_to_existing_only") {
            None | Some(Value::Bool(true)) => false,
            Some(Value::Bool(false)) => true,
            Some(_) => return Err("'send_to_existing_only' must be a boolean".to_owned()),
        };
        if members.contains_key("send_to_existing_only") && matches!(identifier, Identifier::Alias { .. }) {
            return Err("'send_to_existing_only' cannot be used with 'user_alias'".to_owned());
        }
        if creates && attributes.is_none_or(Map::is_empty) {
            return Err("'send_to_existing_only': false needs 'attributes'".to_owned());
        }
        let mut merged = common.clone();
        merged.extend(trigger_properties(value)?);
        Ok(Self {
            identifier,
            trigger_properties: merged,
            attributes,
            creates,
        })
    }
}

fn trigger_properties(of: &Value) -> Result<Map<String, Value>, String> {
    let Some(value) = of.get("trigger_properties") else {
        return Ok(Map::new());
    };
    let properties = value
        .as_object()
        .ok_or("'trigger_properties' must be an object")?;
    if value.to_string().len() > MAX_TRIGGER_PROPERTIES {
        return Err(format!(
            "'trigger_properties' has more than {MAX_TRIGGER_PROPERTIES} bytes"
        ));
    }
    Ok(properties.clone())
}
