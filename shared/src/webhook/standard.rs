//! Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature` over the exact bytes.
//! (<https://www.standardwebhooks.com>)

use http::HeaderMap;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook};
use subtle::ConstantTimeEq as _;

/// How far the sender's clock and ours may be apart, in seconds; also how long a request can be replayed.
const TOLERANCE: u64 = 5 * 60;

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

/// Whether the headers sign these bytes, at most five minutes before or after `now`.
///
/// The crate's own `verify` reads the machine's clock, so the time and the signatures are compared here.
///
/// # Errors
///
/// [`KeyError`] if `secret` cannot sign anything: it is not filled in.
pub fn verify(
    secret: &SecretString,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<bool, KeyError> {
    let webhook = webhook(secret)?;
    Ok(is_signed_by(&webhook, headers, body, now).unwrap_or(false))
}

/// `None` if a header is missing or unreadable.
fn is_signed_by(webhook: &Webhook, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Option<bool> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let seconds: i64 = header(HEADER_WEBHOOK_TIMESTAMP)?.parse().ok()?;
    if seconds.abs_diff(now.as_second()) > TOLERANCE {
        return Some(false);
    }
    let expected = webhook.sign(header(HEADER_WEBHOOK_ID)?, seconds, body).ok()?;
    // A sender that rotates its key signs with both, separated by a space.
    let mut signatures = header(HEADER_WEBHOOK_SIGNATURE)?.split(' ');
    Some(signatures.any(|signature| signature.as_bytes().ct_eq(expected.as_bytes()).into()))
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

    fn now() -> Timestamp {
        "2026-11-21T10:00:00Z".parse().unwrap()
    }

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
        let signed = headers("m", now(), b"{}");
        assert_eq!(verify(&secret, &signed, b"{}", now()), Ok(true));
        assert_eq!(verify(&secret, &signed, b"{} ", now()), Ok(false));
        let another = SecretString::from("whsec_AAAA");
        assert_eq!(verify(&another, &signed, b"{}", now()), Ok(false));
        assert_eq!(verify(&secret, &HeaderMap::new(), b"{}", now()), Ok(false));
    }

    #[test]
    fn a_signature_counts_for_five_minutes_before_and_after() {
        let secret = SecretString::from(SECRET);
        for (seconds, counts) in [(0, true), (300, true), (301, false), (-300, true), (-301, false)] {
            let at = now() - jiff::SignedDuration::from_secs(seconds);
            let signed = headers("m", at, b"{}");
            assert_eq!(verify(&secret, &signed, b"{}", now()), Ok(counts), "{seconds}");
        }
    }

    #[test]
    fn one_right_signature_of_several_is_enough_and_another_version_is_none() {
        let secret = SecretString::from(SECRET);
        let mut headers = headers("m", now(), b"{}");
        let right = headers["webhook-signature"].to_str().unwrap().to_owned();
        for (signatures, counts) in [
            (format!("v1,AAAA {right}"), true),
            (format!("v1a,AAAA {right} v1,"), true),
            (right.replace("v1,", "v2,"), false),
            (format!("{right}="), false),
            ("v1,".to_owned(), false),
            (String::new(), false),
        ] {
            headers.insert(HEADER_WEBHOOK_SIGNATURE, signatures.parse().unwrap());
            assert_eq!(
                verify(&secret, &headers, b"{}", now()),
                Ok(counts),
                "{signatures}"
            );
        }
    }

    #[test]
    fn an_empty_key_opens_nothing() {
        for secret in ["", "whsec_", " ", "whsec_!"] {
            let secret = SecretString::from(secret);
            assert_eq!(verify(&secret, &HeaderMap::new(), b"", now()), Err(KeyError));
            assert_eq!(sign(&secret, "m", now(), b"").err(), Some(KeyError));
        }
    }
}
