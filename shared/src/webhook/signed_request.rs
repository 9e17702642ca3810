//! Meta's `signed_request`: how a data-deletion request and a deauthorization say that Meta sent them.
//!
//! The form field holds `base64url(signature).base64url(payload)`, and the signature is the HMAC-SHA256 of the
//! *encoded* payload under the app secret. It is checked before the payload is decoded.
//! (<https://developers.facebook.com/docs/development/create-an-app/app-dashboard/data-deletion-callback>)

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hmac::Mac as _;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde_json::Value;

use super::signature::{SignatureError, check, mac};
use crate::digest::Digest;
use crate::json;
use crate::personal::Personal;

/// Meta's have a few hundred bytes.
const MAX_BYTES: usize = 4096;

/// How far Meta's clock may be ahead of ours.
const AHEAD: SignedDuration = SignedDuration::from_mins(10);

/// It is no signed request of Meta's. Says nothing of what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// There is no field `signed_request`, or it is too long.
    #[error("the form has no usable field `signed_request`")]
    Missing,
    /// It is not two parts of base64url with a signature of 32 bytes.
    #[error("the signed_request is not two parts of base64url, joined by a dot")]
    NotEncoded,
    /// What was signed is not the JSON object that Meta documents.
    #[error("the payload of the signed_request is not the documented JSON")]
    Payload,
    /// It was signed in another way than HMAC-SHA256, by its own words.
    #[error("the signed_request names another algorithm than HMAC-SHA256")]
    Algorithm,
    /// It was issued more than ten minutes from now.
    #[error("the signed_request was issued in the future")]
    Future,
}

/// A request as it arrived. Nothing is known of it yet.
#[derive(Debug)]
pub struct Received {
    payload: Personal<String>,
    signature: Personal<[u8; 32]>,
}

/// A request that an app secret of ours has signed. Made only by [`Received::verify`].
#[derive(Debug, Clone)]
pub struct Verified(Personal<(String, [u8; 32])>);

/// What Meta says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRequest {
    /// The same for every delivery of the same request, and known to nobody else.
    pub id: Digest,
    /// The person's app-scoped id.
    pub user_id: Option<Personal<String>>,
    /// The page, where a page has removed the app.
    pub profile_id: Option<String>,
    /// When Meta made it.
    pub issued_at: Option<Timestamp>,
}

impl Received {
    /// Takes the field out of a form.
    ///
    /// # Errors
    ///
    /// [`Malformed::Missing`] or [`Malformed::NotEncoded`].
    pub fn of_form(form: &Bytes) -> Result<Self, Malformed> {
        let mut fields = form_urlencoded::parse(form);
        let field = fields.find(|(name, _)| name == "signed_request");
        let text = field
            .map(|(_, text)| text)
            .filter(|text| !text.is_empty() && text.len() <= MAX_BYTES);
        Self::parse(&text.ok_or(Malformed::Missing)?)
    }

    fn parse(text: &str) -> Result<Self, Malformed> {
        // A form turns a `+` of the other alphabet into a blank.
        let text: Cow<'_, str> = if text.contains(' ') {
            text.replace(' ', "+").into()
        } else {
            text.into()
        };
        let (signature, payload) = text.split_once('.').ok_or(Malformed::NotEncoded)?;
        if payload.is_empty() || payload.contains('.') {
            return Err(Malformed::NotEncoded);
        }
        let signature = decode(signature).and_then(|bytes| bytes.try_into().ok());
        Ok(Self {
            payload: payload.to_owned().into(),
            signature: Personal(signature.ok_or(Malformed::NotEncoded)?),
        })
    }

    /// Accepts the request if one of `app_secrets` signs it.
    ///
    /// # Errors
    ///
    /// [`SignatureError::Mismatch`] or [`SignatureError::NoSecret`].
    pub fn verify<'a>(
        &self,
        app_secrets: impl IntoIterator<Item = &'a SecretString>,
    ) -> Result<Verified, SignatureError> {
        check(app_secrets, self.payload.as_bytes(), &self.signature)?;
        Ok(Verified(Personal((self.payload.0.clone(), *self.signature))))
    }
}

impl Verified {
    /// What was signed.
    ///
    /// # Errors
    ///
    /// A [`Malformed`], if it is not what Meta documents.
    pub fn read(&self, now: Timestamp) -> Result<SignedRequest, Malformed> {
        let (payload, signature) = &*self.0;
        let bytes = decode(payload).ok_or(Malformed::Payload)?;
        let value: Value = json::read(&bytes).map_err(|_| Malformed::Payload)?;
        let member = |name: &str| json::member(&value, name);
        let algorithm = member("algorithm");
        if !algorithm
            .text()
            .is_some_and(|name| name.eq_ignore_ascii_case("HMAC-SHA256"))
        {
            return Err(Malformed::Algorithm);
        }
        let issued_at = member("issued_at").integer();
        let issued_at = issued_at.and_then(|seconds| Timestamp::from_second(seconds).ok());
        if issued_at.is_some_and(|at| at.duration_since(now) > AHEAD) {
            return Err(Malformed::Future);
        }
        Ok(SignedRequest {
            id: Digest::of_parts([b"signed_request".as_slice(), signature]),
            user_id: member("user_id").id().map(Personal),
            profile_id: member("profile_id").id(),
            issued_at,
        })
    }
}

