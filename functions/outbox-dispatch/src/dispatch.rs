//! Settles outbox items: hands them to the workers of their kinds and writes down what became of them.
//!
//! Failures are settled in the table, so a stream batch counts as failed only where the table itself could not
//! be written; one poison item never holds up the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};

use super::backoff::Backoff;
use shared::clock::Clock;
use shared::outbox::{Entry, Kind, Lane, Outbox, Status};
use shared::store::StoreError;
use shared::telemetry;

/// Due items taken at once: a multiple of 75, so that requests to Braze are full.
const ROUND: usize = 3000;

/// With less left of an invocation no new round is begun: a request may take half a minute, and what came of it
/// has to be written. Items would be claimed and let go again, untried.
const MARGIN: SignedDuration = SignedDuration::from_secs(40);

/// Updates of the table under way at once.
const CONCURRENCY: usize = 32;

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The effect is in place, or is not needed any more.
    Done,
    /// The worker has settled the item itself, in a transaction with other writes.
    Settled,
    /// The worker has written down itself what became of the item, by a [`Settler`].
    Noted(Moved),
    /// Somebody else is at it; it stays as it is.
    Busy,
    /// It failed and may succeed later.
    Retry {
        /// Short code.
        reason: String,
        /// What the other side asks for.
        wait: Option<Duration>,
    },
    /// It cannot succeed before somebody changes a setting or a secret. Tried again all the same, at least
    /// every hour, with an alarm and however long that takes.
    Misconfigured {
        /// Short code.
        reason: String,
        /// Not before this much later; an hour at most.
        wait: Option<Duration>,
    },
    /// It cannot succeed before something arrives from outside, however long that takes: never given up.
    Waiting {
        /// Short code; [`shared::outbox::Outbox::wake`] finds the item by it.
        reason: String,
        /// Tried again after this time all the same.
        wait: Duration,
    },
    /// It cannot succeed.
    Dead {
        /// Short code.
        reason: String,
    },
}

impl Outcome {
    /// A failure that may pass, with our own backoff.
    #[must_use]
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry {
            reason: reason.into(),
            wait: None,
        }
    }
}

impl From<&StoreError> for Outcome {
    fn from(error: &StoreError) -> Self {
        tracing::error!(%error, "an outbox item waits for DynamoDB");
        Self::retry("store_unavailable")
    }
}

/// Does the work of some kinds of items.
#[async_trait]
pub trait Worker: Send + Sync {
    /// The kinds.
    fn kinds(&self) -> &'static [Kind];

    /// Works on all `entries` (of these kinds, in any number), and says of each what became of it, in the same
    /// order. Must be back by `until`; what it does not reach is [`Outcome::Busy`].
    async fn work(&self, entries: &[Entry], until: Timestamp) -> Vec<Outcome>;
}

/// What a run did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// Items settled.
    pub done: usize,
    /// Items that are tried again later.
    pub retried: usize,
    /// Items given up.
    pub dead: usize,
    /// Items left alone: somebody else has them, or time ran out.
    pub left: usize,
    /// Positions of the items whose settling could not be written.
    pub unwritten: Vec<usize>,
}

/// Where an item has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It is settled.
    Done,
    /// It is tried again later.
    Retried,
    /// It is given up.
    Dead,
    /// It stays as it is.
    Left,
}

/// Writes down what became of an item.
#[derive(Clone, Debug)]
pub struct Settler {
    outbox: Outbox,
    backoff: Backoff,
    clock: Clock,
}

impl Report {
    fn add(&mut self, other: Self) {
        self.done += other.done;
        self.retried += other.retried;
        self.dead += other.dead;
        self.left += other.left;
        self.unwritten.extend(other.unwritten);
    }
}

/// Settles the items of one lane.
pub struct Dispatcher {
    lane: Lane,
    outbox: Outbox,
    workers: Vec<Arc<dyn Worker>>,
    settler: Settler,
    clock: Clock,
}

