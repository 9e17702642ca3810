//! JSON's blanks and strings, for reading what is not quite JSON.

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
    text.contains('\\') && unescape_with(text, true).is_some()
}

/// The text that `content`, the inside of a JSON string, stands for; raw control characters are let through.
pub(super) fn unescape(content: &str) -> Option<String> {
    unescape_with(content, false)
}

fn unescape_with(content: &str, lone_surrogates: bool) -> Option<String> {
    let mut text = String::with_capacity(content.len());
    let mut rest = content;
    while let Some(at) = rest.find(['\\', '"']) {
        text.push_str(rest.get(..at)?);
        let mut escape = rest.get(at..)?.strip_prefix('\\')?.chars();
        let char = match escape.next()? {
            char @ ('"' | '\\' | '/') => char,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let unit = hex_unit(&mut escape)?;
                match unit {
                    0xD800..=0xDBFF => {
                        let mut second = escape.clone();
                        let low = (second.next() == Some('\\') && second.next() == Some('u'))
                            .then(|| hex_unit(&mut second))
                            .flatten()
                            .and_then(|low| char::decode_utf16([unit, low]).next()?.ok());
                        if low.is_some() {
                            escape = second;
                        }
                        low.or(lone_surrogates.then_some(char::REPLACEMENT_CHARACTER))?
                    }
                    _ => char::from_u32(u32::from(unit))
                        .or(lone_surrogates.then_some(char::REPLACEMENT_CHARACTER))?,
                }
            }
            _ => return None,
        };
        text.push(char);
        rest = escape.as_str();
    }
    text.push_str(rest);
    Some(text)
}

fn hex_unit(chars: &mut std::str::Chars<'_>) -> Option<u16> {
    let digits = chars
        .as_str()
        .get(..4)
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    *chars = chars.as_str().get(4..)?.chars();
    u16::from_str_radix(digits, 16).ok()
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
        for wrong in [
            r"\", r"\x", r"\u12", r"\u+123", r"\ud83d", r"\ude00", r"\ud83dA", "\"",
        ] {
            assert_eq!(unescape(wrong), None, "{wrong}");
        }
    }
}
