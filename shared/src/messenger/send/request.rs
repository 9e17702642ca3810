//! The body that a Braze webhook campaign posts to `/messenger/send`: lenient about what Liquid prints, strict about
//! what is meant.

use serde_json::{Map, Value, json};

use super::{Message, Way};
use crate::json::{self, Members, Scalar};
use crate::messenger::key::{Channel, is_id};
use crate::messenger::link::is_user_id;
use crate::personal::Personal;

/// In characters. (<https://developers.facebook.com/docs/messenger-platform/reference/send-api>)
const LONGEST_TEXT: usize = 2_000;

/// In bytes. (<https://developers.facebook.com/docs/instagram-platform/instagram-api-with-instagram-login/messaging-api>)
const LONGEST_INSTAGRAM_TEXT: usize = 1_000;

/// In bytes, as JSON. Templates have a few thousand.
const LONGEST_MESSAGE: usize = 100 * 1024;

/// In bytes. Braze's have 36.
const LONGEST_CAMPAIGN_ID: usize = 256;

/// What Braze prints as the dispatch id of a preview or test: each of them is sent.
const PREVIEW: &str = "dispatch_id_for_unsent_campaign";

/// Tags that Meta has ended. (<https://developers.facebook.com/docs/messenger-platform/send-messages/message-tags>)
const RETIRED_TAGS: [&str; 3] = ["ACCOUNT_UPDATE", "CONFIRMED_EVENT_UPDATE", "POST_PURCHASE_UPDATE"];

/// Whom a message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// A user, by Braze's external id.
    User(Personal<String>),
    /// A person, by their PSID or IGSID.
    Scoped(Personal<String>),
}

/// A message that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct SendRequest {
    /// Whom it is for.
    pub recipient: Recipient,
    /// The page or Instagram account that sends it, if it is named.
    pub account_id: Option<String>,
    /// Messenger or Instagram.
    pub channel: Channel,
    /// What may be sent.
    pub way: Way,
    /// The Send API's `message`.
    pub message: Personal<Value>,
    /// Braze's dispatch: each person gets a message of it once. `None` for previews and where there is none.
    pub dispatch_id: Option<String>,
    /// Braze's campaign.
    pub campaign_id: Option<String>,
}

impl SendRequest {
    /// The message under an id of ours.
    #[must_use]
    pub fn message(self, send_id: String) -> Message {
        Message {
            send_id,
            way: self.way,
            message: self.message,
            campaign_id: self.campaign_id,
        }
    }
}

/// Why a body asks for nothing that can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// The field at fault, and what is expected of it.
    Field(&'static str, &'static str),
    /// The tag is one that Meta has ended.
    TagRetired,
}

/// Reads a body.
///
/// # Errors
///
/// [`Invalid`]; it holds nothing of the body.
pub fn parse(body: &[u8]) -> Result<SendRequest, Invalid> {
    let fields = fields(body)?;
    let channel = match fields.text("channel")?.as_deref() {
        None | Some("messenger") => Channel::Messenger,
        Some("instagram") => Channel::Instagram,
        Some(_) => return Err(Invalid::Field("channel", "is `messenger` or `instagram`")),
    };
    let recipient = match (fields.user_id()?, fields.id("psid")?) {
        (Some(user_id), None) => Recipient::User(user_id.into()),
        (None, Some(psid)) => Recipient::Scoped(psid.into()),
        (None, None) => {
            return Err(Invalid::Field(
                "user_id",
                "or `psid` says whom the message is for",
            ));
        }
        (Some(_), Some(_)) => return Err(Invalid::Field("psid", "is not given beside `user_id`")),
    };
    let way = way(&fields, channel)?;
    let message = message(&fields, channel)?;
    if message.to_string().len() > LONGEST_MESSAGE {
        return Err(Invalid::Field("message", "has 100 KB at most"));
    }
    check_template(way, &message)?;
    Ok(SendRequest {
        recipient,
        account_id: fields.id("page_id")?,
        channel,
        way,
        message: message.into(),
        dispatch_id: fields.text("dispatch_id")?.filter(|id| id != PREVIEW),
        campaign_id: fields.campaign_id()?,
    })
}

struct Fields(Map<String, Value>);

