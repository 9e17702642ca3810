//! Link tokens: the proof that the person in a conversation is a certain user.
//!
//! A link token is an ordinary JWT that any backend can make with a JWT library: `HS256`, the key is the
//! UTF-8 bytes of the setting, and three claims:
//!
//! * `sub`: the Braze `external_id`, 1 to 987 bytes, Braze's limit,
//! * `aud`: `messenger-link`, as a string or in an array,
//! * `exp`: required.
//!
//! A token links one contact. Where a user may get two tokens within a second, a `jti` of any kind tells them apart.
//!
//! # Judged at the event's time
//!
//! A token is held against the time of the event that carried it and not against the clock. Meta may deliver
//! an event again hours later, and the redelivery must end in the same state as the delivery did, also if
//! the token has expired in between.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// What `aud` must be or hold.
pub const AUDIENCE: &str = "messenger-link";

/// How far clocks may be apart.
pub(super) const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// Braze's limit for `external_id`, in bytes.
const LONGEST_USER_ID: usize = 987;

/// No `ref` that Meta carries is longer (its limit for `ref` is 2,083 characters at most).
const LONGEST_TOKEN: usize = 4096;

/// Why a text links nobody. Says nothing of the token or the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum LinkError {
    /// An ordinary `ref`, such as `summer_sale`.
    #[error("not a link token")]
    NotAToken,
    /// It was too late when the event happened.
    #[error("the link token had expired")]
    Expired,
    /// It was too early when the event happened (`nbf`).
    #[error("the link token was not yet valid")]
    NotYetValid,
    /// None of our keys made the signature.
    #[error("the link token was signed with another key")]
    BadSignature,
    /// The header asks for another algorithm than HS256.
    #[error("the link token is not signed with HS256")]
    WrongAlgorithm,
    /// Made for something else.
    #[error("the link token is for another audience")]
    WrongAudience,
    /// Signed by us, yet without a usable `sub` or `exp`.
    #[error("the link token lacks a usable sub or exp")]
    Malformed,
}

/// A link token that could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// Braze takes ids of 1 to 987 bytes.
    #[error("the user id must be 1 to 987 bytes long")]
    UserId,
    /// A token that anybody can make proves nothing.
    #[error("the signing key is empty")]
    EmptyKey,
    /// The time to live is not positive, or ends after the calendar.
    #[error("the time to live is out of range")]
    TimeToLive,
    /// The cryptography failed.
    #[error("the link token could not be signed")]
    Signing,
}

/// The keys that link tokens are checked with: the current one and, while it is being replaced, the previous.
#[derive(Debug, Clone)]
pub struct LinkKeys {
    keys: Vec<DecodingKey>,
}

/// What a good token says.
pub(super) struct Proven {
    pub(super) user_id: String,
    pub(super) expires_at: Timestamp,
}

impl LinkKeys {
    /// No keys: enough where no token is.
    #[must_use]
    pub fn none() -> Self {
        Self { keys: Vec::new() }
    }

    /// Takes the keys. An empty key is left out: anybody could sign with it.
    #[must_use]
    pub fn new(current: &SecretString, previous: Option<&SecretString>) -> Self {
        let keys = std::iter::once(current)
            .chain(previous)
            .map(|key| key.expose_secret().as_bytes())
            .filter(|key| !key.is_empty())
            .map(DecodingKey::from_secret)
            .collect();
        Self { keys }
    }

    /// The user whom `token` proved at the time `at`.
    ///
    /// # Errors
    ///
    /// A [`LinkError`]; the signature is checked before any claim is believed.
    pub fn verify(&self, token: &str, at: Timestamp) -> Result<String, LinkError> {
        Ok(self.prove(token, at)?.user_id)
    }

    /// [`LinkKeys::verify`], with all that the token says.
    pub(super) fn prove(&self, token: &str, at: Timestamp) -> Result<Proven, LinkError> {
        let token = token.trim();
        if !has_the_form_of_a_token(token) {
            return Err(LinkError::NotAToken);
        }
        let mut refused = LinkError::BadSignature;
        for key in &self.keys {
            match jsonwebtoken::decode::<Claims>(token, key, &signature_only()) {
                Ok(decoded) => return decoded.claims.proven(at),
                Err(error) => match error.kind() {
                    ErrorKind::InvalidSignature => {}
                    ErrorKind::InvalidAlgorithm => refused = LinkError::WrongAlgorithm,
                    // Reading the header comes before the signature, reading the claims after it.
                    ErrorKind::Json(_) if jsonwebtoken::decode_header(token).is_err() => {
                        refused = LinkError::WrongAlgorithm;
                    }
                    ErrorKind::Json(_) | ErrorKind::Utf8(_) => return Err(LinkError::Malformed),
                    _ => refused = LinkError::Malformed,
                },
            }
        }
        Err(refused)
    }
}

