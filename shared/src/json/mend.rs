//! Mends the text of JSON where `serde_json` is stricter than JSON's grammar or would round.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;
use serde::de::IgnoredAny;
use serde_json::Number;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// `serde_json` reads as many containers inside each other. Nothing that we read nests deeper than ten.
const MAX_DEPTH: usize = 127;

/// Shorter integers fit into 64 bits.
const LONG_NUMBER: usize = 19;

/// The text of `body`, ready for `serde_json`; borrowed if there is nothing to mend. What is not JSON stays so.
#[must_use]
pub fn text(body: &[u8]) -> Cow<'_, str> {
    match decode(body) {
        Cow::Borrowed(text) => mend(text),
        Cow::Owned(text) => Cow::Owned(mend(&text).into_owned()),
    }
}

/// `body` without its byte order mark, as text; U+FFFD stands for what is not UTF-8.
#[must_use]
pub fn decode(body: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body))
}

fn mend(text: &str) -> Cow<'_, str> {
    let mut mended = Mended {
        text,
        out: String::new(),
        copied: 0,
    };
    // `too_deep` is where a container begins that is nested too deep.
    let (mut at, mut depth, mut too_deep) = (0, 0_usize, 0);
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => at = mended.string(at + 1, depth),
            b'-' | b'0'..=b'9' => at = mended.number(at, depth),
            b'[' | b'{' => {
                depth += 1;
                if depth == MAX_DEPTH + 1 {
                    too_deep = at;
                }
                at += 1;
            }
            b']' | b'}' => {
                at += 1;
                if depth == MAX_DEPTH + 1 {
                    mended.replace(too_deep..at, "null");
                }
                depth = depth.saturating_sub(1);
            }
            _ => at += 1,
        }
    }
    mended.finish()
}

struct Mended<'a> {
    text: &'a str,
    /// What replaces `text` up to `copied`.
    out: String,
    copied: usize,
}

impl<'a> Mended<'a> {
    fn replace(&mut self, range: Range<usize>, with: &str) {
        let kept = self.text.get(self.copied..range.start).unwrap_or_default();
        self.out.extend([kept, with]);
        self.copied = range.end;
    }

    fn finish(mut self) -> Cow<'a, str> {
        if self.copied == 0 {
            return Cow::Borrowed(self.text);
        }
        self.out
            .push_str(self.text.get(self.copied..).unwrap_or_default());
        Cow::Owned(self.out)
    }

    /// Reads a string on from `at`, replaces halves of emoji in it, and gives where it ends.
    fn string(&mut self, mut at: usize, depth: usize) -> usize {
        let bytes = self.text.as_bytes();
        while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
            at += found;
            match bytes.get(at..at + 3) {
                Some(b"\\ud" | b"\\uD") => {
                    let (character, length) =
                        self.text.get(at..).and_then(unicode_escape).unwrap_or_default();
                    if character == char::REPLACEMENT_CHARACTER && depth <= MAX_DEPTH {
                        self.replace(at..at + length, "\u{FFFD}");
                    }
                    at += length.max(2);
                }
                _ if bytes.get(at) == Some(&b'"') => return at + 1,
                _ => at += 2,
            }
        }
        bytes.len()
    }

    /// Puts a number that `serde_json` would round or refuse into quotes, and gives where it ends.
    fn number(&mut self, at: usize, depth: usize) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        let length = rest
            .bytes()
            .take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .count();
        let number = rest.get(..length).unwrap_or_default();
        if depth <= MAX_DEPTH && outgrows(number) {
            self.replace(at..at + length, &format!("\"{number}\""));
        }
        at + length
    }
}

/// Whether a number is an integer beyond 64 bits, or larger than a float can be.
fn outgrows(number: &str) -> bool {
    let is_integer = !number.contains(['.', 'e', 'E']);
    if is_integer && number.len() < LONG_NUMBER {
        return false;
    }
    match serde_json::from_str::<Number>(number) {
        Ok(read) => is_integer && read.is_f64(),
        Err(_) => serde_json::from_str::<IgnoredAny>(number).is_ok(),
    }
}

/// The character that an escape at the start of `text` stands for (`\uXXXX`, or two of them that are a pair), and
/// the escape's length. Half a pair is U+FFFD.
pub(crate) fn unicode_escape(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u16::from_str_radix(digits, 16).ok())?
    };
    let units = [Some(unit(0)?), unit(6)].into_iter().flatten();
    Some(match char::decode_utf16(units).next()? {
        Ok(character) => (character, 6 * character.len_utf16()),
        Err(_) => (char::REPLACEMENT_CHARACTER, 6),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::read;
    use super::*;

    fn value(json: &str) -> Value {
        read(json.as_bytes()).unwrap()
    }

    #[test]
    fn half_an_emoji_is_a_replacement_character() {
        for (json, expected) in [
            (r#""see you \ud83d""#, json!("see you \u{FFFD}")),
            (r#""\ude00""#, json!("\u{FFFD}")),
            (r#""\ud83d\ud83d\ude00\uDE00""#, json!("\u{FFFD}😀\u{FFFD}")),
            (r#""\ud83d\n\\ud83d""#, json!("\u{FFFD}\n\\ud83d")),
            (r#""\\\ud83dx""#, json!("\\\u{FFFD}x")),
            (
                r#"{"a\ud83d":[{"b":"\ud83d"}]}"#,
                json!({"a\u{FFFD}": [{"b": "\u{FFFD}"}]}),
            ),
        ] {
            assert_eq!(value(json), expected, "{json}");
        }
    }

    #[test]
    fn numbers_beyond_64_bits_keep_their_digits() {
        let json = "[10000002479028556077430,-9999999999999999999,1e400,-1E+999]";
        let expected = json!([
            "10000002479028556077430",
            "-9999999999999999999",
            "1e400",
            "-1E+999"
        ]);
        assert_eq!(value(json), expected);
        for json in [
            "[18446744073709551615,-9223372036854775808,0.12345678901234567890,1e3]",
            r#"["10000002479028556077430","\"1e400"]"#,
        ] {
            assert!(matches!(text(json.as_bytes()), Cow::Borrowed(_)), "{json}");
        }
    }

    #[test]
    fn a_byte_order_mark_and_bytes_that_are_not_utf_8_are_read() {
        assert_eq!(read::<Value>(b"\xEF\xBB\xBF{\"a\":1}").unwrap(), json!({"a": 1}));
        assert_eq!(read::<Value>(b"\"caf\xE9\"").unwrap(), json!("caf\u{FFFD}"));
    }

    #[test]
    fn what_nests_too_deep_costs_only_itself() {
        for depth in [126, 127, 128, 100_000] {
            let deep = format!("{}1,\"\\ud83d\"{}", "[".repeat(depth), "]".repeat(depth));
            let read = value(&format!(r#"{{"deep":{deep},"b":"\ud83d"}}"#));
            assert_eq!(read["b"], json!("\u{FFFD}"), "{depth}");
            assert!(read["deep"].is_array());
        }
    }

    #[test]
    fn what_is_not_json_stays_so() {
        for json in [
            "",
            "{",
            r#"""#,
            r#""\"#,
            r#""\ud8"#,
            r#""\ud8zz""#,
            r#""\u""#,
            "00000000000000000000001",
            "1.e400",
            "1e400e400",
            "--1",
            "]",
            "[}",
            "\u{FEFF}\u{FEFF}1",
        ] {
            assert!(read::<Value>(json.as_bytes()).is_err(), "{json}");
        }
    }
}
