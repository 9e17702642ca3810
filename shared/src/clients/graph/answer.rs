//! What Graph's answers say.

use secrecy::SecretString;
use serde_json::Value;

use super::GraphError;
use crate::fbe::push::ItemError;
use crate::json::{self, Scalar};

/// A batch that Meta took in. Whether its items are good shows later, under the handles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchAccepted {
    /// To ask for the result with.
    pub handles: Vec<String>,
    /// Items that were refused at once.
    pub errors: Vec<ItemError>,
}

/// How far Meta is with a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchStatus {
    /// Whether nothing more will happen: Meta is done, or does not know the handle any more.
    pub is_finished: bool,
    /// Number of errors, of which `errors` may show only the first.
    pub errors_total: u64,
    /// Errors by item.
    pub errors: Vec<ItemError>,
    /// Ids of items that were refused.
    pub invalid: Vec<String>,
}

/// An answer that says it is fine and is not.
pub(super) fn unreadable(detail: &str) -> GraphError {
    GraphError::unreadable(reqwest::StatusCode::OK, detail)
}

/// `{"success": true}`, in which `true` is at times a string.
pub(super) fn done(answer: &Value) -> Result<(), GraphError> {
    // Some versions answer with the object that was changed instead.
    if json::member(answer, "success").boolean() == Some(false) {
        return Err(unreadable("`success` is false"));
    }
    Ok(())
}

/// The token that was made.
pub(super) fn access_token(answer: &Value) -> Result<SecretString, GraphError> {
    let token = answer.get("access_token").and_then(Value::as_str);
    let token = token.filter(|token| !token.is_empty());
    token
        .map(SecretString::from)
        .ok_or_else(|| unreadable("an answer without an access token"))
}

pub(super) fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn texts(value: Option<&Value>) -> Vec<String> {
    list(value)
        .iter()
        .filter_map(|value| Scalar::from(value).any())
        .collect()
}

fn item_error(error: &Value, item: &str) -> ItemError {
    let named = |names: &[&str]| names.iter().find_map(|name| json::member(error, name).any());
    ItemError {
        item: named(&["id", "retailer_id", "line"]).unwrap_or_else(|| item.to_owned()),
        message: named(&["message", "error_message", "summary"])
            .or_else(|| Scalar::from(error).any())
            .unwrap_or_default(),
    }
}

/// Reads the answer to `items_batch`.
pub(super) fn batch_accepted(value: &Value) -> BatchAccepted {
    BatchAccepted {
        handles: texts(value.get("handles")),
        errors: list(value.get("validation_status"))
            .iter()
            .filter_map(|item| {
                let id = json::member(item, "retailer_id").any().unwrap_or_default();
                // One entry an item, with its first error.
                list(item.get("errors")).first().map(|error| ItemError {
                    item: id.clone(),
                    ..item_error(error, &id)
                })
            })
            .collect(),
    }
}

/// Reads the answer to `check_batch_request_status`.
pub(super) fn batch_status(value: &Value) -> BatchStatus {
    let Some(first) = list(value.get("data")).first() else {
        return BatchStatus {
            is_finished: true,
            ..BatchStatus::default()
        };
    };
    let status = first.get("status").and_then(Value::as_str).unwrap_or_default();
    let errors: Vec<ItemError> = list(first.get("errors"))
        .iter()
        .map(|error| item_error(error, ""))
        .collect();
    BatchStatus {
        // Only `finished` is recorded; the others are the words that Meta's other jobs end with.
        is_finished: matches!(
            status.to_ascii_lowercase().as_str(),
            "finished" | "completed" | "complete" | "failed" | "error" | "cancelled" | "canceled"
        ),
        errors_total: json::member(first, "errors_total_count")
            .integer()
            .and_then(|total| u64::try_from(total).ok())
            .unwrap_or(errors.len() as u64),
        errors,
        invalid: texts(first.get("ids_of_invalid_requests")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn success_is_also_understood_as_text() {
        assert!(done(&json!({"success": "true"})).is_ok());
        assert!(done(&json!({"success": true})).is_ok());
        assert!(done(&json!({"success": false})).is_err());
    }

    #[test]
    fn a_batch_status_is_read_with_its_errors() {
        let status = batch_status(&json!({"data": [{"status": "finished", "errors_total_count": 9,
            "errors": [{"line": 3, "id": "belt", "message": "no image"}], "ids_of_invalid_requests": ["belt"]}]}));
        assert!(status.is_finished);
        assert_eq!(status.errors_total, 9);
        assert_eq!(status.errors[0].item, "belt");
        assert!(!batch_status(&json!({"data": [{"status": "in_progress"}]})).is_finished);
        assert!(batch_status(&json!({"data": []})).is_finished);
    }
}