impl Dispatcher {
    /// A dispatcher of `lane` with the workers of all its kinds.
    #[must_use]
    pub fn new(
        lane: Lane,
        outbox: Outbox,
        workers: Vec<Arc<dyn Worker>>,
        backoff: Backoff,
        clock: Clock,
    ) -> Self {
        Self {
            lane,
            settler: Settler::new(outbox.clone(), backoff, clock.clone()),
            outbox,
            workers,
            clock,
        }
    }

    /// Works on `entries`, as the stream brings them, until `until` at the latest.
    pub async fn dispatch(&self, entries: &[Entry], until: Timestamp) -> Report {
        let mut by_worker: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut report = Report::default();
        let mut outcomes: Vec<(usize, Outcome)> = Vec::with_capacity(entries.len());
        for (position, entry) in entries.iter().enumerate() {
            if entry.lane != self.lane || entry.status != Status::Pending {
                report.left += 1;
                continue;
            }
            match self
                .workers
                .iter()
                .position(|worker| worker.kinds().contains(&entry.kind))
            {
                Some(worker) => by_worker.entry(worker).or_default().push(position),
                None => outcomes.push((
                    position,
                    Outcome::Dead {
                        reason: "no_worker".into(),
                    },
                )),
            }
        }
        let runs = by_worker.into_iter().filter_map(|(worker, positions)| {
            let worker = self.workers.get(worker)?;
            Some(async move {
                let batch: Vec<Entry> = positions
                    .iter()
                    .filter_map(|position| entries.get(*position).cloned())
                    .collect();
                let outcomes = worker.work(&batch, until).await;
                // At once: a slow worker must not hold back what another has finished.
                let outcomes = positions.into_iter().zip(outcomes).collect();
                self.settle(entries, outcomes).await
            })
        });
        let settled = join_all(runs).await;
        report.add(self.settle(entries, outcomes).await);
        for one in settled {
            report.add(one);
        }
        report
    }

    /// Works on what is due, in rounds, until nothing is or `until` is near.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the table cannot be read.
    pub async fn tick(&self, until: Timestamp) -> Result<Report, StoreError> {
        let mut total = Report::default();
        let mut is_first = true;
        loop {
            let (due, oldest) = self.outbox.due(self.lane, ROUND).await?;
            let now = self.clock.now();
            if std::mem::take(&mut is_first) {
                let waited = oldest.map_or(0.0, |oldest| now.duration_since(oldest).as_secs_f64());
                // A gauge would be written again with every later call of this process, long after it was true.
                metrics::histogram!(telemetry::OLDEST_DUE_SECONDS).record(waited);
            }
            if due.is_empty() || now + MARGIN > until {
                return Ok(total);
            }
            let report = self.dispatch(&due, until).await;
            let moved = report.done + report.retried + report.dead;
            total.done += report.done;
            total.retried += report.retried;
            total.dead += report.dead;
            total.left += report.left;
            total.unwritten.extend(report.unwritten);
            // Nothing moved: what is left is in somebody else's hands.
            if moved == 0 {
                return Ok(total);
            }
        }
    }

    async fn settle(&self, entries: &[Entry], outcomes: Vec<(usize, Outcome)>) -> Report {
        let mut report = Report::default();
        let (done, others): (Vec<_>, Vec<_>) = outcomes
            .into_iter()
            .partition(|(_, outcome)| *outcome == Outcome::Done);
        let settled: Vec<Entry> = done
            .iter()
            .filter_map(|(position, _)| entries.get(*position).cloned())
            .collect();
        match self.outbox.done(settled).await {
            Ok(()) => report.done += done.len(),
            Err(error) => {
                tracing::error!(%error, items = done.len(), "settled items cannot be marked as done");
                report
                    .unwritten
                    .extend(done.iter().map(|(position, _)| *position));
            }
        }
        let written = stream::iter(others)
            .map(|(position, outcome)| async move {
                let Some(entry) = entries.get(position) else {
                    return (position, Ok(Moved::Left));
                };
                (position, self.settler.settle(entry, outcome).await)
            })
            .buffer_unordered(CONCURRENCY)
            .collect::<Vec<_>>()
            .await;
        for (position, written) in written {
            match written {
                Ok(Moved::Done) => report.done += 1,
                Ok(Moved::Retried) => report.retried += 1,
                Ok(Moved::Dead) => report.dead += 1,
                Ok(Moved::Left) => report.left += 1,
                Err(error) => {
                    tracing::error!(%error, "an outbox item's failure cannot be written");
                    report.unwritten.push(position);
                }
            }
        }
        metrics::counter!(telemetry::OUTBOX_DONE).increment(report.done as u64);
        metrics::counter!(telemetry::OUTBOX_RETRIED).increment(report.retried as u64);
        metrics::counter!(telemetry::OUTBOX_DEAD).increment(report.dead as u64);
        report
    }
}

