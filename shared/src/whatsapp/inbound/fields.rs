//! The known keys of a body and their values, and whether these can be believed.

use serde_json::Value;

use crate::outbox::Reason;
use crate::whatsapp::message::Person;

/// The keys of the published templates. Others are not looked at.
#[derive(Clone, Copy, PartialEq, Eq, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Key {
    UserId,
    BrazeId,
    PhoneNumber,
    FirstName,
    Language,
    Message,
    #[strum(serialize = "message_b64")]
    MessageBase64,
    MediaUrls,
    ProfileName,
    ProductId,
    CatalogId,
    FlowResponse,
    DispatchId,
    CampaignId,
}

impl Key {
    pub(super) fn named(name: &str) -> Option<Self> {
        name.parse().ok()
    }

    /// Whether the person writes the value, so that further entries may have been typed into it.
    fn is_written(self) -> bool {
        matches!(
            self,
            Self::Message | Self::FirstName | Self::ProfileName | Self::FlowResponse
        )
    }

    fn is_identity(self) -> bool {
        matches!(self, Self::UserId | Self::BrazeId | Self::PhoneNumber)
    }
}

/// Known keys with their values, in the body's order, each key once.
pub(super) struct Fields {
    known: Vec<(Key, Value)>,
    /// Whether all keys of the body came sorted, as a serializer writes them.
    sorted: bool,
}

impl Fields {
    pub(super) fn new(all: Vec<(String, Value)>) -> Result<Self, Reason> {
        let sorted = all.is_sorted_by(|(left, _), (right, _)| left <= right);
        let mut known: Vec<(Key, Value)> = Vec::new();
        for (name, value) in all {
            let Some(key) = Key::named(&name) else {
                continue;
            };
            match known.iter().find(|(before, _)| *before == key) {
                // JSON leaves open which one counts, and the second may have been typed into what a person writes.
                Some((_, before)) if *before != value || known.iter().any(|(key, _)| key.is_written()) => {
                    return Err(Reason::DuplicateKey);
                }
                Some(_) => {}
                None => known.push((key, value)),
            }
        }
        Ok(Self { known, sorted })
    }

    /// The value as text. What is blank, or how Liquid may print nothing, counts as absent; of names only as Liquid
    /// spells it, since a person may be called Null.
    pub(super) fn text(&self, key: Key) -> Option<String> {
        let is_name = matches!(key, Key::FirstName | Key::ProfileName);
        let is_nothing = |text: &str| {
            if is_name {
                matches!(text.trim(), "" | "null" | "nil")
            } else {
                is_nothing(text)
            }
        };
        text_of(self.value(key)?).filter(|text| !is_nothing(text))
    }

    pub(super) fn value(&self, key: Key) -> Option<&Value> {
        self.known
            .iter()
            .find(|(known, _)| *known == key)
            .map(|(_, value)| value)
    }

    /// Both published templates tell who it is before they tell the message. What tells it behind the message may
    /// have been typed by the person (`hi", "braze_id": "…`), and must not make them somebody else. Whether the
    /// template escapes its messages cannot be seen, so this holds for all of them, but for two: an encoded message
    /// holds nothing that could be taken for a key; and if all keys come sorted and all that tell who it is stand
    /// behind the message, as where a serializer wrote the body, a key that was typed is out of order or there
    /// twice, if only the template has a phone number.
    pub(super) fn check_order(&self) -> Result<(), Reason> {
        let message = self.known.iter().position(|(key, _)| *key == Key::Message);
        let (before, behind) = self
            .known
            .split_at_checked(message.unwrap_or(self.known.len()))
            .unwrap_or_default();
        let is_told = |(key, _): &(Key, Value)| key.is_identity() && self.text(*key).is_some();
        let serialized = self.sorted && !before.iter().any(|(key, _)| key.is_identity());
        if behind.iter().any(is_told) && !serialized {
            return Err(Reason::IdentityAfterMessage);
        }
        // An id that is not kept to its last digit or character is another person's as well.
        for (_, value) in self.known.iter().filter(|(key, _)| key.is_identity()) {
            if value.is_f64() {
                return Err(Reason::IdentityRounded);
            }
            if text_of(value).is_some_and(|id| id.contains(char::REPLACEMENT_CHARACTER)) {
                return Err(Reason::IdentityDamaged);
            }
        }
        Ok(())
    }

    pub(super) fn person(&self) -> Person {
        let trimmed = |key| self.text(key).map(|text| text.trim().to_owned());
        Person {
            user_id: self.text(Key::UserId),
            braze_id: trimmed(Key::BrazeId),
            phone_number: trimmed(Key::PhoneNumber),
            profile_name: trimmed(Key::ProfileName),
            first_name: trimmed(Key::FirstName),
            language: trimmed(Key::Language),
        }
        .bounded()
    }
}

/// Whether a value is how Liquid prints nothing: empty, `null`, `nil`, a list of it, in any case; or a tag that was
/// never rendered. One id like this for all who have none would join strangers into one conversation.
pub(super) fn is_nothing(text: &str) -> bool {
    let text = text.trim();
    let is_tag = text.starts_with("{{") && text.ends_with("}}");
    let spelled = [
        "",
        "null",
        "nil",
        "undefined",
        "none",
        "[nil]",
        "[null]",
        "[]",
        "{}",
    ];
    is_tag || spelled.iter().any(|nothing| text.eq_ignore_ascii_case(nothing))
}

/// Numbers and the like are taken as they are written: a template may leave out the quotes.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
