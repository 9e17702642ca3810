//! A product feed, read as it arrives, in memory that does not grow with it.
//!
//! Two forms are read: JSON Lines (an item a line) and one JSON array of items. An item is the `data` object
//! of Meta's `items_batch`. One that is broken is reported and skipped; in JSON Lines nothing else can go
//! wrong, an array that is cut off or out of balance ends the feed with an error.
//! (<https://developers.facebook.com/docs/marketing-api/catalog-batch>)

use std::ops::Range;

use serde_json::Value;
use serde_json::value::RawValue;

use shared::fbe::push::Form;
use shared::json::{self, Scalar};

/// An item of more bytes is skipped.
pub(crate) const MAX_ITEM_BYTES: usize = 512 * 1024;

/// One product.
#[derive(Debug, Clone)]
pub(crate) struct FeedItem {
    /// Position in the feed, from 0; broken items are counted too.
    pub(crate) index: u64,
    /// Bytes of the feed up to the next item.
    pub(crate) end: u64,
    /// Digest of the items up to this one; empty until the push adds it.
    pub(crate) content: String,
    /// `id`: the retailer's own.
    pub(crate) id: String,
    /// The item as it stands in the feed.
    pub(crate) data: Box<RawValue>,
}

/// An item that was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokenItem {
    /// Position in the feed, from 0.
    pub(crate) index: u64,
    /// What is wrong with it.
    pub(crate) problem: &'static str,
}

/// The feed as a whole cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FeedError {
    /// It starts with something else than an object or an array: an error page, most likely.
    #[error("the feed is neither JSON Lines nor a JSON array of items")]
    NotAFeed,
    /// Brackets do not match, or something follows the array.
    #[error("the feed is not valid JSON: its brackets do not match")]
    Unbalanced,
    /// It ended inside the array. The next attempt may get all of it.
    #[error("the feed ended before its array did")]
    CutOff,
}

/// The ids of a feed's items, and how many are broken, from pieces of `chunk` bytes.
pub(crate) fn feed_items(feed: &[u8], chunk: usize) -> (Vec<String>, usize) {
    let (mut reader, mut items) = (FeedReader::default(), Vec::new());
    let mut pieces = feed.chunks(chunk.max(1));
    if pieces.all(|piece| reader.push(piece, &mut items).is_ok()) {
        // A feed that is cut off has the items before its end.
        let _ = reader.finish(&mut items);
    }
    let all = items.len();
    let ids: Vec<String> = items.into_iter().flatten().map(|item| item.id).collect();
    let broken = all - ids.len();
    (ids, broken)
}

/// Takes the feed's bytes in chunks of any size, gives its items. At first it is at the start of a feed.
#[derive(Debug, Default)]
pub(crate) struct FeedReader {
    form: Form,
    /// Bytes of the feed before those that are being read.
    offset: u64,
    /// The start of an item whose end has not arrived.
    pending: Vec<u8>,
    is_too_large: bool,
    depth: u32,
    in_string: bool,
    is_escaped: bool,
    next_index: u64,
}

impl FeedReader {
    /// A reader in the middle of a feed of this form: at the item `index`, which begins `offset` bytes in.
    pub(crate) fn resumed(form: Form, index: u64, offset: u64) -> Self {
        Self {
            form,
            offset,
            next_index: index,
            ..Self::default()
        }
    }

