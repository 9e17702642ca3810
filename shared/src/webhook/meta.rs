//! A `POST` from Meta, from the request to verified bytes.

use jiff::Timestamp;
use lambda_http::Request;
use secrecy::SecretString;

use super::signature::{self, SignatureError};
use super::signed_request::{self, Malformed, SignedRequest};
use super::{Answer, ErrorCode, Received, Verified, receive, secrets_unavailable};
use crate::secrets::{MetaSecret, Secret};
use crate::telemetry;

/// Accepts a request that an app secret of `secret` signs. `app_secrets` picks those that count here; if none
/// of them fits, the secret is fetched once more, for it may have been rotated.
///
/// # Errors
///
/// The answer to send instead: 401, 413 or 503.
pub async fn accept(
    request: Request,
    secret: &Secret<MetaSecret>,
    app_secrets: impl Fn(&MetaSecret) -> Vec<&SecretString>,
) -> Result<Verified, Answer> {
    let (parts, body) = receive::take(request).map_err(ErrorCode::answer)?;
    let header = parts
        .headers
        .get(signature::HEADER)
        .and_then(|value| value.to_str().ok());
    let received = Received::new(body, header);
    checked(secret, |meta| received.verify(app_secrets(meta))).await
}

/// Accepts a form whose `signed_request` any app secret of `secret` signs.
///
/// # Errors
///
/// The answer to send instead: 400, 401, 413 or 503.
pub async fn accept_signed_request(
    request: Request,
    secret: &Secret<MetaSecret>,
    now: Timestamp,
) -> Result<SignedRequest, Answer> {
    let (_, body) = receive::take(request).map_err(ErrorCode::answer)?;
    let malformed = |error: Malformed| {
        metrics::counter!(telemetry::SIGNATURE_FAILURES).increment(1);
        tracing::warn!(reason = %error, "a signed_request was refused");
        ErrorCode::SignedRequestMalformed.answer()
    };
    let received = signed_request::Received::of_form(&body).map_err(malformed)?;
    let verified = checked(secret, |meta| received.verify(meta.all_app_secrets())).await?;
    verified.read(now).map_err(malformed)
}

/// What `check` makes of the secret; if none of its app secrets fits, of the secret fetched once more, for it may have
/// been rotated.
async fn checked<T>(
    secret: &Secret<MetaSecret>,
    check: impl Fn(&MetaSecret) -> Result<T, SignatureError>,
) -> Result<T, Answer> {
    let current = secret.get().await.map_err(|error| secrets_unavailable(&error))?;
    let mut verified = check(&current);
    if matches!(verified, Err(SignatureError::Mismatch | SignatureError::NoSecret)) {
        match secret.refresh().await {
            Ok(Some(fresh)) => verified = check(&fresh),
            Ok(None) => {}
            // It may have been rotated, and we cannot know: 503, so that Meta tries again.
            Err(error) => return Err(secrets_unavailable(&error)),
        }
    }
    verified.map_err(|error| {
        if error == SignatureError::NoSecret {
            tracing::error!("the meta secret has no app secret yet: fill it in");
            return ErrorCode::SecretsUnavailable.answer();
        }
        metrics::counter!(telemetry::SIGNATURE_FAILURES).increment(1);
        tracing::warn!(reason = %error, "a webhook was refused");
        ErrorCode::SignatureInvalid.answer()
    })
}