fn fields(body: &[u8]) -> Result<Fields, Invalid> {
    const NOT_AN_OBJECT: Invalid =
        Invalid::Field("body", "is a JSON object; put texts through `json_escape`");
    let text = &*json::decode(body);
    let Members(members) = match json::read(text.as_bytes()) {
        Ok(members) => members,
        Err(json::Error::Shape { .. }) => return Err(NOT_AN_OBJECT),
        Err(json::Error::Syntax { .. }) => text_unescaped(text).ok_or(NOT_AN_OBJECT)?,
    };
    let mut fields = Map::new();
    for (name, value) in members {
        if fields.get(&name).is_some_and(|before| *before != value) {
            // JSON leaves open which one counts.
            return Err(Invalid::Field("body", "has one value for each key"));
        }
        fields.insert(name, value);
    }
    Ok(Fields(fields))
}

/// A body that is no JSON because of its `text`, which nothing has escaped. It is read where `text` is the last entry, and
/// holds nothing that looks like one more: then it reaches to the last quote.
fn text_unescaped(body: &str) -> Option<Members> {
    let body = body.trim().strip_suffix('}')?.trim_end().strip_suffix('"')?;
    let start = body.rfind("\"text\"")?;
    let (before, text) = body.split_at(start);
    let text = text.strip_prefix("\"text\"")?.trim_start().strip_prefix(':')?;
    let text = text.trim_start().strip_prefix('"')?;
    // `", "` and `":` are what entries are made of.
    let squeezed: String = text.chars().filter(|char| !char.is_whitespace()).collect();
    if before.matches("\"text\"").count() > 0 || squeezed.contains("\",\"") || squeezed.contains("\":") {
        return None;
    }
    let Members(mut members) = json::read(format!("{before}\"text\":null}}").as_bytes()).ok()?;
    members.retain(|(name, _)| name != "text");
    members.push(("text".to_owned(), text.into()));
    Some(Members(members))
}

