//! Pushes a catalog: the feed is read as it arrives, handed over in batches, and asked after until Meta is done.
//!
//! How far it has come is stored after every batch. A push that stops, for whatever reason, reads the feed again
//! and hands over only what is missing.

use std::time::Duration;

use crate::settle::Outcome;
use futures_util::StreamExt;
use http::StatusCode;
use http::header::{ACCEPT, ETAG, HeaderMap, LAST_MODIFIED};
use jiff::SignedDuration;
use shared::clients::graph::{Answer, BatchAccepted, BatchStatus, ErrorKind, GraphError};
use shared::fbe::catalog::{Batch, Batcher, BrokenItem, FeedError, FeedItem, FeedReader};
use shared::fbe::catalog_push::{PushProgress, feed_url};
use shared::fbe::table::Push;
use shared::outbox::{Entry, Reason};
use shared::store::Claim;
use shared::telemetry;

use super::access::Access;
use super::{LEASE, Visit};

/// Meta takes seconds to minutes for a batch.
const POLL_AGAIN: Duration = Duration::from_secs(30);

/// A push that keeps getting on is not given up, however long it takes; this long without a step forward is too
/// long.
const STANDSTILL: SignedDuration = SignedDuration::from_hours(24);

/// How long a push that was getting on waits after a failure that names no time.
const GO_ON_AFTER: Duration = Duration::from_mins(5);

/// One push under way.
struct Run {
    push: Push,
    access: Access,
    /// Items of the feed that could be read, and that could not, in this visit.
    readable: u64,
    broken: u64,
}

impl Run {
    fn progress(&mut self) -> &mut PushProgress {
        &mut self.push.progress
    }
}

