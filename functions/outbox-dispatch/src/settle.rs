//! Stores the outcome of an item.

use std::time::Duration;

use shared::clock::Clock;
use shared::outbox::{Entry, Outbox, Reason};
use shared::secrets::SecretError;
use shared::store::{Claim, Lease, StoreError};
use shared::telemetry;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::backoff::Backoff;

/// The outcome of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The effect is in place, or is not needed any more.
    Done,
    /// What it is about is not stored any more, and maybe the item itself is not either: it was erased since it was read,
    /// and must not come back as one that is done.
    Gone,
    /// The worker has written down itself what became of the item.
    Settled(Settled),
    /// Another worker has the lease, or time ran out; it stays as it is.
    Busy,
    /// It failed and may succeed later.
    Retry {
        /// Short code.
        reason: String,
        /// What the other side asks for.
        wait: Option<Duration>,
    },
    /// It failed, and is tried again after `wait`, without a time limit.
    Failing {
        /// Short code.
        reason: String,
        /// How long it is left alone.
        wait: Duration,
    },
    /// A setting or a secret has to be corrected. Retried at least every hour, without a time limit, with an alarm.
    Misconfigured {
        /// Short code.
        reason: String,
        /// Not before this much later; an hour at most.
        wait: Option<Duration>,
    },
    /// Something has to arrive from outside. That is no failure. Retried without a time limit.
    Waiting {
        /// Short code; [`Outbox::wake`] finds the item by it.
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

/// Where an item stands once its outcome is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Done.
    Done,
    /// Tried again later.
    Retried,
    /// Given up.
    Dead,
    /// As before.
    Left,
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

    /// A failure that may pass, and is tried again after this time.
    #[must_use]
    pub fn retry_after(reason: impl Into<String>, wait: Duration) -> Self {
        let (reason, wait) = (reason.into(), Some(wait));
        Self::Retry { reason, wait }
    }

    /// A setting or a secret has to be corrected, with our own backoff.
    #[must_use]
    pub fn misconfigured(reason: impl Into<String>) -> Self {
        Self::Misconfigured {
            reason: reason.into(),
            wait: None,
        }
    }

    /// A setting or a secret has to be corrected, not before this time.
    #[must_use]
    pub fn misconfigured_after(reason: impl Into<String>, wait: Duration) -> Self {
        let (reason, wait) = (reason.into(), Some(wait));
        Self::Misconfigured { reason, wait }
    }

    /// Something has to arrive from outside; it is looked for again after this time.
    #[must_use]
    pub fn waiting(reason: impl Into<String>, wait: Duration) -> Self {
        let reason = reason.into();
        Self::Waiting { reason, wait }
    }

    /// Whether nothing is left to do about the item.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(
            self,
            Self::Done | Self::Gone | Self::Dead { .. } | Self::Settled(Settled::Done | Settled::Dead)
        )
    }

    /// A failure that will not pass.
    #[must_use]
    pub fn dead(reason: impl Into<String>) -> Self {
        Self::Dead {
            reason: reason.into(),
        }
    }
}

impl From<StoreError> for Outcome {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "an outbox item waits for DynamoDB");
        Self::retry(Reason::StoreUnavailable)
    }
}

impl From<SecretError> for Outcome {
    fn from(error: SecretError) -> Self {
        tracing::error!(%error, "an outbox item waits for a secret");
        if error.is_refusal() {
            Self::misconfigured(Reason::SecretsUnavailable)
        } else {
            Self::retry(Reason::SecretsUnavailable)
        }
    }
}

/// Where workers tell what became of their items, each as soon as they know: what is not written down when a process
/// dies, or when a claim runs out, is done again.
#[derive(Debug, Clone)]
pub(crate) struct Outcomes(UnboundedSender<(Entry, Outcome)>);

