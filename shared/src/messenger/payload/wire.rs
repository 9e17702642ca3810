//! The shapes of items as Meta sends them, and as it might.
//!
//! Every field takes every JSON type: a value of the wrong type reads as absent and never fails the item.
//! Keys that are not named here are skipped without being built, however deep they nest.

use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::messenger::key::Redacted;

/// From here on a number of seconds would be the year 5138, so it is milliseconds.
const MILLISECONDS_FROM: f64 = 1e11;

/// A scalar of any type.
#[derive(Default, Clone, PartialEq)]
pub(super) enum Word {
    /// Missing, null, or not a scalar.
    #[default]
    Absent,
    Text(String),
    Whole(String),
    Fraction(f64),
    Flag(bool),
}

impl Word {
    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Text or number as text; empty text is absent.
    pub(super) fn any(&self) -> Option<String> {
        match self {
            Self::Text(text) | Self::Whole(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            Self::Fraction(number) => Some(number.to_string()),
            Self::Flag(flag) => Some(flag.to_string()),
            Self::Absent => None,
        }
    }

    pub(super) fn private(&self) -> Option<Redacted> {
        self.any().map(Redacted::from)
    }

    /// An id: text or whole number. Fractions are ids that have lost digits.
    pub(super) fn id(&self) -> Option<String> {
        match self {
            Self::Text(text) | Self::Whole(text) => Some(text.clone()),
            _ => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Flag(flag) => *flag,
            Self::Text(text) | Self::Whole(text) => text == "true" || text == "1",
            _ => false,
        }
    }

    /// A time in seconds or milliseconds since 1970, told apart by magnitude; text or number.
    pub(super) fn time(&self) -> Option<Timestamp> {
        let number = match self {
            Self::Text(text) | Self::Whole(text) => text.trim().parse::<f64>().ok()?,
            Self::Fraction(number) => *number,
            _ => return None,
        };
        // Whole milliseconds of any date that can be are exact in an f64.
        let milliseconds = if number >= MILLISECONDS_FROM {
            number
        } else {
            number * 1000.0
        };
        if !(milliseconds > 0.0 && milliseconds <= 9_007_199_254_740_992.0) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "in range, and fractions of a millisecond go"
        )]
        Timestamp::from_millisecond(milliseconds as i64).ok()
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyScalar;

