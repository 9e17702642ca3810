//! The parsers of what others answer, from bytes: what `fuzz/` feeds. Nothing else needs them without their requests.

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use crate::braze::Taken;
use crate::fbe::feed_items;
use crate::whatsapp::{Received, is_completion};

/// Reads an answer of a chat server, and says whether it is one.
#[must_use]
pub fn chat_completion(status: StatusCode, body: &[u8]) -> bool {
    let received = Received {
        status,
        headers: HeaderMap::new(),
        body: body.to_vec(),
    };
    is_completion(&received, Timestamp::UNIX_EPOCH)
}

/// Reads an answer of Braze, and says whether all was taken.
#[must_use]
pub fn braze_answer(body: &[u8]) -> bool {
    let taken = Taken::read(body);
    taken.refusal().is_none() && taken.errors.is_empty()
}

/// Reads a catalog's feed that arrives in pieces of `chunk` bytes, and gives the ids of its items and how many are broken.
#[must_use]
pub fn catalog_feed(feed: &[u8], chunk: usize) -> (Vec<String>, usize) {
    feed_items(feed, chunk)
}
