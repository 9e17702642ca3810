//! Who may speak to the relay.

use std::sync::Arc;

use jiff::Timestamp;
use lambda_http::http::HeaderMap;
use shared::secrets::{RelayCredentials, RelaySecret};
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
    /// been rotated. Gives the secret that let it in.
    pub(crate) async fn admit(
        &self,
        judge: impl Fn(&RelaySecret) -> Verdict,
    ) -> Result<Arc<RelaySecret>, Answer> {
        let unavailable = |error| telemetry::secrets_unavailable(&error);
        let mut secret: Arc<RelaySecret> = self.secret.get().await.map_err(unavailable)?;
        let mut verdict = judge(&secret);
        if !matches!(verdict, Verdict::Enters)
            && let Some(fresh) = self.secret.refresh().await.map_err(unavailable)?
        {
            verdict = judge(&fresh);
            secret = fresh;
        }
        match verdict {
            Verdict::Enters => Ok(secret),
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

/// An external system: its signature over these bytes, or its token. Which one it is decides on the conversations that
/// it may write into ([`opens`]).
pub(crate) fn reply(headers: &HeaderMap, body: &[u8], secret: &RelaySecret, now: Timestamp) -> Verdict {
    // All are tried, so that the time does not tell which one was close.
    let verdicts = secret
        .all_credentials()
        .map(|credentials| judge(headers, body, credentials, now));
    verdicts.fold(Verdict::Refused, |best, verdict| match (best, verdict) {
        (Verdict::Enters, _) | (_, Verdict::Enters) => Verdict::Enters,
        (Verdict::NotFilledIn, _) | (_, Verdict::NotFilledIn) => Verdict::NotFilledIn,
        (Verdict::Refused, Verdict::Refused) => Verdict::Refused,
    })
}

/// Whether what let a request in are these credentials.
pub(crate) fn opens(
    headers: &HeaderMap,
    body: &[u8],
    credentials: RelayCredentials<'_>,
    now: Timestamp,
) -> bool {
    matches!(judge(headers, body, credentials, now), Verdict::Enters)
}

fn judge(headers: &HeaderMap, body: &[u8], credentials: RelayCredentials<'_>, now: Timestamp) -> Verdict {
    if bearer::matches(headers, credentials.external_system_token) {
        return Verdict::Enters;
    }
    match standard::verify(credentials.signing_secret, headers, body, now) {
        Ok(true) => Verdict::Enters,
        Err(_) if standard::is_signed(headers) => Verdict::NotFilledIn,
        _ => Verdict::Refused,
    }
}