impl Visit<'_> {
    pub(super) async fn push(&mut self, entry: &Entry, catalog_id: &str) -> Result<(), Outcome> {
        let Some(url) = self.worker.settings.catalog_feed_url.clone() else {
            return Ok(());
        };
        // The catalog may be another by now, or nobody's; then another push was planned, or none.
        if self.stored.install.assets.catalog_id.as_deref() != Some(catalog_id) {
            return Ok(());
        }
        let push = match self.stored.push.clone() {
            Some(push) if push.event_key == entry.event_key => push,
            // One that began after this one was asked for pushes the same, and newer.
            Some(Push { progress, .. })
                if progress.catalog_id == catalog_id && progress.started_at > entry.created() =>
            {
                return Ok(());
            }
            _ => Push {
                event_key: entry.event_key.clone(),
                progress: PushProgress::new(catalog_id, self.now()),
                finished_at: None,
            },
        };
        let Some(url) = feed_url(&url, self.id(), catalog_id) else {
            return Err(Outcome::dead(Reason::CatalogFeedNoUrl));
        };
        let mut run = Run {
            push,
            access: self.access().await?,
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

    /// A failure of a push that has lately got on counts as a pause.
    fn patient(&self, run: &Run, outcome: Outcome) -> Outcome {
        let advanced = run.push.progress.advanced_at;
        match outcome {
            Outcome::Retry { reason, wait } if advanced.is_some_and(|at| self.now() < at + STANDSTILL) => {
                Outcome::Waiting {
                    reason,
                    wait: wait.unwrap_or(GO_ON_AFTER),
                }
            }
            outcome => outcome,
        }
    }

    /// Reads the feed and hands over what is missing.
    async fn feed(&mut self, run: &mut Run, url: &str) -> Result<(), Outcome> {
        let left = self.until.duration_since(self.now());
        let request = self
            .worker
            .feeds
            .get(url)
            .header(ACCEPT, "application/x-ndjson, application/json")
            .timeout(left.try_into().unwrap_or_default());
        // No error is shown: it would quote the URL, which may hold a credential.
        let unreachable = |_| Outcome::retry(Reason::CatalogFeedUnreachable);
        let response = request.send().await.map_err(unreachable)?;
        refuse(response.status())?;
        run.progress().feed_opened(version(response.headers()).as_deref());

        let (mut reader, mut items) = (FeedReader::new(), Vec::new());
        let mut batcher = Batcher::new(run.push.progress.batch_limit);
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Outcome::retry(Reason::CatalogFeedCutOff))?;
            reader.push(&chunk, &mut items).map_err(unreadable)?;
            self.hand_over(run, &mut batcher, &mut items).await?;
            if self.is_late() {
                return Err(continues());
            }
        }
        reader.finish(&mut items).map_err(unreadable)?;
        self.hand_over(run, &mut batcher, &mut items).await?;
        if let Some(batch) = batcher.finish() {
            self.send(run, batch).await?;
        }
        // An error in JSON looks like a feed of one broken item.
        if run.readable == 0 && run.broken > 0 {
            tracing::warn!(
                broken = run.broken,
                "a catalog feed has not one item that can be read"
            );
            return Err(Outcome::retry(Reason::CatalogFeedUnreadable));
        }
        run.progress().feed_done = true;
        self.keep(run).await
    }

    async fn hand_over(
        &mut self,
        run: &mut Run,
        batcher: &mut Batcher,
        items: &mut Vec<Result<FeedItem, BrokenItem>>,
    ) -> Result<(), Outcome> {
        for item in items.drain(..) {
            match &item {
                Ok(_) => run.readable += 1,
                Err(_) => run.broken += 1,
            }
            match item {
                Ok(item) if run.push.progress.is_next(item.index) => {
                    if let Some(batch) = batcher.push(item) {
                        self.send(run, batch).await?;
                        batcher.set_limit(run.push.progress.batch_limit);
                    }
                }
                Ok(_) => {}
                Err(broken) => run.progress().skipped(&broken),
            }
        }
        Ok(())
    }

    /// Hands over one batch, in halves if Meta asks for less.
    async fn send(&mut self, run: &mut Run, batch: Batch) -> Result<(), Outcome> {
        let mut open = vec![batch];
        while let Some(batch) = open.pop() {
            if self.is_late() {
                return Err(continues());
            }
            if batch.items().len() > run.push.progress.batch_limit.max(1) {
                let (first, second) = batch.halves();
                open.extend(second);
                open.push(first);
                continue;
            }
            let left = self.until.duration_since(self.now());
            // A batch that is cut off is sent again: upserts change nothing the second time.
            let answer = tokio::time::timeout(left.try_into().unwrap_or_default(), self.call(run, &batch))
                .await
                .map_err(|_| continues())?;
            match answer {
                Ok(answer) => {
                    self.token_was_taken().await?;
                    let progress = run.progress();
                    progress.accepted(&batch, &answer.value.handles);
                    for error in answer.value.errors {
                        progress.refused(&error.item, &error.message);
                    }
                }
                Err(error) => match error.kind {
                    ErrorKind::SentAnyway => run.progress().accepted(&batch, &[]),
                    ErrorKind::ReduceData => {
                        if run.progress().reduce(&batch) {
                            open.push(batch);
                        }
                    }
                    _ => return Err(self.graph_failed(error).await),
                },
            }
            self.keep(run).await?;
            self.make_room(run).await?;
        }
        Ok(())
    }

    /// One call with a batch, together with few others.
    async fn call(&self, run: &mut Run, batch: &Batch) -> Result<Answer<BatchAccepted>, GraphError> {
        // It is never closed.
        let _turn = self.worker.batches.acquire().await;
        let (graph, catalog) = (&self.worker.graph, &run.push.progress.catalog_id);
        let answer = graph.items_batch(run.access.credentials(), catalog, batch).await;
        if let Err(error) = &answer
            && self.app_changed(&mut run.access, error).await
        {
            return graph.items_batch(run.access.credentials(), catalog, batch).await;
        }
        answer
    }

    /// Before more handles are kept than the record has room for, Meta is asked for some.
    async fn make_room(&mut self, run: &mut Run) -> Result<(), Outcome> {
        if run.push.progress.is_full() {
            self.ask(run).await?;
            if run.push.progress.is_full() {
                return Err(processing());
            }
        }
        Ok(())
    }

    /// Asks what became of the batches.
    async fn ask(&mut self, run: &mut Run) -> Result<(), Outcome> {
        let catalog = run.push.progress.catalog_id.clone();
        for outstanding in run.push.progress.outstanding.clone() {
            if self.is_late() {
                return Err(continues());
            }
            let (graph, handle) = (&self.worker.graph, &outstanding.handle);
            let mut answer = graph
                .check_batch_request_status(run.access.credentials(), &catalog, handle)
                .await;
            if let Err(error) = &answer
                && self.app_changed(&mut run.access, error).await
            {
                answer = graph
                    .check_batch_request_status(run.access.credentials(), &catalog, handle)
                    .await;
            }
            match answer {
                Ok(answer) if answer.value.is_finished => {
                    note(run.progress(), &answer.value);
                    run.progress().settled(&outstanding.handle);
                }
                Ok(_) => continue,
                // Meta forgets handles after a while; the batch was accepted all the same.
                Err(error) if matches!(error.kind, ErrorKind::Permanent { .. }) => {
                    tracing::warn!(%error, fbe.business = self.pseudonym(), "what became of a catalog batch is not known");
                    run.progress().settled(&outstanding.handle);
                }
                Err(error) => return Err(self.graph_failed(error).await),
            }
            self.keep(run).await?;
        }
        Ok(())
    }

    /// Stores how far the push has come.
    async fn keep(&mut self, run: &mut Run) -> Result<(), Outcome> {
        run.progress().advanced_at = Some(self.now());
        let kept = self
            .worker
            .installs
            .keep_push(&self.lease, &run.push, LEASE)
            .await;
        let Claim::Leased((), lease) = kept.map_err(Outcome::from)? else {
            return Err(Outcome::retry(Reason::LeaseLost));
        };
        self.lease = lease;
        self.stored.push = Some(run.push.clone());
        Ok(())
    }
}

