//! The people that a campaign or a Canvas is triggered for.

use serde_json::{Map, Value};

use super::model::Model;
use super::profile::Identifier;
use super::{attribute, identifier};

/// Most recipients in one request.
pub(super) const MAX_RECIPIENTS: usize = 50;
/// Largest properties, in bytes of compact JSON. Documented as 50 KB; this is the smaller reading.
pub(super) const MAX_PROPERTIES: usize = 50_000;

/// The recipients of a request, whose properties stand under `key`.
///
/// # Errors
///
/// What Braze's 400 says.
pub(super) fn read_all<'a>(
    body: &'a Value,
    key: &str,
    text_only: &[String],
) -> Result<Vec<Recipient<'a>>, String> {
    if body
        .get("broadcast")
        .is_some_and(|value| *value != Value::Bool(false))
        || body.get("audience").is_some()
    {
        return Err("this fake does not model 'broadcast' and 'audience'".to_owned());
    }
    let recipients = body
        .get("recipients")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    if recipients.is_empty() {
        return Err("No Recipients".to_owned());
    }
    if recipients.len() > MAX_RECIPIENTS {
        return Err("The max number of external_ids and aliases per request was exceeded".to_owned());
    }
    let common = properties(body, key)?;
    let read = |(index, recipient)| {
        Recipient::read(recipient, key, &common, text_only)
            .map_err(|message| format!("recipients[{index}]: {message}"))
    };
    recipients.iter().enumerate().map(read).collect()
}

pub(super) struct Recipient<'a> {
    pub(super) identifier: Identifier,
    /// Those of the request, with the recipient's own on top.
    pub(super) properties: Map<String, Value>,
    pub(super) attributes: Option<&'a Map<String, Value>>,
    creates: bool,
}

impl<'a> Recipient<'a> {
    fn read(
        value: &'a Value,
        key: &str,
        common: &Map<String, Value>,
        text_only: &[String],
    ) -> Result<Self, String> {
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
        merged.extend(properties(value, key)?);
        Ok(Self {
            identifier,
            properties: merged,
            attributes,
            creates,
        })
    }
}

fn properties(of: &Value, key: &str) -> Result<Map<String, Value>, String> {
    let Some(value) = of.get(key) else {
        return Ok(Map::new());
    };
    let properties = value
        .as_object()
        .ok_or_else(|| format!("'{key}' must be an object"))?;
    if value.to_string().len() > MAX_PROPERTIES {
        return Err(format!("'{key}' has more than {MAX_PROPERTIES} bytes"));
    }
    Ok(properties.clone())
}

impl Recipient<'_> {
    /// The profile that it is, with its attributes written. `None` if there is none, and none is to be made.
    pub(super) fn reach(&self, model: &mut Model) -> Option<(u64, String)> {
        let id = if self.creates {
            model.profiles.find_or_create(&self.identifier)
        } else {
            model.profiles.find(&self.identifier)
        }?;
        let profile = model.profiles.get_mut(id)?;
        if let Some(attributes) = self.attributes {
            attribute::apply(&mut profile.attributes, attributes);
            model.data_points += attribute::data_points(attributes);
        }
        Some((id, profile.braze_id.clone()))
    }
}
