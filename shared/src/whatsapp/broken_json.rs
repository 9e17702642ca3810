//! Reads bodies that Liquid broke: a template without `json_escape` puts quotes, line breaks and backslashes
//! of a message into the JSON as they are. Braze does not repeat what it got a 4xx for, so refusing such a
//! body would lose what the person said.
//!
//! Guessing is not an option either: whoever writes the message must not become somebody else, nor have
//! words put into their mouth. So this is no repairing parser. It knows the two published templates, finds
//! **every** way in which one of them can have made the body, and reads it only if there is exactly one. What
//! the template really made is among those ways, so the only one is the right one.
//!
//! * The **full template** ([`FULL`]): every key once, in its order. Values that a person writes may hold
//!   anything; the others are proper JSON strings, so they end at their first quote.
//! * A template that **ends with the message**, like the official three-key one: entries that are proper JSON,
//!   then the message, which reaches to the last quote. If the message looks as if further entries followed
//!   inside it, the template may have been another one, and nothing can tell.

use std::collections::HashSet;
use std::ops::Range;

use super::json_string::{
    BLANKS, could_be_escaped, expect, proper_end, skip_blanks, unescape, unescaped_quote,
};

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

/// A key of the full template.
struct Field {
    key: &'static str,
    /// Written by a person or of unknown form, so it may hold anything, quotes included.
    free: bool,
}

const fn proper(key: &'static str) -> Field {
    Field { key, free: false }
}

const fn free(key: &'static str) -> Field {
    Field { key, free: true }
}

/// The full template, in its order. With `message_b64` in the place of `message` it is known as well.
const FULL: [Field; 13] = [
    proper("user_id"),
    proper("braze_id"),
    proper("phone_number"),
    free("first_name"),
    proper("language"),
    free("message"),
    free("media_urls"),
    free("profile_name"),
    proper("product_id"),
    proper("catalog_id"),
    free("flow_response"),
    proper("dispatch_id"),
    proper("campaign_id"),
];

const ENCODED_MESSAGE: Field = proper("message_b64");

/// Reads a body that is not JSON. Takes time in proportion to its length.
#[must_use]
pub fn read(body: &str) -> Reading {
    let Some(end) = last_quote(body) else {
        return Reading::Unreadable;
    };
    let encoded: Vec<&Field> = FULL
        .iter()
        .map(|field| {
            if field.key == "message" {
                &ENCODED_MESSAGE
            } else {
                field
            }
        })
        .collect();
    match (
        match_template(body, &FULL.iter().collect::<Vec<_>>(), end),
        match_template(body, &encoded, end),
    ) {
        (Matches::One(spans), Matches::None) => fields(body, &FULL.iter().collect::<Vec<_>>(), &spans),
        (Matches::None, Matches::One(spans)) => fields(body, &encoded, &spans),
        (Matches::None, Matches::None) => read_up_to_message(body, end),
        _ => Reading::Ambiguous,
    }
}

/// The place of the quote in `"` `}` at the end, with nothing but blanks around.
fn last_quote(body: &str) -> Option<usize> {
    let before_brace = body.trim_end_matches(BLANKS).strip_suffix('}')?;
    let value = before_brace.trim_end_matches(BLANKS).strip_suffix('"')?;
    Some(value.len())
}

// ---------------------------------------------------------------------------------------------------------
// The full template

enum Matches {
    None,
    One(Vec<Range<usize>>),
    Many,
}

/// A place where one value can end and the value of the next key begin: `" , "key" : "`.
struct Anchor {
    /// Where the quote is that closes the value before.
    before: usize,
    /// Where the value begins, behind its quote.
    start: usize,
    /// In how many ways the template can go on from here to the end; 2 stands for more.
    ways: u8,
}

/// Counts the ways in which `template` can have made `body`, from its end to its beginning.
fn match_template(body: &str, template: &[&Field], end: usize) -> Matches {
    let mut following: Vec<Vec<Anchor>> = Vec::new();
    for (index, field) in template.iter().enumerate().rev() {
        let mut anchors = if index == 0 {
            first_anchor(body, field.key).into_iter().collect()
        } else {
            anchors(body, field.key)
        };
        let next = following.last().map(Vec::as_slice);
        // For values that may end anywhere: the ways from each anchor of the next key on, summed up.
        let mut from_here_on: Vec<u8> = vec![0];
        for anchor in next.unwrap_or_default().iter().rev() {
            from_here_on.push(at_most_two(
                from_here_on.last().copied().unwrap_or(0),
                anchor.ways,
            ));
        }
        from_here_on.reverse();
        for anchor in &mut anchors {
            anchor.ways = match next {
                None => u8::from(ends_at(body, field, anchor.start, end)),
                Some(next) if field.free => {
                    let first = next.partition_point(|next| next.before < anchor.start);
                    from_here_on.get(first).copied().unwrap_or(0)
                }
                Some(next) => proper_end(body, anchor.start)
                    .and_then(|close| next.binary_search_by_key(&close, |next| next.before).ok())
                    .and_then(|at| next.get(at))
                    .map_or(0, |next| next.ways),
            };
        }
        following.push(anchors);
    }
    following.reverse();
    match following
        .first()
        .and_then(|first| first.first())
        .map_or(0, |first| first.ways)
    {
        0 => Matches::None,
        1 => walk(body, template, &following, end).map_or(Matches::None, Matches::One),
        _ => Matches::Many,
    }
}

