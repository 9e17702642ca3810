//! What an external system of kind `webhook` may answer: at once, or later through `/whatsapp/reply`.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::attributes::Reserved;
use super::message::ConversationId;
use super::split::TEXT_LIMIT;
use crate::json;

/// The most replies that one answer may hold: what an answer plans is committed in one transaction, which
/// DynamoDB ends at 100 items.
pub const MAX_REPLIES: usize = 20;

/// The longest that the texts of one answer may be together, in bytes. Split, they have to fit into that
/// transaction as well.
pub const MAX_ANSWER_BYTES: usize = 64_000;

/// What an external system answers.
#[derive(Clone, Default, PartialEq)]
pub struct Answer {
    /// What to send, in order. May be empty: nothing to say is an answer.
    pub replies: Vec<AnswerReply>,
    /// Whether a human takes over (true) or hands back (false); `None` = as it was.
    pub handoff: Option<bool>,
    /// What to write to the Braze profile.
    pub attributes: Map<String, Value>,
}

/// One message of an answer: a text, or a campaign or Canvas that says something by itself.
#[derive(Clone, Default, PartialEq)]
pub struct AnswerReply {
    /// The text, never blank.
    pub text: Option<String>,
    /// A route or campaign to send it by, instead of the conversation's.
    pub campaign: Option<String>,
    /// A Canvas to send it by; never beside a campaign.
    pub canvas: Option<String>,
    /// Further trigger properties, or entry properties of the Canvas.
    pub properties: Map<String, Value>,
}

impl Answer {
    /// Takes out the attributes that are not for an answer to write, and gives their names.
    pub fn take_reserved(&mut self, reserved: &Reserved) -> Vec<String> {
        let names = self.attributes.keys().filter(|name| reserved.includes(name));
        let names: Vec<String> = names.cloned().collect();
        for name in &names {
            self.attributes.remove(name);
        }
        names
    }

    /// An answer of one text.
    #[must_use]
    pub fn of(text: impl Into<String>) -> Self {
        Self {
            replies: vec![AnswerReply {
                text: Some(text.into()),
                ..AnswerReply::default()
            }],
            ..Self::default()
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("replies", &self.replies)
            .field("handoff", &self.handoff)
            .field("attributes", &self.attributes.len())
            .finish()
    }
}

impl fmt::Debug for AnswerReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerReply")
            .field("bytes", &self.text.as_ref().map(String::len))
            .field("campaign", &self.campaign)
            .field("canvas", &self.canvas)
            .field("properties", &self.properties.len())
            .finish()
    }
}

/// Why an answer cannot be used. Names the field at fault and never what it held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct AnswerError {
    /// The field, such as `replies[0].text`; `body` for the whole.
    pub field: String,
    /// What is wrong with it, in words that go on after the field's name.
    pub problem: &'static str,
}

/// An [`AnswerError`] about `field`.
pub fn fault(field: impl Into<String>, problem: &'static str) -> AnswerError {
    AnswerError {
        field: field.into(),
        problem,
    }
}

/// What the external system's HTTP answer means.
#[derive(Debug, Clone, PartialEq)]
pub enum Answered {
    /// The answer.
    Now(Answer),
    /// The messages are taken; if there is an answer, it comes through `/whatsapp/reply`.
    Later,
}

/// What workflow tools answer before their work is done: an object with nothing but these.
const ACKNOWLEDGING: [&str; 4] = ["message", "status", "ok", "success"];

/// Reads the answer of kind `webhook` that came with a 2xx `status`. 202, 204, an empty body, a body that is no JSON
/// and an object that only acknowledges mean that the answer comes later; anything else is the answer.
pub fn parse_answer(status: u16, body: &[u8]) -> Result<Answered, AnswerError> {
    if matches!(status, 202 | 204) || body.trim_ascii().is_empty() {
        return Ok(Answered::Later);
    }
    match json::read(body).ok() {
        Some(Value::Object(object)) if !acknowledges(&object) => answer(&object).map(Answered::Now),
        // `"ok"` and `true` say as much as `ok`.
        None | Some(Value::Object(_) | Value::String(_) | Value::Bool(true) | Value::Null) => {
            Ok(Answered::Later)
        }
        Some(_) => Err(fault("body", "must be a JSON object")),
    }
}

fn acknowledges(object: &Map<String, Value>) -> bool {
    !object.is_empty() && object.keys().all(|name| ACKNOWLEDGING.contains(&name.as_str()))
}

