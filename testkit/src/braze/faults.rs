//! What Braze is known to answer when it does not do what was asked.
//!
//! Bodies are as recorded from Braze where a recording exists (401, and 400 of `/users/track`); the texts of 429 and 5xx
//! are not documented, so no client may rely on them.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::fault::{Answer, Fault};

/// The forms in which Braze says how long to wait.
#[derive(Debug, Clone, Copy)]
pub enum RateLimit {
    /// `x-ratelimit-retry-after`: whole seconds, in place of the other headers.
    RetryAfter(u32),
    /// `x-ratelimit-reset` as UTC seconds since 1970, the general reading.
    ResetAt(Timestamp),
    /// `x-ratelimit-reset` as seconds that remain, the reading of newer contracts on `/users/track`.
    ResetIn(u32),
    /// No header at all.
    Silent,
}

/// 429 in one of its forms.
#[must_use]
pub fn rate_limited(form: RateLimit) -> Fault {
    let answer = answer(429, "Rate limit exceeded");
    let spent = |answer: Answer| {
        answer
            .header("x-ratelimit-limit", 250_000)
            .header("x-ratelimit-remaining", 0)
    };
    Fault::Answer(match form {
        RateLimit::RetryAfter(seconds) => answer.header("x-ratelimit-retry-after", seconds),
        RateLimit::ResetAt(time) => spent(answer).header("x-ratelimit-reset", time.as_second()),
        RateLimit::ResetIn(seconds) => spent(answer).header("x-ratelimit-reset", seconds),
        RateLimit::Silent => answer,
    })
}

/// 400 with a message: permanent, for instance `Mismatched Message Type`.
#[must_use]
pub fn bad_request(message: &str) -> Fault {
    Fault::Answer(answer(400, message))
}

/// 401: unknown key, key of another workspace or wrong instance. The real service repeats the key, too.
#[must_use]
pub fn unauthorized() -> Fault {
    Fault::Answer(invalid_key("non-existent"))
}

/// 403: the key lacks the permission, or the account is inactive.
#[must_use]
pub fn forbidden() -> Fault {
    Fault::Answer(answer(403, "Access Denied"))
}

/// 404: a wrong address.
#[must_use]
pub fn not_found() -> Fault {
    Fault::Answer(answer(404, "Not Found"))
}

/// 413: the body is too large, whatever its size.
#[must_use]
pub fn too_large() -> Fault {
    Fault::Answer(answer(413, "Request Entity Too Large"))
}

/// 500, 502, 503 or 504 from the load balancer, in HTML.
#[must_use]
pub fn unavailable(status: u16) -> Fault {
    Fault::Answer(Answer::html(
        status,
        "<html><body><h1>Server Error</h1></body></html>",
    ))
}

/// Processed, but the answer's `message` is not `success`.
#[must_use]
pub fn unexpected_message(message: &str) -> Fault {
    Fault::ProcessedThen(answer(201, message))
}

/// Processed, but the answer's body is not JSON.
#[must_use]
pub fn not_json() -> Fault {
    Fault::ProcessedThen(Answer::html(201, "<html><body>OK</body></html>"))
}

/// Not processed and never answered; the connection is closed after `duration`.
#[must_use]
pub fn timeout(duration: Duration) -> Fault {
    Fault::Silence(duration)
}

pub(super) fn invalid_key(key: &str) -> Answer {
    answer(401, &format!("Invalid API key: {key}"))
}

pub(super) fn answer(status: u16, message: &str) -> Answer {
    Answer::json(status, &json!({"message": message}))
}
