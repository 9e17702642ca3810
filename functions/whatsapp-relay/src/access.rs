//! Who may speak to the relay.

use std::sync::Arc;

use jiff::Timestamp;
use lambda_http::http::HeaderMap;
use shared::secrets::RelaySecret;
use shared::telemetry;
use shared::webhook::{Answer, ErrorCode, bearer, standard};

use crate::App;

/// What a secret says to a request.
pub(crate) enum Verdict {
    Enters,
    Refused,
    /// Nobody has filled in what would let anybody in.
    NotFilledIn,
}

impl App {
    /// Judges a request by the secret; one that is refused is judged once more by a fresh one, for it may have
    /// been rotated.
    pub(crate) async fn admit(&self, judge: impl Fn(&RelaySecret) -> Verdict) -> Result<(), Answer> {
        let unavailable = |error| telemetry::secrets_unavailable(&error);
        let current: Arc<RelaySecret> = self.secret.get().await.map_err(unavailable)?;
        let mut verdict = judge(&current);
        if !matches!(verdict, Verdict::Enters)
            && let Some(fresh) = self.secret.refresh().await.map_err(unavailable)?
        {
            verdict = judge(&fresh);
        }
        match verdict {
            Verdict::Enters => Ok(()),
            Verdict::Refused => {
                metrics::counter!(telemetry::TOKEN_FAILURES).increment(1);
                tracing::warn!("a request to the relay was refused: its token or signature is wrong");
                Err(ErrorCode::TokenInvalid.answer())
            }
            Verdict::NotFilledIn => {
                tracing::error!("the relay secret is not filled in");
                Err(ErrorCode::SecretsUnavailable.answer())
            }
        }
    }
}

/// Braze: the inbound token, the current or the previous one.
pub(crate) fn inbound(headers: &HeaderMap, secret: &RelaySecret) -> Verdict {
    if bearer::matches(headers, secret.inbound_tokens()) {
        Verdict::Enters
    } else if bearer::is_filled_in(secret.inbound_tokens()) {
        Verdict::Refused
    } else {
        Verdict::NotFilledIn
    }
}

/// The external system: its signature over these bytes, or its token.
pub(crate) fn reply(headers: &HeaderMap, body: &[u8], secret: &RelaySecret, now: Timestamp) -> Verdict {
    if bearer::matches(headers, &secret.external_system_token) {
        return Verdict::Enters;
    }
    match standard::verify(&secret.signing_secret, headers, body, now) {
        Ok(true) => Verdict::Enters,
        Err(_) if standard::is_signed(headers) => Verdict::NotFilledIn,
        _ => Verdict::Refused,
    }
}