/// Reads a body of `/whatsapp/reply`: an answer, and which conversation it is for.
///
/// # Errors
///
/// [`AnswerError`], with the first field at fault.
pub fn parse_reply(body: &[u8]) -> Result<(ConversationId, Answer), AnswerError> {
    let object = object(body)?;
    let id = match object.get("conversation_id") {
        Some(Value::String(id)) => id,
        Some(_) => return Err(fault("conversation_id", "must be a string")),
        None => return Err(fault("conversation_id", "is missing")),
    };
    let id = ConversationId::parse(id)
        .ok_or_else(|| fault("conversation_id", "must be `user:…`, `braze:…` or `phone:…`"))?;
    Ok((id, answer(&object)?))
}

fn object(body: &[u8]) -> Result<Map<String, Value>, AnswerError> {
    json::read(body).map_err(|error| match error {
        json::Error::Syntax { .. } => fault("body", "is not JSON"),
        json::Error::Shape { .. } => fault("body", "must be a JSON object"),
    })
}

fn answer(object: &Map<String, Value>) -> Result<Answer, AnswerError> {
    // Unknown fields are let through, so that a system may add what it likes; but an answer that says none of
    // these three is a spelling error, and must not pass for silence.
    if !["replies", "handoff", "attributes"]
        .iter()
        .any(|field| object.contains_key(*field))
    {
        return Err(fault("replies", "is missing"));
    }
    Ok(Answer {
        replies: replies(object.get("replies"))?,
        handoff: match object.get("handoff") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(handoff)) => Some(*handoff),
            Some(_) => return Err(fault("handoff", "must be true or false")),
        },
        attributes: attributes(object.get("attributes"))?,
    })
}

fn replies(value: Option<&Value>) -> Result<Vec<AnswerReply>, AnswerError> {
    let replies = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(replies)) => replies,
        Some(_) => return Err(fault("replies", "must be a list")),
    };
    if replies.len() > MAX_REPLIES {
        return Err(fault("replies", "must not be more than 20"));
    }
    let mut read = Vec::new();
    for (index, value) in replies.iter().enumerate() {
        read.extend(reply(index, value)?);
    }
    let texts = read.iter().filter_map(|reply| reply.text.as_ref());
    if texts.map(String::len).sum::<usize>() > MAX_ANSWER_BYTES {
        return Err(fault("replies", "must not be longer than 64,000 bytes together"));
    }
    Ok(read)
}

/// `None` = it is blank and has nothing else to say.
fn reply(index: usize, value: &Value) -> Result<Option<AnswerReply>, AnswerError> {
    let field = |name: &str| format!("replies[{index}]{name}");
    let Value::Object(reply) = value else {
        return Err(fault(field(""), "must be an object"));
    };
    let text = match reply.get("text") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
        Some(_) => return Err(fault(field(".text"), "must be a string")),
    };
    let named = |name: &str, problem: &'static str| match reply.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) if (1..=MAX_ID_CHARS).contains(&id.trim().chars().count()) => {
            Ok(Some(id.trim().to_owned()))
        }
        Some(_) => Err(fault(field(&format!(".{name}")), problem)),
    };
    let campaign = named("campaign", "must be the name of a route or a campaign id")?;
    let canvas = named("canvas", "must be a Canvas id")?;
    if campaign.is_some() && canvas.is_some() {
        return Err(fault(field(".canvas"), "must not stand beside a campaign"));
    }
    let properties = match reply.get("properties") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(properties)) => properties.clone(),
        Some(_) => return Err(fault(field(".properties"), "must be an object")),
    };
    if !properties.is_empty() && bytes(&properties) + piece_bytes(text.as_deref()) > MAX_PROPERTIES_BYTES {
        return Err(fault(
            field(".properties"),
            "must not be larger than 50 KB, with the text",
        ));
    }
    if text.is_none() && campaign.is_none() && canvas.is_none() {
        // What was meant to be blank is; what has no text at all is a spelling error.
        let is_blank = reply.contains_key("text");
        return if is_blank {
            Ok(None)
        } else {
            Err(fault(field(".text"), "is missing"))
        };
    }
    Ok(Some(AnswerReply {
        text,
        campaign,
        canvas,
        properties,
    }))
}

/// Braze's limit for trigger properties and for the entry properties of a Canvas.
const MAX_PROPERTIES_BYTES: usize = 50_000;

/// No name of a route and no id is longer; an outbox item has to hold it.
const MAX_ID_CHARS: usize = 255;

