//! Meta's `X-Hub-Signature-256`: HMAC-SHA256 of the exact bytes that were posted, under the app secret.
//!
//! Meta computes the signature over its escaped form of the payload (`\u00e9`, `\/`), and those are the
//! bytes on the wire. So the bytes are taken once, checked, and the *same* bytes are parsed; they are never
//! parsed and written again. The legacy SHA-1 header is not looked at.
//! (<https://developers.facebook.com/docs/graph-api/webhooks/getting-started>)

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::personal::Personal;

/// The header that carries the signature, in the spelling HTTP libraries look up without regard to case.
pub const HEADER: &str = "x-hub-signature-256";

const PREFIX: &str = "sha256=";

/// A body as it arrived, with the signature that came along. Nothing is known of it yet.
#[derive(Debug)]
pub struct Received {
    body: Personal<Bytes>,
    signature: Personal<Option<String>>,
}

/// A body whose signature was right. Made only by [`Received::verify`].
#[derive(Debug, Clone)]
pub struct Verified {
    body: Personal<Bytes>,
}

/// Why a body was refused. Says nothing of the value that would have been right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There was no `X-Hub-Signature-256`.
    #[error("the X-Hub-Signature-256 header is missing")]
    Missing,
    /// The header is not `sha256=` and 64 lower-case hexadecimal digits.
    #[error("the X-Hub-Signature-256 header is not `sha256=` and 64 lower-case hexadecimal digits")]
    Malformed,
    /// No app secret that we hold makes this signature for this body.
    #[error("the signature does not belong to this body under any app secret that is configured")]
    Mismatch,
    /// No app secret is configured, so nothing can be accepted.
    #[error("no app secret is configured")]
    NoSecret,
}

impl Received {
    /// Takes the bytes as posted (base64 already undone) and the header's value, if any.
    #[must_use]
    pub fn new(body: impl Into<Bytes>, signature: Option<&str>) -> Self {
        Self {
            body: Personal(body.into()),
            signature: signature.map(str::to_owned).into(),
        }
    }

    /// Accepts the body if one of `app_secrets` signs it. The comparison takes the same time for every
    /// signature of the right form.
    ///
    /// # Errors
    ///
    /// A [`SignatureError`], in the order of the cheapest check first.
    pub fn verify<'a>(
        &self,
        app_secrets: impl IntoIterator<Item = &'a SecretString>,
    ) -> Result<Verified, SignatureError> {
        let signature = parse(self.signature.as_deref())?;
        check(app_secrets, &self.body, &signature)?;
        Ok(Verified {
            body: self.body.clone(),
        })
    }
}

impl Verified {
    /// The bytes that were signed.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

/// The header's value for `body`: what Meta would send. For tests and for replaying payloads.
#[must_use]
pub fn sign(app_secret: &SecretString, body: &[u8]) -> String {
    let digest = mac(app_secret, body).map(|mac| hex::encode(mac.finalize().into_bytes()));
    format!("{PREFIX}{}", digest.unwrap_or_default())
}

/// Whether one of `app_secrets` makes this signature of `signed`. One that is not filled in makes none.
pub(super) fn check<'a>(
    app_secrets: impl IntoIterator<Item = &'a SecretString>,
    signed: &[u8],
    signature: &[u8; 32],
) -> Result<(), SignatureError> {
    let mut refused = SignatureError::NoSecret;
    for secret in app_secrets {
        if secret.expose_secret().is_empty() {
            continue;
        }
        if mac(secret, signed).is_some_and(|mac| mac.verify_slice(signature).is_ok()) {
            return Ok(());
        }
        refused = SignatureError::Mismatch;
    }
    Err(refused)
}

pub(super) fn mac(secret: &SecretString, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
    mac.update(body);
    Some(mac)
}