    /// How the feed is written, as far as that is known.
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Takes the next bytes, and adds the items that they complete to `items`.
    ///
    /// # Errors
    ///
    /// A [`FeedError`]: nothing can be read from here on.
    pub(crate) fn push(
        &mut self,
        chunk: &[u8],
        items: &mut Vec<Result<FeedItem, BrokenItem>>,
    ) -> Result<(), FeedError> {
        let mut at = 0;
        if self.form == Form::Unknown {
            // A byte order mark may lead.
            let blank = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0xEF | 0xBB | 0xBF);
            let Some(start) = chunk.iter().position(|byte| !blank(byte)) else {
                self.offset += chunk.len() as u64;
                return Ok(());
            };
            at = start;
            self.form = match chunk.get(start) {
                Some(b'{') => Form::Lines,
                Some(b'[') => {
                    at += 1;
                    Form::Array
                }
                _ => return Err(FeedError::NotAFeed),
            };
        }
        self.offset += at as u64;
        let rest = chunk.get(at..).unwrap_or_default();
        let read = match self.form {
            Form::Lines => {
                self.lines(rest, items);
                Ok(())
            }
            Form::Array => self.array(rest, items),
            Form::Ended | Form::Unknown => only_blanks(rest),
        };
        self.offset += rest.len() as u64;
        read
    }

    /// The feed has ended: adds the last item of JSON Lines without a line end.
    ///
    /// # Errors
    ///
    /// [`FeedError::CutOff`] inside an array.
    pub(crate) fn finish(mut self, items: &mut Vec<Result<FeedItem, BrokenItem>>) -> Result<(), FeedError> {
        match self.form {
            Form::Lines => {
                self.complete(0, items);
                Ok(())
            }
            Form::Array => Err(FeedError::CutOff),
            Form::Ended | Form::Unknown => Ok(()),
        }
    }

    fn lines(&mut self, chunk: &[u8], items: &mut Vec<Result<FeedItem, BrokenItem>>) {
        let mut read = 0;
        for line in chunk.split_inclusive(|byte| *byte == b'\n') {
            read += line.len();
            self.keep(line.strip_suffix(b"\n").unwrap_or(line));
            if line.ends_with(b"\n") {
                self.complete(read, items);
            }
        }
    }

    fn array(
        &mut self,
        chunk: &[u8],
        items: &mut Vec<Result<FeedItem, BrokenItem>>,
    ) -> Result<(), FeedError> {
        let slice = |range: Range<usize>| chunk.get(range).unwrap_or_default();
        let mut start = 0;
        for (at, byte) in chunk.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b',' if self.depth == 0 => {
                    self.keep(slice(start..at));
                    self.complete(at + 1, items);
                    start = at + 1;
                }
                b']' if self.depth == 0 => {
                    self.keep(slice(start..at));
                    // From here on only the bracket is left.
                    self.complete(at, items);
                    self.form = Form::Ended;
                    return only_blanks(slice(at + 1..chunk.len()));
                }
                b'}' | b']' => self.depth = self.depth.checked_sub(1).ok_or(FeedError::Unbalanced)?,
                _ => {}
            }
        }
        self.keep(slice(start..chunk.len()));
        Ok(())
    }

    fn keep(&mut self, part: &[u8]) {
        if self.is_too_large || self.pending.len() + part.len() > MAX_ITEM_BYTES {
            self.is_too_large = true;
            self.pending.clear();
        } else {
            self.pending.extend_from_slice(part);
        }
    }

    /// The pending bytes are a whole item; blanks are none. It ends `read` bytes into those that are being read.
    fn complete(&mut self, read: usize, items: &mut Vec<Result<FeedItem, BrokenItem>>) {
        let bytes = self.pending.trim_ascii();
        if bytes.is_empty() && !self.is_too_large {
            self.pending.clear();
            return;
        }
        let index = self.next_index;
        let item = if self.is_too_large {
            Err("larger than 512 KiB")
        } else {
            item(index, bytes).map(|item| FeedItem {
                end: self.offset + read as u64,
                ..item
            })
        };
        items.push(item.map_err(|problem| BrokenItem { index, problem }));
        self.next_index += 1;
        self.is_too_large = false;
        self.pending.clear();
    }
}

fn only_blanks(bytes: &[u8]) -> Result<(), FeedError> {
    if bytes.trim_ascii().is_empty() {
        Ok(())
    } else {
        Err(FeedError::Unbalanced)
    }
}

