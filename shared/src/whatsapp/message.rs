//! A message as it came in, and who wrote it.

use std::fmt;

use crate::personal::Personal;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The longest identifier that makes a conversation. Braze's external ids end at 987 bytes, and a DynamoDB
/// sort key at 1,024.
const MAX_IDENTIFIER_BYTES: usize = 1_000;

/// The longest name or language that is kept. People choose their names themselves, and a DynamoDB item ends at
/// 400 KB.
const MAX_NAME_CHARS: usize = 256;

/// What a conversation is known by: `user:…`, `braze:…` or `phone:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConversationId(Personal<String>);

impl ConversationId {
    /// Takes an id that another system hands back, if it has one of the three forms.
    #[must_use]
    pub fn parse(id: &str) -> Option<Self> {
        let (kind, rest) = id.split_once(':')?;
        let known = matches!(kind, "user" | "braze" | "phone");
        (known && !rest.trim().is_empty() && rest.len() <= MAX_IDENTIFIER_BYTES).then(|| Self(id.into()))
    }

    /// The id as stored and as told to the external system. Personal: not for logs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How Braze knows a person. At least one of the first three is there once a message was accepted.
#[serde_with::skip_serializing_none]
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The brand's own id, Braze's `external_id`. Exactly as sent.
    pub user_id: Option<String>,
    /// Braze's internal id.
    pub braze_id: Option<String>,
    /// The phone number as Braze sent it, without blanks around it. Whether the alias of an unknown number
    /// has a `+` is not documented, so nothing is added or taken away.
    pub phone_number: Option<String>,
    /// The name in the person's WhatsApp profile. They choose it themselves.
    pub profile_name: Option<String>,
    /// The first name in Braze.
    pub first_name: Option<String>,
    /// The language in Braze, such as `es`.
    pub language: Option<String>,
}

impl Person {
    /// The conversation of this person: by `user_id`, else `braze_id`, else the phone number. `None` if there
    /// is none of them, or one that is too long to be stored.
    #[must_use]
    pub fn conversation_id(&self) -> Option<ConversationId> {
        let (kind, id) = None
            .or_else(|| self.user_id.as_deref().map(|id| ("user", id)))
            .or_else(|| self.braze_id.as_deref().map(|id| ("braze", id)))
            .or_else(|| self.phone_number.as_deref().map(|id| ("phone", id)))?;
        (id.len() <= MAX_IDENTIFIER_BYTES).then(|| ConversationId(format!("{kind}:{id}").into()))
    }

    /// The person with everything in bounds: names are cut, and an identifier that is too long is left out unless it
    /// is the one that makes the conversation.
    #[must_use]
    pub fn bounded(self) -> Self {
        let cut = |name: Option<String>| name.map(|name| name.chars().take(MAX_NAME_CHARS).collect());
        let fits = |id: &String| id.len() <= MAX_IDENTIFIER_BYTES;
        let by_user = self.user_id.is_some();
        let by_braze = !by_user && self.braze_id.is_some();
        Self {
            braze_id: self.braze_id.filter(|id| by_braze || fits(id)),
            phone_number: self.phone_number.filter(|id| !by_user && !by_braze || fits(id)),
            profile_name: cut(self.profile_name),
            first_name: cut(self.first_name),
            language: cut(self.language),
            user_id: self.user_id,
        }
    }

    /// Takes over what `newer` knows; what it does not know stays.
    pub fn update(&mut self, newer: &Self) {
        let Self {
            user_id,
            braze_id,
            phone_number,
            profile_name,
            first_name,
            language,
        } = self;
        for (known, news) in [
            (user_id, &newer.user_id),
            (braze_id, &newer.braze_id),
            (phone_number, &newer.phone_number),
            (profile_name, &newer.profile_name),
            (first_name, &newer.first_name),
            (language, &newer.language),
        ] {
            if news.is_some() {
                known.clone_from(news);
            }
        }
    }
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Person")
            .field("user_id", &self.user_id.is_some())
            .field("braze_id", &self.braze_id.is_some())
            .field("phone_number", &self.phone_number.is_some())
            .finish_non_exhaustive()
    }
}

/// What was said: text, and what came instead of or with it.
#[serde_with::skip_serializing_none]
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The text, character for character; empty if only media came.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Where Braze keeps the media, for seven days.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media_urls: Vec<String>,
    /// The form of a WhatsApp Flow, as JSON text.
    pub flow_response: Option<String>,
    /// The product that the message asks about.
    pub product_id: Option<String>,
    /// The catalog of that product.
    pub catalog_id: Option<String>,
}

