//! Erases people and businesses.
//!
//! ```text
//! look ─▶ tombstones ─▶ claim ─▶ Braze ─▶ delete ─▶ … ten minutes later: look, claim, Braze, delete once more ─▶ receipt
//! ```
//!
//! What is found is stored in the order before anything is deleted, and every step may be made twice: after a crash
//! anywhere the order is simply carried out again. Tombstones keep late events from making new records; what was under
//! way past them (an answer that is being sent, an outcome that is being written) has ended when the second look comes.
//! An erasure is not given up: it is tried until it is done.

mod braze;
pub mod find;
mod job;

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use shared::clock::Clock;
use shared::erase::order::code;
use shared::erase::{EraseInBraze, Erasures, Found, Order, Progress, Receipt, Status};
use shared::fbe::secrets::BusinessSecrets;
use shared::messenger::settings::MessengerSettings;
use shared::outbox::{Entry, Reason};
use shared::store::{Lease, StoreError};
use shared::telemetry;
use tokio::time::Instant;

use self::find::{Finder, conversations};
use self::job::Job;
use crate::braze::{Braze, BrazeError, Objects, TIMEOUT, bulk, delete};
use crate::effect::Task;
use crate::settle::{Outcome, Outcomes, Settled, claim};

/// How long an order, and what it is about, is ours. No request to Braze begins so late that it could outlive this, with
/// half a minute left for the tables.
const LEASE: Duration = Duration::from_mins(2);

/// When the last request may begin, counted from the claim.
const LAST_START: Duration = LEASE
    .saturating_sub(TIMEOUT)
    .saturating_sub(Duration::from_secs(30));

/// What it takes to write down what became of the last request.
const SETTLING: Duration = Duration::from_secs(10);

/// When the second look comes. No invocation is longer than five minutes, and no lease.
const SECOND_LOOK: SignedDuration = SignedDuration::from_mins(10);

/// Orders that are carried out together, so that their requests to Braze are full.
const TOGETHER: usize = 150;

/// Orders whose records are read and written side by side.
const CONCURRENCY: usize = 16;

/// Meta asks for deletion without delay. Later, somebody has to look.
const LATE: SignedDuration = SignedDuration::from_hours(24);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// Carries out orders.
pub(crate) struct EraseWorker {
    pub(crate) finder: Finder,
    pub(crate) erasures: Erasures,
    pub(crate) secrets: BusinessSecrets,
    pub(crate) braze: Braze,
    pub(crate) settings: MessengerSettings,
    pub(crate) in_braze: EraseInBraze,
    pub(crate) clock: Clock,
}

/// An order that is under our lease.
struct Held {
    entry: Entry,
    lease: Lease,
    code: String,
    order: Order,
    progress: Progress,
}

impl EraseWorker {
    /// Carries out orders, and tells of each item what became of it.
    pub(crate) async fn work(&self, tasks: Vec<Task<Order>>, until: Timestamp, outcomes: &Outcomes) {
        let mut tasks = tasks.into_iter().peekable();
        while tasks.peek().is_some() {
            let together: Vec<Task<Order>> = tasks.by_ref().take(TOGETHER).collect();
            let left = Duration::try_from(until.duration_since(self.clock.now())).unwrap_or_default();
            let Some(spare) = left.checked_sub(TIMEOUT + SETTLING) else {
                outcomes.tell_all(together.into_iter().map(|task| (task.entry, Outcome::Busy)));
                continue;
            };
            let last_start = Instant::now() + LAST_START.min(spare);
            Box::pin(self.carry_out(together, last_start, outcomes)).await;
        }
    }

