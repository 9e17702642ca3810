//! Pushes a catalog: the feed is read as it arrives, handed over in batches, and asked after until Meta is done.
//!
//! How far it has come is stored after every batch. A push that stops, for whatever reason, reads the feed again
//! and hands over only what is missing.

use std::time::Duration;

use futures_util::StreamExt;
use http::StatusCode;
use http::header::{ACCEPT, ETAG, HeaderMap, LAST_MODIFIED};
use shared::clients::graph::{BatchStatus, ErrorKind};
use shared::fbe::catalog::{Batch, Batcher, BrokenItem, FeedError, FeedItem, FeedReader};
use shared::fbe::catalog_push::{PushProgress, feed_url};
use shared::fbe::plan::CatalogPush;
use shared::outbox::dispatch::Outcome;
use shared::store::installs::Push;
use shared::store::outbox::Entry;

use super::Visit;
use super::access::Access;

/// Meta takes seconds to minutes for a batch.
const POLL_AGAIN: Duration = Duration::from_secs(30);

/// What a push that ran out of time says.
const CONTINUES: &str = "catalog_push_continues";

/// One push under way.
struct Run {
    push: Push,
    access: Access,
}

impl Run {
    fn progress(&mut self) -> &mut PushProgress {
        &mut self.push.progress
    }
}

impl Visit<'_> {
    pub(super) async fn push(&mut self, entry: &Entry) -> Result<(), Outcome> {
        let Ok(CatalogPush { catalog_id }) = serde_json::from_value(entry.payload()) else {
            return Err(Outcome::Dead {
                reason: "payload_unreadable".to_owned(),
            });
        };
        let Some(url) = self.worker.settings.catalog_feed_url.clone() else {
            return Ok(());
        };
        // The catalog may be another by now, or nobody's; then another push was planned, or none.
        if self.stored.install.assets.catalog_id.as_ref() != Some(&catalog_id) {
            return Ok(());
        }
        let push = match self.stored.push.clone() {
            Some(push) if push.event_key == entry.event_key => push,
            // One that was asked for later has begun: it pushes the same, and newer.
            Some(push) if push.event_key > entry.event_key => return Ok(()),
            _ => Push {
                event_key: entry.event_key.clone(),
                progress: PushProgress::new(&catalog_id, self.now()),
                finished_at: None,
            },
        };
        let access = self.access().await?;
        let mut run = Run { push, access };
        if !run.push.progress.feed_done {
            let url = feed_url(&url, self.id(), &catalog_id);
            self.feed(&mut run, &url).await?;
        }
        self.ask(&mut run).await?;
        if !run.push.progress.is_done() {
            return Err(Outcome::Retry {
                reason: "catalog_push_processing".to_owned(),
                wait: Some(POLL_AGAIN),
            });
        }
        if run.push.finished_at.is_none() {
            run.push.finished_at = Some(self.now());
            self.keep(&run).await?;
            let PushProgress { accepted, failed, .. } = run.push.progress;
            tracing::info!(
                fbe.business = self.pseudonym(),
                accepted,
                failed,
                "a catalog was pushed"
            );
        }
        Ok(())
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
        let unreachable = |_| Outcome::retry("catalog_feed_unreachable");
        let response = request.send().await.map_err(unreachable)?;
        refuse(response.status())?;
        run.progress().feed_opened(version(response.headers()).as_deref());

        let (mut reader, mut items) = (FeedReader::new(), Vec::new());
        let mut batcher = Batcher::new(run.push.progress.batch_limit);
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Outcome::retry("catalog_feed_cut_off"))?;
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
            let catalog = run.push.progress.catalog_id.clone();
            let call = self
                .worker
                .graph
                .items_batch(run.access.credentials(), &catalog, &batch);
            let left = self.until.duration_since(self.now());
            // A batch that is cut off is sent again: upserts change nothing the second time.
            let answer = tokio::time::timeout(left.try_into().unwrap_or_default(), call)
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
            let answer = self
                .worker
                .graph
                .check_batch_request_status(run.access.credentials(), &catalog, &outstanding.handle)
                .await;
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
    async fn keep(&mut self, run: &Run) -> Result<(), Outcome> {
        let kept = self.worker.installs.keep_push(&self.lease, &run.push).await;
        if kept.map_err(|error| Outcome::from(&error))? {
            self.stored.push = Some(run.push.clone());
            Ok(())
        } else {
            Err(Outcome::retry("lease_lost"))
        }
    }
}

fn continues() -> Outcome {
    Outcome::Retry {
        reason: CONTINUES.to_owned(),
        wait: Some(Duration::from_secs(1)),
    }
}

fn unreadable(error: FeedError) -> Outcome {
    // An error page may stand in for the feed, so it is worth trying again.
    tracing::warn!(%error, "a catalog feed cannot be read");
    Outcome::retry("catalog_feed_unreadable")
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
