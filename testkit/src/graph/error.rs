//! Graph's error body.

use serde_json::{Map, Value, json};

use crate::fault::Answer;

const SPOILT: &str = "(#100) Invalid parameter: ";

/// An error as Graph reports it. The HTTP status is 400 whatever the code: clients go by code and subcode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphError {
    code: i64,
    subcode: Option<i64>,
    kind: &'static str,
    message: String,
    transient: Option<bool>,
}

impl GraphError {
    /// An error of type `OAuthException`, Graph's most frequent one.
    #[must_use]
    pub fn new(code: i64, message: &str) -> Self {
        Self {
            code,
            subcode: None,
            kind: "OAuthException",
            message: message.to_owned(),
            transient: None,
        }
    }

    /// The error with an `error_subcode`.
    #[must_use]
    pub fn subcode(mut self, subcode: i64) -> Self {
        self.subcode = Some(subcode);
        self
    }

    /// The error with `is_transient`, which Graph adds to some.
    #[must_use]
    pub fn transient(mut self, transient: bool) -> Self {
        self.transient = Some(transient);
        self
    }

    fn method(code: i64, message: &str) -> Self {
        Self {
            kind: "GraphMethodException",
            ..Self::new(code, message)
        }
    }

    /// 100: a parameter is missing.
    pub(super) fn missing(parameter: &str) -> Self {
        Self::new(100, &format!("(#100) The parameter {parameter} is required"))
    }

    /// 100: a parameter has a wrong value.
    pub(super) fn invalid(message: &str) -> Self {
        Self::new(100, &format!("(#100) {message}"))
    }

    /// 100: a batch holds an item that spoils it.
    pub(super) fn spoilt(message: &str) -> Self {
        Self::new(100, &format!("{SPOILT}{message}"))
    }

    /// Whether a test has arranged it by [`super::FakeGraph::refuse_item`].
    pub(super) fn is_spoilt(&self) -> bool {
        self.message.starts_with(SPOILT)
    }

    /// 100: the proof is missing or was made with another secret or for another token.
    pub(super) fn proof(given: bool) -> Self {
        Self::method(
            100,
            if given {
                "Invalid appsecret_proof provided in the API argument"
            } else {
                "API calls from the server require an appsecret_proof argument"
            },
        )
    }

    /// 100/33: there is no such object, or not for this token.
    pub(super) fn no_object(verb: &str, id: &str) -> Self {
        let message = format!(
            "Unsupported {verb} request. Object with ID '{id}' does not exist, cannot be loaded due to missing \
             permissions, or does not support this operation."
        );
        Self::method(100, &message).subcode(33)
    }

    /// 190: the token is not, or no longer, valid.
    pub(super) fn token(subcode: Option<i64>) -> Self {
        let reason = match subcode {
            Some(458) => "The user has not authorized application.",
            Some(460) => "The session has been invalidated because the user changed their password.",
            Some(463) => "Session has expired.",
            _ => "The access token could not be decrypted.",
        };
        Self {
            subcode,
            ..Self::new(190, &format!("Error validating access token: {reason}"))
        }
    }

    pub(super) fn code(&self) -> i64 {
        self.code
    }

    /// The answer with this error.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let mut error = Map::new();
        let mut put = |name: &str, value: Value| drop(error.insert(name.to_owned(), value));
        put("message", self.message.clone().into());
        put("type", self.kind.into());
        put("code", self.code.into());
        if let Some(subcode) = self.subcode {
            put("error_subcode", subcode.into());
        }
        if let Some(transient) = self.transient {
            put("is_transient", transient.into());
        }
        put("fbtrace_id", "AFakeTraceIdOfGraph".into());
        Answer::json(400, &json!({"error": error}))
    }
}
