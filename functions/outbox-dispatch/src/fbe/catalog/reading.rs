//! Reads the feed: from where the push stands, for as long as there is time.

use std::time::Duration;

use futures_util::StreamExt;
use http::StatusCode;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use jiff::SignedDuration;
use shared::digest::Digest;
use shared::fbe::push::{Form, PushProgress};
use shared::outbox::Reason;

use super::batch::Batcher;
use super::feed::{BrokenItem, FeedError, FeedItem, FeedReader};
use super::{Run, continues};
use crate::fbe::{MARGIN, Visit};
use crate::settle::Outcome;

/// What is kept of an invocation to hand over what was read of the feed.
const HAND_OVER: SignedDuration = SignedDuration::from_secs(20);

/// A feed that so often in a row gives nothing new within an invocation is too slow.
const MAX_STALLED: u32 = 2;

const FEED_TYPES: &str = "application/x-ndjson, application/json";

impl Visit<'_> {
    /// Whether the feed is as it was when the last push read it: by its own word, or item by item.
    pub(super) async fn is_unchanged(&self, last: &PushProgress, url: &str) -> Result<bool, Outcome> {
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
        let (mut reader, mut items, mut content) = (FeedReader::default(), Vec::new(), String::new());
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

    /// Reads the feed and hands over what is missing, or as much of it as there is time for.
    pub(super) async fn feed(&mut self, run: &mut Run, url: &str) -> Result<(), Outcome> {
        match self.read_and_send(run, url).await {
            Err(Outcome::Busy) => return Err(self.pause(run).await?),
            read => read?,
        }
        // An error in JSON looks like a feed of one broken item.
        if run.readable == 0 && run.broken > 0 && run.begins_at == 0 {
            tracing::warn!(
                broken = run.broken,
                "a catalog feed has not one item that can be read"
            );
            return Err(Outcome::retry(Reason::CatalogFeedUnreadable));
        }
        run.push.progress.feed_done = true;
        self.keep(run).await
    }

    /// To the end of the feed. [`Outcome::Busy`]: time is up before it.
    async fn read_and_send(&mut self, run: &mut Run, url: &str) -> Result<(), Outcome> {
        let mut batcher = Batcher::new(run.push.progress.batch_limit);
        let is_read = self.read(run, &mut batcher, url).await?;
        if let Some(batch) = batcher.finish() {
            self.send(run, batch).await?;
        }
        if is_read { Ok(()) } else { Err(Outcome::Busy) }
    }

    /// Reads the feed into `batcher`, and hands over what is full. `false`: time is up before its end.
    async fn read(&mut self, run: &mut Run, batcher: &mut Batcher, url: &str) -> Result<bool, Outcome> {
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
                    return Err(Outcome::retry(Reason::CatalogFeedUnreadable));
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
                run.push.progress.resume = None;
                self.keep(run).await?;
                return Err(continues());
            }
            _ => {
                refuse(status)?;
                run.progress().feed_opened(version(response.headers()).as_deref());
                run.begins_at = run.push.progress.next_index;
                FeedReader::default()
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
        let progress = &mut run.push.progress;
        progress.stalled = if got_on { 0 } else { progress.stalled + 1 };
        let is_too_slow = progress.stalled >= MAX_STALLED;
        if is_too_slow {
            // A redrive begins with all its tries.
            progress.stalled = 0;
        }
        self.keep_push(run.push.clone()).await?;
        Ok(if is_too_slow {
            Outcome::dead(Reason::CatalogFeedTooSlow)
        } else {
            continues()
        })
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
        _ => Err(Outcome::misconfigured_after(reason(), Duration::from_mins(10))),
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