impl Settler {
    /// Items that fail are tried again as `backoff` says.
    #[must_use]
    pub fn new(outbox: Outbox, backoff: Backoff, clock: Clock) -> Self {
        Self {
            outbox,
            backoff,
            clock,
        }
    }

    /// How long an item is left alone that has failed `attempts` times before.
    #[must_use]
    pub fn pause(&self, attempts: u32) -> Duration {
        let now = self.clock.now();
        let next = self.backoff.next(now, now, attempts, None).unwrap_or(now);
        next.duration_since(now).unsigned_abs()
    }

    /// Whether an item that fails now was tried for long enough.
    #[must_use]
    pub fn gives_up(&self, entry: &Entry) -> bool {
        let now = self.clock.now();
        self.backoff
            .next(now, entry.created(), entry.attempts, None)
            .is_none()
    }

    /// Writes `outcome` down, except [`Outcome::Done`], which the dispatcher writes for many items at once.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it cannot be written.
    pub async fn settle(&self, entry: &Entry, outcome: Outcome) -> Result<Moved, StoreError> {
        let subject = telemetry::pseudonym(&entry.subject);
        let (reason, wait) = match outcome {
            Outcome::Done | Outcome::Settled => return Ok(Moved::Done),
            Outcome::Noted(moved) => return Ok(moved),
            Outcome::Busy => return Ok(Moved::Left),
            Outcome::Dead { reason } => {
                tracing::error!(outbox.kind = ?entry.kind, outbox.subject = subject, reason, "an outbox item is dead");
                self.outbox.dead(entry, &reason).await?;
                return Ok(Moved::Dead);
            }
            Outcome::Waiting { reason, wait } => {
                tracing::info!(outbox.kind = ?entry.kind, outbox.subject = subject, reason, "an outbox item waits");
                let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::from_hours(1));
                self.outbox.retry(entry, &reason, self.clock.now() + wait).await?;
                return Ok(Moved::Retried);
            }
            Outcome::Misconfigured { reason, wait } => {
                metrics::counter!(telemetry::CONFIGURATION_FAULTS).increment(1);
                tracing::error!(outbox.kind = ?entry.kind, outbox.subject = subject, reason, "an outbox item waits for a setting or a secret to be mended");
                let due = self
                    .backoff
                    .within_an_hour(self.clock.now(), entry.attempts, wait);
                self.outbox.wait(entry, &reason, due).await?;
                return Ok(Moved::Retried);
            }
            Outcome::Retry { reason, wait } => (reason, wait),
        };
        let due = self
            .backoff
            .next(self.clock.now(), entry.created(), entry.attempts, wait);
        if let Some(due) = due {
            tracing::info!(
                outbox.kind = ?entry.kind,
                outbox.subject = subject,
                attempts = entry.attempts + 1,
                reason,
                "an outbox item will be tried again"
            );
            self.outbox.retry(entry, &reason, due).await?;
            return Ok(Moved::Retried);
        }
        tracing::error!(
            outbox.kind = ?entry.kind,
            outbox.subject = subject,
            reason,
            "an outbox item is dead: it was tried for long enough"
        );
        self.outbox.dead(entry, &reason).await?;
        Ok(Moved::Dead)
    }
}