fn at_most_two(left: u8, right: u8) -> u8 {
    left.saturating_add(right).min(2)
}

/// Whether the last value, which begins at `start`, can end at `end`.
fn ends_at(body: &str, field: &Field, start: usize, end: usize) -> bool {
    if field.free {
        start <= end
    } else {
        proper_end(body, start) == Some(end)
    }
}

/// Follows the only way and gives where each value is.
fn walk(body: &str, template: &[&Field], anchors: &[Vec<Anchor>], end: usize) -> Option<Vec<Range<usize>>> {
    let mut spans = Vec::with_capacity(template.len());
    let mut start = anchors.first()?.first()?.start;
    for (field, next) in template.iter().zip(anchors.iter().skip(1)) {
        let close = if field.free {
            None
        } else {
            Some(proper_end(body, start)?)
        };
        let next = next.iter().find(|next| {
            next.ways > 0 && next.before >= start && close.is_none_or(|close| close == next.before)
        })?;
        spans.push(start..next.before);
        start = next.start;
    }
    spans.push(start..end);
    Some(spans)
}

fn first_anchor(body: &str, key: &str) -> Option<Anchor> {
    let at = skip_blanks(body, 0);
    let at = skip_blanks(body, expect(body, at, "{")?);
    let at = expect(body, at, &format!("\"{key}\""))?;
    Some(Anchor {
        before: 0,
        start: value_start(body, at)?,
        ways: 0,
    })
}

fn anchors(body: &str, key: &str) -> Vec<Anchor> {
    let quoted = format!("\"{key}\"");
    body.match_indices(&quoted)
        .filter_map(|(at, _)| {
            let start = value_start(body, at + quoted.len())?;
            let separated = body.get(..at)?.trim_end_matches(BLANKS).strip_suffix(',')?;
            let before = separated.trim_end_matches(BLANKS).strip_suffix('"')?.len();
            Some(Anchor {
                before,
                start,
                ways: 0,
            })
        })
        .collect()
}

/// Behind the quote of `: "`.
fn value_start(body: &str, at: usize) -> Option<usize> {
    let at = expect(body, skip_blanks(body, at), ":")?;
    expect(body, skip_blanks(body, at), "\"")
}

fn fields(body: &str, template: &[&Field], spans: &[Range<usize>]) -> Reading {
    let mut fields = Vec::with_capacity(template.len());
    for (field, span) in template.iter().zip(spans) {
        let Some(raw) = body.get(span.clone()) else {
            return Reading::Unreadable;
        };
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
    if could_be_escaped(message) || known.into_iter().any(inside) || entries_could_follow(body, start) {
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

/// Whether the body can be read as if the message ended early and entries of whatever name followed it. It
/// is enough that they look like entries: to be too suspicious costs a look into the quarantine, no more.
fn entries_could_follow(body: &str, message_start: usize) -> bool {
    let close = body.trim_end_matches(BLANKS).len().saturating_sub(1);
    let mut good: HashSet<usize> = HashSet::new();
    let commas: Vec<usize> = body
        .match_indices(',')
        .map(|(at, _)| at)
        .filter(|at| *at > message_start)
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
        let message = body
            .get(message_start..comma)
            .map(|text| text.trim_end_matches(BLANKS));
        if message.is_some_and(|message| message.ends_with('"')) {
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

    #[test]
    fn hostile_bodies_take_no_longer_than_others() {
        let length = 1 << 18;
        for piece in [
            "\",\"",
            "\\\"",
            "\"",
            ",",
            "\", \"message\": \"",
            "\",\"a\":\"",
            "\\",
            " ",
            "\",\"a\":1",
        ] {
            let body = three(&piece.repeat(length / piece.len()));
            let begin = std::time::Instant::now();
            let _ = read(&body);
            assert!(begin.elapsed().as_secs() < 20, "{piece}: {:?}", begin.elapsed());
        }
    }
}