        impl<'de> Visitor<'de> for AnyScalar {
            type Value = Word;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_bool<E>(self, flag: bool) -> Result<Word, E> {
                Ok(Word::Flag(flag))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Word, E> {
                Ok(Word::Whole(number.to_string()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Word, E> {
                Ok(Word::Whole(number.to_string()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Word, E> {
                Ok(Word::Fraction(number))
            }

            fn visit_str<E>(self, text: &str) -> Result<Word, E> {
                Ok(Word::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Word, E> {
                Ok(Word::Text(text))
            }

            fn visit_unit<E>(self) -> Result<Word, E> {
                Ok(Word::Absent)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Word, A::Error> {
                IgnoredAny.visit_seq(list)?;
                Ok(Word::Absent)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Word, A::Error> {
                IgnoredAny.visit_map(map)?;
                Ok(Word::Absent)
            }
        }

        deserializer.deserialize_any(AnyScalar)
    }
}

/// An object, or what stands where one should be. Derived structs on their own would take lists as well, by
/// the order of their fields.
#[derive(Default)]
pub(super) enum Node<T> {
    /// Missing or null.
    #[default]
    Absent,
    /// There, and not an object.
    Other,
    Is(T),
}

impl<T> Node<T> {
    pub(super) fn get(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Absent | Self::Other => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Node<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyNode<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for AnyNode<T> {
            type Value = Node<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Node<T>, E> {
                Ok(Node::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Node<T>, E> {
                Ok(Node::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Node<T>, E> {
                Ok(Node::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Node<T>, E> {
                Ok(Node::Other)
            }

            fn visit_str<E>(self, _: &str) -> Result<Node<T>, E> {
                Ok(Node::Other)
            }

            fn visit_unit<E>(self) -> Result<Node<T>, E> {
                Ok(Node::Absent)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Node<T>, A::Error> {
                IgnoredAny.visit_seq(list)?;
                Ok(Node::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Node<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Node::Is)
            }
        }

        deserializer.deserialize_any(AnyNode(PhantomData))
    }
}

/// A list; anything else reads as an empty one.
pub(super) struct List<T>(pub(super) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyList<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for AnyList<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_bool<E>(self, _: bool) -> Result<List<T>, E> {
                Ok(List::default())
            }

            fn visit_i64<E>(self, _: i64) -> Result<List<T>, E> {
                Ok(List::default())
            }

            fn visit_u64<E>(self, _: u64) -> Result<List<T>, E> {
                Ok(List::default())
            }

            fn visit_f64<E>(self, _: f64) -> Result<List<T>, E> {
                Ok(List::default())
            }

            fn visit_str<E>(self, _: &str) -> Result<List<T>, E> {
                Ok(List::default())
            }

            fn visit_unit<E>(self) -> Result<List<T>, E> {
                Ok(List::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List<T>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = list.next_element()? {
                    members.push(member);
                }
                Ok(List(members))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<List<T>, A::Error> {
                IgnoredAny.visit_map(map)?;
                Ok(List::default())
            }
        }

        deserializer.deserialize_any(AnyList(PhantomData))
    }
}

/// An object of which only the presence counts.
#[derive(Deserialize)]
pub(super) struct Present {}

/// One member of `messaging[]` or `standby[]`. Which key it has is its kind.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Item {
    pub(super) sender: Node<Party>,
    pub(super) recipient: Node<Party>,
    pub(super) timestamp: Word,
    pub(super) prior_message: Node<PriorMessage>,
    pub(super) message: Node<Message>,
    pub(super) message_edit: Node<MessageEdit>,
    pub(super) delivery: Node<Delivery>,
    pub(super) read: Node<Read>,
    pub(super) postback: Node<Postback>,
    pub(super) optin: Node<Optin>,
    pub(super) referral: Node<Referral>,
    pub(super) reaction: Node<Reaction>,
    pub(super) account_linking: Node<AccountLinking>,
    pub(super) pass_thread_control: Node<Present>,
    pub(super) take_thread_control: Node<Present>,
    pub(super) request_thread_control: Node<Present>,
    pub(super) app_roles: Node<Present>,
    // The hyphen is the spelling of older documentation.
    #[serde(alias = "policy-enforcement")]
    pub(super) policy_enforcement: Node<PolicyEnforcement>,
    pub(super) messaging_feedback: Node<Present>,
    pub(super) response_feedback: Node<ResponseFeedback>,
    pub(super) messaging_customer_information: Node<Present>,
    pub(super) game_play: Node<Present>,
    pub(super) payment: Node<Present>,
    pub(super) checkout_update: Node<Present>,
    pub(super) pre_checkout: Node<Present>,
    // No sample is published; these are the names that the other fields' pattern suggests.
    #[serde(alias = "opt_out", alias = "messaging_optout", alias = "messaging_optouts")]
    pub(super) optout: Node<Present>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Party {
    pub(super) id: Word,
    pub(super) user_ref: Word,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct PriorMessage {
    pub(super) source: Word,
    pub(super) identifier: Word,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Message {
    pub(super) mid: Word,
    pub(super) text: Word,
    pub(super) is_echo: Word,
    pub(super) is_deleted: Word,
    pub(super) app_id: Word,
    pub(super) quick_reply: Node<QuickReply>,
    pub(super) attachments: List<Node<Attachment>>,
    pub(super) referral: Node<Referral>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct QuickReply {
    pub(super) payload: Word,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Attachment {
    #[serde(rename = "type")]
    pub(super) attachment_type: Word,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct MessageEdit {
    pub(super) mid: Word,
    pub(super) num_edit: Word,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Delivery {
    pub(super) mids: List<Word>,
    pub(super) watermark: Word,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Read {
    pub(super) mid: Word,
    pub(super) watermark: Word,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Postback {
    pub(super) mid: Word,
    pub(super) payload: Word,
    pub(super) referral: Node<Referral>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Optin {
    #[serde(rename = "type")]
    pub(super) request: Word,
    #[serde(rename = "ref")]
    pub(super) reference: Word,
    pub(super) user_ref: Word,
    pub(super) one_time_notif_token: Word,
    pub(super) notification_messages_token: Word,
    pub(super) notification_messages_status: Word,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Referral {
    #[serde(rename = "ref")]
    pub(super) reference: Word,
    pub(super) source: Word,
    pub(super) ad_id: Word,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Reaction {
    pub(super) mid: Word,
    pub(super) action: Word,
    #[serde(rename = "reaction")]
    pub(super) name: Word,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct AccountLinking {
    pub(super) status: Word,
    pub(super) authorization_code: Word,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct PolicyEnforcement {
    pub(super) action: Word,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct ResponseFeedback {
    pub(super) feedback: Word,
}
