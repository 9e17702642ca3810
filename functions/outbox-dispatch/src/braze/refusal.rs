//! What Braze says of the objects that it did not take.
//!
//! Its descriptions may quote the request, so of these only the documented codes are kept. The shape of an
//! error is not documented, so each is read by itself, and one that cannot be read is still an error.

use serde_json::Value;
use shared::json;

/// Braze's codes for objects at fault; no trial of the same object ends otherwise.
/// (<https://www.braze.com/docs/api/endpoints/user_data/post_user_track>)
const CODES: [&str; 16] = [
    "BAD_DEVICE_ID",
    "BAD_EMAIL_SUBSCRIPTION_STATE",
    "BAD_LOCATION_UPDATE",
    "BAD_PUSH_SUBSCRIPTION_STATE",
    "BAD_PUSH_TOKEN_APP_ID",
    "BAD_PUSH_TOKEN_IMPORT",
    "BAD_PUSH_TOKEN_STRING",
    "BAD_PUSH_TOKEN_VALUE",
    "BAD_SUBSCRIPTION_GROUP_ARRAY",
    "BAD_SUBSCRIPTION_GROUP_HASH",
    "BAD_SUBSCRIPTION_GROUP_ID",
    "BAD_SUBSCRIPTION_GROUP_STATE",
    "BLACKLISTED_EXTERNAL_USER_ID",
    "EMAIL_BAD_FORMAT",
    "EXTERNAL_USER_ID_TOO_LARGE",
    "INVALID_ATTRIBUTE_EMAIL_SUBSCRIPTION_INFO",
];

/// The code of an object that `/users/track` did not take for a reason of its own.
pub(super) const OBJECT_REJECTED: &str = "braze_object_rejected";

/// An array of a request to `/users/track`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Array {
    /// `attributes`
    Attributes,
    /// `events`
    Events,
}

/// One object that Braze did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectError {
    /// The array it is in, if it is one of ours.
    pub array: Option<Array>,
    /// Position in that array of the request.
    pub index: Option<usize>,
    /// Braze's code, if it is a documented one.
    pub code: Option<&'static str>,
}

impl ObjectError {
    /// The members of an answer's `errors`, whatever they are.
    pub(super) fn read_all(errors: Option<&Value>) -> Vec<Self> {
        match errors {
            None | Some(Value::Null | Value::Bool(false)) => Vec::new(),
            Some(Value::Array(errors)) => errors.iter().map(Self::read).collect(),
            Some(other) => vec![Self::read(other)],
        }
    }

    fn read(error: &Value) -> Self {
        let text = |name: &str| error.get(name).and_then(Value::as_str);
        let index = json::member(error, "index").integer();
        let description = error.as_str().or_else(|| text("type")).unwrap_or_default();
        Self {
            array: match text("input_array") {
                Some("attributes") => Some(Array::Attributes),
                Some("events") => Some(Array::Events),
                _ => None,
            },
            index: index.and_then(|index| usize::try_from(index).ok()),
            code: CODES.into_iter().find(|code| description.contains(code)),
        }
    }

    /// A short code for the item: `what`, and Braze's own code if there is one.
    pub(super) fn reason(&self, what: &str) -> String {
        match self.code {
            Some(code) => format!("{what}: {code}"),
            None => what.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_member_counts_whatever_it_is() {
        let errors = json!([
            {"type": "BLACKLISTED_EXTERNAL_USER_ID", "input_array": "attributes", "index": 3},
            {"type": "'external_id' is required", "input_array": "events", "index": "2"},
            {"type": "x", "input_array": "attributes", "index": null},
            {"type": "x", "input_array": "attributes", "index": -1},
            "EXTERNAL_USER_ID_TOO_LARGE", 7, null,
        ]);
        let read = ObjectError::read_all(Some(&errors));
        let places: Vec<_> = read.iter().map(|error| (error.array, error.index)).collect();
        let (attributes, events) = (Some(Array::Attributes), Some(Array::Events));
        assert_eq!(
            places,
            [
                (attributes, Some(3)),
                (events, Some(2)),
                (attributes, None),
                (attributes, None),
                (None, None),
                (None, None),
                (None, None)
            ]
        );
        assert_eq!(read[0].code, Some("BLACKLISTED_EXTERNAL_USER_ID"));
        assert_eq!(read[4].code, Some("EXTERNAL_USER_ID_TOO_LARGE"));
    }

    #[test]
    fn no_errors_are_none_and_others_than_a_list_are_one() {
        for none in [None, Some(json!(null)), Some(json!([])), Some(json!(false))] {
            assert!(ObjectError::read_all(none.as_ref()).is_empty());
        }
        assert_eq!(ObjectError::read_all(Some(&json!("wrong"))).len(), 1);
    }

    #[test]
    fn of_a_description_only_a_known_code_is_kept() {
        let error = ObjectError::read(&json!({"type": "'user-7' is wrong", "index": 0}));
        assert!(!format!("{error:?}").contains("user-7"));
        assert_eq!(error.reason("rejected"), "rejected");
        let error = ObjectError::read(&json!({"type": "BLACKLISTED_EXTERNAL_USER_ID: user-7"}));
        assert_eq!(error.reason("rejected"), "rejected: BLACKLISTED_EXTERNAL_USER_ID");
    }
}
