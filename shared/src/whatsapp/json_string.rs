//! JSON's blanks and strings, for reading what is not quite JSON.

use crate::json::unicode_escape;

/// JSON's blanks (RFC 8259, section 2).
pub(super) const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

pub(super) fn skip_blanks(body: &str, at: usize) -> usize {
    let rest = body.get(at..).unwrap_or_default();
    body.len() - rest.trim_start_matches(BLANKS).len()
}

/// Behind `expected`, if it stands at `at`.
pub(super) fn expect(body: &str, at: usize, expected: &str) -> Option<usize> {
    body.get(at..)?
        .starts_with(expected)
        .then_some(at + expected.len())
}

/// The next quote from `start` on that no backslash takes away.
pub(super) fn unescaped_quote(body: &str, start: usize) -> Option<usize> {
    let mut bytes = body.bytes().enumerate().skip(start);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(at),
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    None
}

/// Where a proper JSON string that begins at `start` ends.
pub(super) fn proper_end(body: &str, start: usize) -> Option<usize> {
    let close = unescaped_quote(body, start)?;
    let content = body.get(start..close)?;
    let proper = !content.contains(|char: char| char < ' ') && unescape(content).is_some();
    proper.then_some(close)
}

/// Whether a text with backslashes could be the escaped form of another text: `C:\new` could. It then has
/// two readings, as typed and as escaped.
pub(super) fn could_be_escaped(text: &str) -> bool {
    text.contains('\\') && unescape(text).is_some()
}

/// The text that `content`, the inside of a JSON string, stands for; raw control characters are let through.
pub(super) fn unescape(content: &str) -> Option<String> {
    let mut text = String::with_capacity(content.len());
    let mut rest = content;
    while let Some(at) = rest.find(['\\', '"']) {
        text.push_str(rest.get(..at)?);
        rest = rest.get(at..)?;
        let (character, length) = match rest.as_bytes().get(..2)? {
            [b'\\', b'u'] => unicode_escape(rest)?,
            [b'\\', b'b'] => ('\u{8}', 2),
            [b'\\', b'f'] => ('\u{c}', 2),
            [b'\\', b'n'] => ('\n', 2),
            [b'\\', b'r'] => ('\r', 2),
            [b'\\', b't'] => ('\t', 2),
            [b'\\', plain @ (b'"' | b'\\' | b'/')] => (char::from(*plain), 2),
            _ => return None,
        };
        text.push(character);
        rest = rest.get(length..)?;
    }
    text.push_str(rest);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_as_json_reads_them() {
        assert_eq!(
            unescape(r#"\"\\\/\b\f\n\r\té"#).as_deref(),
            Some("\"\\/\u{8}\u{c}\n\r\té")
        );
        assert_eq!(unescape(r"\ud83d\ude00\u0041").as_deref(), Some("😀A"));
        assert_eq!(unescape(r"\ud83dA\ude00").as_deref(), Some("\u{FFFD}A\u{FFFD}"));
        for wrong in [r"\", r"\x", r"\u12", r"\u+123", "\""] {
            assert_eq!(unescape(wrong), None, "{wrong}");
        }
    }
}
