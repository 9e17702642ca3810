//! Whatever a person types: they stay themselves, and their words stay theirs.

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::noon;
use crate::whatsapp::inbound::{Inbound, parse};
use crate::whatsapp::message::InboundMessage;

/// The official three-key template, as Liquid fills it in without `json_escape`.
fn three_keys(user_id: &str, message: &str) -> String {
    format!(
        "{{\n  \"user_id\": \"{user_id}\",\n  \"phone_number\": \"+15551234567\",\n  \"message\": \"{message}\"\n}}"
    )
}

/// The full template without `json_escape`.
fn full(user_id: &str, message: &str, profile_name: &str) -> String {
    let values = [
        ("user_id", user_id),
        ("braze_id", ""),
        ("phone_number", "+15551234567"),
        ("first_name", "Ana"),
        ("language", "es"),
        ("message", message),
        ("media_urls", ""),
        ("profile_name", profile_name),
        ("product_id", ""),
        ("catalog_id", ""),
        ("flow_response", ""),
        ("dispatch_id", "14497aa4b013bf150881547fb3076fd6"),
        ("campaign_id", "0f6a3f0c-6a2b-4f52-9a43-2f5f1f0f7a11"),
    ];
    let entries: Vec<_> = values
        .iter()
        .map(|(key, value)| format!("  \"{key}\": \"{value}\""))
        .collect();
    format!("{{\n{}\n}}", entries.join(",\n"))
}

/// Texts that look for trouble: pieces of JSON, of the templates and of ordinary writing.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-z ]{1,6}",
        2 => Just("\"".to_owned()),
        2 => Just("\\".to_owned()),
        1 => Just("\n".to_owned()),
        1 => Just("\\n".to_owned()),
        1 => Just("\\\"".to_owned()),
        1 => Just("}".to_owned()),
        1 => Just("{".to_owned()),
        1 => Just("\"\n}".to_owned()),
        1 => Just(", ".to_owned()),
        1 => Just("\", \"".to_owned()),
        1 => Just("\": \"".to_owned()),
        1 => Just("\\u00".to_owned()),
        1 => Just("👩‍👩‍👧".to_owned()),
        1 => Just("\u{0}".to_owned()),
        1 => Just("{{".to_owned()),
        1 => prop::sample::select(vec![
            "user_id", "braze_id", "phone_number", "first_name", "language", "message", "message_b64", "media_urls",
            "profile_name", "product_id", "flow_response", "dispatch_id", "campaign_id", "anything",
        ]).prop_flat_map(|key| prop_oneof![
            Just(format!("\", \"{key}\": \"")),
            Just(format!("\",\n  \"{key}\": \"evil")),
            Just(format!("\", \"{key}\": 5, \"x\": \"")),
            Just(format!("\"{key}\": ")),
        ]),
        1 => "\\PC",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// The tail of the full template, as a text that somebody types.
fn whole_tail() -> impl Strategy<Value = String> {
    (texts(), texts()).prop_map(|(before, after)| {
        let body = full("42", "|", "p");
        let tail = body
            .split_once('|')
            .unwrap()
            .1
            .trim_end_matches(['\n', '}'])
            .trim_end_matches('"');
        format!("{before}{tail}{after}")
    })
}

/// Holds the reading of `body` against what was typed.
fn check(body: &str, typed: &str, user_id: &str) -> Result<Option<InboundMessage>, TestCaseError> {
    let read = parse(body.as_bytes(), Some("application/json"), noon());
    let as_json = serde_json::from_str::<Map<String, Value>>(body).ok();
    let message = match read {
        Inbound::Message(message) => *message,
        Inbound::Quarantined(_) => return Ok(None),
        Inbound::Ignored(reason) => {
            let text = as_json
                .as_ref()
                .and_then(|object| object["message"].as_str())
                .unwrap_or(typed);
            prop_assert!(
                text.trim().is_empty(),
                "{} was ignored as {}",
                body,
                reason.as_str()
            );
            return Ok(None);
        }
    };
    let id = if user_id.is_empty() {
        "phone:+15551234567"
    } else {
        "user:42"
    };
    prop_assert_eq!(message.conversation_id.as_str(), id, "{}", body);
    prop_assert_eq!(message.person.phone_number.as_deref(), Some("+15551234567"));
    prop_assert_eq!(message.person.user_id.as_deref().unwrap_or(""), user_id);
    prop_assert_eq!(&message.person.braze_id, &None);
    match as_json {
        Some(object) if !object.contains_key("message_b64") => {
            prop_assert_eq!(Some(message.content.text.as_str()), object["message"].as_str());
        }
        Some(_) => {}
        None if escaped_reading(body, typed).as_ref() == Some(&message.content.text) => {}
        None => prop_assert_eq!(&message.content.text, typed, "{}", body),
    }
    Ok(Some(message))
}

