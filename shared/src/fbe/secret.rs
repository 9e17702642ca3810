//! The secret of one business: where its tokens are, and nowhere else.

use std::fmt::Write;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Secrets Manager allows names of 512 characters; the rest is for the stack's prefix.
const MAX_NAME: usize = 400;

/// Type of a token: by its type it dies with a password, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum TokenType {
    /// A person's token. It dies with the person's password, and is exchanged for a system user's.
    User,
    /// A system user's token, as sent for installs that were started in Instagram.
    SystemUser,
    /// Anything else, as Meta wrote it; empty if nothing was said.
    Unknown(String),
}

impl From<String> for TokenType {
    fn from(raw: String) -> Self {
        let lower = raw.to_ascii_lowercase();
        if lower.contains("system") {
            Self::SystemUser
        } else if lower.contains("user") {
            Self::User
        } else {
            Self::Unknown(super::redact::text(&raw).chars().take(40).collect())
        }
    }
}

impl From<TokenType> for String {
    fn from(token_type: TokenType) -> Self {
        match token_type {
            TokenType::User => "user".to_owned(),
            TokenType::SystemUser => "system_user".to_owned(),
            TokenType::Unknown(raw) => raw,
        }
    }
}

/// A token and its type, as a webhook brings them.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token; its `Debug` shows nothing.
    pub value: SecretString,
    /// `token_type`
    pub token_type: TokenType,
}

/// The JSON in `<stack>/fbe/<business>`. Serialised only by [`FbeSecret::to_json`], shown nowhere.
#[derive(Debug, Clone, Deserialize)]
pub struct FbeSecret {
    /// The token that the webhook brought.
    pub access_token: Option<SecretString>,
    /// Its type.
    pub token_type: TokenType,
    /// The system user's token, once exchanged.
    pub system_user_access_token: Option<SecretString>,
    /// Time of the event that brought the token.
    pub received_at: Timestamp,
    /// When it was exchanged.
    pub exchanged_at: Option<Timestamp>,
    /// When the system user's token ends; `None`: it has no known end.
    pub system_user_expires_at: Option<Timestamp>,
}

impl FbeSecret {
    /// A token as a webhook of this time brought it.
    #[must_use]
    pub fn arrived(token: &Token, at: Timestamp) -> Self {
        Self {
            access_token: Some(token.value.clone()),
            token_type: token.token_type.clone(),
            system_user_access_token: None,
            received_at: at,
            exchanged_at: None,
            system_user_expires_at: None,
        }
    }

    /// The token that calls should be made with: the system user's, as soon as there is one.
    #[must_use]
    pub fn token(&self) -> Option<&SecretString> {
        self.system_user_access_token
            .as_ref()
            .or(self.access_token.as_ref())
    }

    /// The same secret with the system user's token that it was exchanged for.
    #[must_use]
    pub fn exchanged(
        mut self,
        system_user: SecretString,
        at: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Self {
        self.system_user_access_token = Some(system_user);
        self.exchanged_at = Some(at);
        self.system_user_expires_at = expires_at;
        self
    }

    /// Digest of the token as it arrived, the same before and after its exchange. Empty if the token was
    /// obtained on behalf of the business.
    #[must_use]
    pub fn source(&self) -> String {
        self.access_token.as_ref().map_or_else(String::new, |token| {
            let token_type = String::from(self.token_type.clone());
            Digest::of_parts(["token", &token_type, token.expose_secret()]).to_string()
        })
    }

    /// Whether this holds the token that an install's `token.source` names, exchanged or not.
    #[must_use]
    pub fn is_of(&self, source: &str) -> bool {
        if self.source() == source {
            return true;
        }
        // Earlier versions named the secret as the webhook wrote it.
        let arrived = Self {
            system_user_access_token: None,
            exchanged_at: None,
            system_user_expires_at: None,
            ..self.clone()
        };
        arrived.access_token.is_some() && arrived.version() == source
    }

    /// The secret's value for Secrets Manager. It holds the tokens in clear: hand it to nothing else.
    #[must_use]
    pub fn to_json(&self) -> SecretString {
        #[serde_with::skip_serializing_none]
        #[derive(Serialize)]
        struct Clear<'a> {
            access_token: Option<&'a str>,
            token_type: String,
            system_user_access_token: Option<&'a str>,
            received_at: Timestamp,
            exchanged_at: Option<Timestamp>,
            system_user_expires_at: Option<Timestamp>,
        }
        let clear = Clear {
            access_token: self.access_token.as_ref().map(ExposeSecret::expose_secret),
            token_type: self.token_type.clone().into(),
            system_user_access_token: self
                .system_user_access_token
                .as_ref()
                .map(ExposeSecret::expose_secret),
            received_at: self.received_at,
            exchanged_at: self.exchanged_at,
            system_user_expires_at: self.system_user_expires_at,
        };
        SecretString::from(serde_json::to_string(&clear).unwrap_or_default())
    }

