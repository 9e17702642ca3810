//! How far a catalog push has come: what was handed over, and what became of it.

use std::collections::BTreeSet;

use shared::clients::graph::BatchStatus;
use shared::digest::Digest;
use shared::fbe::push::{Form, ItemError, MAX_BATCH_ITEMS, Outstanding, PushProgress};
use shared::fbe::redact;

use super::batch::Batch;
use super::feed::BrokenItem;

/// How many ids of items that were refused at once are remembered, so that their batch's result does not count them
/// again.
const MAX_REFUSED: usize = 2_000;
/// How many item errors are kept; all are counted.
const MAX_ERRORS: usize = 50;
/// Longer messages are cut.
const MAX_MESSAGE: usize = 300;
/// After so many batches without a complaint larger ones are tried again.
const STEADY: u32 = 8;
/// A feed that is another one each time it is read would never come to its end. After so many it counts as the same.
const MAX_RESTARTS: u32 = 5;

/// What happens to a push, written into its record.
pub(crate) struct Progress<'a>(pub(crate) &'a mut PushProgress);

impl Progress<'_> {
    /// The feed was opened and has this version. Another version than before starts it over, a few times:
    /// positions in one feed mean nothing in another.
    pub(crate) fn feed_opened(&mut self, version: Option<&str>) {
        if self.0.feed_version.as_deref() == version {
            return;
        }
        self.0.feed_version = version.map(str::to_owned);
        if self.0.next_index == 0 || self.0.restarts == MAX_RESTARTS {
            return;
        }
        self.0.restarts += 1;
        (
            self.0.next_index,
            self.0.accepted,
            self.0.failed,
            self.0.broken_before,
        ) = (0, 0, 0, 0);
        self.0.resume = None;
        self.0.content.clear();
        self.0.errors.clear();
        // What became of the first feed's batches says nothing of this one's.
        self.0.outstanding.clear();
    }

    /// An item of the feed could not be read.
    pub(crate) fn skipped(&mut self, broken: &BrokenItem) {
        // A push that goes on reads the items of an unfinished batch again.
        if broken.index >= self.0.broken_before {
            self.0.broken_before = broken.index + 1;
            self.0.failed += 1;
            self.note(&format!("#{}", broken.index), broken.problem);
        }
    }

    /// Meta accepted a batch under these handles, but for these items.
    pub(crate) fn accepted(&mut self, batch: &Batch, handles: &[String], refused: &[ItemError], form: Form) {
        let items = batch.items().len() as u64;
        self.passed(batch, form);
        let mut ids = BTreeSet::new();
        for error in refused {
            // One entry an item; an item without an id is one of its own.
            if error.item.is_empty() || ids.insert(item_digest(&error.item)) {
                self.refused(&error.item, &error.message);
            }
        }
        self.0.accepted += items.saturating_sub(ids.len() as u64);
        self.0.steady += 1;
        if self.0.steady >= STEADY {
            self.0.steady = 0;
            self.0.batch_limit = self.0.batch_limit.saturating_mul(2).min(MAX_BATCH_ITEMS);
        }
        let known: usize = self.0.outstanding.iter().map(|one| one.refused.len()).sum();
        let room = MAX_REFUSED.saturating_sub(known);
        for handle in handles {
            if !self.0.outstanding.iter().any(|known| known.handle == *handle) {
                self.0.outstanding.push(Outstanding {
                    handle: handle.clone(),
                    items,
                    refused: ids.iter().take(room).cloned().collect(),
                });
            }
        }
    }

    /// The items of a batch are done with, one way or another.
    fn passed(&mut self, batch: &Batch, form: Form) {
        if let Some(last) = batch.last().filter(|last| last.index >= self.0.next_index) {
            self.0.next_index = last.index + 1;
            self.0.resume = Some((last.end, form));
            self.0.content.clone_from(&last.content);
        }
    }

    /// Meta refused a call because of this one item in it.
    pub(crate) fn refused_alone(&mut self, batch: &Batch, message: &str, form: Form) {
        let id = batch.last().map(|item| item.id.clone()).unwrap_or_default();
        self.refused(&id, message);
        self.passed(batch, form);
    }

    /// Meta is done with a batch. Its failures are counted by item: one may have several errors, be named without any,
    /// or have been refused at once; and the list of errors may be cut.
    pub(crate) fn finished(&mut self, handle: &str, status: &BatchStatus) {
        let Some(at) = self.0.outstanding.iter().position(|known| known.handle == handle) else {
            return;
        };
        let batch = self.0.outstanding.remove(at);
        let mut counted = batch.refused;
        let before = counted.len();
        for error in &status.errors {
            if counted.insert(item_digest(&error.item)) {
                self.refused(&error.item, &error.message);
            }
        }
        for id in &status.invalid {
            if counted.insert(item_digest(id)) {
                self.refused(id, "refused");
            }
        }
        // Without ids, every error that is not shown may be another item's.
        if status.invalid.is_empty() {
            let hidden = status.errors_total.saturating_sub(status.errors.len() as u64);
            self.0.failed += hidden.min(batch.items.saturating_sub((counted.len() - before) as u64));
        }
    }

    /// Meta asked for less data: halves the batches. `false` if one item alone was too much, which is then
    /// skipped; it was to blame, so the batches are as large as before.
    pub(crate) fn reduce(&mut self, batch: &Batch, form: Form) -> bool {
        self.0.steady = 0;
        if batch.items().len() < 2 {
            self.refused_alone(batch, "more data than Meta takes", form);
            self.0.batch_limit = MAX_BATCH_ITEMS;
            return false;
        }
        self.0.batch_limit = (batch.items().len() / 2).max(1);
        true
    }

    /// One item was refused or complained about.
    pub(crate) fn refused(&mut self, item: &str, message: &str) {
        self.0.failed += 1;
        self.note(item, message);
    }

    /// What became of a batch cannot be known any more.
    pub(crate) fn settled(&mut self, handle: &str) {
        self.0.outstanding.retain(|known| known.handle != handle);
    }

    fn note(&mut self, item: &str, message: &str) {
        if self.0.errors.len() < MAX_ERRORS {
            self.0.errors.push(ItemError {
                item: item.chars().take(100).collect(),
                message: redact::text(message).chars().take(MAX_MESSAGE).collect(),
            });
        }
    }
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
pub(crate) fn feed_url(url: &str, business_id: &str, catalog_id: &str) -> Option<String> {
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
    use jiff::Timestamp;

    use crate::fbe::catalog::batch::Batcher;
    use crate::fbe::catalog::feed::FeedReader;

    fn batches(limit: usize, from: &PushProgress) -> Vec<Batch> {
        let (mut reader, mut items, mut batcher) = (FeedReader::default(), Vec::new(), Batcher::new(limit));
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
            Progress(&mut at).accepted(
                batch,
                &[format!("h{}", batch.last().unwrap().index)],
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
        Progress(&mut at).feed_opened(Some("v1"));
        let first = batches(4, &at).remove(0);
        Progress(&mut at).accepted(&first, &[], &[], Form::Lines);
        Progress(&mut at).feed_opened(Some("v1"));
        assert_eq!(at.next_index, 4);
        Progress(&mut at).refused("p1", "no image");
        Progress(&mut at).feed_opened(Some("v2"));
        assert_eq!((at.next_index, at.accepted, at.failed), (0, 0, 0));
        assert!(at.errors.is_empty() && at.outstanding.is_empty());
    }

    #[test]
    fn a_feed_that_is_never_the_same_comes_to_its_end() {
        let mut at = progress();
        for turn in 0..20 {
            Progress(&mut at).feed_opened(Some(&format!("v{turn}")));
            if let Some(batch) = batches(4, &at).first() {
                Progress(&mut at).accepted(batch, &[], &[], Form::Lines);
            }
        }
        assert_eq!((at.next_index, at.accepted), (10, 10));
    }

    #[test]
    fn batches_grow_again_once_meta_has_taken_a_few() {
        let mut at = progress();
        let batch = batches(10, &at).remove(0);
        assert!(Progress(&mut at).reduce(&batch, Form::Lines));
        for _ in 0..STEADY {
            assert_eq!(at.batch_limit, 5);
            Progress(&mut at).accepted(&batch, &[], &[], Form::Lines);
        }
        assert_eq!(at.batch_limit, 10);
    }

    #[test]
    fn less_data_is_sent_down_to_one_item_which_is_then_skipped() {
        let mut at = progress();
        for expected in [5, 2, 1] {
            let batch = batches(at.batch_limit, &at).remove(0);
            assert!(Progress(&mut at).reduce(&batch, Form::Lines));
            assert_eq!(at.batch_limit, expected);
        }
        let one = batches(at.batch_limit, &at).remove(0);
        assert!(!Progress(&mut at).reduce(&one, Form::Lines));
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
            Progress(&mut at).refused(&format!("p{index}"), &"no image ".repeat(100));
        }
        assert_eq!((at.failed, at.errors.len()), (200, MAX_ERRORS));
        assert_eq!(at.errors[0].message.len(), MAX_MESSAGE);
    }

    #[test]
    fn done_means_fed_and_settled() {
        let mut at = progress();
        let all = batches(10, &at).remove(0);
        Progress(&mut at).accepted(&all, &["h".to_owned()], &[], Form::Lines);
        at.feed_done = true;
        assert!(!at.is_done());
        Progress(&mut at).settled("h");
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
