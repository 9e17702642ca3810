//! Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature` over the exact bytes.
//! (<https://www.standardwebhooks.com>)

use http::HeaderMap;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook};

/// The key is missing or is not `whsec_` and base64. Says nothing of what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signing secret is not `whsec_` followed by base64")]
pub struct KeyError;

/// The headers that sign `body` as message `id` at `now`. A repetition carries the same id.
///
/// # Errors
///
/// [`KeyError`] if `secret` cannot sign.
pub fn sign(
    secret: &SecretString,
    id: &str,
    now: Timestamp,
    body: &[u8],
) -> Result<[(&'static str, String); 3], KeyError> {
    let seconds = now.as_second();
    let signature = webhook(secret)?.sign(id, seconds, body).map_err(|_| KeyError)?;
    Ok([
        (HEADER_WEBHOOK_ID, id.to_owned()),
        (HEADER_WEBHOOK_TIMESTAMP, seconds.to_string()),
        (HEADER_WEBHOOK_SIGNATURE, signature),
    ])
}

/// Whether the headers sign these bytes, not longer than five minutes ago by this machine's clock.
///
/// # Errors
///
/// [`KeyError`] if `secret` cannot sign anything: nobody has filled it in.
pub fn verify(secret: &SecretString, headers: &HeaderMap, body: &[u8]) -> Result<bool, KeyError> {
    Ok(webhook(secret)?.verify(body, headers).is_ok())
}

/// The `webhook-id`, if there is one that is not blank.
#[must_use]
pub fn id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(HEADER_WEBHOOK_ID)?.to_str().ok()?;
    (!id.trim().is_empty()).then_some(id)
}

/// Whether somebody claims to have signed.
#[must_use]
pub fn is_signed(headers: &HeaderMap) -> bool {
    headers.contains_key(HEADER_WEBHOOK_SIGNATURE)
}

fn webhook(secret: &SecretString) -> Result<Webhook, KeyError> {
    let secret = secret.expose_secret().trim();
    // An empty key signs as well, and anybody could.
    if secret.strip_prefix("whsec_").unwrap_or(secret).is_empty() {
        return Err(KeyError);
    }
    Webhook::new(secret).map_err(|_| KeyError)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn headers(id: &str, at: Timestamp, body: &[u8]) -> HeaderMap {
        let signed = sign(&SecretString::from(SECRET), id, at, body).unwrap();
        signed
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_standards_own_vector() {
        let at = Timestamp::from_second(1_649_367_553).unwrap();
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let headers = headers("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", at, body);
        let expected = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
        assert_eq!(headers["webhook-signature"], expected);
        assert_eq!(id(&headers), Some("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"));
    }

    #[test]
    fn other_bytes_another_key_or_an_old_time_do_not_verify() {
        let secret = SecretString::from(SECRET);
        let now = Timestamp::now();
        let signed = headers("m", now, b"{}");
        assert_eq!(verify(&secret, &signed, b"{}"), Ok(true));
        assert_eq!(verify(&secret, &signed, b"{} "), Ok(false));
        assert_eq!(
            verify(&SecretString::from("whsec_AAAA"), &signed, b"{}"),
            Ok(false)
        );
        assert_eq!(verify(&secret, &HeaderMap::new(), b"{}"), Ok(false));
        let old = headers("m", now - jiff::SignedDuration::from_mins(6), b"{}");
        assert_eq!(verify(&secret, &old, b"{}"), Ok(false));
    }

    #[test]
    fn an_empty_key_opens_nothing() {
        for secret in ["", "whsec_", " ", "whsec_!"] {
            let secret = SecretString::from(secret);
            assert_eq!(verify(&secret, &HeaderMap::new(), b""), Err(KeyError));
            assert_eq!(sign(&secret, "m", Timestamp::now(), b"").err(), Some(KeyError));
        }
    }
}
