//! What Braze posts to `/whatsapp/inbound`, in every form a webhook campaign can give it.
//!
//! A message is never refused for its form: Braze does not repeat what it got a 4xx for. What cannot be read
//! without guessing is kept whole instead ([`Inbound::Quarantined`]).

mod fields;
mod form;

use jiff::Timestamp;
use serde_json::Value;

use self::fields::{Fields, Key, is_nothing, text_of};
use self::form::{form, is_form};
use super::base64_text;
use super::broken_json::{self, Reading};
use super::message::{Content, InboundMessage};
use crate::json::{self, Members};
use crate::outbox::Reason;

/// The most that one message may hold. A DynamoDB item ends at 400 KB, and WhatsApp's longest text is far
/// below this.
pub const MAX_CONTENT_BYTES: usize = 300_000;

/// What a body turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    /// Somebody said something.
    Message(Box<InboundMessage>),
    /// Nothing that anyone could answer; the reason is a fixed code.
    Ignored(Reason),
    /// Not to be read without guessing; the caller keeps the body. The reason is a fixed code.
    Quarantined(Reason),
}

/// Reads a body. `content_type` is the header's value; it only decides where the body itself does not show
/// its form. `received_at` is when it arrived.
///
/// Only what is [`Reason::Blank`] is ignored.
#[must_use]
pub fn parse(body: &[u8], content_type: Option<&str>, received_at: Timestamp) -> Inbound {
    match fields(body, content_type).and_then(|fields| message(&fields, received_at)) {
        Ok(message) if message.content.is_blank() => Inbound::Ignored(Reason::Blank),
        Ok(message) => Inbound::Message(Box::new(message)),
        Err(reason) => Inbound::Quarantined(reason),
    }
}

fn fields(body: &[u8], content_type: Option<&str>) -> Result<Fields, Reason> {
    let body = &*json::decode(body);
    if body.trim().is_empty() {
        return Err(Reason::EmptyBody);
    }
    if !body.trim_start().starts_with('{') && is_form(body, content_type) {
        return Fields::new(form(body.trim())?);
    }
    match json::read(body.as_bytes()) {
        Ok(Members(fields)) => Fields::new(fields),
        Err(json::Error::Shape { .. }) => Err(Reason::NotAnObject),
        Err(json::Error::Syntax { .. }) => match broken_json::read(body) {
            Reading::Fields(fields) => Fields::new(
                fields
                    .into_iter()
                    .map(|(key, text)| (key, Value::String(text)))
                    .collect(),
            ),
            Reading::Ambiguous => Err(Reason::Ambiguous),
            Reading::Unreadable => Err(Reason::Unreadable),
        },
    }
}

fn message(fields: &Fields, received_at: Timestamp) -> Result<InboundMessage, Reason> {
    fields.check_order()?;
    let person = fields.person();
    let conversation_id = person.conversation_id().ok_or(Reason::NoIdentity)?;
    let content = Content {
        text: text(fields)?,
        media_urls: fields.value(Key::MediaUrls).map(media_urls).unwrap_or_default(),
        flow_response: fields.text(Key::FlowResponse),
        product_id: fields.text(Key::ProductId),
        catalog_id: fields.text(Key::CatalogId),
    };
    if content.bytes() > MAX_CONTENT_BYTES {
        return Err(Reason::TooLarge);
    }
    Ok(InboundMessage {
        conversation_id,
        person,
        content,
        dispatch_id: fields.text(Key::DispatchId),
        campaign_id: fields.text(Key::CampaignId),
        received_at,
    })
}

/// The message's text; the encoded one wins, since no character of it can have been broken on the way.
fn text(fields: &Fields) -> Result<String, Reason> {
    let Some(encoded) = fields.text(Key::MessageBase64) else {
        return Ok(fields.value(Key::Message).and_then(text_of).unwrap_or_default());
    };
    base64_text::decode(&encoded).ok_or(Reason::MessageB64)
}

