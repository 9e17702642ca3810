//! How far a catalog push has come: enough to go on after a crash without pushing everything again.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::catalog::{Batch, BrokenItem, Form, MAX_BATCH_ITEMS};
use super::redact;
use crate::digest::Digest;

/// How many ids of items that were refused at once are remembered, so that their batch's result does not count them
/// again.
const MAX_REFUSED: usize = 2_000;
/// How many item errors are kept; all are counted.
const MAX_ERRORS: usize = 50;
/// Longer messages are cut.
const MAX_MESSAGE: usize = 300;
/// Handles that are kept before what became of them is asked for: the record has to fit into an item of DynamoDB.
pub const MAX_OUTSTANDING: usize = 200;
/// After so many batches without a complaint larger ones are tried again.
const STEADY: u32 = 8;
/// A feed that is another one each time it is read would never come to its end. After so many it counts as the same.
const MAX_RESTARTS: u32 = 5;

/// An item that did not get into the catalog, or got there with complaints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemError {
    /// The retailer's id, or the position in the feed where there is none.
    pub item: String,
    /// What is wrong.
    pub message: String,
}

/// A batch that Meta accepted, and is still working on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outstanding {
    /// Meta's handle.
    pub handle: String,
    /// Number of items in the batch.
    pub items: u64,
    /// Digests of the ids that were refused at once, and are counted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub refused: BTreeSet<String>,
}

/// State of one push. Stored after every call: what a crash repeats is at most one batch, whose upserts
/// change nothing the second time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushProgress {
    /// Catalog that is pushed to.
    pub catalog_id: String,
    /// When the push began.
    pub started_at: Timestamp,
    /// The feed's `ETag` or `Last-Modified`; another one means another feed, and to begin again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed_version: Option<String>,
    /// Digest of the feed's URL: what is known of one feed says nothing of another.
    #[serde(default)]
    pub feed_url: String,
    /// Items of the feed before this position are done with.
    pub next_index: u64,
    /// Where in the feed the next item begins, in bytes, and how the feed is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<(u64, Form)>,
    /// Digest of the items before `next_index`.
    #[serde(default)]
    pub content: String,
    /// Broken items before this position are counted.
    #[serde(default)]
    pub broken_before: u64,
    /// How often in a row time was up before anything new was read.
    #[serde(default)]
    pub stalled: u32,
    /// How often the push began again because the feed was another one.
    #[serde(default)]
    pub restarts: u32,
    /// Items a call; less for a while after Meta asked for less.
    pub batch_limit: usize,
    /// Batches that Meta accepted since it last asked for less.
    #[serde(default)]
    pub steady: u32,
    /// Whether the whole feed was handed over.
    pub feed_done: bool,
    /// Handles whose result is not known yet, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outstanding: Vec<Outstanding>,
    /// When the last step forward was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advanced_at: Option<Timestamp>,
    /// Items that Meta accepted.
    pub accepted: u64,
    /// Items that were refused, here or by Meta.
    pub failed: u64,
    /// The first of their errors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ItemError>,
}

impl PushProgress {
    /// A push that has not begun.
    #[must_use]
    pub fn new(catalog_id: &str, url: &str, now: Timestamp) -> Self {
        Self {
            catalog_id: catalog_id.to_owned(),
            started_at: now,
            feed_version: None,
            feed_url: Digest::of_parts(["feed", url]).to_string(),
            next_index: 0,
            resume: None,
            content: String::new(),
            broken_before: 0,
            stalled: 0,
            restarts: 0,
            batch_limit: MAX_BATCH_ITEMS,
            steady: 0,
            feed_done: false,
            outstanding: Vec::new(),
            advanced_at: None,
            accepted: 0,
            failed: 0,
            errors: Vec::new(),
        }
    }

    /// The feed was opened and has this version. Another version than before starts it over, a few times:
    /// positions in one feed mean nothing in another.
    pub fn feed_opened(&mut self, version: Option<&str>) {
        if self.feed_version.as_deref() == version {
            return;
        }
        self.feed_version = version.map(str::to_owned);
        if self.next_index == 0 || self.restarts == MAX_RESTARTS {
            return;
        }
        self.restarts += 1;
        (self.next_index, self.accepted, self.failed, self.broken_before) = (0, 0, 0, 0);
        self.resume = None;
        self.content.clear();
        self.errors.clear();
        // What became of the first feed's batches says nothing of this one's.
        self.outstanding.clear();
    }

    /// Whether an item at this position still has to be pushed.
    #[must_use]
    pub fn is_next(&self, index: u64) -> bool {
        index >= self.next_index
    }

    /// An item of the feed could not be read.
    pub fn skipped(&mut self, broken: &BrokenItem) {
        // A push that goes on reads the items of an unfinished batch again.
        if broken.index >= self.broken_before {
            self.broken_before = broken.index + 1;
            self.failed += 1;
            self.note(&format!("#{}", broken.index), broken.problem);
        }
    }

