//! Who may speak to the relay.

use jiff::Timestamp;
use lambda_http::http::HeaderMap;
use shared::secrets::RelaySecret;
use shared::webhook::access::{Verdict, by_bearer};
use shared::webhook::{bearer, standard};

/// Braze: the inbound token, the current or the previous one.
pub(crate) fn inbound(headers: &HeaderMap, secret: &RelaySecret) -> Verdict {
    by_bearer(headers, secret.inbound_tokens())
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
