//! Errors that a chat server answers, wherever and however it says them.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use shared::whatsapp::answer::fault;

use crate::braze::rate_limit::{bounded, wait};
use crate::whatsapp::external_system::{ExternalSystemError, Received, failed};

/// Why there is no completion.
#[derive(Debug, PartialEq)]
pub(in crate::whatsapp) struct Refused {
    pub(super) error: ExternalSystemError,
    /// What of the request may be at fault; `None` = nothing that could be left out.
    pub(super) about: Option<About>,
}

/// What of a request a server may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Tools,
    Images,
    History,
    /// It does not say.
    Something,
}

impl From<ExternalSystemError> for Refused {
    fn from(error: ExternalSystemError) -> Self {
        Self { error, about: None }
    }
}

/// The error that a body holds: at its top, in the choice, or in the message.
pub(super) fn error_in(body: &Value) -> Option<&Value> {
    let places = ["/error", "/choices/0/error", "/choices/0/message/error"];
    let mut errors = places.iter().filter_map(|place| body.pointer(place));
    errors.find(|error| !error.is_null() && **error != json!({}) && **error != json!(""))
}

/// What an error means.
pub(super) fn refused(status: StatusCode, error: &Value, received: &Received, now: Timestamp) -> Refused {
    let words = words(error);
    let code = if status.is_success() {
        code(error, &words).unwrap_or(status)
    } else if words.contains("insufficient_quota") {
        // Waiting does not help.
        StatusCode::PAYMENT_REQUIRED
    } else {
        status
    };
    let headers = headers_in(error);
    let wait = wait(code, headers.as_ref().unwrap_or(&received.headers), now)
        .or_else(|| wait(code, &received.headers, now))
        .or_else(|| retry_delay(error));
    let mentions = |some: &[&str]| some.iter().any(|word| words.contains(word));
    let about = if mentions(&["tool", "function call", "function_call"]) {
        About::Tools
    } else if mentions(&["image", "vision", "multimodal", "multi-modal"]) {
        About::Images
    } else if mentions(&["context", "too long", "too many tokens", "maximum length"]) {
        About::History
    } else {
        About::Something
    };
    let about = matches!(code.as_u16(), 400 | 404 | 413 | 422).then_some(about);
    let reason = format!("external_system_{}", code.as_u16());
    let error = match code.as_u16() {
        // An error that says nothing, inside a 200.
        200..=299 => malformed("error", "was answered instead of a completion").error,
        // A limit on what is under way passes; having no credit does not.
        402 if wait.is_some() => ExternalSystemError::Transient { reason, wait },
        403 if error.pointer("/metadata/reasons").is_some() => ExternalSystemError::Rejected { reason },
        409 => ExternalSystemError::Transient { reason, wait },
        _ => failed(code, wait),
    };
    Refused { error, about }
}

/// Everything that an error says, in lower case. Not for logs: it may quote the person.
fn words(error: &Value) -> String {
    let text = match error {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.to_lowercase()
}

/// The status that an error stands for, by its code or by its words.
fn code(error: &Value, words: &str) -> Option<StatusCode> {
    let of = |name: &str| {
        let value = error.get(name)?;
        let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())?;
        StatusCode::from_u16(u16::try_from(number).ok()?).ok()
    };
    let known = || {
        let spelled: [(&str, u16); 11] = [
            ("insufficient_quota", 402),
            ("rate_limit", 429),
            ("rate limit", 429),
            ("invalid_api_key", 401),
            ("authentication_error", 401),
            ("context_length_exceeded", 400),
            ("overloaded", 503),
            ("loading", 503),
            ("unavailable", 503),
            ("server_error", 500),
            ("timed out", 504),
        ];
        let (_, code) = spelled
            .into_iter()
            .find(|(spelling, _)| words.contains(spelling))?;
        StatusCode::from_u16(code).ok()
    };
    let code = of("code").or_else(|| of("status")).or_else(|| of("statusCode"));
    code.filter(|code| code.as_u16() >= 400).or_else(known)
}

/// Gateways give the headers of the server behind them in the body.
fn headers_in(error: &Value) -> Option<HeaderMap> {
    let headers = error.pointer("/metadata/headers")?.as_object()?;
    let headers = headers.iter().filter_map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some((
            HeaderName::try_from(name).ok()?,
            HeaderValue::try_from(value).ok()?,
        ))
    });
    Some(headers.collect())
}

/// `retryDelay`, as Google's servers have it.
fn retry_delay(error: &Value) -> Option<Duration> {
    let mut details = error.get("details")?.as_array()?.iter();
    let delay = details.find_map(|detail| detail.get("retryDelay")?.as_str())?;
    let delay: SignedDuration = delay.parse().ok()?;
    Some(bounded(delay.try_into().ok()?))
}

/// An answer that cannot be used, with the field at fault.
pub(super) fn malformed(field: &str, problem: &'static str) -> Refused {
    ExternalSystemError::Malformed(fault(field, problem)).into()
}