    /// Meta accepted a batch under these handles, but for these items.
    pub fn accepted(&mut self, batch: &Batch, handles: &[String], refused: &[ItemError], form: Form) {
        let items = batch.items().len() as u64;
        self.passed(batch, form);
        let mut ids = BTreeSet::new();
        for error in refused {
            // One entry an item; an item without an id is one of its own.
            if error.item.is_empty() || ids.insert(item_digest(&error.item)) {
                self.refused(&error.item, &error.message);
            }
        }
        self.accepted += items.saturating_sub(ids.len() as u64);
        self.steady += 1;
        if self.steady >= STEADY {
            self.steady = 0;
            self.batch_limit = self.batch_limit.saturating_mul(2).min(MAX_BATCH_ITEMS);
        }
        let known: usize = self.outstanding.iter().map(|one| one.refused.len()).sum();
        let room = MAX_REFUSED.saturating_sub(known);
        for handle in handles {
            if !self.outstanding.iter().any(|known| known.handle == *handle) {
                self.outstanding.push(Outstanding {
                    handle: handle.clone(),
                    items,
                    refused: ids.iter().take(room).cloned().collect(),
                });
            }
        }
    }

    /// The items of a batch are done with, one way or another.
    fn passed(&mut self, batch: &Batch, form: Form) {
        if let Some(last) = batch.last().filter(|last| last.index >= self.next_index) {
            self.next_index = last.index + 1;
            self.resume = Some((last.end, form));
            self.content.clone_from(&last.content);
        }
    }

    /// Meta refused a call because of this one item in it.
    pub fn refused_alone(&mut self, batch: &Batch, message: &str, form: Form) {
        let id = batch.last().map(|item| item.id.clone()).unwrap_or_default();
        self.refused(&id, message);
        self.passed(batch, form);
    }

    /// Meta is done with a batch. Its failures are counted by item: one may have several errors, be named without any,
    /// or have been refused at once.
    pub fn finished(&mut self, handle: &str, status: &BatchResult<'_>) {
        let Some(at) = self.outstanding.iter().position(|known| known.handle == handle) else {
            return;
        };
        let batch = self.outstanding.remove(at);
        let mut counted = batch.refused;
        let before = counted.len();
        for error in status.errors {
            if counted.insert(item_digest(&error.item)) {
                self.refused(&error.item, &error.message);
            }
        }
        for id in status.invalid {
            if counted.insert(item_digest(id)) {
                self.refused(id, "refused");
            }
        }
        // Where not even the ids are told, every error that is not shown may be another item's.
        if status.invalid.is_empty() {
            let hidden = status.errors_total.saturating_sub(status.errors.len() as u64);
            self.failed += hidden.min(batch.items.saturating_sub((counted.len() - before) as u64));
        }
    }

    /// Meta asked for less data: halves the batches. `false` if one item alone was too much, which is then
    /// skipped; it was to blame, so the batches are as large as before.
    pub fn reduce(&mut self, batch: &Batch, form: Form) -> bool {
        self.steady = 0;
        if batch.items().len() < 2 {
            self.refused_alone(batch, "more data than Meta takes", form);
            self.batch_limit = MAX_BATCH_ITEMS;
            return false;
        }
        self.batch_limit = (batch.items().len() / 2).max(1);
        true
    }

    /// One item was refused or complained about.
    pub fn refused(&mut self, item: &str, message: &str) {
        self.failed += 1;
        self.note(item, message);
    }

    /// What became of a batch cannot be known any more.
    pub fn settled(&mut self, handle: &str) {
        self.outstanding.retain(|known| known.handle != handle);
    }

    /// Whether so many batches are under way that Meta should be asked for them first.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.outstanding.len() >= MAX_OUTSTANDING
    }

    /// Whether nothing is left to push or to ask for.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.feed_done && self.outstanding.is_empty()
    }

    fn note(&mut self, item: &str, message: &str) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(ItemError {
                item: item.chars().take(100).collect(),
                message: redact::text(message).chars().take(MAX_MESSAGE).collect(),
            });
        }
    }
}

/// What Meta says of a batch that it is done with.
#[derive(Debug, Clone, Copy)]
pub struct BatchResult<'a> {
    /// Errors; several may name one item, and the list may be cut.
    pub errors: &'a [ItemError],
    /// How many errors there are.
    pub errors_total: u64,
    /// Ids of the items that failed.
    pub invalid: &'a [String],
}

fn item_digest(id: &str) -> String {
    Digest::of_parts(["item", id])
        .to_string()
        .chars()
        .take(16)
        .collect()
}

