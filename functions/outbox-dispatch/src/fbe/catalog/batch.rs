//! Items of a feed, gathered into calls of `items_batch`.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::value::RawValue;
use shared::fbe::push::MAX_BATCH_ITEMS;

use super::feed::FeedItem;

/// A batch is closed before it gets larger. Every push under way holds one in memory.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// What `items_batch` adds to an item, with its comma.
const REQUEST_BYTES: usize = r#"{"method":"UPDATE","data":},"#.len();

/// Items that go to Meta in one call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    items: Vec<FeedItem>,
    bytes: usize,
}

impl Batch {
    /// The items, in the feed's order.
    pub(crate) fn items(&self) -> &[FeedItem] {
        &self.items
    }

    /// The last item.
    pub(crate) fn last(&self) -> Option<&FeedItem> {
        self.items.last()
    }

    /// Leaves out all but the last of several items with one id: Meta refuses the second in the same call.
    fn without_doubles(mut self) -> Self {
        let mut seen = HashSet::with_capacity(self.items.len());
        let mut keep: Vec<bool> = self
            .items
            .iter()
            .rev()
            .map(|item| seen.insert(key(&item.id)))
            .collect();
        if seen.len() < self.items.len() {
            self.items.retain(|_| keep.pop().unwrap_or(true));
            self.bytes = self.items.iter().map(|item| item.data.get().len()).sum();
        }
        self
    }

    /// How many bytes it takes in the body of a call.
    pub(crate) fn body_bytes(&self) -> usize {
        self.bytes + self.items.len() * REQUEST_BYTES
    }

    /// The two halves; the second is `None` if there is only one item.
    pub(crate) fn halves(mut self) -> (Self, Option<Self>) {
        if self.items.len() < 2 {
            return (self, None);
        }
        let second = self.items.split_off(self.items.len().div_ceil(2));
        let of = |items: Vec<FeedItem>| Self {
            bytes: items.iter().map(|item| item.data.get().len()).sum(),
            items,
        };
        (of(self.items), Some(of(second)))
    }
}

/// `requests` of `items_batch`: every item as an `UPDATE`, which creates it too where upserts are allowed.
impl Serialize for Batch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Request<'a> {
            method: &'static str,
            data: &'a RawValue,
        }
        serializer.collect_seq(self.items.iter().map(|item| Request {
            method: "UPDATE",
            data: &item.data,
        }))
    }
}

/// Gathers items into batches.
#[derive(Debug)]
pub(crate) struct Batcher {
    limit: usize,
    batch: Batch,
}

impl Batcher {
    /// Batches of at most `limit` items: never more than [`MAX_BATCH_ITEMS`], nor fewer than one.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: limit.clamp(1, MAX_BATCH_ITEMS),
            batch: Batch::default(),
        }
    }

    /// Makes the batches that follow larger or smaller, within the same bounds.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit.clamp(1, MAX_BATCH_ITEMS);
    }

    /// Adds an item; gives the batch that it did not fit into any more, or that it filled.
    pub(crate) fn push(&mut self, item: FeedItem) -> Option<Batch> {
        let bytes = item.data.get().len();
        if !self.batch.items.is_empty() && self.batch.bytes + bytes > MAX_BATCH_BYTES {
            let full = std::mem::take(&mut self.batch);
            self.batch.bytes = bytes;
            self.batch.items.push(item);
            return Some(full.without_doubles());
        }
        self.batch.bytes += bytes;
        self.batch.items.push(item);
        (self.batch.items.len() >= self.limit).then(|| std::mem::take(&mut self.batch).without_doubles())
    }

    /// What is left at the end.
    pub(crate) fn finish(self) -> Option<Batch> {
        Some(self.batch.without_doubles()).filter(|batch| !batch.items.is_empty())
    }
}

/// Meta takes ids for the same that differ in case, blanks or characters without a width.
fn key(id: &str) -> String {
    let visible = id
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}'));
    visible.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fbe::catalog::feed::{FeedReader, item};

    /// Position in the feed behind the last item.
    fn next_index(batch: &Batch) -> u64 {
        batch.last().unwrap().index + 1
    }

    fn product(index: u64) -> FeedItem {
        item(
            index,
            format!("{{\"id\":\"p{index}\",\"price\":\"1 USD\"}}").as_bytes(),
        )
        .unwrap()
    }

    #[test]
    fn a_hundred_thousand_items_are_twenty_filled() {
        let (mut reader, mut batcher, mut filled) =
            (FeedReader::default(), Batcher::new(usize::MAX), Vec::new());
        let mut items = Vec::new();
        reader.push(b"[", &mut items).unwrap();
        for index in 0..100_000 {
            let comma = if index == 0 { "" } else { "," };
            let text = format!("{comma}{{\"id\":\"p{index}\",\"title\":\"Belt\"}}");
            reader.push(text.as_bytes(), &mut items).unwrap();
            filled.extend(
                items
                    .drain(..)
                    .filter_map(|item| batcher.push(item.unwrap()))
                    .map(|batch| next_index(&batch)),
            );
        }
        reader.push(b"]", &mut items).unwrap();
        reader.finish(&mut items).unwrap();
        filled.extend(
            items
                .drain(..)
                .filter_map(|item| batcher.push(item.unwrap()))
                .map(|batch| next_index(&batch)),
        );
        assert!(batcher.finish().is_none());
        let expected: Vec<u64> = (1..=20).map(|batch| batch * 5_000).collect();
        assert_eq!(filled, expected);
    }

    #[test]
    fn a_batch_is_closed_before_it_gets_too_large() {
        let mut batcher = Batcher::new(MAX_BATCH_ITEMS);
        let description = "x".repeat(400_000);
        let full: Vec<_> = (100..200)
            .map(|id| format!("{{\"id\":\"{id}\",\"description\":\"{description}\"}}"))
            .zip(0..)
            .filter_map(|(text, index)| batcher.push(item(index, text.as_bytes()).unwrap()))
            .collect();
        assert_eq!(
            full.iter().map(|batch| batch.items().len()).collect::<Vec<_>>(),
            [20, 20, 20, 20]
        );
        assert_eq!(batcher.finish().unwrap().items().len(), 20);
    }

    #[test]
    fn halves_keep_every_item_in_order() {
        let mut batcher = Batcher::new(5);
        let batch = (0..5).find_map(|index| batcher.push(product(index))).unwrap();
        let (first, second) = batch.halves();
        assert_eq!((next_index(&first), next_index(second.as_ref().unwrap())), (3, 5));
        let (one, none) = second.unwrap().halves().1.unwrap().halves();
        assert_eq!((one.items().len(), none.is_none()), (1, true));
    }

    #[test]
    fn requests_are_updates_with_the_item_as_it_stood_in_the_feed() {
        let mut batcher = Batcher::new(1);
        let batch = batcher.push(product(0)).unwrap();
        assert_eq!(
            serde_json::to_string(&batch).unwrap(),
            r#"[{"method":"UPDATE","data":{"id":"p0","price":"1 USD"}}]"#
        );
    }
}