pub(super) fn item(index: u64, bytes: &[u8]) -> Result<FeedItem, &'static str> {
    #[derive(serde::Deserialize)]
    struct Head<'a> {
        #[serde(default, borrow)]
        id: Scalar<'a>,
    }
    let text = json::text(bytes);
    if !text.starts_with('{') {
        return Err("not a JSON object");
    }
    let data = RawValue::from_string(text.into_owned()).map_err(|_| "not valid JSON")?;
    let Head { id } = json::parse(data.get()).map_err(|_| "not valid JSON")?;
    let (id, data) = match id {
        // A retailer may well call a product "0". Under an id that lost a character it would be another's.
        Scalar::Text(id) if !id.trim().is_empty() && !id.contains(char::REPLACEMENT_CHARACTER) => {
            (id.into_owned(), data)
        }
        Scalar::Number(number) => {
            // Meta takes ids as text only.
            let mut item: serde_json::Map<String, Value> =
                json::parse(data.get()).map_err(|_| "not valid JSON")?;
            let id = number.to_string();
            item.insert("id".to_owned(), Value::from(id.as_str()));
            let data = serde_json::value::to_raw_value(&item).map_err(|_| "not valid JSON")?;
            (id, data)
        }
        _ => return Err("without an `id`"),
    };
    Ok(FeedItem {
        index,
        end: 0,
        content: String::new(),
        id,
        data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = (Vec<String>, Vec<BrokenItem>, Result<(), FeedError>);

    fn read(feed: &[u8], chunk: usize) -> Read {
        let (mut reader, mut items) = (FeedReader::default(), Vec::new());
        let mut result = Ok(());
        for part in feed.chunks(chunk) {
            result = reader.push(part, &mut items);
            if result.is_err() {
                break;
            }
        }
        let result = result.and_then(|()| reader.finish(&mut items));
        let (good, broken): (Vec<_>, Vec<_>) = items.into_iter().partition(Result::is_ok);
        (
            good.into_iter().map(|item| item.unwrap().id).collect(),
            broken.into_iter().map(|item| item.unwrap_err()).collect(),
            result,
        )
    }

    const LINES: &str = "\u{feff}{\"id\":\"a\",\"title\":\"é ] }, \\\"\"}\r\n\n{\"id\":2}\n{broken\n[1]\n{\"x\":1}\n{\"id\":\"z\"}";
    const ARRAY: &str = "\u{feff} [ {\"id\":\"a\",\"title\":\"é ] }, \\\"\"},\n{\"id\":2},\n{broken},7,{\"x\":1},{\"id\":\"z\",\"n\":[{}]} ]\n";

    #[test]
    fn both_forms_are_read_in_chunks_of_any_size() {
        for feed in [LINES, ARRAY] {
            for chunk in 1..feed.len() {
                let (ids, broken, result) = read(feed.as_bytes(), chunk);
                assert_eq!(result, Ok(()), "{chunk}");
                assert_eq!(ids, ["a", "2", "z"], "{chunk}");
                let at: Vec<_> = broken.iter().map(|item| item.index).collect();
                assert_eq!(at, [2, 3, 4], "{chunk}");
            }
        }
    }

    #[test]
    fn what_is_no_feed_is_told_apart() {
        assert_eq!(read(b"<html>", 3).2, Err(FeedError::NotAFeed));
        assert_eq!(read(b"[{\"id\":1},{\"id\"", 4).2, Err(FeedError::CutOff));
        assert_eq!(read(b"[{\"id\":1}}]", 4).2, Err(FeedError::Unbalanced));
        assert_eq!(read(b"[{\"id\":1}] x", 4).2, Err(FeedError::Unbalanced));
        for empty in [&b""[..], b"  ", b"[]", b"\n"] {
            assert_eq!(read(empty, 1), (vec![], vec![], Ok(())));
        }
    }

    #[test]
    fn an_item_that_is_too_large_is_skipped_and_its_neighbours_are_not() {
        let large = "x".repeat(MAX_ITEM_BYTES);
        for feed in [
            format!("[{{\"id\":1}},{{\"id\":\"{large}\"}},{{\"id\":3}}]"),
            format!("{{\"id\":1}}\n{{\"id\":\"{large}\"}}\n{{\"id\":3}}"),
        ] {
            let (ids, broken, result) = read(feed.as_bytes(), 1000);
            assert_eq!(
                (ids.as_slice(), result),
                (["1".to_owned(), "3".to_owned()].as_slice(), Ok(()))
            );
            assert_eq!(broken[0].index, 1);
        }
    }

    #[test]
    fn a_numeric_id_becomes_text() {
        let item = item(0, br#"{"id":7,"price":"1 USD"}"#).unwrap();
        assert_eq!(
            (item.id.as_str(), item.data.get()),
            ("7", r#"{"id":"7","price":"1 USD"}"#)
        );
    }

    #[test]
    fn what_json_allows_and_others_refuse_is_read() {
        for (text, id, data) in [
            (
                r#"{"id":"a","title":"half \ud83d"}"#,
                "a",
                "{\"id\":\"a\",\"title\":\"half \u{FFFD}\"}",
            ),
            (
                r#"{"id":10000002479028556077430}"#,
                "10000002479028556077430",
                r#"{"id":"10000002479028556077430"}"#,
            ),
        ] {
            let item = item(0, text.as_bytes()).unwrap();
            assert_eq!((item.id.as_str(), item.data.get()), (id, data));
        }
        assert_eq!(item(0, b"{\"id\":\"a\",\"title\":\"\xE9\"}").unwrap().id, "a");
        // Two products whose ids lost a character would be one.
        assert_eq!(item(0, br#"{"id":"\ud83d"}"#).unwrap_err(), "without an `id`");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_answered(feed in proptest::collection::vec(proptest::num::u8::ANY, 0..200), chunk in 1..20_usize) {
            let (ids, broken, _) = read(&feed, chunk);
            proptest::prop_assert!(ids.len() + broken.len() <= feed.len());
        }

        #[test]
        fn brackets_and_quotes_in_any_order_are_answered(feed in "[\\[\\]{}\",:\\\\ a1\n]{0,60}", chunk in 1..20_usize) {
            let chunked = read(feed.as_bytes(), chunk);
            proptest::prop_assert_eq!(chunked, read(feed.as_bytes(), feed.len().max(1)));
        }
    }
}
