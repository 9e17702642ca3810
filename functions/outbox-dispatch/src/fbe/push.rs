//! Pushes a catalog: the feed is read as it arrives, handed over in batches, and asked after until Meta is done.
//!
//! How far it has come is stored after every batch. A push that stops, for whatever reason, goes on where it was: it
//! asks for the rest of the feed (`Range`), or reads past what it has handed over where it cannot.

use std::time::Duration;

use crate::settle::Outcome;
use futures_util::StreamExt;
use http::StatusCode;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use jiff::SignedDuration;
use shared::clients::graph::{Answer, BatchAccepted, BatchStatus, ErrorKind, GraphError};
use shared::digest::Digest;
use shared::fbe::catalog::{Batch, Batcher, BrokenItem, FeedError, FeedItem, FeedReader, Form};
use shared::fbe::catalog_push::{BatchResult, PushProgress, feed_url};
use shared::fbe::plan::CatalogPush;
use shared::fbe::table::Push;
use shared::outbox::{Entry, Reason};
use shared::store::Claim;
use shared::telemetry;

use super::access::Access;
use super::{LEASE, MARGIN, Visit};

/// Meta takes seconds to minutes for a batch.
const POLL_AGAIN: Duration = Duration::from_secs(30);

/// A push that keeps getting on is not given up, however long it takes; this long without a step forward is too
/// long.
const STANDSTILL: SignedDuration = SignedDuration::from_hours(24);

/// How long a push that was getting on waits after a failure that names no time.
const GO_ON_AFTER: Duration = Duration::from_mins(5);

/// What is kept of an invocation to hand over what was read of the feed.
const HAND_OVER: SignedDuration = SignedDuration::from_secs(20);

/// A feed that so often in a row gives nothing new within an invocation is too slow.
const MAX_STALLED: u32 = 2;

/// Halving 5,000 items down to one takes 13 calls; so many refusals in a row are not one item's, nor a few neighbours'.
const MAX_REFUSALS: u32 = 50;

const FEED_TYPES: &str = "application/x-ndjson, application/json";

/// Why a push stops before its end.
enum Stop {
    /// The invocation has no time left for another step.
    TimeUp,
    /// Anything else, and what becomes of the item.
    Because(Outcome),
}

impl From<Outcome> for Stop {
    fn from(outcome: Outcome) -> Self {
        Self::Because(outcome)
    }
}

