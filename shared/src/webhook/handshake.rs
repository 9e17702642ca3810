//! Meta's handshake when a callback URL is configured:
//! `GET ?hub.mode=subscribe&hub.challenge=…&hub.verify_token=…`, answered with the challenge and nothing else.
//! (<https://developers.facebook.com/docs/graph-api/webhooks/getting-started>)

use lambda_http::{Request, RequestExt};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::{Answer, ErrorCode, answer, secrets_unavailable};
use crate::secrets::{MetaSecret, Secret};

/// Answers the handshake. `expected` picks the verify token out of the secret; a token that does not match
/// forces one refresh of the secret, for it may have been rotated.
pub async fn answer(
    request: &Request,
    secret: &Secret<MetaSecret>,
    expected: impl Fn(&MetaSecret) -> &SecretString,
) -> Answer {
    let query = request.query_string_parameters();
    let challenge = query.first("hub.challenge");
    let (Some("subscribe"), Some(token)) = (query.first("hub.mode"), query.first("hub.verify_token")) else {
        return refuse("hub.mode or hub.verify_token is missing or wrong");
    };
    let mut meta = match secret.get().await {
        Ok(meta) => meta,
        Err(error) => return secrets_unavailable(&error),
    };
    if !same(expected(&meta), token) {
        match secret.refresh().await {
            Ok(Some(fresh)) => meta = fresh,
            Ok(None) => {}
            Err(error) => return secrets_unavailable(&error),
        }
    }
    let expected = expected(&meta);
    if expected.expose_secret().is_empty() {
        tracing::error!("the meta secret has no verify token yet: fill it in");
        return ErrorCode::SecretsUnavailable.answer();
    }
    match (same(expected, token), challenge) {
        (false, _) => refuse("hub.verify_token does not match the meta secret"),
        (true, None | Some("")) => ErrorCode::ChallengeMissing.answer(),
        (true, Some(challenge)) => {
            tracing::info!("the webhook is verified");
            answer::text(challenge)
        }
    }
}

fn refuse(reason: &'static str) -> Answer {
    tracing::warn!(reason, "a webhook verification was refused");
    ErrorCode::VerifyTokenInvalid.answer()
}

fn same(expected: &SecretString, given: &str) -> bool {
    expected.expose_secret().as_bytes().ct_eq(given.as_bytes()).into()
}