    /// A version id for Secrets Manager (64 hexadecimal digits), the same for the same content. As
    /// `ClientRequestToken` it makes a repeated write harmless, and an install that names it still finds its
    /// token after two webhooks wrote at once.
    #[must_use]
    pub fn version(&self) -> String {
        Digest::of_parts([self.to_json().expose_secret()]).to_string()
    }
}

impl PartialEq for FbeSecret {
    fn eq(&self, other: &Self) -> bool {
        self.version() == other.version()
    }
}

/// The last part of a business's secret name: every byte outside `[A-Za-z0-9_.-]` becomes `=XX`, so two
/// businesses never share a secret.
#[must_use]
pub fn escaped(business_id: &str) -> String {
    let mut name = String::with_capacity(business_id.len());
    for byte in business_id.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-') {
            name.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(name, "={byte:02X}");
        }
    }
    name
}

/// The name of a business's secret under `prefix` (`<stack>/fbe/`).
#[must_use]
pub fn name(prefix: &str, business_id: &str) -> String {
    format!("{}/{}", prefix.trim_end_matches('/'), escaped(business_id))
}

/// Whether a business's id makes a name that Secrets Manager takes.
#[must_use]
pub fn fits(business_id: &str) -> bool {
    escaped(business_id).len() <= MAX_NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> FbeSecret {
        FbeSecret {
            access_token: Some("EAAB_user".into()),
            token_type: TokenType::User,
            system_user_access_token: None,
            received_at: Timestamp::UNIX_EPOCH,
            exchanged_at: None,
            system_user_expires_at: None,
        }
    }

    #[test]
    fn names_are_escaped_byte_by_byte() {
        assert_eq!(escaped("shop-42_a.B"), "shop-42_a.B");
        assert_eq!(escaped("a/b c=é"), "a=2Fb=20c=3D=C3=A9");
        assert_eq!(name("stack/fbe", "a/b"), "stack/fbe/a=2Fb");
        assert_eq!(name("stack/fbe/", "a"), "stack/fbe/a");
    }

    #[test]
    fn the_json_is_the_documented_one_and_comes_back() {
        let at = "2026-11-21T10:00:00Z".parse().unwrap();
        let exchanged = secret().exchanged("EAAB_system".into(), at, Some(at));
        let json = exchanged.to_json();
        assert_eq!(
            json.expose_secret(),
            r#"{"access_token":"EAAB_user","token_type":"user","system_user_access_token":"EAAB_system","received_at":"1970-01-01T00:00:00Z","exchanged_at":"2026-11-21T10:00:00Z","system_user_expires_at":"2026-11-21T10:00:00Z"}"#
        );
        let back: FbeSecret = serde_json::from_str(json.expose_secret()).unwrap();
        assert_eq!(back, exchanged);
        assert_eq!(back.token().unwrap().expose_secret(), "EAAB_system");
    }

    #[test]
    fn an_exchanged_secret_still_tells_where_it_came_from() {
        let exchanged = secret().exchanged("EAAB_system".into(), Timestamp::UNIX_EPOCH, None);
        // The second is what an earlier version stored.
        for source in [secret().source(), secret().version()] {
            assert!(secret().is_of(&source) && exchanged.is_of(&source));
        }
        assert!(!exchanged.is_of(&exchanged.version()) && !exchanged.is_of(""));
    }

    #[test]
    fn the_same_token_has_the_same_source_whenever_it_arrives() {
        let later = FbeSecret {
            received_at: Timestamp::MAX,
            ..secret()
        };
        assert_eq!(later.source(), secret().source());
        let other = FbeSecret {
            access_token: Some("EAAB_other".into()),
            ..secret()
        };
        assert_ne!(other.source(), secret().source());
    }

    #[test]
    fn debug_shows_no_token() {
        let shown = format!(
            "{:?}",
            secret().exchanged("EAAB_system".into(), Timestamp::UNIX_EPOCH, None)
        );
        assert!(!shown.contains("EAAB"), "{shown}");
    }

    #[test]
    fn token_types_are_recognised_in_any_spelling() {
        for (raw, expected) in [
            ("User", TokenType::User),
            ("USER", TokenType::User),
            ("System User", TokenType::SystemUser),
            ("SYSTEM_USER", TokenType::SystemUser),
            ("Page", TokenType::Unknown("Page".into())),
            ("", TokenType::Unknown(String::new())),
        ] {
            assert_eq!(TokenType::from(raw.to_owned()), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn two_businesses_never_share_a_name(a in ".{0,12}", b in ".{0,12}") {
            proptest::prop_assert_eq!(escaped(&a) == escaped(&b), a == b);
        }
    }
}