fn parse(header: Option<&str>) -> Result<[u8; 32], SignatureError> {
    let digits = header
        .ok_or(SignatureError::Missing)?
        .strip_prefix(PREFIX)
        .ok_or(SignatureError::Malformed)?;
    if digits.bytes().any(|digit| digit.is_ascii_uppercase()) {
        return Err(SignatureError::Malformed);
    }
    let mut signature = [0; 32];
    hex::decode_to_slice(digits, &mut signature).map_err(|_| SignatureError::Malformed)?;
    Ok(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Vectors computed with an independent HMAC tool; the body's `\u` and `\/` are literal backslashes.
    const SECRET: &str = "app_secret_for_tests";
    const BODY: &str = r#"{"object":"page","entry":[{"id":"PAGE_ID","time":1700000000000,"messaging":[{"sender":{"id":"PSID"},"recipient":{"id":"PAGE_ID"},"timestamp":1700000000000,"message":{"mid":"m_1","text":"caf\u00e9 \ud83d\ude00 https:\/\/x.y"}}]}]}"#;
    const SIGNATURE: &str = "sha256=5ab3786534ea590179cab94be713a9948382067bc630dbe1bcfaead892d4e212";

    fn secret(value: &str) -> SecretString {
        SecretString::from(value)
    }

    fn verify(body: &[u8], header: Option<&str>) -> Result<(), SignatureError> {
        Received::new(body.to_vec(), header)
            .verify([&secret(SECRET)])
            .map(drop)
    }

    #[test]
    fn metas_vector_passes_and_keeps_the_exact_bytes() {
        assert_eq!(BODY.len(), 229);
        let verified = Received::new(BODY, Some(SIGNATURE))
            .verify([&secret(SECRET)])
            .unwrap();
        assert_eq!(verified.body(), BODY.as_bytes());
        assert_eq!(sign(&secret(SECRET), BODY.as_bytes()), SIGNATURE);
    }

    #[test]
    fn an_empty_body_has_a_signature_of_its_own() {
        let empty = "sha256=52cebd46e8f4789bbbf083dbb0bf15c8beb6d3ca50b407b3f582b5a7290f5603";
        assert_eq!(verify(b"", Some(empty)), Ok(()));
    }

    #[test]
    fn a_body_that_was_parsed_and_written_again_fails() {
        let value: serde_json::Value = serde_json::from_str(BODY).unwrap();
        let rewritten = serde_json::to_vec(&value).unwrap();
        assert_eq!(verify(&rewritten, Some(SIGNATURE)), Err(SignatureError::Mismatch));
        let of_the_rewritten = "sha256=accaf5cdad0d7e8f5961032eaeb5425b1f6b8e5c2765c718af2aa5dace3b6c19";
        assert_eq!(
            verify(BODY.as_bytes(), Some(of_the_rewritten)),
            Err(SignatureError::Mismatch)
        );
    }

    #[test]
    fn what_is_not_the_header_is_refused() {
        let body = BODY.as_bytes();
        let digits = SIGNATURE.strip_prefix("sha256=").unwrap();
        assert_eq!(verify(body, None), Err(SignatureError::Missing));
        for header in [
            "",
            "sha256=",
            digits,
            "sha1=61698897626f89226740755522da195c7402ca59",
            &format!("sha1={digits}"),
            &format!("SHA256={digits}"),
            &format!("sha256={}", digits.to_uppercase()),
            &format!("sha256={}", &digits[..62]),
            &format!("sha256={digits}00"),
            &format!("sha256={}zz", &digits[..62]),
        ] {
            assert_eq!(
                verify(body, Some(header)),
                Err(SignatureError::Malformed),
                "{header}"
            );
        }
    }

    #[test]
    fn the_previous_secret_is_accepted_and_a_strangers_is_not() {
        let received = Received::new(BODY, Some(SIGNATURE));
        assert!(received.verify([&secret("new"), &secret(SECRET)]).is_ok());
        assert_eq!(
            received.verify([&secret("new")]).map(drop),
            Err(SignatureError::Mismatch)
        );
    }

    #[test]
    fn no_secret_means_nobody_enters() {
        let of_the_empty_key = sign(&secret(""), BODY.as_bytes());
        let received = Received::new(BODY, Some(&of_the_empty_key));
        assert_eq!(received.verify([]).map(drop), Err(SignatureError::NoSecret));
        assert_eq!(
            received.verify([&secret("")]).map(drop),
            Err(SignatureError::NoSecret)
        );
    }

    #[test]
    fn debug_shows_no_content() {
        let received = Received::new(BODY, Some(SIGNATURE));
        let verified = received.verify([&secret(SECRET)]).unwrap();
        let shown = format!("{received:?} {verified:?}");
        assert!(!shown.contains("PSID") && !shown.contains("5ab3"), "{shown}");
    }

    proptest::proptest! {
        #[test]
        fn any_flipped_bit_is_refused(index in 0..BODY.len(), bit in 0..8_u8) {
            let mut body = BODY.as_bytes().to_vec();
            body[index] ^= 1 << bit;
            proptest::prop_assert_eq!(verify(&body, Some(SIGNATURE)), Err(SignatureError::Mismatch));
        }

        #[test]
        fn any_header_is_answered(header in ".*") {
            proptest::prop_assert!(verify(BODY.as_bytes(), Some(&header)).is_err());
        }
    }
}