/// The feed of a business: `url` with `{external_business_id}` and `{catalog_id}` filled in, percent-encoded. `None`
/// if an id is dots alone: they lead to another path however they are encoded.
#[must_use]
pub fn feed_url(url: &str, business_id: &str, catalog_id: &str) -> Option<String> {
    if [business_id, catalog_id]
        .iter()
        .any(|id| matches!(*id, "." | ".."))
    {
        return None;
    }
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let url = url.replace("{external_business_id}", &encode(business_id));
    Some(url.replace("{catalog_id}", &encode(catalog_id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fbe::catalog::{Batcher, FeedReader};

    fn batches(limit: usize, from: &PushProgress) -> Vec<Batch> {
        let (mut reader, mut items, mut batcher) = (FeedReader::new(), Vec::new(), Batcher::new(limit));
        for index in 0..10 {
            reader
                .push(format!("{{\"id\":\"p{index}\"}}\n").as_bytes(), &mut items)
                .unwrap();
        }
        let mut all: Vec<Batch> = items
            .into_iter()
            .map(Result::unwrap)
            .filter(|item| from.is_next(item.index))
            .filter_map(|item| batcher.push(item))
            .collect();
        all.extend(batcher.finish());
        all
    }

    fn progress() -> PushProgress {
        PushProgress::new("c", "https://feed.example", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_crash_repeats_nothing_that_was_stored() {
        let mut at = progress();
        for batch in batches(4, &at).iter().take(2) {
            at.accepted(
                batch,
                &["h".to_owned() + &batch.next_index().to_string()],
                &[],
                Form::Lines,
            );
        }
        let stored: PushProgress = serde_json::from_str(&serde_json::to_string(&at).unwrap()).unwrap();
        let rest = batches(4, &stored);
        let ids: Vec<_> = rest
            .iter()
            .flat_map(Batch::items)
            .map(|item| item.id.as_str())
            .collect();
        assert_eq!(ids, ["p8", "p9"]);
        assert_eq!(stored.outstanding.len(), 2);
    }

    #[test]
    fn another_feed_starts_over_and_the_same_does_not() {
        let mut at = progress();
        at.feed_opened(Some("v1"));
        at.accepted(&batches(4, &at)[0], &[], &[], Form::Lines);
        at.feed_opened(Some("v1"));
        assert_eq!(at.next_index, 4);
        at.refused("p1", "no image");
        at.feed_opened(Some("v2"));
        assert_eq!((at.next_index, at.accepted, at.failed), (0, 0, 0));
        assert!(at.errors.is_empty() && at.outstanding.is_empty());
    }

    #[test]
    fn a_feed_that_is_never_the_same_comes_to_its_end() {
        let mut at = progress();
        for turn in 0..20 {
            at.feed_opened(Some(&format!("v{turn}")));
            if let Some(batch) = batches(4, &at).first() {
                at.accepted(batch, &[], &[], Form::Lines);
            }
        }
        assert_eq!((at.next_index, at.accepted), (10, 10));
    }

    #[test]
    fn batches_grow_again_once_meta_has_taken_a_few() {
        let mut at = progress();
        let batch = batches(10, &at).remove(0);
        assert!(at.reduce(&batch, Form::Lines));
        for _ in 0..STEADY {
            assert_eq!(at.batch_limit, 5);
            at.accepted(&batch, &[], &[], Form::Lines);
        }
        assert_eq!(at.batch_limit, 10);
    }

    #[test]
    fn less_data_is_sent_down_to_one_item_which_is_then_skipped() {
        let mut at = progress();
        for expected in [5, 2, 1] {
            let batch = batches(at.batch_limit, &at).remove(0);
            assert!(at.reduce(&batch, Form::Lines));
            assert_eq!(at.batch_limit, expected);
        }
        let one = batches(at.batch_limit, &at).remove(0);
        assert!(!at.reduce(&one, Form::Lines));
        assert_eq!(
            (at.next_index, at.failed, at.errors[0].item.as_str()),
            (1, 1, "p0")
        );
        assert_eq!(at.batch_limit, MAX_BATCH_ITEMS);
    }

    #[test]
    fn errors_are_counted_beyond_those_that_are_kept() {
        let mut at = progress();
        for index in 0..200 {
            at.refused(&format!("p{index}"), &"no image ".repeat(100));
        }
        assert_eq!((at.failed, at.errors.len()), (200, MAX_ERRORS));
        assert_eq!(at.errors[0].message.len(), MAX_MESSAGE);
    }

    #[test]
    fn done_means_fed_and_settled() {
        let mut at = progress();
        at.accepted(&batches(10, &at)[0], &["h".to_owned()], &[], Form::Lines);
        at.feed_done = true;
        assert!(!at.is_done());
        at.settled("h");
        assert!(at.is_done());
    }

    #[test]
    fn placeholders_of_the_feed_are_filled_in() {
        let url = "https://x.example/{external_business_id}?c={catalog_id}";
        assert_eq!(
            feed_url(url, "a/b", "7").as_deref(),
            Some("https://x.example/a%2Fb?c=7")
        );
        assert_eq!(feed_url(url, "..", "7"), None);
    }
}
