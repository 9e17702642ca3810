//! Who may speak to the relay.

use jiff::Timestamp;
use lambda_http::http::HeaderMap;
use shared::secrets::{RelayCredentials, RelaySecret};
use shared::webhook::access::{Verdict, by_bearer};
use shared::webhook::{bearer, standard};

/// Braze: the inbound token, the current or the previous one.
pub(crate) fn inbound(headers: &HeaderMap, secret: &RelaySecret) -> Verdict {
    by_bearer(headers, secret.inbound_tokens())
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