impl Outcomes {
    /// The place for telling, and where what is told comes out.
    pub(crate) fn channel() -> (Self, UnboundedReceiver<(Entry, Outcome)>) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), receiver)
    }

    pub(crate) fn tell(&self, entry: Entry, outcome: Outcome) {
        // Nobody listens only where the run is over, and then nobody tells.
        let _ = self.0.send((entry, outcome));
    }

    pub(crate) fn tell_all(&self, outcomes: impl IntoIterator<Item = (Entry, Outcome)>) {
        for (entry, outcome) in outcomes {
            self.tell(entry, outcome);
        }
    }
}

/// Claims an item for `length`, and gives it as it stands: another run may have settled it since it was read.
/// [`Outcome::Busy`] if it is not ours.
pub(crate) async fn claim(
    outbox: &Outbox,
    entry: &Entry,
    length: Duration,
) -> Result<(Entry, Lease), Outcome> {
    match outbox.claim(&entry.subject, &entry.event_key, length).await? {
        Claim::Leased(entry, lease) => Ok((entry, lease)),
        Claim::Busy | Claim::Missing => Err(Outcome::Busy),
    }
}

/// A lease that cannot be given back runs out by itself. `whose` says what it is on.
pub(crate) fn given_back<T>(released: Result<T, StoreError>, whose: &str) {
    if let Err(error) = released {
        tracing::warn!(%error, whose, "a lease runs out by itself");
    }
}

/// Writes outcomes down.
#[derive(Clone, Debug)]
pub struct Settler {
    outbox: Outbox,
    backoff: Backoff,
    clock: Clock,
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
            .next(now, entry.created_at, entry.attempts, None)
            .is_none()
    }

    /// Writes `outcome` down, except [`Outcome::Done`], which the dispatcher writes for many items at once.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it cannot be written.
    pub async fn settle(&self, entry: &Entry, outcome: Outcome) -> Result<Settled, StoreError> {
        let subject = telemetry::pseudonym(&entry.subject);
        let now = self.clock.now();
        let attempts = entry.attempts + 1;
        let (reason, due) = match outcome {
            Outcome::Done => return Ok(Settled::Done),
            Outcome::Gone => {
                self.outbox.done_key(&entry.subject, &entry.event_key).await?;
                return Ok(Settled::Done);
            }
            Outcome::Settled(settled) => return Ok(settled),
            Outcome::Busy => return Ok(Settled::Left),
            Outcome::Dead { reason } => (reason, None),
            Outcome::Waiting { reason, wait } => {
                tracing::info!(outbox.kind = ?entry.kind, outbox.subject = subject, attempts, reason, "an outbox item waits");
                self.outbox.hold(entry, &reason, now + wait).await?;
                return Ok(Settled::Retried);
            }
            Outcome::Misconfigured { reason, wait } => {
                metrics::counter!(telemetry::CONFIGURATION_FAULTS).increment(1);
                tracing::error!(outbox.kind = ?entry.kind, outbox.subject = subject, reason, "an outbox item waits for a setting or a secret to be mended");
                let due = self.backoff.within_an_hour(now, entry.attempts, wait);
                self.outbox.wait(entry, &reason, due).await?;
                return Ok(Settled::Retried);
            }
            Outcome::Failing { reason, wait } => (reason, Some(now + wait)),
            Outcome::Retry { reason, wait } => {
                let due = self.backoff.next(now, entry.created_at, entry.attempts, wait);
                (reason, due)
            }
        };
        if let Some(due) = due {
            tracing::info!(outbox.kind = ?entry.kind, outbox.subject = subject, attempts, reason, "an outbox item will be tried again");
            self.outbox.retry(entry, &reason, due).await?;
            Ok(Settled::Retried)
        } else {
            tracing::error!(outbox.kind = ?entry.kind, outbox.subject = subject, attempts, reason, "an outbox item is dead");
            self.outbox.dead(entry, &reason).await?;
            Ok(Settled::Dead)
        }
    }
}