/// What `typed` stands for where it is proper JSON but for control characters: so the full template is read.
fn escaped_reading(body: &str, typed: &str) -> Option<String> {
    let is_full = body.lines().nth(2)?.contains("\"braze_id\"");
    let escape = |char: char| match char {
        char if char < ' ' => format!("\\u{:04x}", u32::from(char)),
        char => char.to_string(),
    };
    let escaped: String = typed.chars().map(escape).collect();
    serde_json::from_str(&format!("\"{escaped}\""))
        .ok()
        .filter(|_| is_full)
}

proptest! {
    #[test]
    fn the_three_key_template_alters_nothing(text in prop_oneof![4 => texts(), 1 => whole_tail()], known in any::<bool>()) {
        let user_id = if known { "42" } else { "" };
        check(&three_keys(user_id, &text), &text, user_id)?;
    }

    #[test]
    fn the_full_template_alters_nothing(
        text in prop_oneof![4 => texts(), 1 => whole_tail()],
        name in prop_oneof![Just("Ana".to_owned()), texts()],
        known in any::<bool>(),
    ) {
        let user_id = if known { "42" } else { "" };
        check(&full(user_id, &text, &name), &text, user_id)?;
    }

    #[test]
    fn templates_of_ones_own_alter_nothing_either(
        text in texts(),
        tail in prop::sample::subsequence(vec!["media_urls", "profile_name", "note", "dispatch_id", "extra"], 0..=5),
        first in any::<bool>(),
    ) {
        let tail = tail.iter().map(|key| format!(", \"{key}\": \"v\"")).collect::<Vec<_>>().concat();
        let who = "\"user_id\": \"42\", \"phone_number\": \"+15551234567\"";
        let body = if first {
            format!("{{\"message\": \"{text}\", {who}{tail}}}")
        } else {
            format!("{{{who}, \"message\": \"{text}\"{tail}}}")
        };
        check(&body, &text, "42")?;
    }

    #[test]
    fn the_full_template_with_a_key_more_alters_nothing(
        text in texts(),
        at in 0_usize..14,
        key in prop::sample::select(vec!["note", "message_b64", "Ünïque id", "user"]),
        value in prop_oneof![Just("v".to_owned()), Just("aGVsbG8=".to_owned()), "[a-z \"]{0,9}"],
    ) {
        let template = full("42", "|", "Ana");
        let mut lines: Vec<String> = template.lines().map(str::to_owned).collect();
        let entry = format!("  \"{key}\": \"{value}\"");
        if at < 13 {
            lines.insert(at + 1, format!("{entry},"));
        } else {
            lines[13].push(',');
            lines.insert(14, entry);
        }
        let body = lines.join("\n").replacen('|', &text, 1);
        if serde_json::from_str::<Value>(&body).is_ok() {
            return Ok(());
        }
        if let Inbound::Message(message) = parse(body.as_bytes(), None, noon()) {
            prop_assert_eq!(message.conversation_id.as_str(), "user:42");
            prop_assert_eq!(message.content.text, text, "{}", body);
        }
    }

    #[test]
    fn any_writing_without_json_around_it_is_recovered(text in "[^\\\\\"]{1,80}|[a-z ]{0,9}(\"[a-z ]{1,9}\"[a-z. ]{0,9}){1,5}") {
        prop_assume!(!text.trim().is_empty());
        for body in [three_keys("42", &text), full("42", &text, "Ana")] {
            prop_assert!(check(&body, &text, "42")?.is_some(), "{} was quarantined", body);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), text in texts(), cut in 0_usize..400) {
        let _ = parse(&body, None, noon());
        let body = full("42", &text, "Ana");
        let _ = parse(body.as_bytes().get(..cut).unwrap_or(body.as_bytes()), None, noon());
        let _ = parse(text.as_bytes(), Some("application/x-www-form-urlencoded"), noon());
    }

    #[test]
    fn escaped_texts_are_taken_as_they_are(text in texts()) {
        let text = format!("{text}.");
        let escaped = serde_json::to_string(&text).unwrap();
        let escaped = &escaped[1..escaped.len() - 1];
        for body in [three_keys("42", escaped), full("42", escaped, "Ana")] {
            let read = parse(body.as_bytes(), None, noon());
            let Inbound::Message(message) = read else {
                return Err(TestCaseError::fail(format!("{read:?} for {body}")));
            };
            prop_assert_eq!(&message.content.text, &text);
        }
    }
}

#[test]
fn sixty_four_kilobytes_are_recovered() {
    let text = "a \"quoted\" word, a brace }\nand 👩‍👩‍👧; ".repeat(1_600);
    assert!(text.len() > 64_000);
    for body in [three_keys("42", &text), full("42", &text, "Ana")] {
        let Inbound::Message(message) = parse(body.as_bytes(), None, noon()) else {
            panic!("not recovered");
        };
        assert!(message.content.text == text);
    }
}
