//! Settles outbox items: hands them to the workers of their kinds and writes down what became of them.
//!
//! Failures are settled in the table, so a stream batch counts as failed only where the table itself could not
//! be written; one poison item never holds up the others.

use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use shared::clock::Clock;
use shared::outbox::{Entry, Lane, Outbox, Status};
use shared::store::StoreError;
use shared::telemetry;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::effect::{Group, Work};
use crate::erase::EraseWorker;
use crate::fbe::FbeWorker;
use crate::fbe::partner::PartnerWorker;
use crate::health::HealthWorker;
use crate::messenger::send::SendWorker;
use crate::messenger::sync::ContactWorker;
use crate::settle::{Outcome, Outcomes, Settled, Settler};
use crate::whatsapp::RelayWorker;

/// Due items taken at once: a multiple of 75, so that requests to Braze are full.
const ROUND: usize = 3000;

/// With less left of an invocation no new round is begun: a request may take half a minute, and what came of it
/// has to be written. Items would be claimed and let go again, untried.
const MARGIN: SignedDuration = SignedDuration::from_secs(40);

/// Updates of the table under way at once.
const CONCURRENCY: usize = 32;

/// The workers of a lane.
pub(crate) enum Workers {
    Sync(Box<SyncWorkers>),
    Relay(Box<RelayWorker>),
}

/// The workers of all jobs but the relay.
pub(crate) struct SyncWorkers {
    pub(crate) messenger: ContactWorker,
    pub(crate) sends: SendWorker,
    pub(crate) fbe: FbeWorker,
    pub(crate) partner: PartnerWorker,
    pub(crate) health: HealthWorker,
    pub(crate) erase: EraseWorker,
}

impl Workers {
    pub(crate) fn lane(&self) -> Lane {
        match self {
            Self::Sync(_) => Lane::Sync,
            Self::Relay(_) => Lane::Relay,
        }
    }
}

/// What a run did.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Report {
    /// Items settled.
    pub(crate) done: usize,
    /// Items that are tried again later.
    pub(crate) retried: usize,
    /// Items given up.
    pub(crate) dead: usize,
    /// Items left alone: another worker has them, or time ran out.
    pub(crate) left: usize,
    /// Items whose outcome could not be written.
    pub(crate) unwritten: Vec<Entry>,
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
pub(crate) struct Dispatcher {
    pub(crate) workers: Workers,
    outbox: Outbox,
    settler: Settler,
    clock: Clock,
}

impl Dispatcher {
    pub(crate) fn new(workers: Workers, outbox: Outbox, settler: Settler, clock: Clock) -> Self {
        Self {
            workers,
            outbox,
            settler,
            clock,
        }
    }

    /// Works on `entries` until `until` at the latest.
    pub(crate) async fn dispatch(&self, entries: Vec<Entry>, until: Timestamp) -> Report {
        let (mut work, mut report) = (Work::default(), Report::default());
        for entry in entries {
            if entry.kind.lane() != self.workers.lane() || entry.status != Status::Pending {
                report.left += 1;
            } else {
                work.add(entry);
            }
        }
        let (outcomes, told) = Outcomes::channel();
        let (settled, ()) = futures_util::join!(self.settle_all(told), self.work(work, until, outcomes));
        report.add(settled);
        report
    }

    /// Has the workers do `work`.
    async fn work(&self, work: Work, until: Timestamp, outcomes: Outcomes) {
        outcomes.tell_all(work.unreadable);
        match &self.workers {
            Workers::Sync(all) => {
                futures_util::join!(
                    Box::pin(
                        all.messenger
                            .work(Group::all_of(work.messenger), until, &outcomes)
                    ),
                    Box::pin(all.sends.work(Group::all_of(work.sends), until, &outcomes)),
                    Box::pin(all.fbe.work(Group::all_of(work.fbe), until, &outcomes)),
                    Box::pin(all.partner.work(Group::all_of(work.partner), until, &outcomes)),
                    Box::pin(all.health.work(work.health, until, &outcomes)),
                    Box::pin(all.erase.work(work.erase, until, &outcomes)),
                );
            }
            Workers::Relay(relay) => {
                Box::pin(relay.work(Group::all_of(work.whatsapp), until, &outcomes)).await;
            }
        }
    }

    /// Works on what is due, in rounds, until nothing is or `until` is near.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the table cannot be read.
    pub(crate) async fn tick(&self, until: Timestamp) -> Result<Report, StoreError> {
        let lane = self.workers.lane();
        let failing = self.outbox.failing_since(lane).await?;
        let mut due = self.outbox.due(lane, ROUND, None).await?;
        // Gauges would be written again with every later call of this process, long after they were true.
        metrics::histogram!(telemetry::OLDEST_DUE_SECONDS).record(self.seconds_since(due.oldest));
        metrics::histogram!(telemetry::FAILING_SECONDS).record(self.seconds_since(failing));
        let (mut total, mut moved) = (Report::default(), 0);
        while self.clock.now() + MARGIN <= until {
            if !due.entries.is_empty() {
                let report = self.dispatch(due.entries, until).await;
                moved += report.done + report.retried + report.dead;
                total.add(report);
            }
            // Behind what is left in other workers' hands it goes on, and once more from the beginning if that has
            // moved anything: it takes time, and more may have fallen due.
            if due.next.is_none() && std::mem::take(&mut moved) == 0 {
                break;
            }
            due = self.outbox.due(lane, ROUND, due.next).await?;
        }
        Ok(total)
    }

    fn seconds_since(&self, then: Option<Timestamp>) -> f64 {
        then.map_or(0.0, |then| self.clock.now().duration_since(then).as_secs_f64())
    }

    /// Writes down what is told, as it is told: a slow item must not hold back what is written of the others.
    async fn settle_all(&self, mut told: UnboundedReceiver<(Entry, Outcome)>) -> Report {
        let mut report = Report::default();
        let mut outcomes = Vec::new();
        while told.recv_many(&mut outcomes, ROUND).await > 0 {
            report.add(self.settle(std::mem::take(&mut outcomes)).await);
        }
        report
    }

    async fn settle(&self, outcomes: Vec<(Entry, Outcome)>) -> Report {
        let mut report = Report::default();
        let (done, others): (Vec<_>, Vec<_>) = outcomes
            .into_iter()
            .partition(|(_, outcome)| *outcome == Outcome::Done);
        let done: Vec<Entry> = done.into_iter().map(|(entry, _)| entry).collect();
        match self.outbox.done(&done).await {
            Ok(()) => report.done += done.len(),
            Err(error) => {
                tracing::error!(%error, items = done.len(), "settled items cannot be marked as done");
                report.unwritten.extend(done);
            }
        }
        let mut settled = stream::iter(others)
            .map(async |(entry, outcome)| (self.settler.settle(&entry, outcome).await, entry))
            .buffer_unordered(CONCURRENCY);
        while let Some((settled, entry)) = settled.next().await {
            match settled {
                Ok(Settled::Done) => report.done += 1,
                Ok(Settled::Retried) => report.retried += 1,
                Ok(Settled::Dead) => report.dead += 1,
                Ok(Settled::Left) => report.left += 1,
                Err(error) => {
                    tracing::error!(%error, "an outbox item's failure cannot be written");
                    report.unwritten.push(entry);
                }
            }
        }
        metrics::counter!(telemetry::OUTBOX_DONE).increment(report.done as u64);
        metrics::counter!(telemetry::OUTBOX_RETRIED).increment(report.retried as u64);
        metrics::counter!(telemetry::OUTBOX_DEAD).increment(report.dead as u64);
        report
    }
}
