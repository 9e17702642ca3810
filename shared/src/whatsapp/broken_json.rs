//! Reads bodies that Liquid broke: a template without `json_escape` puts quotes, line breaks and backslashes
//! of a message into the JSON as they are. Braze does not repeat what it got a 4xx for, so refusing such a
//! body would lose what the person said.
//!
//! Guessing is not an option either: whoever writes the message must not become somebody else, nor have
//! words put into their mouth. So this is no repairing parser. It knows the two published templates, finds
//! **every** way in which one of them can have made the body, and reads it only if there is exactly one. What
//! the template really made is among those ways, so the only one is the right one.
//!
//! * The **full template** ([`FULL`], also with `message_b64`): every key once, in its order. Values that a
//!   person writes may hold anything, but not what looks like a key more; the others are proper JSON strings, so
//!   they end at their first quote.
//! * A template that **ends with the message**, like the official three-key one: entries that are proper JSON,
//!   then the message, which reaches to the last quote. If the message looks as if further entries followed
//!   inside it, the template may have been another one, and nothing can tell.

mod full_template;

use std::collections::HashSet;
use std::ops::Range;

use serde_json::Value;

use self::full_template::{
    ENCODED_MESSAGE, FULL, Field, Matches, anchors, encoded, match_template, value_start, with_both,
};
use super::base64_text;
use super::json_string::{BLANKS, could_be_escaped, expect, skip_blanks, unescape, unescaped_quote};
use crate::json::{self, Members};

/// What a broken body turned out to be.
#[derive(Clone, PartialEq, Eq)]
pub enum Reading {
    /// The only way to read it: keys and values in the body's order.
    Fields(Vec<(String, String)>),
    /// There are several ways, and they say different things.
    Ambiguous,
    /// No known template makes this.
    Unreadable,
}

/// Reads a body that is not JSON. Takes time in proportion to its length.
#[must_use]
pub fn read(body: &str) -> Reading {
    if let Some(fields) = read_escaped(body) {
        return Reading::Fields(fields);
    }
    let Some(end) = last_quote(body) else {
        return Reading::Unreadable;
    };
    for template in with_both() {
        if let Matches::One(spans) = match_template(body, &template, end)
            && let Some(fields) = fields_of_both(body, &template, &spans)
        {
            return Reading::Fields(fields);
        }
    }
    let (plain, encoded): (Vec<&Field>, _) = (FULL.iter().collect(), encoded());
    match (
        match_template(body, &plain, end),
        match_template(body, &encoded, end),
    ) {
        (Matches::One(spans), Matches::None) => fields(body, &plain, &spans),
        (Matches::None, Matches::One(spans)) => fields(body, &encoded, &spans),
        (Matches::None, Matches::None) => read_up_to_message(body, end),
        _ => Reading::Ambiguous,
    }
}

/// The full template, proper but for control characters in its strings: not every escaper knows those.
///
/// Whoever wrote the message cannot have played the template here, since it would have a key too many. An escaper
/// that leaves line breaks as they are writes none as `\n`; where it looks so, nothing was escaped.
fn read_escaped(body: &str) -> Option<Vec<(String, String)>> {
    let Members(entries) = json::read(escape_controls(body)?.as_bytes()).ok()?;
    let keys = entries.iter().map(|(key, _)| key.as_str());
    if !keys.eq(FULL.iter().map(|field| field.key)) {
        return None;
    }
    let fields = entries.into_iter().map(|(key, value)| match value {
        Value::String(text) => Some((key, text)),
        _ => None,
    });
    fields.collect()
}

/// The body with the control characters in its strings escaped; `None` if there is none, or one that was escaped
/// already.
fn escape_controls(body: &str) -> Option<String> {
    let mut escaped = String::with_capacity(body.len() + 64);
    let (mut in_string, mut changed) = (false, false);
    let mut chars = body.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' if in_string => {
                let next = chars.next()?;
                if matches!(next, 'b' | 'f' | 'n' | 'r' | 't') {
                    return None;
                }
                escaped.extend([char, next]);
                continue;
            }
            '"' => in_string = !in_string,
            char if in_string && char < ' ' => {
                changed = true;
                escaped.push_str("\\u00");
                escaped.push_str(&hex::encode([u8::try_from(char).unwrap_or_default()]));
                continue;
            }
            _ => {}
        }
        escaped.push(char);
    }
    changed.then_some(escaped)
}

/// With the message both as it is and encoded there is no doubt, if they are the same. If not, or if both are
/// blank, somebody may have typed the second one.
fn fields_of_both(body: &str, template: &[&Field], spans: &[Range<usize>]) -> Option<Vec<(String, String)>> {
    let raw = |key: &str| {
        let at = template.iter().position(|field| field.key == key)?;
        body.get(spans.get(at)?.clone())
    };
    let message = raw("message")?;
    let decoded = base64_text::decode(raw("message_b64")?)?;
    let same = decoded == message || unescape(message).as_deref() == Some(decoded.as_str());
    if !same || decoded.trim().is_empty() {
        return None;
    }
    let fields = template.iter().zip(spans);
    fields
        .filter(|(field, _)| field.key != "message_b64")
        .map(|(field, span)| {
            let raw = body.get(span.clone())?;
            let value = if field.key == "message" {
                decoded.clone()
            } else {
                unescape(raw).unwrap_or_else(|| raw.to_owned())
            };
            Some((field.key.to_owned(), value))
        })
        .collect()
}