impl Fields {
    fn scalar(&self, name: &'static str) -> Result<Scalar<'_>, Invalid> {
        match self.0.get(name) {
            Some(Value::Object(_) | Value::Array(_)) => Err(Invalid::Field(name, "is a text")),
            value => Ok(value.map_or(Scalar::Absent, Scalar::from)),
        }
    }

    /// A text, unless it is blank or how Liquid prints nothing.
    fn text(&self, name: &'static str) -> Result<Option<String>, Invalid> {
        let text = self.scalar(name)?.any().map(|text| text.trim().to_owned());
        let is_nothing = |text: &String| matches!(text.as_str(), "" | "null" | "nil" | "None");
        Ok(text.filter(|text| !is_nothing(text)))
    }

    /// Of a person or a page.
    fn id(&self, name: &'static str) -> Result<Option<String>, Invalid> {
        self.whole(name, is_id)
    }

    fn user_id(&self) -> Result<Option<String>, Invalid> {
        self.whole("user_id", is_user_id)
    }

    fn whole(&self, name: &'static str, is_one: fn(&str) -> bool) -> Result<Option<String>, Invalid> {
        if self.text(name)?.is_none() {
            return Ok(None);
        }
        match self.scalar(name)?.id() {
            Some(id) if is_one(&id) => Ok(Some(id)),
            _ => Err(Invalid::Field(name, "is an id, whole")),
        }
    }

    fn campaign_id(&self) -> Result<Option<String>, Invalid> {
        let id = self.text("campaign_id")?;
        match id {
            Some(id) if id.len() > LONGEST_CAMPAIGN_ID => {
                Err(Invalid::Field("campaign_id", "has 256 bytes at most"))
            }
            id => Ok(id),
        }
    }
}

fn way(fields: &Fields, channel: Channel) -> Result<Way, Invalid> {
    let upper = |name| Ok(fields.text(name)?.map(|text| text.to_ascii_uppercase()));
    let (messaging_type, tag): (Option<String>, Option<String>) = (upper("messaging_type")?, upper("tag")?);
    if tag.as_deref().is_some_and(|tag| RETIRED_TAGS.contains(&tag)) {
        return Err(Invalid::TagRetired);
    }
    let way = match (messaging_type.as_deref(), tag.as_deref()) {
        (None | Some("RESPONSE"), None) => Way::Response,
        (Some("UPDATE"), None) => Way::Update,
        (Some("UTILITY"), None) => Way::Utility,
        (Some("MESSAGE_TAG"), Some("HUMAN_AGENT")) => Way::HumanAgent,
        (Some("MESSAGE_TAG"), Some("CUSTOMER_FEEDBACK")) => Way::CustomerFeedback,
        (Some("MESSAGE_TAG"), _) => {
            return Err(Invalid::Field("tag", "is `HUMAN_AGENT` or `CUSTOMER_FEEDBACK`"));
        }
        (_, Some(_)) => return Err(Invalid::Field("tag", "goes with `messaging_type` `MESSAGE_TAG`")),
        (Some(_), None) => {
            return Err(Invalid::Field(
                "messaging_type",
                "is `RESPONSE`, `UPDATE`, `MESSAGE_TAG` or `UTILITY`",
            ));
        }
    };
    match (channel, way) {
        (Channel::Instagram, Way::CustomerFeedback) => {
            Err(Invalid::Field("tag", "is `HUMAN_AGENT` on Instagram"))
        }
        (Channel::Instagram, Way::Utility) => {
            Err(Invalid::Field("messaging_type", "is not `UTILITY` on Instagram"))
        }
        (_, way) => Ok(way),
    }
}

fn message(fields: &Fields, channel: Channel) -> Result<Value, Invalid> {
    let text = fields
        .scalar("text")?
        .any()
        .filter(|text| !text.trim().is_empty());
    let given = fields.0.get("message").filter(|message| !message.is_null());
    match (text, given) {
        (Some(text), None) => {
            check_text("text", &text, channel)?;
            Ok(json!({ "text": text }))
        }
        (None, Some(Value::Object(message))) => {
            match message.get("text") {
                Some(Value::String(text)) => check_text("message.text", text, channel)?,
                Some(_) => return Err(Invalid::Field("message.text", "is a text")),
                None if message.is_empty() => {
                    return Err(Invalid::Field(
                        "message",
                        "holds a text, an attachment or a template",
                    ));
                }
                None => {}
            }
            Ok(Value::Object(message.clone()))
        }
        (None, Some(_)) => Err(Invalid::Field("message", "is an object of the Send API")),
        (None, None) => Err(Invalid::Field("text", "is not blank, or `message` is given")),
        (Some(_), Some(_)) => Err(Invalid::Field("message", "is not given beside `text`")),
    }
}

fn check_text(field: &'static str, text: &str, channel: Channel) -> Result<(), Invalid> {
    match channel {
        _ if text.trim().is_empty() => Err(Invalid::Field(field, "is not blank")),
        Channel::Messenger if text.chars().count() > LONGEST_TEXT => {
            Err(Invalid::Field(field, "has 2,000 characters at most"))
        }
        Channel::Instagram if text.len() > LONGEST_INSTAGRAM_TEXT => {
            Err(Invalid::Field(field, "has 1,000 bytes at most on Instagram"))
        }
        _ => Ok(()),
    }
}

fn check_template(way: Way, message: &Value) -> Result<(), Invalid> {
    let is_feedback =
        message.pointer("/attachment/payload/template_type") == Some(&json!("customer_feedback"));
    match way {
        Way::Utility if !message.get("template").is_some_and(Value::is_object) => {
            Err(Invalid::Field("message", "holds a `template` for `UTILITY`"))
        }
        Way::CustomerFeedback if !is_feedback => Err(Invalid::Field(
            "message",
            "holds the template `customer_feedback` for this tag",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn read(body: &Value) -> Result<SendRequest, Invalid> {
        parse(body.to_string().as_bytes())
    }

    fn field(result: Result<SendRequest, Invalid>) -> &'static str {
        match result {
            Err(Invalid::Field(field, _)) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_text_for_a_user_is_a_response() {
        let request =
            read(&json!({"user_id": "42", "text": "hi", "dispatch_id": "d", "page_id": ""})).unwrap();
        assert_eq!(request.recipient, Recipient::User("42".into()));
        assert_eq!(
            (request.way, request.channel),
            (Way::Response, Channel::Messenger)
        );
        assert_eq!(*request.message, json!({"text": "hi"}));
        assert_eq!(
            (request.account_id, request.dispatch_id.as_deref()),
            (None, Some("d"))
        );
    }

    #[test]
    fn ids_come_as_numbers_too_and_a_preview_has_no_dispatch() {
        let body = r#"{"psid": 5275811715949972, "page_id": 101332922643063, "text": "hi",
                       "dispatch_id": "dispatch_id_for_unsent_campaign"}"#;
        let request = parse(body.as_bytes()).unwrap();
        assert_eq!(request.recipient, Recipient::Scoped("5275811715949972".into()));
        assert_eq!(request.account_id.as_deref(), Some("101332922643063"));
        assert_eq!(request.dispatch_id, None);
    }

    #[rstest]
    #[case(json!({"text": "hi"}), "user_id")]
    #[case(json!({"user_id": " ", "psid": "null", "text": "hi"}), "user_id")]
    #[case(json!({"user_id": "1", "psid": "2", "text": "hi"}), "psid")]
    #[case(json!({"psid": 1.5, "text": "hi"}), "psid")]
    #[case(json!({"psid": {"id": "1"}, "text": "hi"}), "psid")]
    #[case(json!({"user_id": "1"}), "text")]
    #[case(json!({"user_id": "1", "text": " "}), "text")]
    #[case(json!({"user_id": "1", "text": "x".repeat(2_001)}), "text")]
    #[case(json!({"user_id": "1", "message": "hi"}), "message")]
    #[case(json!({"user_id": "1", "message": {}}), "message")]
    #[case(json!({"user_id": "1", "message": {"text": "x".repeat(2_001)}}), "message.text")]
    #[case(json!({"user_id": "1", "message": {"text": 7}}), "message.text")]
    #[case(json!({"user_id": "1", "text": "hi", "message": {"text": "hi"}}), "message")]
    #[case(json!({"user_id": "1", "text": "hi", "channel": "telegram"}), "channel")]
    #[case(json!({"user_id": "1", "text": "é".repeat(501), "channel": "instagram"}), "text")]
    #[case(json!({"user_id": "1", "text": "hi", "messaging_type": "SPAM"}), "messaging_type")]
    #[case(json!({"user_id": "1", "text": "hi", "messaging_type": "MESSAGE_TAG"}), "tag")]
    #[case(json!({"user_id": "1", "text": "hi", "messaging_type": "MESSAGE_TAG", "tag": "NEWS"}), "tag")]
    #[case(json!({"user_id": "1", "text": "hi", "tag": "HUMAN_AGENT"}), "tag")]
    #[case(json!({"user_id": "1", "text": "hi", "messaging_type": "UTILITY"}), "message")]
    #[case(json!({"user_id": "1", "text": "hi", "messaging_type": "MESSAGE_TAG", "tag": "CUSTOMER_FEEDBACK"}), "message")]
    #[case(json!([]), "body")]
    fn the_field_at_fault_is_named(#[case] body: Value, #[case] at_fault: &str) {
        assert_eq!(field(read(&body)), at_fault);
    }

    #[test]
    fn the_longest_texts_are_taken() {
        assert!(read(&json!({"user_id": "1", "text": "é".repeat(2_000)})).is_ok());
        let instagram = json!({"user_id": "1", "text": "é".repeat(500), "channel": "instagram"});
        assert!(read(&instagram).is_ok());
    }

    #[test]
    fn a_tag_that_has_ended_is_known_before_anything_else_of_it() {
        for tag in RETIRED_TAGS {
            let body = json!({"user_id": "1", "text": "hi", "messaging_type": "MESSAGE_TAG", "tag": tag});
            assert_eq!(read(&body), Err(Invalid::TagRetired));
        }
    }

    #[test]
    fn a_text_that_nothing_has_escaped_is_read_where_it_comes_last() {
        let body = "{\"user_id\": \"42\", \"dispatch_id\": \"d\",\n \"text\": \"say \"hi\"\n and go\"}";
        let request = parse(body.as_bytes()).unwrap();
        assert_eq!(*request.message, json!({"text": "say \"hi\"\n and go"}));
        assert_eq!(request.recipient, Recipient::User("42".into()));
    }

    #[rstest]
    #[case(r#"{"text": "say "hi"", "user_id": "42"}"#)]
    #[case(r#"{"user_id": "42", "text": "x", "psid": "7"}"#)]
    #[case(r#"{"user_id": "42", "text": "Ana "x", "page_id": "7"}"#)]
    #[case(r#"{"user_id": "42", "text": ""#)]
    fn a_text_that_may_hold_further_entries_is_not_guessed_at(#[case] body: &str) {
        assert!(matches!(
            parse(body.as_bytes()),
            Err(Invalid::Field("body" | "psid", _))
        ));
    }

    #[test]
    fn one_key_with_two_values_is_refused() {
        let body = r#"{"user_id": "1", "user_id": "2", "text": "hi"}"#;
        assert_eq!(field(parse(body.as_bytes())), "body");
    }

    proptest::proptest! {
        #[test]
        fn no_body_panics(body in "\\PC{0,120}", text in "\\PC{0,60}") {
            let _ = parse(body.as_bytes());
            let _ = parse(format!("{{\"user_id\":\"1\",\"text\":\"{text}\"}}").as_bytes());
        }
    }
}