/// The most room that a piece of the text may take beside the properties.
fn piece_bytes(text: Option<&str>) -> usize {
    let piece: String = text.unwrap_or_default().chars().take(TEXT_LIMIT).collect();
    bytes(&piece)
}

fn bytes(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |bytes| bytes.len())
}

fn attributes(value: Option<&Value>) -> Result<Map<String, Value>, AnswerError> {
    let attributes = match value {
        None | Some(Value::Null) => return Ok(Map::new()),
        Some(Value::Object(attributes)) => attributes,
        Some(_) => return Err(fault("attributes", "must be an object")),
    };
    if attributes
        .keys()
        .any(|name| name.trim().is_empty() || name.chars().count() > 255)
    {
        return Err(fault("attributes", "must have names of 1 to 255 characters"));
    }
    // Braze's limit for one object; an outbox item has room for more, a request has not.
    if bytes(attributes) > 100_000 {
        return Err(fault("attributes", "must not be larger than 100 KB"));
    }
    Ok(attributes.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Env;

    fn read(body: &[u8]) -> Result<Answer, AnswerError> {
        answer(&object(body)?)
    }

    #[test]
    fn an_answer_is_read() {
        let body = br#"{"replies":[{"text":" a\n"},{"text":"b","campaign":" orders "}],"handoff":true,
            "attributes":{"topic":"orders","n":1},"trace":"x"}"#;
        let answer = read(body).unwrap();
        assert_eq!(answer.replies[0].text.as_deref(), Some(" a\n"));
        assert_eq!(answer.replies[1].campaign.as_deref(), Some("orders"));
        assert_eq!((answer.handoff, answer.attributes.len()), (Some(true), 2));
        assert_eq!(read(br#"{"replies":[]}"#).unwrap(), Answer::default());
        assert_eq!(read(br#"{"handoff":false}"#).unwrap().handoff, Some(false));
    }

    #[test]
    fn what_json_allows_and_others_refuse_is_read() {
        let answer = r#""replies":[{"text":"see you \ud83d"}],"unused \ude00":1e400,"#;
        let expected = Answer::of("see you \u{FFFD}");
        let body = format!("\u{FEFF}{{{answer}\"attributes\":{{\"n\":10000002479028556077430}}}}");
        let read = read(body.as_bytes()).unwrap();
        assert_eq!(read.replies, expected.replies);
        assert_eq!(read.attributes["n"], "10000002479028556077430");
        let body = format!("\u{FEFF}{{{answer}\"conversation_id\":\"user:42\"}}");
        assert_eq!(parse_reply(body.as_bytes()).unwrap().1, expected);
    }

    #[test]
    fn an_answer_at_fault_names_the_field() {
        let long = format!(
            r#"{{"replies":[{{"text":"{}"}}]}}"#,
            "x".repeat(MAX_ANSWER_BYTES + 1)
        );
        let large = format!(
            r#"{{"replies":[{{"text":"a","properties":{{"a":"{}"}}}}]}}"#,
            "x".repeat(MAX_PROPERTIES_BYTES)
        );
        let many = format!(r#"{{"replies":[{}]}}"#, vec![r#"{"text":"x"}"#; 21].join(","));
        for (body, expected) in [
            ("", "`body` is not JSON"),
            ("hi", "`body` is not JSON"),
            ("[]", "`body` must be a JSON object"),
            ("{}", "`replies` is missing"),
            (r#"{"reply":"hi"}"#, "`replies` is missing"),
            (r#"{"replies":"hi"}"#, "`replies` must be a list"),
            (r#"{"replies":["hi"]}"#, "`replies[0]` must be an object"),
            (r#"{"replies":[{"text":"a"},{}]}"#, "`replies[1].text` is missing"),
            (
                r#"{"replies":[{"text":5}]}"#,
                "`replies[0].text` must be a string",
            ),
            (
                r#"{"replies":[{"properties":{"a":1}}]}"#,
                "`replies[0].text` is missing",
            ),
            (
                r#"{"replies":[{"campaign":"c","canvas":"v"}]}"#,
                "`replies[0].canvas` must not stand beside a campaign",
            ),
            (
                r#"{"replies":[{"canvas":" "}]}"#,
                "`replies[0].canvas` must be a Canvas id",
            ),
            (
                r#"{"replies":[{"text":"a","properties":[]}]}"#,
                "`replies[0].properties` must be an object",
            ),
            (
                &large,
                "`replies[0].properties` must not be larger than 50 KB, with the text",
            ),
            (&long, "`replies` must not be longer than 64,000 bytes together"),
            (&many, "`replies` must not be more than 20"),
            (
                r#"{"replies":[{"text":"a","campaign":7}]}"#,
                "`replies[0].campaign` must be the name of a route or a campaign id",
            ),
            (r#"{"handoff":"yes"}"#, "`handoff` must be true or false"),
            (r#"{"attributes":[]}"#, "`attributes` must be an object"),
            (
                r#"{"attributes":{"":1}}"#,
                "`attributes` must have names of 1 to 255 characters",
            ),
        ] {
            assert_eq!(read(body.as_bytes()).unwrap_err().to_string(), expected, "{body}");
        }
    }

    #[test]
    fn blank_replies_are_left_out_and_cost_their_neighbours_nothing() {
        let body =
            br#"{"replies":[{"text":""},{"text":null},{"text":" \n","properties":{"a":1}},{"text":"said"},
            {"text":" ","campaign":"menu","properties":{"rows":[1,2]}},{"canvas":"v"}]}"#;
        let replies = read(body).unwrap().replies;
        let texts: Vec<_> = replies.iter().map(|reply| reply.text.as_deref()).collect();
        assert_eq!(texts, [Some("said"), None, None]);
        assert_eq!(replies[1].campaign.as_deref(), Some("menu"));
        assert_eq!(replies[1].properties["rows"][1], 2);
        assert_eq!(replies[2].canvas.as_deref(), Some("v"));
        assert_eq!(read(br#"{"replies":[{"text":""}]}"#).unwrap(), Answer::default());
    }

    #[test]
    fn an_acknowledgement_is_no_answer() {
        for (status, body) in [
            (202, "whatever"),
            (204, ""),
            (200, ""),
            (200, " \n"),
            (200, "Accepted"),
            (200, "OK"),
            (200, "<html>ok</html>"),
            (200, r#""ok""#),
            (201, r#"{"message":"Workflow was started"}"#),
            (200, r#"{"status":"queued","ok":true,"success":true}"#),
        ] {
            assert_eq!(
                parse_answer(status, body.as_bytes()),
                Ok(Answered::Later),
                "{body}"
            );
        }
        assert_eq!(
            parse_answer(200, br#"{"replies":[{"text":"a"}]}"#),
            Ok(Answered::Now(Answer::of("a")))
        );
        assert_eq!(
            parse_answer(200, br#"{"replies":[]}"#),
            Ok(Answered::Now(Answer::default()))
        );
        for body in [
            "{}",
            "[]",
            "7",
            r#"{"reply":"hi"}"#,
            r#"{"message":"hi","reply":"hi"}"#,
        ] {
            assert!(parse_answer(200, body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn what_is_not_for_an_answer_to_write_is_taken_out_by_name() {
        let body = br#"{"attributes":{"topic":"x","email":"a@b.c","messenger_id":"1","external_id":"2"}}"#;
        let mut answer = read(body).unwrap();
        let reserved = Env::from_pairs(&[]).finish(Reserved::read).unwrap();
        assert_eq!(
            answer.take_reserved(&reserved),
            ["email", "external_id", "messenger_id"]
        );
        assert_eq!(answer.attributes.keys().collect::<Vec<_>>(), ["topic"]);
        assert!(answer.take_reserved(&reserved).is_empty());
    }

    #[test]
    fn a_later_answer_names_its_conversation() {
        let (id, answer) = parse_reply(br#"{"conversation_id":"user:42","replies":[{"text":"a"}]}"#).unwrap();
        assert_eq!((id.as_str(), answer), ("user:42", Answer::of("a")));
        for (body, expected) in [
            (r#"{"replies":[]}"#, "`conversation_id` is missing"),
            (r#"{"conversation_id":42}"#, "`conversation_id` must be a string"),
            (
                r#"{"conversation_id":"42","replies":[]}"#,
                "`conversation_id` must be `user:…`, `braze:…` or `phone:…`",
            ),
            (r#"{"conversation_id":"user:42"}"#, "`replies` is missing"),
        ] {
            assert_eq!(parse_reply(body.as_bytes()).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn debug_shows_no_text() {
        let mut answer = Answer::of("secret");
        answer.attributes.insert("a".to_owned(), "secret".into());
        assert!(!format!("{answer:?}").contains("secret"));
    }
}
