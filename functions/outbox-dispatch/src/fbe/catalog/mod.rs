//! Pushes a catalog: the feed is read as it arrives, handed over in batches, and asked after until Meta is done.
//!
//! How far it has come is stored after every batch. A push that stops goes on where it was: it
//! asks for the rest of the feed (`Range`), or reads past what it has handed over where it cannot.

mod batch;
mod feed;
mod progress;
mod reading;
mod sending;

use std::time::Duration;

use jiff::SignedDuration;
use shared::fbe::plan::CatalogPush;
use shared::fbe::push::{Form, Push, PushProgress};
use shared::outbox::{Entry, Reason};
use shared::store::Claim;
use shared::telemetry;

pub(crate) use self::feed::feed_items;

use self::batch::Batch;
use self::progress::{Progress, feed_url};
use super::access::Access;
use super::{LEASE, Visit};
use crate::settle::Outcome;

/// Meta takes seconds to minutes for a batch.
const POLL_AGAIN: Duration = Duration::from_secs(30);

/// A push that keeps getting on is not given up, however long it takes; this long without a step forward is too
/// long.
const STANDSTILL: SignedDuration = SignedDuration::from_hours(24);

/// How long a push that was getting on waits after a failure that names no time.
const GO_ON_AFTER: Duration = Duration::from_mins(5);

/// Halving 5,000 items down to one takes 13 calls; so many refusals in a row are not one item's, nor a few neighbours'.
const MAX_REFUSALS: u32 = 50;

/// One push under way.
struct Run {
    push: Push,
    access: Access,
    /// How the feed is written.
    form: Form,
    /// Digest of the items that were read; `None` = none yet.
    content: Option<String>,
    /// Where in the feed this visit began.
    begins_at: u64,
    /// Calls in a row that were refused for what they held.
    refusals: u32,
    /// Items of the feed that could be read, and that could not, in this visit.
    readable: u64,
    broken: u64,
}

impl Run {
    fn progress(&mut self) -> Progress<'_> {
        Progress(&mut self.push.progress)
    }

    /// A call was refused for one of its items: halves it until the bad one is alone, and is left out. `None`: so much
    /// was refused in a row that it is not the items.
    fn alone(&mut self, batch: Batch, message: &str, open: &mut Vec<Batch>) -> Option<()> {
        self.refusals += 1;
        if self.refusals > MAX_REFUSALS {
            return None;
        }
        match batch.halves() {
            (first, Some(second)) => open.extend([second, first]),
            (only, None) => {
                let form = self.form;
                self.progress().refused_alone(&only, message, form);
            }
        }
        Some(())
    }
}

impl Visit<'_> {
    pub(super) async fn push(&mut self, entry: &Entry, payload: CatalogPush) -> Result<(), Outcome> {
        let CatalogPush { catalog_id, refresh } = payload;
        let Some(url) = self.worker.settings.fbe.catalog_feed_url.clone() else {
            return Ok(());
        };
        // Another catalog may be granted by now, with its own push, or none.
        if self.stored.install.assets.catalog_id.as_ref() != Some(&catalog_id) {
            return Ok(());
        }
        let Some(url) = feed_url(&url, self.id(), &catalog_id) else {
            return Err(Outcome::dead(Reason::CatalogFeedNoUrl));
        };
        let begun = Push {
            event_key: entry.event_key.clone(),
            progress: PushProgress::new(&catalog_id, &url, self.now()),
            finished_at: None,
            unchanged_at: None,
        };
        let push = match self.stored.push.clone() {
            Some(push) if push.event_key == entry.event_key => push,
            // One that began after this one was asked for pushes the same, and newer.
            Some(Push { progress, .. })
                if progress.catalog_id == catalog_id && progress.started_at > entry.created_at =>
            {
                return Ok(());
            }
            Some(last) if refresh && last.finished_at.is_some() => {
                let is_same = last.progress.catalog_id == catalog_id
                    && last.progress.feed_url == begun.progress.feed_url;
                if is_same && self.is_unchanged(&last.progress, &url).await? {
                    let unchanged_at = Some(self.now());
                    return self.keep_push(Push { unchanged_at, ..last }).await;
                }
                begun
            }
            _ => begun,
        };
        let begins_at = push.progress.next_index;
        let mut run = Run {
            push,
            access: self.access().await?,
            form: Form::Unknown,
            content: None,
            begins_at,
            refusals: 0,
            readable: 0,
            broken: 0,
        };
        let result = self.carry_on(&mut run, &url).await;
        result.map_err(|outcome| self.patient(&run, outcome))
    }

    /// From wherever the push stands to its end.
    async fn carry_on(&mut self, run: &mut Run, url: &str) -> Result<(), Outcome> {
        if !run.push.progress.feed_done {
            self.make_room(run).await?;
            self.feed(run, url).await?;
        }
        self.ask(run).await?;
        if !run.push.progress.is_done() {
            return Err(processing());
        }
        if run.push.finished_at.is_none() {
            run.push.finished_at = Some(self.now());
            self.keep(run).await?;
            let PushProgress { accepted, failed, .. } = run.push.progress;
            metrics::counter!(telemetry::CATALOG_ITEMS_FAILED).increment(failed);
            tracing::info!(
                fbe.business = self.pseudonym(),
                accepted,
                failed,
                "a catalog was pushed"
            );
        }
        Ok(())
    }

    /// A push that has lately got on is not given up for a failure.
    fn patient(&self, run: &Run, outcome: Outcome) -> Outcome {
        let advanced = run.push.progress.advanced_at;
        match outcome {
            Outcome::Retry { reason, wait } if advanced.is_some_and(|at| self.now() < at + STANDSTILL) => {
                let wait = wait.unwrap_or(GO_ON_AFTER);
                let goes_on = reason == Reason::CatalogPushContinues.as_str()
                    || reason == Reason::CatalogPushProcessing.as_str();
                if goes_on {
                    Outcome::Waiting { reason, wait }
                } else {
                    Outcome::Failing { reason, wait }
                }
            }
            outcome => outcome,
        }
    }

    /// Stores how far the push has come, after a step forward.
    async fn keep(&mut self, run: &mut Run) -> Result<(), Outcome> {
        run.push.progress.advanced_at = Some(self.now());
        self.keep_push(run.push.clone()).await
    }

    async fn keep_push(&mut self, push: Push) -> Result<(), Outcome> {
        let installs = &self.worker.installs;
        let Claim::Leased((), lease) = installs.keep_push(&self.lease, &push, LEASE).await? else {
            return Err(Outcome::retry(Reason::LeaseLost));
        };
        self.lease = lease;
        self.stored.push = Some(push);
        Ok(())
    }
}

fn processing() -> Outcome {
    Outcome::retry_after(Reason::CatalogPushProcessing, POLL_AGAIN)
}

fn continues() -> Outcome {
    Outcome::retry_after(Reason::CatalogPushContinues, Duration::from_secs(1))
}
