//! What Braze says of a request that it took.

use serde_json::Value;
use shared::json;
use shared::outbox::Reason;
use shared::personal::Personal;

use super::refusal::{OBJECT_REJECTED, ObjectError};

/// What a taken request answered.
#[derive(Debug, Default)]
pub struct Taken {
    /// Objects that were not taken although the others were.
    pub errors: Vec<ObjectError>,
    /// Of a campaign or a Canvas: what to look for in Braze's logs.
    pub dispatch_id: Option<String>,
    /// Braze warns that the Canvas is paused or archived: then nothing comes of it.
    is_without_effect: bool,
    /// May repeat what was sent, even the key.
    message: Personal<String>,
}

impl Taken {
    /// An answer that is not JSON, or not as documented, has no fields.
    pub(crate) fn read(body: &[u8]) -> Self {
        let body: Value = json::read(body).unwrap_or_default();
        let text = |name: &str| Some(body.get(name)?.as_str()?.to_owned());
        Self {
            errors: ObjectError::read_all(body.get("errors")),
            dispatch_id: text("dispatch_id"),
            is_without_effect: text("notice").is_some_and(|notice| notice.starts_with("The Canvas is ")),
            message: text("message").unwrap_or_default().into(),
        }
    }

    /// Why nothing comes of a request with one object, as a short code; `None` if something does.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        if self.is_without_effect {
            return Some(Reason::CanvasNotLive.into());
        }
        self.errors.first().map(|error| error.reason(OBJECT_REJECTED))
    }

    /// What Braze calls it.
    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_allows_and_others_refuse_is_read() {
        let body = "\u{FEFF}{\"dispatch_id\":\"d\",\"message\":\"\\ud83d\",\"n\":1e400,\"errors\":[{\"index\":\"2\"}]}";
        let taken = Taken::read(body.as_bytes());
        assert_eq!(taken.dispatch_id.as_deref(), Some("d"));
        assert_eq!(taken.errors[0].index, Some(2));
    }

    #[test]
    fn an_answer_of_another_shape_has_no_fields() {
        for body in ["", "<html>", "7", "[]", r#"{"errors":null,"dispatch_id":7}"#] {
            let taken = Taken::read(body.as_bytes());
            assert!(taken.errors.is_empty() && taken.dispatch_id.is_none(), "{body}");
        }
    }

    #[test]
    fn a_canvas_that_is_not_live_is_no_success() {
        let of = |notice: &str| {
            let body = serde_json::json!({"notice": notice, "dispatch_id": "d", "message": "success"});
            Taken::read(body.to_string().as_bytes()).refusal()
        };
        let paused = "The Canvas is paused. Resume the Canvas to ensure trigger requests will take effect.";
        assert_eq!(of(paused).as_deref(), Some("canvas_not_live"));
        assert_eq!(of("Something else."), None);
    }
}