/// The field as Meta would send it. For tests and for trying it out.
#[must_use]
pub fn sign(app_secret: &SecretString, payload: &Value) -> String {
    let payload = URL_SAFE_NO_PAD.encode(payload.to_string());
    let signature = mac(app_secret, payload.as_bytes()).map(|mac| mac.finalize().into_bytes());
    format!(
        "{}.{payload}",
        URL_SAFE_NO_PAD.encode(signature.unwrap_or_default())
    )
}

/// Either alphabet, with or without padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    // Vectors computed with an independent HMAC tool.
    const SECRET: &str = "app_secret_for_tests";
    const OF_A_PERSON: &str = "oY4M2F0JmxwTvhEXMy5u-cgvdkxERElPet_YAwEjfoE.eyJhbGdvcml0aG0iOiJITUFDLVNIQTI1NiIsImV4cGlyZXMiOjEyOTE4NDA0MDAsImlzc3VlZF9hdCI6MTI5MTgzNjgwMCwidXNlcl9pZCI6IjIxODQ3MSJ9";
    const UNPADDED: &str = "GD4VluJ7ztfJebmJyIycry9T_PssdTrf3N2A6sjQZqI.eyJ1c2VyX2lkIjoiMTAyMDAwMDAwMDAwMDAwNDIiLCJhbGdvcml0aG0iOiJITUFDLVNIQTI1NiIsImlzc3VlZF9hdCI6MTc5NjA4MzIwMH0";
    const OF_A_PAGE: &str = "Aw_dj3BdgLCsfBiDkYsUHqJ4EFlSLESYemCQ2Jb90IM.eyJhbGdvcml0aG0iOiJITUFDLVNIQTI1NiIsImlzc3VlZF9hdCI6IjE0MTEwNzIyODUiLCJwcm9maWxlX2lkIjoiMzI0NTU2MzY1NDc0IiwidXNlcl9pZCI6bnVsbH0";
    const OTHER_CHARACTERS: &str = "FwEh6Lqj4U5smX944DnrUvqPvumv4h8B-VcTzdgV5zg.eyJhbGdvcml0aG0iOiJITUFDLVNIQTI1NiIsImlzc3VlZF9hdCI6MTc5NjA4MzIwMCwidXNlcl9pZCI6In5-fj8_Pz4-PiJ9";
    const PADDED: &str = "72cagVaPbciTAvpepNBJ0DQ2CxL91wPAc7QIaHN76S4=.eyJ1c2VyX2lkIjoiMTAyMDAwMDAwMDAwMDAwNDIiLCJhbGdvcml0aG0iOiJITUFDLVNIQTI1NiIsImlzc3VlZF9hdCI6MTc5NjA4MzIwMH0=";
    const SHA_1: &str = "ptuh1Gy2ImouF19vquRM_vIx12bhovt4G-oZ81Ieo9o.eyJhbGdvcml0aG0iOiJITUFDLVNIQTEiLCJpc3N1ZWRfYXQiOjE3OTYwODMyMDAsInVzZXJfaWQiOiIyMTg0NzEifQ";

    fn now() -> Timestamp {
        Timestamp::from_second(1_796_083_200).unwrap()
    }

    fn received(text: &str) -> Result<Received, Malformed> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("signed_request", text)
            .finish();
        Received::of_form(&Bytes::from(form))
    }

    fn read(text: &str) -> Result<SignedRequest, Malformed> {
        let verified = received(text)?.verify([&SecretString::from(SECRET)]);
        verified.unwrap().read(now())
    }

    #[rstest]
    #[case(OF_A_PERSON, Some("218471"), None, 1_291_836_800)]
    #[case(UNPADDED, Some("10200000000000042"), None, 1_796_083_200)]
    #[case(PADDED, Some("10200000000000042"), None, 1_796_083_200)]
    #[case(OTHER_CHARACTERS, Some("~~~???>>>"), None, 1_796_083_200)]
    #[case(OF_A_PAGE, None, Some("324556365474"), 1_411_072_285)]
    fn metas_requests_are_read(
        #[case] text: &str,
        #[case] user: Option<&str>,
        #[case] page: Option<&str>,
        #[case] at: i64,
    ) {
        let request = read(text).unwrap();
        assert_eq!(request.user_id.as_deref().map(String::as_str), user);
        assert_eq!(request.profile_id.as_deref(), page);
        assert_eq!(request.issued_at.unwrap().as_second(), at);
        assert_eq!(read(text).unwrap().id, request.id);
    }

    #[test]
    fn the_other_alphabet_of_base64_is_read_also_raw_in_a_form() {
        let other = OTHER_CHARACTERS.replacen("B-VcTz", "B+VcTz", 1);
        let raw = Bytes::from(format!("signed_request={other}"));
        let received = Received::of_form(&raw).unwrap();
        let verified = received.verify([&SecretString::from(SECRET)]).unwrap();
        assert_eq!(verified.read(now()).unwrap(), read(OTHER_CHARACTERS).unwrap());
    }

    #[test]
    fn another_spelling_of_the_same_signature_is_the_same_request() {
        let (signature, payload) = UNPADDED.split_once('.').unwrap();
        assert_eq!(
            read(&format!("{signature}=.{payload}")).unwrap().id,
            read(UNPADDED).unwrap().id
        );
    }

    #[test]
    fn what_we_sign_ourselves_is_read() {
        let payload = json!({"algorithm": "HMAC-SHA256", "issued_at": 1_796_083_200, "user_id": "7"});
        let request = read(&sign(&SecretString::from(SECRET), &payload)).unwrap();
        assert_eq!(request.user_id.unwrap().as_str(), "7");
    }

    #[rstest]
    #[case("", Malformed::Missing)]
    #[case("no dot", Malformed::NotEncoded)]
    #[case("a.b", Malformed::NotEncoded)]
    #[case(".", Malformed::NotEncoded)]
    #[case("72cagVaPbciTAvpepNBJ0DQ2CxL91wPAc7QIaHN76S4.", Malformed::NotEncoded)]
    #[case("72cagVaPbciTAvpepNBJ0DQ2CxL91wPAc7QIaHN76S4.e30.e30", Malformed::NotEncoded)]
    #[case("72cagVaPbciTAvpepNBJ0DQ2CxL91wPAc7QIaHN76S.e30", Malformed::NotEncoded)]
    fn what_is_no_signed_request_is_told(#[case] text: &str, #[case] expected: Malformed) {
        assert_eq!(received(text).err(), Some(expected));
        let long = "x".repeat(MAX_BYTES + 1);
        assert_eq!(received(&long).err(), Some(Malformed::Missing));
        assert_eq!(Received::of_form(&Bytes::new()).err(), Some(Malformed::Missing));
    }

    #[test]
    fn another_algorithm_the_future_and_other_json_are_refused_after_the_signature() {
        assert_eq!(read(SHA_1), Err(Malformed::Algorithm));
        let signed = |payload: Value| read(&sign(&SecretString::from(SECRET), &payload));
        let at = |minutes: i64| {
            signed(
                json!({"algorithm": "HMAC-SHA256", "user_id": "7", "issued_at": now().as_second() + minutes * 60}),
            )
        };
        assert!(at(10).is_ok());
        assert_eq!(at(11), Err(Malformed::Future));
        assert_eq!(signed(json!({"user_id": "7"})), Err(Malformed::Algorithm));
        assert_eq!(signed(json!([])), Err(Malformed::Algorithm));
    }

    #[test]
    fn another_secret_or_none_lets_nobody_in() {
        let request = received(OF_A_PERSON).unwrap();
        let verify = |secrets: &[&str]| {
            let secrets: Vec<SecretString> =
                secrets.iter().map(|secret| SecretString::from(*secret)).collect();
            request.verify(&secrets).map(drop)
        };
        assert_eq!(verify(&["other_secret"]), Err(SignatureError::Mismatch));
        assert_eq!(verify(&["", "other_secret", SECRET]), Ok(()));
        assert_eq!(verify(&[""]), Err(SignatureError::NoSecret));
        assert_eq!(verify(&[]), Err(SignatureError::NoSecret));
    }

    #[test]
    fn debug_shows_no_person() {
        let request = received(OF_A_PERSON).unwrap();
        let verified = request.verify([&SecretString::from(SECRET)]).unwrap();
        let shown = format!("{request:?} {verified:?} {:?}", verified.read(now()).unwrap());
        assert!(
            !shown.contains("218471") && !shown.contains("eyJhbGdv"),
            "{shown}"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_changed_byte_is_refused(index in 0..OF_A_PERSON.len(), byte in 0x21..0x7f_u8) {
            let mut text = OF_A_PERSON.as_bytes().to_vec();
            proptest::prop_assume!(text[index] != byte);
            text[index] = byte;
            let text = String::from_utf8(text).unwrap();
            // The two alphabets spell the same signature.
            let canonical = |text: &str| {
                let (signature, payload) = text.split_once('.').unwrap_or_default();
                (decode(signature), payload.to_owned())
            };
            proptest::prop_assume!(canonical(&text) != canonical(OF_A_PERSON));
            let verified = received(&text).map(|request| request.verify([&SecretString::from(SECRET)]).is_ok());
            proptest::prop_assert_ne!(verified, Ok(true));
        }

        #[test]
        fn any_form_is_answered(form in ".*") {
            let _ = Received::of_form(&Bytes::from(form));
        }
    }
}