    async fn carry_out(&self, tasks: Vec<Task<Order>>, last_start: Instant, outcomes: &Outcomes) {
        let mut begun = stream::iter(tasks)
            .map(|task| async move {
                let entry = task.entry.clone();
                let job = match Box::pin(self.begin(task)).await {
                    Ok(held) => Box::pin(self.prepare(held)).await,
                    Err(outcome) => Err(outcome),
                };
                job.map_err(|outcome| (entry, outcome))
            })
            .buffer_unordered(CONCURRENCY);
        let mut jobs = Vec::new();
        while let Some(job) = begun.next().await {
            match job {
                Ok(job) => jobs.push(job),
                Err((entry, outcome)) => {
                    let outcome = self.patient(&entry, outcome);
                    outcomes.tell(entry, outcome);
                }
            }
        }
        let told = self.tell(&jobs, last_start).await;
        let mut finished = stream::iter(jobs.into_iter().zip(told))
            .map(|(job, told)| async move {
                let entry = job.held.entry.clone();
                let outcome = Box::pin(self.finish(job, told)).await;
                (entry, outcome.unwrap_or_else(|outcome| outcome))
            })
            .buffer_unordered(CONCURRENCY);
        while let Some((entry, outcome)) = finished.next().await {
            let outcome = self.patient(&entry, outcome);
            outcomes.tell(entry, outcome);
        }
    }

    /// Claims an order, and stores what it is about and by which names late events are recognized.
    async fn begin(&self, task: Task<Order>) -> Result<Held, Outcome> {
        let Task { entry, effect } = task;
        let code = code(&entry.subject).ok_or_else(|| Outcome::dead(Reason::PayloadUnreadable))?;
        let code = code.to_owned();
        let (current, lease) = claim(&self.records().outbox, &entry, LEASE).await?;
        // Another run may have come further since it was read.
        let mut order: Order = current.payload().unwrap_or(effect);
        let receipt = self.erasures.stored_receipt(&code).await?;
        let asked = Receipt::received(&order);
        if receipt.is_some_and(|receipt| receipt.status.is_final() && !asked.follows(&receipt)) {
            return Err(Outcome::Done);
        }
        let is_second = order
            .progress
            .as_ref()
            .is_some_and(|progress| progress.swept_at.is_some());
        let progress = match order.progress.take() {
            Some(progress) if !is_second => progress,
            before => self.look(&code, &order, before).await?,
        };
        order.progress = Some(progress.clone());
        Ok(Held {
            entry,
            lease,
            code,
            order,
            progress,
        })
    }

    /// Looks for what there is, for the first or the second time.
    async fn look(&self, code: &str, order: &Order, before: Option<Progress>) -> Result<Progress, Outcome> {
        let began_at = before
            .as_ref()
            .map_or_else(|| self.clock.now(), |before| before.began_at);
        let named = Finder::named(&order.target);
        // First: what is written from now on, of events before, is refused.
        self.bury(&named, began_at).await?;
        let mut found = self.finder.find(&order.target).await?;
        if let Some(before) = &before {
            merge(&mut found, &before.found);
        }
        self.bury(&found, began_at).await?;
        let progress = Progress {
            began_at,
            found,
            removed: before.as_ref().map(|before| before.removed).unwrap_or_default(),
            swept_at: before.and_then(|before| before.swept_at),
        };
        let order = Order {
            progress: Some(progress.clone()),
            ..order.clone()
        };
        if !self.erasures.progress(code, &order).await? {
            return Err(Outcome::Busy);
        }
        if !progress.found.is_empty() {
            let matched = Receipt {
                status: Status::Matched,
                ..Receipt::received(&order)
            };
            self.erasures.keep(code, &matched).await?;
        }
        Ok(progress)
    }

    async fn bury(&self, found: &Found, at: Timestamp) -> Result<(), StoreError> {
        self.records().contacts.bury(&found.contact_names(), at).await?;
        self.records().installs.bury(&found.businesses, at).await?;
        for id in conversations(found) {
            self.records().conversations.bury(&id, at).await?;
        }
        Ok(())
    }