/// The place of the quote in `"` `}` at the end, with nothing but blanks around.
fn last_quote(body: &str) -> Option<usize> {
    let before_brace = body.trim_end_matches(BLANKS).strip_suffix('}')?;
    let value = before_brace.trim_end_matches(BLANKS).strip_suffix('"')?;
    Some(value.len())
}

fn fields(body: &str, template: &[&Field], spans: &[Range<usize>]) -> Reading {
    let mut fields = Vec::with_capacity(template.len());
    for (field, span) in template.iter().zip(spans) {
        let Some(raw) = body.get(span.clone()) else {
            return Reading::Unreadable;
        };
        if holds_another_entry(body, field, span) {
            return Reading::Ambiguous;
        }
        let value = if field.key == "message" {
            if could_be_escaped(raw) {
                return Reading::Ambiguous;
            }
            raw.to_owned()
        } else {
            unescape(raw).unwrap_or_else(|| raw.to_owned())
        };
        fields.push((field.key.to_owned(), value));
    }
    Reading::Fields(fields)
}

/// Whether a value that may hold anything holds what looks like an entry of its own: the template may have a key
/// more than the published one. Known keys have their own places, so within a value they were typed. A form is
/// JSON itself: there only entries up to its end count, as nothing would close it behind them.
fn holds_another_entry(body: &str, field: &Field, span: &Range<usize>) -> bool {
    if field.key == "flow_response" {
        return entries_could_follow(body, span.start, span.end);
    }
    let Some(value) = body.get(span.clone()) else {
        return false;
    };
    value.match_indices(',').any(|(comma, _)| {
        let ends_a_value = value
            .get(..comma)
            .is_some_and(|before| before.trim_end_matches(BLANKS).ends_with('"'));
        let key = expect(value, skip_blanks(value, comma + 1), "\"").and_then(|start| {
            let close = start + value.get(start..)?.find('"')?;
            expect(value, skip_blanks(value, close + 1), ":")?;
            value.get(start..close)
        });
        ends_a_value && key.is_some_and(|key| FULL.iter().all(|known| known.key != key))
    })
}

// ---------------------------------------------------------------------------------------------------------
// Templates that end with the message

fn read_up_to_message(body: &str, end: usize) -> Reading {
    let Some((mut fields, start)) = head(body) else {
        return Reading::Unreadable;
    };
    let Some(message) = body.get(start..end) else {
        return Reading::Unreadable;
    };
    let known = FULL.iter().chain([&ENCODED_MESSAGE]);
    let inside = |field: &Field| {
        anchors(body, field.key)
            .iter()
            .any(|anchor| anchor.before >= start)
    };
    if could_be_escaped(message) || known.into_iter().any(inside) || entries_could_follow(body, start, end) {
        return Reading::Ambiguous;
    }
    fields.push(("message".to_owned(), message.to_owned()));
    Reading::Fields(fields)
}

/// The entries in front of the message, all of them proper JSON, and where the message begins.
fn head(body: &str) -> Option<(Vec<(String, String)>, usize)> {
    let mut fields = Vec::new();
    let mut at = expect(body, skip_blanks(body, 0), "{")?;
    loop {
        let entry = entry(body, at)?;
        let key = unescape(body.get(entry.key)?)?;
        if key == "message" {
            return Some((fields, value_start(body, entry.behind_key)?));
        }
        let raw = body.get(entry.value?)?;
        if entry.is_string {
            fields.push((key, unescape(raw)?));
        } else if raw != "null" {
            fields.push((key, raw.to_owned()));
        }
        at = expect(body, skip_blanks(body, entry.behind_value), ",")?;
    }
}

struct Entry {
    key: Range<usize>,
    behind_key: usize,
    value: Option<Range<usize>>,
    is_string: bool,
    behind_value: usize,
}

/// One `"key" : value` from `at` on; the value is a string or a word such as `12` or `null`.
fn entry(body: &str, at: usize) -> Option<Entry> {
    let start = expect(body, skip_blanks(body, at), "\"")?;
    let key = start..unescaped_quote(body, start)?;
    let behind_key = key.end + 1;
    let start = skip_blanks(body, expect(body, skip_blanks(body, behind_key), ":")?);
    let (value, is_string, behind_value) = if let Some(start) = expect(body, start, "\"") {
        let close = unescaped_quote(body, start);
        (
            close.map(|close| start..close),
            true,
            close.map_or(body.len(), |close| close + 1),
        )
    } else {
        let word = body
            .get(start..)?
            .bytes()
            .take_while(|byte| is_word(*byte))
            .count();
        ((word > 0).then_some(start..start + word), false, start + word)
    };
    Some(Entry {
        key,
        behind_key,
        value,
        is_string,
        behind_value,
    })
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-')
}

