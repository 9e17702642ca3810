//! A catalog push as it is stored: enough to go on after a crash without pushing everything again.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Meta takes this many items a call.
pub const MAX_BATCH_ITEMS: usize = 5_000;
/// Handles that are kept before what became of them is asked for: the record has to fit into an item of DynamoDB.
const MAX_OUTSTANDING: usize = 200;

/// A catalog push: the last one of its business.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// Event key of the outbox item that asked for it.
    pub event_key: String,
    /// How far it has come.
    pub progress: PushProgress,
    /// When it was done.
    pub finished_at: Option<Timestamp>,
    /// When its feed was last looked at since, and had not changed.
    pub unchanged_at: Option<Timestamp>,
}

/// How a feed is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Nothing was read yet.
    #[default]
    Unknown,
    /// JSON Lines.
    Lines,
    /// One JSON array.
    Array,
    /// After the closing bracket of the array.
    Ended,
}

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
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushProgress {
    /// Catalog that is pushed to.
    pub catalog_id: String,
    /// When the push began.
    pub started_at: Timestamp,
    /// The feed's `ETag` or `Last-Modified`; another one means another feed, and to begin again.
    pub feed_version: Option<String>,
    /// Digest of the feed's URL: what is known of one feed says nothing of another.
    #[serde(default)]
    pub feed_url: String,
    /// Items of the feed before this position are done with.
    pub next_index: u64,
    /// Where in the feed the next item begins, in bytes, and how the feed is written.
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

    /// Whether an item at this position still has to be pushed.
    #[must_use]
    pub fn is_next(&self, index: u64) -> bool {
        index >= self.next_index
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
}