impl Content {
    /// Whether nobody could answer this: no text but blanks, and nothing else. A catalog alone says nothing.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.text.trim().is_empty() && !self.is_more_than_text()
    }

    /// Whether something came that is no text: media, a form, or a question about a product.
    #[must_use]
    pub fn is_more_than_text(&self) -> bool {
        !self.media_urls.is_empty() || self.flow_response.is_some() || self.product_id.is_some()
    }

    /// The size of everything in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let ids = [&self.flow_response, &self.product_id, &self.catalog_id];
        let ids: usize = ids.into_iter().flatten().map(String::len).sum();
        self.text.len() + self.media_urls.iter().map(String::len).sum::<usize>() + ids
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("bytes", &self.bytes())
            .field("media", &self.media_urls.len())
            .field("flow", &self.flow_response.is_some())
            .field("product", &self.product_id.is_some())
            .finish_non_exhaustive()
    }
}

/// An inbound message that can be stored: somebody said something.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InboundMessage {
    /// The conversation it belongs to.
    pub conversation_id: ConversationId,
    /// Who wrote it.
    pub person: Person,
    /// What was said.
    pub content: Content,
    /// Braze's id of the webhook send. The same for every try of one send.
    pub dispatch_id: Option<String>,
    /// The webhook campaign that forwarded it.
    pub campaign_id: Option<String>,
    /// When we got it; Braze tells no other time.
    pub received_at: Timestamp,
}

impl InboundMessage {
    /// Whether the message is nothing but one of `keywords`, without regard to case and blanks around it. Braze acts
    /// on those itself (opt-out, opt-in), and a chatbot that answers "STOP" is a complaint. The caption of a picture
    /// is no keyword.
    #[must_use]
    pub fn is_keyword(&self, keywords: &[String]) -> bool {
        if self.content.is_more_than_text() {
            return false;
        }
        let text = self.content.text.trim().to_lowercase();
        keywords
            .iter()
            .any(|keyword| keyword.trim().to_lowercase() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_three_forms_are_conversation_ids() {
        for id in ["user:42", "braze:5f", "phone:+1555", "user:a:b"] {
            assert_eq!(ConversationId::parse(id).unwrap().as_str(), id);
        }
        for id in [
            "",
            "42",
            "user:",
            "user: ",
            "psid:42",
            &format!("user:{}", "x".repeat(1_001)),
        ] {
            assert_eq!(ConversationId::parse(id), None, "{id}");
        }
    }

    #[test]
    fn the_strongest_identifier_makes_the_conversation() {
        let mut person = Person {
            user_id: Some("42".to_owned()),
            braze_id: Some("b".to_owned()),
            phone_number: Some("+1555".to_owned()),
            ..Person::default()
        };
        let id = |person: &Person| person.conversation_id().map(|id| id.as_str().to_owned());
        assert_eq!(id(&person).as_deref(), Some("user:42"));
        person.user_id = None;
        assert_eq!(id(&person).as_deref(), Some("braze:b"));
        person.braze_id = None;
        assert_eq!(id(&person).as_deref(), Some("phone:+1555"));
        person.phone_number = None;
        assert_eq!(id(&person), None);
    }

    #[test]
    fn a_person_of_any_length_can_be_stored() {
        let long = || Some("x".repeat(500_000));
        let person = Person {
            user_id: Some("42".to_owned()),
            braze_id: long(),
            phone_number: long(),
            profile_name: long(),
            first_name: Some("é".repeat(500_000)),
            language: long(),
        };
        let bounded = person.clone().bounded();
        assert_eq!(bounded.conversation_id().unwrap().as_str(), "user:42");
        assert_eq!((&bounded.braze_id, &bounded.phone_number), (&None, &None));
        assert_eq!(bounded.profile_name.as_ref().map(String::len), Some(256));
        assert!(serde_json::to_string(&bounded).unwrap().len() < 2_000);
        // The identifier that counts is not passed over for a weaker one: that may be another conversation.
        let nobody = Person {
            user_id: None,
            phone_number: Some("+1".to_owned()),
            ..person
        };
        assert_eq!(nobody.bounded().conversation_id(), None);
    }

    #[test]
    fn news_replace_and_silence_does_not() {
        let mut known = Person {
            user_id: Some("42".to_owned()),
            language: Some("es".to_owned()),
            ..Person::default()
        };
        known.update(&Person {
            language: Some("en".to_owned()),
            ..Person::default()
        });
        assert_eq!(known.user_id.as_deref(), Some("42"));
        assert_eq!(known.language.as_deref(), Some("en"));
    }

    #[test]
    fn debug_shows_nobody() {
        let person = Person {
            phone_number: Some("+15551234567".to_owned()),
            ..Person::default()
        };
        let content = Content {
            text: "my secret".to_owned(),
            ..Content::default()
        };
        let shown = format!("{person:?} {content:?} {:?}", person.conversation_id());
        assert!(!shown.contains("555") && !shown.contains("secret"), "{shown}");
    }
}