/// Whether the value between `value_start` and the quote at `end` can be read as if it ended early and entries
/// of whatever name followed it. It is enough that they look like entries: to be too suspicious costs a look
/// into the quarantine, no more.
fn entries_could_follow(body: &str, value_start: usize, end: usize) -> bool {
    let close = skip_blanks(body, end + 1);
    let mut good: HashSet<usize> = HashSet::new();
    let commas: Vec<usize> = body
        .match_indices(',')
        .map(|(at, _)| at)
        .filter(|at| (value_start..end).contains(at))
        .collect();
    for comma in commas.into_iter().rev() {
        let Some(entry) = entry(body, comma + 1).filter(|entry| entry.value.is_some()) else {
            continue;
        };
        let behind = skip_blanks(body, entry.behind_value);
        if behind != close && !good.contains(&behind) {
            continue;
        }
        good.insert(comma);
        let value = body
            .get(value_start..comma)
            .map(|text| text.trim_end_matches(BLANKS));
        if value.is_some_and(|value| value.ends_with('"')) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> Option<String> {
        match read(body) {
            Reading::Fields(fields) => fields
                .into_iter()
                .find(|(key, _)| key == "message")
                .map(|(_, value)| value),
            Reading::Ambiguous | Reading::Unreadable => None,
        }
    }

    fn three(text: &str) -> String {
        format!("{{\n  \"user_id\": \"42\",\n  \"phone_number\": \"+1555\",\n  \"message\": \"{text}\"\n}}")
    }

    fn full(text: &str) -> String {
        let value = |field: &Field| {
            if field.key == "message" {
                text.to_owned()
            } else {
                String::new()
            }
        };
        let entries = FULL
            .iter()
            .map(|field| format!("\"{}\": \"{}\"", field.key, value(field)));
        format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn what_a_person_types_comes_back() {
        for text in [
            r#"she said "hi""#,
            "line one\nline two\r\n\tthree",
            "\"",
            "\"\"",
            r"\",
            r#"C:\dir "x""#,
            "}",
            "\"\n}",
            "\"}",
            r#"my "phone_number": "+1" is wrong"#,
            r#"{"a": "b", "c": "d"}"#,
            "👩‍👩‍👧 \"ok\"",
        ] {
            assert_eq!(message(&three(text)).as_deref(), Some(text));
        }
    }

    #[test]
    fn a_message_that_plays_the_template_is_not_read() {
        for text in [
            "a\"b\", \"phone_number\": \"+1666",
            "a\nb\", \"media_urls\": \"",
            "a\nb\", \"anything\": \"",
            "a\nb\", \"anything\": 1, \"x\": \"",
        ] {
            assert!(read(&three(text)) == Reading::Ambiguous, "{text}");
        }
    }

    #[test]
    fn backslashes_that_may_be_escapes_are_not_guessed() {
        assert!(read(&three("C:\\new\nfile")) == Reading::Ambiguous);
        assert!(read(&three("\\ud83d\n")) == Reading::Ambiguous);
        assert_eq!(message(&three("C:\\qew\nfile")).as_deref(), Some("C:\\qew\nfile"));
    }

    #[test]
    fn what_no_template_makes_is_not_read() {
        for body in [
            "",
            "{",
            "}",
            "{\"}",
            "{}",
            "hello",
            r#"{"message": "}"#,
            r#"{"a" "message": "x"}"#,
            "\"}",
        ] {
            assert!(matches!(read(body), Reading::Unreadable), "{body}");
        }
    }

    /// What this thread has used: it does not grow while the machine is busy with something else.
    fn processor_time() -> std::time::Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.try_into().unwrap()
    }

    #[test]
    fn hostile_bodies_take_no_longer_than_others() {
        let time = |body: &str| {
            let begin = processor_time();
            let _ = read(body);
            processor_time().saturating_sub(begin)
        };
        for piece in [
            "\",\"",
            "\\\"",
            "\"",
            ",",
            "\", \"message\": \"",
            "\", \"flow_response\": \"",
            "\",\"a\":\"",
            "\\",
            " ",
            "\",\"a\":1",
            "\",\"a\":\"\\\"",
            ",\"",
            "\",  ",
        ] {
            for template in [three, full] {
                let of = |length: usize| template(&piece.repeat(length / piece.len()));
                let (short, long) = (time(&of(1 << 15)), time(&of(1 << 18)));
                // Eight times as long: 64 times the time, if it grew with the square.
                let most = short * 24 + std::time::Duration::from_millis(100);
                assert!(long < most, "{piece}: {short:?}, {long:?}");
            }
        }
    }
}