/// A JSON list, a JSON list inside a string, or URLs with commas or blanks between them: how Liquid renders
/// the list is not documented. A comma only parts two URLs if another one or a blank follows.
fn media_urls(value: &Value) -> Vec<String> {
    match value {
        Value::Array(urls) => urls.iter().flat_map(media_urls).collect(),
        Value::String(text) => {
            let text = text.trim();
            if let Ok(urls @ Value::Array(_)) = json::read(text.as_bytes()) {
                return media_urls(&urls);
            }
            text.replace(",http", " http")
                .split_whitespace()
                .map(|url| url.trim_matches(['[', ']', '"', '\'', ',']))
                .filter(|url| !is_nothing(url))
                .map(str::to_owned)
                .collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Inbound {
        parse(body.as_bytes(), None, Timestamp::UNIX_EPOCH)
    }

    fn message_of(body: &str) -> InboundMessage {
        match read(body) {
            Inbound::Message(message) => *message,
            other => panic!("{other:?} for {body}"),
        }
    }

    fn conversation_of(body: &str) -> String {
        message_of(body).conversation_id.as_str().to_owned()
    }

    #[test]
    fn a_message_cannot_make_its_writer_somebody_else() {
        let unknown = |text: &str| format!(r#"{{"user_id":"","phone_number":"+1555","message":"{text}"}}"#);
        assert_eq!(conversation_of(&unknown("hi")), "phone:+1555");
        for text in [
            r#"x", "braze_id": "victim"#,
            r#"x", "user_id": "victim"#,
            r#"x", "phone_number": "+1666"#,
        ] {
            assert!(matches!(read(&unknown(text)), Inbound::Quarantined(_)), "{text}");
        }
        let known = r#"{"user_id":"42","phone_number":"+1555","message":"x", "braze_id": "victim"}"#;
        assert_eq!(read(known), Inbound::Quarantined(Reason::IdentityAfterMessage));
    }

    #[test]
    fn who_it_is_stands_before_the_message() {
        for body in [
            r#"{"message":"x","user_id":"42","z":"","phone_number":"+1555"}"#,
            r#"{"braze_id":"b","message":"x","user_id":"42"}"#,
            r#"{"message":"x","n":"","user_id":"42","phone_number":"+1555"}"#,
            r#"{"braze_id":"","message":"x","phone_number":"+1","user_id":"42"}"#,
            r#"{"message":"hi","user_id":"42","phone_number":"+1"}"#,
            r#"{"user_id":"42","message":"hi","phone_number":"+1"}"#,
            "message=hi&user_id=42&phone_number=%2B1",
        ] {
            assert_eq!(
                read(body),
                Inbound::Quarantined(Reason::IdentityAfterMessage),
                "{body}"
            );
        }
        // Nothing is told by a blank, nothing typed into an encoded message, and serializers sort.
        for body in [
            r#"{"message":"hi","phone_number":"+1","user_id":"42"}"#,
            r#"{"user_id":"42","message":"hi","phone_number":""}"#,
            r#"{"message_b64":"aGk=","phone_number":"+1","user_id":"42"}"#,
        ] {
            assert_eq!(conversation_of(body), "user:42", "{body}");
        }
    }

    #[test]
    fn a_number_that_cannot_be_kept_is_nobody() {
        let of = |id: &str| read(&format!(r#"{{"user_id":{id},"message":"hi"}}"#));
        for id in ["1.5", "1e3"] {
            assert_eq!(of(id), Inbound::Quarantined(Reason::IdentityRounded), "{id}");
        }
        assert_eq!(of(r#""a\ud83d""#), Inbound::Quarantined(Reason::IdentityDamaged));
        for id in ["18446744073709551615", "12345678901234567890123"] {
            let body = format!(r#"{{"user_id":{id},"message":"hi"}}"#);
            assert_eq!(conversation_of(&body), format!("user:{id}"));
        }
    }

    #[test]
    fn what_json_allows_and_others_refuse_is_read() {
        for (body, text) in [
            (
                r#"{"user_id":"42","message":"see you \ud83d"}"#,
                "see you \u{FFFD}",
            ),
            (
                r#"{"user_id":"42","unused \ude00":{"a":["\ud83d"]},"message":"hi"}"#,
                "hi",
            ),
            (
                "\u{FEFF}{\"user_id\":42,\"message\":10000002479028556077430}",
                "10000002479028556077430",
            ),
            // The template that Liquid broke too.
            (
                "{\"user_id\":\"42\",\"first_name\":\"\\ud83d\",\"message\":\"a\nb\"}",
                "a\nb",
            ),
        ] {
            let message = message_of(body);
            assert_eq!(
                (message.content.text.as_str(), message.conversation_id.as_str()),
                (text, "user:42")
            );
        }
    }

    #[test]
    fn a_form_without_url_encode_is_not_guessed() {
        let text = |body: &str| message_of(body).content.text;
        assert_eq!(text("user_id=42&message=where is it?"), "where is it?");
        assert_eq!(text("user_id=42&message=1%2B1+%26+2"), "1+1 & 2");
        for body in [
            "user_id=42&message=Tom & Jerry",
            "user_id=42&message=1 + 1",
            "user_id=42&message=100 %41",
            "user_id=42&phone_number=+15551&message=1+1",
            "user_id=42&message=gr\u{fc}n&blau",
            "user_id=42&message=a\"b&c=d",
        ] {
            assert_eq!(read(body), Inbound::Quarantined(Reason::Ambiguous), "{body}");
        }
    }

    #[test]
    fn the_same_value_twice_does_no_harm() {
        assert_eq!(
            conversation_of(r#"{"user_id":"42","user_id":"42","message":"hi"}"#),
            "user:42"
        );
        let two = r#"{"user_id":"42","user_id":"43","message":"hi"}"#;
        assert_eq!(read(two), Inbound::Quarantined(Reason::DuplicateKey));
        let blank = r#"{"user_id":"","user_id":"43","phone_number":"+1","message":"hi"}"#;
        assert_eq!(read(blank), Inbound::Quarantined(Reason::DuplicateKey));
    }

    #[test]
    fn what_liquid_prints_for_nothing_is_nothing() {
        for nothing in [
            "null",
            "nil",
            "NIL",
            "[nil]",
            "[null]",
            "[]",
            "{}",
            "undefined",
            "None",
            " ",
            "{{${user_id}}}",
        ] {
            let ids = format!(r#""user_id":"{nothing}","braze_id":"{nothing}","language":"{nothing}""#);
            let known = format!(r#"{{{ids},"phone_number":"+1555","message":"{nothing}"}}"#);
            let is_blank = nothing.trim().is_empty();
            if is_blank {
                assert_eq!(read(&known), Inbound::Ignored(Reason::Blank));
            } else {
                let message = message_of(&known);
                assert_eq!(message.conversation_id.as_str(), "phone:+1555", "{nothing}");
                // A person may write it.
                assert_eq!(message.content.text, nothing);
                assert_eq!(message.person.language, None);
            }
            let unknown = format!(r#"{{{ids},"phone_number":"{nothing}","message":"hi"}}"#);
            assert_eq!(
                read(&unknown),
                Inbound::Quarantined(Reason::NoIdentity),
                "{nothing}"
            );
            let empty = format!(
                r#"{{"user_id":"42","media_urls":"{nothing}","flow_response":"{nothing}","product_id":"{nothing}"}}"#
            );
            assert_eq!(read(&empty), Inbound::Ignored(Reason::Blank), "{nothing}");
        }
        let mixed = r#"{"user_id":"42","media_urls":"[nil, https://a/1]"}"#;
        assert_eq!(message_of(mixed).content.media_urls, ["https://a/1"]);
        let listed = r#"{"user_id":"42","media_urls":[null,"nil","https://a/1"]}"#;
        assert_eq!(message_of(listed).content.media_urls, ["https://a/1"]);
        let named = r#"{"user_id":"42","first_name":"Null","profile_name":"null","message":"hi"}"#;
        let person = message_of(named).person;
        assert_eq!(
            (person.first_name.as_deref(), person.profile_name),
            (Some("Null"), None)
        );
        let form = "user_id=null&phone_number=%2B1555&message=hi";
        assert_eq!(conversation_of(form), "phone:+1555");
        let broken = "{\"user_id\": \"null\", \"phone_number\": \"+1555\", \"message\": \"she said \"hi\"\"}";
        assert_eq!(conversation_of(broken), "phone:+1555");
    }

    #[test]
    fn a_key_that_was_typed_again_is_not_read() {
        for typed in [
            r#"","message":""#,
            r#"x","message":"x"#,
            r#"hi","user_id":"42"#,
            r#"hi","phone_number":"+1555"#,
        ] {
            let body = format!(r#"{{"user_id":"42","phone_number":"+1555","message":"{typed}"}}"#);
            assert_eq!(read(&body), Inbound::Quarantined(Reason::DuplicateKey), "{typed}");
        }
        let name = r#"{"user_id":"42","first_name":"x","user_id":"42","message":"hi"}"#;
        assert_eq!(read(name), Inbound::Quarantined(Reason::DuplicateKey));
    }

    #[test]
    fn a_name_of_any_length_does_no_harm() {
        let long = "x".repeat(500_000);
        let body =
            format!(r#"{{"user_id":"42","profile_name":"{long}","language":"{long}","message":"hi"}}"#);
        let message = message_of(&body);
        assert_eq!(
            (
                message.content.text.as_str(),
                message.person.profile_name.unwrap().len()
            ),
            ("hi", 256)
        );
    }

    #[test]
    fn media_urls_come_in_many_shapes() {
        let urls = |value: &str| {
            message_of(&format!(r#"{{"user_id":"1","media_urls":{value}}}"#))
                .content
                .media_urls
        };
        let two = ["https://a/1", "https://b/2?x=1,2"];
        assert_eq!(urls(r#"["https://a/1","https://b/2?x=1,2"]"#), two);
        assert_eq!(urls(r#""[\"https://a/1\",\"https://b/2?x=1,2\"]""#), two);
        assert_eq!(urls(r#""https://a/1,https://b/2?x=1,2""#), two);
        assert_eq!(urls(r#""https://a/1, https://b/2?x=1,2""#), two);
        assert_eq!(urls(r#"" https://a/1 https://b/2?x=1,2""#), two);
        assert_eq!(urls(r#""[https://a/1, https://b/2?x=1,2]""#), two);
        assert_eq!(
            read(r#"{"user_id":"1","media_urls":""}"#),
            Inbound::Ignored(Reason::Blank)
        );
        assert_eq!(
            read(r#"{"user_id":"1","media_urls":"[]"}"#),
            Inbound::Ignored(Reason::Blank)
        );
        assert_eq!(
            read(r#"{"user_id":"1","media_urls":null,"message":" "}"#),
            Inbound::Ignored(Reason::Blank)
        );
    }

    #[test]
    fn a_phone_number_keeps_its_sign_in_a_form() {
        let of = |body: &str| conversation_of(body);
        assert_eq!(of("user_id=&phone_number=+15551&message=hi"), "phone:+15551");
        assert_eq!(of("user_id=&phone_number=%2B15551&message=hi"), "phone:+15551");
        assert_eq!(of("user_id=&phone_number=15551&message=hi"), "phone:15551");
        let twice = "user_id=42&phone_number=1&message=you&user_id=43";
        assert_eq!(read(twice), Inbound::Quarantined(Reason::DuplicateKey));
    }

    #[test]
    fn an_encoded_message_is_decoded() {
        let of = |encoded: &str| read(&format!(r#"{{"user_id":"1","message_b64":"{encoded}"}}"#));
        let text = |inbound| match inbound {
            Inbound::Message(message) => message.content.text,
            other => panic!("{other:?}"),
        };
        assert_eq!(text(of("c2hlIHNhaWQgImhpIgo=")), "she said \"hi\"\n");
        assert_eq!(text(of("c2hlIHNhaWQgImhpIgo")), "she said \"hi\"\n");
        assert_eq!(text(of("8J+YgD8/")), "😀??");
        assert_eq!(text(of("8J-YgD8_")), "😀??");
        assert_eq!(of("%%%"), Inbound::Quarantined(Reason::MessageB64));
        assert_eq!(of("/w=="), Inbound::Quarantined(Reason::MessageB64));
    }

    #[test]
    fn what_cannot_be_stored_is_kept_aside() {
        let long = "x".repeat(MAX_CONTENT_BYTES + 1);
        assert_eq!(
            read(&format!(r#"{{"user_id":"1","message":"{long}"}}"#)),
            Inbound::Quarantined(Reason::TooLarge)
        );
        let id = "x".repeat(2_000);
        assert_eq!(
            read(&format!(r#"{{"user_id":"{id}","message":"hi"}}"#)),
            Inbound::Quarantined(Reason::NoIdentity)
        );
        assert_eq!(read(" "), Inbound::Quarantined(Reason::EmptyBody));
        assert_eq!(read("[1]"), Inbound::Quarantined(Reason::NotAnObject));
        assert_eq!(read("hello"), Inbound::Quarantined(Reason::Unreadable));
    }

    #[test]
    fn numbers_without_quotes_are_read() {
        let message = message_of(r#"{"user_id": 42, "phone_number": 15551234567, "message": 7}"#);
        assert_eq!(message.conversation_id.as_str(), "user:42");
        assert_eq!(message.person.phone_number.as_deref(), Some("15551234567"));
        assert_eq!(message.content.text, "7");
    }
}
