//! Who may call a route that is opened by a secret of ours.

use std::sync::Arc;

use http::HeaderMap;
use secrecy::SecretString;
use serde::de::DeserializeOwned;

use super::{Answer, ErrorCode, bearer, secrets_unavailable};
use crate::secrets::Secret;
use crate::telemetry;

/// What a secret says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may enter.
    Enters,
    /// Its token or signature is missing or wrong.
    Refused,
    /// The secret has no value yet that would let anyone in.
    NotFilledIn,
}

/// Judges a request by the secret; one that is refused is judged once more by a fresh one, for it may have been
/// rotated. Gives the secret that let it in.
///
/// # Errors
///
/// The answer to send instead: 401 or 503.
pub async fn admit<T: DeserializeOwned>(
    secret: &Secret<T>,
    judge: impl Fn(&T) -> Verdict,
) -> Result<Arc<T>, Answer> {
    let unavailable = |error| secrets_unavailable(&error);
    let mut judged_by = secret.get().await.map_err(unavailable)?;
    let mut verdict = judge(&judged_by);
    if verdict != Verdict::Enters
        && let Some(fresh) = secret.refresh().await.map_err(unavailable)?
    {
        verdict = judge(&fresh);
        judged_by = fresh;
    }
    match verdict {
        Verdict::Enters => Ok(judged_by),
        Verdict::Refused => {
            metrics::counter!(telemetry::TOKEN_FAILURES).increment(1);
            tracing::warn!("a request was refused: its token or signature is missing or wrong");
            Err(ErrorCode::TokenInvalid.answer())
        }
        Verdict::NotFilledIn => {
            tracing::error!("the secret that opens this route is not filled in");
            Err(ErrorCode::SecretsUnavailable.answer())
        }
    }
}

/// Judges the bearer token of a request by the tokens that open the route.
pub fn by_bearer<'a>(headers: &HeaderMap, tokens: impl Iterator<Item = &'a SecretString> + Clone) -> Verdict {
    if bearer::matches(headers, tokens.clone()) {
        Verdict::Enters
    } else if bearer::is_filled_in(tokens) {
        Verdict::Refused
    } else {
        Verdict::NotFilledIn
    }
}