fn processing() -> Outcome {
    Outcome::Retry {
        reason: Reason::CatalogPushProcessing.into(),
        wait: Some(POLL_AGAIN),
    }
}

fn continues() -> Outcome {
    Outcome::Retry {
        reason: Reason::CatalogPushContinues.into(),
        wait: Some(Duration::from_secs(1)),
    }
}

fn unreadable(error: FeedError) -> Outcome {
    // An error page may stand in for the feed, so it is worth trying again.
    tracing::warn!(%error, "a catalog feed cannot be read");
    Outcome::retry(Reason::CatalogFeedUnreadable)
}

fn refuse(status: StatusCode) -> Result<(), Outcome> {
    let reason = || format!("catalog_feed_{}", status.as_u16());
    match status.as_u16() {
        200..=299 => Ok(()),
        408 | 425 | 429 | 500..=599 => Err(Outcome::retry(reason())),
        _ => Err(Outcome::Misconfigured {
            reason: reason(),
            wait: Some(Duration::from_mins(10)),
        }),
    }
}

fn version(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(ETAG).or_else(|| headers.get(LAST_MODIFIED))?;
    Some(value.to_str().ok()?.chars().take(200).collect())
}

/// Notes the errors of a finished batch; some are told by their item alone, some only as a number.
fn note(progress: &mut PushProgress, status: &BatchStatus) {
    let mut noted = 0;
    for error in &status.errors {
        progress.refused(&error.item, &error.message);
        noted += 1;
    }
    let named = |id: &&String| !status.errors.iter().any(|error| error.item == **id);
    for id in status.invalid.iter().filter(named) {
        progress.refused(id, "refused");
        noted += 1;
    }
    progress.failed += status.errors_total.saturating_sub(noted);
}