/// Makes a link token: four claims and no `typ`, which keeps it under 250 characters for ordinary ids. Each is another
/// one, by a random `jti`: a token links one contact, and a user may ask for two within a second.
///
/// `ttl` is counted from `now`; the expiry is rounded up to a whole second.
///
/// # Errors
///
/// A [`MintError`].
pub fn mint(
    key: &SecretString,
    user_id: &str,
    ttl: SignedDuration,
    now: Timestamp,
) -> Result<String, MintError> {
    if !is_user_id(user_id) {
        return Err(MintError::UserId);
    }
    let key = key.expose_secret().as_bytes();
    if key.is_empty() {
        return Err(MintError::EmptyKey);
    }
    if !ttl.is_positive() {
        return Err(MintError::TimeToLive);
    }
    let expires = now.checked_add(ttl).map_err(|_| MintError::TimeToLive)?;
    let mut header = Header::new(Algorithm::HS256);
    header.typ = None;
    let claims = json!({
        "sub": user_id,
        "aud": AUDIENCE,
        "exp": expires.as_second() + i64::from(expires.subsec_nanosecond() > 0),
        "jti": URL_SAFE_NO_PAD.encode(&Uuid::new_v4().as_bytes()[..6]),
    });
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(key)).map_err(|_| MintError::Signing)
}

/// The claims as they come: their types are checked one by one, so that each fault has its own name.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Claims {
    sub: Value,
    aud: Value,
    exp: Value,
    nbf: Value,
}

impl Claims {
    fn proven(self, at: Timestamp) -> Result<Proven, LinkError> {
        let ours = match &self.aud {
            Value::String(audience) => audience == AUDIENCE,
            Value::Array(audiences) => audiences.iter().any(|audience| audience == AUDIENCE),
            _ => false,
        };
        if !ours {
            return Err(LinkError::WrongAudience);
        }
        let expires = numeric_date(&self.exp).ok_or(LinkError::Malformed)?;
        if at.saturating_sub(LEEWAY).map_or(at, |early| early) > expires {
            return Err(LinkError::Expired);
        }
        if !self.nbf.is_null() {
            let begins = numeric_date(&self.nbf).ok_or(LinkError::Malformed)?;
            if at.saturating_add(LEEWAY).map_or(at, |late| late) < begins {
                return Err(LinkError::NotYetValid);
            }
        }
        match self.sub {
            Value::String(user_id) if is_user_id(&user_id) => Ok(Proven {
                user_id,
                expires_at: expires,
            }),
            _ => Err(LinkError::Malformed),
        }
    }
}

/// RFC 7519's `NumericDate`: seconds since 1970, fractions allowed. Dates after the calendar's end are its end.
fn numeric_date(value: &Value) -> Option<Timestamp> {
    let seconds = match value.as_i64() {
        Some(seconds) => seconds,
        #[expect(
            clippy::cast_possible_truncation,
            reason = "`as` saturates, which is what is wanted"
        )]
        None => value.as_f64()?.floor() as i64,
    };
    let end = Timestamp::MAX.as_second();
    (seconds >= 0).then(|| Timestamp::from_second(seconds.min(end)).unwrap_or(Timestamp::MAX))
}

/// Whether Braze takes `text` as an external id.
pub(crate) fn is_user_id(text: &str) -> bool {
    (1..=LONGEST_USER_ID).contains(&text.len()) && !text.trim().is_empty()
}

/// The signature is the library's work; times and audience are ours, as the library knows only the clock.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

/// Three parts, the first of them a JSON object with an `alg`: so a `ref` like `a.b.c` is not taken for one.
pub(super) fn has_the_form_of_a_token(text: &str) -> bool {
    let mut parts = text.split('.');
    let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    text.len() <= LONGEST_TOKEN
        && URL_SAFE_NO_PAD
            .decode(header)
            .ok()
            .and_then(|json| serde_json::from_slice::<Value>(&json).ok())
            .is_some_and(|header| header.get("alg").is_some())
}
