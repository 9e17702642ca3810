//! What Graph is known to answer when it does not do what was asked.

use std::time::Duration;

use super::error::GraphError;
use crate::fault::{Answer, Fault};

/// Any error, without effect.
#[must_use]
pub fn error(error: &GraphError) -> Fault {
    Fault::Answer(error.answer())
}

/// 190: the token is invalid, for instance 460 (password changed) or 463 (expired).
#[must_use]
pub fn token_invalid(subcode: i64) -> Fault {
    error(&GraphError::token(Some(subcode)))
}

/// 100: the `appsecret_proof` was made with another app secret, as after a reset at Meta.
#[must_use]
pub fn wrong_proof() -> Fault {
    error(&GraphError::proof(true))
}

/// 4 (application), 17 (user), 32 (page) or 613 (custom): called too often. HTTP 400, not 429.
#[must_use]
pub fn rate_limited(code: i64) -> Fault {
    let message = match code {
        4 => "(#4) Application request limit reached",
        17 => "(#17) User request limit reached",
        32 => "(#32) Page request limit reached",
        _ => "(#613) Calls to this api have exceeded the rate limit.",
    };
    error(&GraphError::new(code, message).transient(true))
}

/// 80014: too many catalog batches. The usage header says in how many minutes calls are taken again.
#[must_use]
pub fn catalog_rate_limited(catalog: &str, minutes: u32) -> Fault {
    let error = GraphError::new(
        80014,
        "(#80014) There have been too many calls for the batch uploads to this catalog.",
    );
    Fault::Answer(error.answer().header(
        super::options::BUSINESS_USAGE_HEADER,
        super::options::business_usage(catalog, 100, minutes),
    ))
}

/// 2: down for a moment.
#[must_use]
pub fn temporarily_down() -> Fault {
    error(
        &GraphError::new(
            2,
            "An unexpected error has occurred. Please retry your request later.",
        )
        .transient(true),
    )
}

/// 1 with advice: the batch has to be smaller.
#[must_use]
pub fn reduce_the_data() -> Fault {
    error(&reduce())
}

pub(super) fn reduce() -> GraphError {
    GraphError::new(
        1,
        "Please reduce the amount of data you're asking for, then retry your request",
    )
}

/// 1/1357046: an error that comes although the request *was* carried out, so it must not be sent again.
#[must_use]
pub fn done_in_spite_of_the_error() -> Fault {
    Fault::ProcessedThen(
        GraphError::new(1, "An unknown error occurred")
            .subcode(1_357_046)
            .answer(),
    )
}

/// 500, 502, 503 or 504, in HTML.
#[must_use]
pub fn unavailable(status: u16) -> Fault {
    Fault::Answer(Answer::html(
        status,
        "<html><body>Sorry, something went wrong.</body></html>",
    ))
}

/// Carried out, but the body is not JSON.
#[must_use]
pub fn not_json() -> Fault {
    Fault::ProcessedThen(Answer::html(200, "<html><body>OK</body></html>"))
}

/// Not carried out and never answered; the connection is closed after `duration`.
#[must_use]
pub fn timeout(duration: Duration) -> Fault {
    Fault::Silence(duration)
}
