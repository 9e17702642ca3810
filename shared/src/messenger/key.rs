//! Names: of channels, of people on them, and of the records that are kept of people.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, PercentEncode, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::personal::Personal;

/// The longest id that is taken for one. Meta's are 15 to 19 digits; Braze takes alias names of 236 bytes.
const LONGEST_ID: usize = 128;

/// What separates the parts of a key.
const SEPARATORS: &AsciiSet = &AsciiSet::EMPTY.add(b'%').add(b'#').add(b':');

/// The longest `user_ref` that is part of a key as it is; longer ones are hashed.
const LONGEST_USER_REF: usize = 256;

/// Where a conversation takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// A Facebook Page's Messenger (object `page`).
    Messenger,
    /// An Instagram professional account (object `instagram`).
    Instagram,
}

impl Channel {
    /// The name as stored and as part of Braze alias labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messenger => "messenger",
            Self::Instagram => "instagram",
        }
    }

    /// The channel that a webhook's `object` stands for, if it is one of ours.
    #[must_use]
    pub fn of_object(object: &str) -> Option<Self> {
        match object {
            "page" => Some(Self::Messenger),
            "instagram" => Some(Self::Instagram),
            _ => None,
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not a key of the kind asked for. Does not repeat the text, which may be personal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key of the form `channel#account#person`")]
pub struct KeyError;

/// Which person on which account: `channel#account_id#scoped_id`.
///
/// A PSID or IGSID means nothing outside its page or account, so all three parts are the identity. The
/// text form is the store's key and the outbox's subject; it holds a personal id and is not for logs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContactKey {
    /// The channel.
    pub channel: Channel,
    /// Page id or Instagram professional account id.
    pub account_id: String,
    /// PSID or IGSID.
    pub scoped_id: Personal<String>,
}

impl ContactKey {
    /// The key of a person on an account.
    #[must_use]
    pub fn new(
        channel: Channel,
        account_id: impl Into<String>,
        scoped_id: impl Into<Personal<String>>,
    ) -> Self {
        Self {
            channel,
            account_id: account_id.into(),
            scoped_id: scoped_id.into(),
        }
    }
}

impl fmt::Display for ContactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}#{}#{}",
            self.channel,
            escaped(&self.account_id),
            escaped(&self.scoped_id)
        )
    }
}

impl FromStr for ContactKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.split('#');
        let (Some(channel), Some(account), Some(person), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(KeyError);
        };
        let channel = match channel {
            "messenger" => Channel::Messenger,
            "instagram" => Channel::Instagram,
            _ => return Err(KeyError),
        };
        let key = Self {
            channel,
            account_id: unescaped(account),
            scoped_id: unescaped(person).into(),
        };
        // One contact, one spelling: a key that escapes what needs no escape would be a second name.
        if is_id(&key.account_id) && is_id(&key.scoped_id) && key.to_string() == text {
            Ok(key)
        } else {
            Err(KeyError)
        }
    }
}

impl TryFrom<String> for ContactKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<ContactKey> for String {
    fn from(key: ContactKey) -> Self {
        key.to_string()
    }
}

/// The record of a plugin's `user_ref`: `channel#account_id#user_ref:<ref>`.
///
/// It shares the contacts' table. A contact's key never holds a bare `:`, so the two cannot meet. The
/// website chooses the `user_ref`, so one that is long or holds other than plain characters is replaced by
/// its hash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserRefKey(Personal<String>);

impl UserRefKey {
    /// The key of `user_ref` on an account.
    #[must_use]
    pub fn new(channel: Channel, account_id: &str, user_ref: &str) -> Self {
        let plain =
            user_ref.len() <= LONGEST_USER_REF && !user_ref.is_empty() && user_ref.bytes().all(is_plain);
        let name = if plain {
            user_ref.to_owned()
        } else {
            format!("sha256:{}", Digest::of_parts([user_ref]))
        };
        Self(format!("{channel}#{}#user_ref:{name}", escaped(account_id)).into())
    }

    /// The key as stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserRefKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` can be the id of a page, an account or a person: 1 to 128 visible ASCII characters.
#[must_use]
pub fn is_id(text: &str) -> bool {
    (1..=LONGEST_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn escaped(id: &str) -> PercentEncode<'_> {
    utf8_percent_encode(id, SEPARATORS)
}

fn unescaped(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}