impl From<Stop> for Outcome {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::TimeUp => continues(),
            Stop::Because(outcome) => outcome,
        }
    }
}

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
    fn progress(&mut self) -> &mut PushProgress {
        &mut self.push.progress
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
        // The catalog may be another by now, or nobody's; then another push was planned, or none.
        if self.stored.install.assets.catalog_id.as_ref() != Some(&catalog_id) {
            return Ok(());
        }
        let Some(url) = feed_url(&url, self.id(), &catalog_id) else {
            return Err(Outcome::Dead {
                reason: Reason::CatalogFeedNoUrl.into(),
            });
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
                if progress.catalog_id == catalog_id && progress.started_at > entry.created() =>
            {
                return Ok(());
            }
            Some(last) if refresh && last.finished_at.is_some() => {
                let is_same = last.progress.catalog_id == catalog_id
                    && last.progress.feed_url == begun.progress.feed_url;
                if is_same && self.is_unchanged(&last.progress, &url).await? {
                    return self.note_unchanged(last).await;
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

    async fn note_unchanged(&mut self, mut last: Push) -> Result<(), Outcome> {
        last.unchanged_at = Some(self.now());
        self.keep_push(last).await
    }

    /// Whether the feed is as it was when the last push read it: by its own word, or item by item.
    async fn is_unchanged(&self, last: &PushProgress, url: &str) -> Result<bool, Outcome> {
        let mut request = self.worker.feeds.get(url).header(ACCEPT, FEED_TYPES);
        if let Some(version) = &last.feed_version {
            let condition = if is_date(version) {
                IF_MODIFIED_SINCE
            } else {
                IF_NONE_MATCH
            };
            request = request.header(condition, version);
        }
        let Some(response) = self.in_time(request.send()).await else {
            return Ok(false);
        };
        let response = response.map_err(|_| Outcome::retry(Reason::CatalogFeedUnreachable))?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(true);
        }
        refuse(response.status())?;
        let version = version(response.headers());
        if version.is_some() && version == last.feed_version {
            return Ok(true);
        }
        if last.content.is_empty() {
            return Ok(false);
        }
        let (mut reader, mut items, mut content) = (FeedReader::new(), Vec::new(), String::new());
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = self.in_time(chunks.next()).await {
            let Some(chunk) = chunk else {
                reader.finish(&mut items).map_err(unreadable)?;
                extend(&mut content, &items);
                return Ok(content == last.content);
            };
            let chunk = chunk.map_err(|_| Outcome::retry(Reason::CatalogFeedCutOff))?;
            reader.push(&chunk, &mut items).map_err(unreadable)?;
            extend(&mut content, &items);
            items.clear();
        }
        // Too long to compare: the push goes on from where its time ends.
        Ok(false)
    }

    /// What comes before the time to hand over what was read; `None` = it did not come.
    async fn in_time<T>(&self, reading: impl Future<Output = T>) -> Option<T> {
        let left = self.until.duration_since(self.now()) - MARGIN - HAND_OVER;
        // Without time left not even what is here already is taken: there is none to hand it over.
        let left = left.try_into().ok().filter(|left: &Duration| !left.is_zero())?;
        tokio::time::timeout(left, reading).await.ok()
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

    /// Reads the feed and hands over what is missing, or as much of it as there is time for.
    async fn feed(&mut self, run: &mut Run, url: &str) -> Result<(), Outcome> {
        match self.read_and_send(run, url).await {
            Ok(()) => {}
            Err(Stop::TimeUp) => return Err(self.pause(run).await?),
            Err(Stop::Because(outcome)) => return Err(outcome),
        }
        // An error in JSON looks like a feed of one broken item.
        if run.readable == 0 && run.broken > 0 && run.begins_at == 0 {
            tracing::warn!(
                broken = run.broken,
                "a catalog feed has not one item that can be read"
            );
            return Err(Outcome::retry(Reason::CatalogFeedUnreadable));
        }
        run.progress().feed_done = true;
        self.keep(run).await
    }

    /// To the end of the feed.
    async fn read_and_send(&mut self, run: &mut Run, url: &str) -> Result<(), Stop> {
        let mut batcher = Batcher::new(run.push.progress.batch_limit);
        let is_read = self.read(run, &mut batcher, url).await?;
        if let Some(batch) = batcher.finish() {
            self.send(run, batch).await?;
        }
        if is_read { Ok(()) } else { Err(Stop::TimeUp) }
    }

    /// Reads the feed into `batcher`, and hands over what is full. `false`: time is up before its end.
    async fn read(&mut self, run: &mut Run, batcher: &mut Batcher, url: &str) -> Result<bool, Stop> {
        let left = self.until.duration_since(self.now());
        let mut request = self
            .worker
            .feeds
            .get(url)
            .header(ACCEPT, FEED_TYPES)
            // Positions are counted in the bytes as they arrive.
            .header(ACCEPT_ENCODING, "identity")
            .timeout(left.try_into().unwrap_or_default());
        let from = resumable(&run.push.progress);
        if let Some((offset, _, version)) = &from {
            request = request
                .header(RANGE, format!("bytes={offset}-"))
                .header(IF_RANGE, version);
        }
        // No error is shown: it would quote the URL, which may hold a credential.
        let Some(response) = self.in_time(request.send()).await else {
            return Ok(false);
        };
        let response = response.map_err(|_| Outcome::retry(Reason::CatalogFeedUnreachable))?;
        let (status, range) = (response.status(), response.headers().get(CONTENT_RANGE).cloned());
        let range = range
            .as_ref()
            .and_then(|range| range.to_str().ok())
            .unwrap_or_default();
        let mut reader = match from {
            Some((offset, form, _)) if status == StatusCode::PARTIAL_CONTENT => {
                if !range.starts_with(&format!("bytes {offset}-")) {
                    return Err(Outcome::retry(Reason::CatalogFeedUnreadable).into());
                }
                run.form = form;
                FeedReader::resumed(form, run.push.progress.next_index, offset)
            }
            // Nothing is left behind the last item.
            Some((offset, ..))
                if status == StatusCode::RANGE_NOT_SATISFIABLE && range == format!("bytes */{offset}") =>
            {
                return Ok(true);
            }
            Some(_) if status == StatusCode::RANGE_NOT_SATISFIABLE => {
                run.progress().resume = None;
                self.keep(run).await?;
                return Err(continues().into());
            }
            _ => {
                refuse(status)?;
                run.progress().feed_opened(version(response.headers()).as_deref());
                run.begins_at = run.push.progress.next_index;
                FeedReader::new()
            }
        };
        let mut items = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = self.in_time(chunks.next()).await {
            let Some(chunk) = chunk else {
                reader.finish(&mut items).map_err(unreadable)?;
                self.hand_over(run, batcher, &mut items).await?;
                return Ok(true);
            };
            let chunk = chunk.map_err(|_| Outcome::retry(Reason::CatalogFeedCutOff))?;
            reader.push(&chunk, &mut items).map_err(unreadable)?;
            run.form = match reader.form() {
                Form::Ended => Form::Array,
                form => form,
            };
            self.hand_over(run, batcher, &mut items).await?;
        }
        Ok(false)
    }

    /// Time is up: says what follows. A feed that twice in a row gave nothing new within it is too slow.
    async fn pause(&mut self, run: &mut Run) -> Result<Outcome, Outcome> {
        let got_on = run.push.progress.next_index > run.begins_at;
        let progress = run.progress();
        progress.stalled = if got_on { 0 } else { progress.stalled + 1 };
        let is_too_slow = progress.stalled >= MAX_STALLED;
        if is_too_slow {
            // A redrive begins with all its tries.
            progress.stalled = 0;
        }
        self.store(run).await?;
        Ok(if is_too_slow {
            Outcome::Dead {
                reason: Reason::CatalogFeedTooSlow.into(),
            }
        } else {
            continues()
        })
    }

    async fn hand_over(
        &mut self,
        run: &mut Run,
        batcher: &mut Batcher,
        items: &mut Vec<Result<FeedItem, BrokenItem>>,
    ) -> Result<(), Stop> {
        for item in items.drain(..) {
            match &item {
                Ok(_) => run.readable += 1,
                Err(_) => run.broken += 1,
            }
            match item {
                Ok(mut item) if run.push.progress.is_next(item.index) => {
                    if run.content.is_none() {
                        run.content = Some(run.push.progress.content.clone());
                    }
                    item.content = chained(run.content.as_deref().unwrap_or_default(), &item);
                    run.content = Some(item.content.clone());
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
    async fn send(&mut self, run: &mut Run, batch: Batch) -> Result<(), Stop> {
        let mut open = vec![batch];
        while let Some(batch) = open.pop() {
            if self.is_late() {
                return Err(Stop::TimeUp);
            }
            if batch.items().len() > run.push.progress.batch_limit.max(1) {
                let (first, second) = batch.halves();
                open.extend(second);
                open.push(first);
                continue;
            }
            let left = self.until.duration_since(self.now());
            // A batch that is cut off is sent again: upserts change nothing the second time. It is Meta that was slow
            // then, and not the feed.
            let answer = tokio::time::timeout(left.try_into().unwrap_or_default(), self.call(run, &batch))
                .await
                .map_err(|_| continues())?;
            match answer {
                Ok(answer) if answer.value.handles.is_empty() => {
                    self.token_was_taken().await?;
                    // Nothing was taken, whatever the status says.
                    let first = answer.value.errors.first();
                    let message = first.map_or("not taken", |error| error.message.as_str());
                    run.alone(batch, message, &mut open)
                        .ok_or_else(|| Outcome::Dead {
                            reason: Reason::CatalogRefused.into(),
                        })?;
                }
                Ok(answer) => {
                    self.token_was_taken().await?;
                    run.refusals = 0;
                    let form = run.form;
                    let BatchAccepted { handles, errors } = answer.value;
                    run.progress().accepted(&batch, &handles, &errors, form);
                }
                Err(error) => match error.kind {
                    ErrorKind::SentAnyway => {
                        let form = run.form;
                        run.progress().accepted(&batch, &[], &[], form);
                    }
                    ErrorKind::ReduceData => {
                        let form = run.form;
                        if run.progress().reduce(&batch, form) {
                            open.push(batch);
                        }
                    }
                    ErrorKind::Permanent { .. } if is_about_items(&error) => {
                        if run.alone(batch, &error.detail, &mut open).is_none() {
                            return Err(self.graph_failed(error).await.into());
                        }
                    }
                    _ => return Err(self.graph_failed(error).await.into()),
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
                    let BatchStatus {
                        errors,
                        errors_total,
                        invalid,
                        ..
                    } = &answer.value;
                    let result = BatchResult {
                        errors,
                        errors_total: *errors_total,
                        invalid,
                    };
                    run.progress().finished(&outstanding.handle, &result);
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

    /// Stores how far the push has come, after a step forward.
    async fn keep(&mut self, run: &mut Run) -> Result<(), Outcome> {
        run.progress().advanced_at = Some(self.now());
        self.store(run).await
    }

    async fn store(&mut self, run: &Run) -> Result<(), Outcome> {
        self.keep_push(run.push.clone()).await
    }

    async fn keep_push(&mut self, push: Push) -> Result<(), Outcome> {
        let installs = &self.worker.installs;
        let kept = installs.keep_push(&self.lease, &push, LEASE).await;
        let Claim::Leased((), lease) = kept.map_err(Outcome::from)? else {
            return Err(Outcome::retry(Reason::LeaseLost));
        };
        self.lease = lease;
        self.stored.push = Some(push);
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

/// From where the feed can be read on: position in bytes, form, and the version that it must still have. `If-Range`
/// takes no weak tags.
fn resumable(progress: &PushProgress) -> Option<(u64, Form, String)> {
    let (offset, form) = progress.resume.filter(|_| progress.next_index > 0)?;
    let version = progress
        .feed_version
        .clone()
        .filter(|version| !version.starts_with("W/"))?;
    Some((offset, form, version))
}

/// A version that is no tag.
fn is_date(version: &str) -> bool {
    version.ends_with("GMT")
}

/// Adds items to a digest of all before them.
fn extend(content: &mut String, items: &[Result<FeedItem, BrokenItem>]) {
    for item in items.iter().flatten() {
        *content = chained(content, item);
    }
}

fn chained(content: &str, item: &FeedItem) -> String {
    Digest::of_parts([content, item.data.get()]).to_string()
}

/// Whether Graph refused the content of a call, and not the catalog or the app.
fn is_about_items(error: &GraphError) -> bool {
    error.status == Some(400) && matches!(error.code, None | Some(100)) && error.subcode != Some(33)
}