    /// Tells Braze; gives what became of each job.
    async fn tell(&self, jobs: &[Job], last_start: Instant) -> Vec<Result<(), BrazeError>> {
        let objects: Vec<Objects> = jobs
            .iter()
            .map(|job| Objects::of_attributes(job.told.attributes.clone()))
            .collect();
        let deletions: Vec<_> = jobs
            .iter()
            .flat_map(|job| job.told.deletions.iter().cloned())
            .collect();
        let fates = bulk::track(&self.braze, &objects, last_start).await;
        let deleted = delete::profiles(&self.braze, &deletions, last_start).await;
        let mut deleted = deleted.into_iter();
        let told = jobs.iter().zip(fates).map(|(job, fate)| {
            let of_job = deleted.by_ref().take(job.told.deletions.len());
            of_job.fold(fate.attributes, Result::and)
        });
        told.collect()
    }

    /// Deletes what there is, and says what is next.
    async fn finish(&self, job: Job, told: Result<(), BrazeError>) -> Result<Outcome, Outcome> {
        if let Err(error) = told {
            self.release(&job).await;
            return Err(Outcome::from(&error));
        }
        let removed = self.delete(&job).await;
        self.release(&job).await;
        let removed = removed?;
        let Held {
            entry,
            lease,
            code,
            mut order,
            mut progress,
        } = job.held;
        progress.removed.add(removed);
        let now = self.clock.now();
        let nothing = progress.found.is_empty() && progress.removed.is_empty();
        if nothing || progress.swept_at.is_some() {
            let receipt = Receipt {
                status: if nothing { Status::NoMatch } else { Status::Erased },
                finished_at: Some(now),
                removed: progress.removed,
                ..Receipt::received(&order)
            };
            self.erasures.keep(&code, &receipt).await?;
            tracing::info!(code, status = receipt.status.as_str(), removed = ?receipt.removed, "an erasure is done");
            return Ok(Outcome::Done);
        }
        progress.swept_at = Some(now);
        order.progress = Some(progress);
        if !self.erasures.progress(&code, &order).await? {
            return Err(Outcome::Busy);
        }
        let outbox = &self.records().outbox;
        outbox.release(&lease).await?;
        let second = now + SECOND_LOOK;
        outbox.postpone(&entry.subject, &entry.event_key, second).await?;
        Ok(Outcome::Settled(Settled::Retried))
    }

    /// An erasure is never given up.
    fn patient(&self, entry: &Entry, outcome: Outcome) -> Outcome {
        let outcome = match outcome {
            Outcome::Retry { reason, wait } => {
                let pause = Duration::from_mins(1).saturating_mul(1_u32 << entry.attempts.min(6));
                Outcome::Failing {
                    reason,
                    wait: wait.unwrap_or(pause).min(LONGEST_PAUSE),
                }
            }
            Outcome::Dead { reason } if reason != Reason::PayloadUnreadable.as_str() => Outcome::Failing {
                reason,
                wait: LONGEST_PAUSE,
            },
            outcome => outcome,
        };
        let failed = matches!(outcome, Outcome::Failing { .. } | Outcome::Misconfigured { .. });
        let asked: Option<Order> = entry.payload().ok();
        let now = self.clock.now();
        let is_late = |order: &Order| now.duration_since(order.requested_at.max(entry.created_at)) > LATE;
        if failed && asked.as_ref().is_some_and(is_late) {
            metrics::counter!(telemetry::ERASURES_LATE).increment(1);
            tracing::error!(
                code = code(&entry.subject),
                "an erasure that was asked for more than a day ago is not done"
            );
        }
        outcome
    }

    fn records(&self) -> &find::Records {
        &self.finder.records
    }
}

fn merge(found: &mut Found, before: &Found) {
    let lists = [
        (&mut found.contacts.0, &before.contacts.0),
        (&mut found.user_refs.0, &before.user_refs.0),
        (&mut found.users.0, &before.users.0),
        (&mut found.conversations.0, &before.conversations.0),
        (&mut found.businesses, &before.businesses),
    ];
    for (all, known) in lists {
        all.extend(known.iter().cloned());
        all.sort_unstable();
        all.dedup();
    }
}
