//! A conversation under its lease: what is known of it, and how outcomes are written down.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use shared::outbox::{Entry, OutboxItem};
use shared::store::{Claim, Lease, Released, Rounds, StoreError};
use shared::telemetry;
use shared::whatsapp::conversation::Turn;
use shared::whatsapp::table::Stored;

use super::RelayWorker;
use super::pace::Learned;
use crate::effect::{Group, Task};
use crate::settle::{Outcome, Settled};

/// Braze is given 30 s for a request.
pub(super) const BRAZE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a lease lasts beyond the limit of the call that it is for.
pub(super) const BEYOND: Duration = Duration::from_secs(45);

/// After this time what cannot be read is looked at again.
pub(super) const UNREADABLE: Duration = Duration::from_hours(1);

/// What must be left of a lease when a call is over.
const LEFT: Duration = Duration::from_secs(15);

/// Why a drain ends before its end.
pub(super) enum Stop {
    /// DynamoDB could not do it.
    Store(StoreError),
    /// The lease ran out, and another worker has the conversation.
    Lost,
    /// The invocation's time is over.
    OutOfTime,
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// An item that the worker was given.
pub(super) struct Given {
    /// As it stands in the table. What woke the worker only named it.
    pub(super) entry: Entry,
    /// What became of it.
    pub(super) outcome: Option<Outcome>,
}

/// What a failure in this run means for a message.
pub(super) struct Tried {
    pub(super) asked_in_vain: u32,
    pub(super) backs_off_until: Timestamp,
}

/// A reply that waits.
pub(super) struct Waiting {
    pub(super) event_key: String,
    /// When the schedule picks it up; `None` = soon.
    pub(super) due: Option<Timestamp>,
    /// Not before this time, since it failed.
    pub(super) backs_off_until: Option<Timestamp>,
    /// As it was put under this very lease: no other worker can have it.
    pub(super) own: Option<Entry>,
}

impl Waiting {
    /// One that was put at `now`, under this lease.
    pub(super) fn put(item: &OutboxItem, now: Timestamp) -> Self {
        Self {
            event_key: item.event_key.clone(),
            due: None,
            backs_off_until: None,
            own: Some(Entry::new(item, now)),
        }
    }
}

impl From<&Entry> for Waiting {
    fn from(entry: &Entry) -> Self {
        Self {
            event_key: entry.event_key.clone(),
            due: entry.due_at,
            backs_off_until: entry.due_at.filter(|_| entry.attempts > 0),
            own: None,
        }
    }
}

/// A conversation that is being drained.
pub(super) struct Drain<'a> {
    pub(super) worker: &'a RelayWorker,
    pub(super) until: Timestamp,
    /// The items that we were given, by event key.
    pub(super) given: BTreeMap<String, Given>,
    pub(super) stored: Stored,
    pub(super) lease: Lease,
    /// What was said, in order: the oldest messages that wait, and what was said before them.
    pub(super) turns: Vec<Turn>,
    /// Ids of messages that wait behind these.
    pub(super) later: HashSet<String>,
    /// Ids of turns that cannot be read.
    pub(super) unreadable: HashSet<String>,
    /// Items of messages that wait and that we were not given, by event key.
    pub(super) found: BTreeMap<String, Entry>,
    /// Messages that have failed in this run, by id.
    pub(super) tried: BTreeMap<String, Tried>,
    /// What they have taught.
    pub(super) learned: Learned,
    /// No message is handed over before this time.
    pub(super) asks_again_at: Option<Timestamp>,
    /// Replies that wait, in order.
    pub(super) replies: VecDeque<Waiting>,
    /// All sends up to this one are settled.
    pub(super) settled_sends: Option<String>,
    /// A reply has to wait, and those behind it with it.
    pub(super) blocked: bool,
    /// The rest of a burst is still to come, until then.
    pub(super) burst_ends: Option<Timestamp>,
    /// The external system may have got what it was asked, and may still answer.
    pub(super) asked: bool,
    /// What was read is no longer what is stored.
    pub(super) outdated: bool,
}

impl<'a> Drain<'a> {
    pub(super) fn new(
        worker: &'a RelayWorker,
        given: Group<()>,
        (stored, lease): (Stored, Lease),
        until: Timestamp,
    ) -> Self {
        let given = given.tasks.into_iter().map(|Task { entry, .. }| {
            let key = entry.event_key.clone();
            (key, Given { entry, outcome: None })
        });
        Self {
            worker,
            until,
            given: given.collect(),
            settled_sends: stored.settled_sends.clone(),
            asked: !stored.asking.is_empty(),
            stored,
            lease,
            turns: Vec::new(),
            later: HashSet::new(),
            unreadable: HashSet::new(),
            found: BTreeMap::new(),
            tried: BTreeMap::new(),
            learned: Learned::default(),
            asks_again_at: None,
            replies: VecDeque::new(),
            blocked: false,
            burst_ends: None,
            outdated: true,
        }
    }

    pub(super) fn subject(&self) -> &str {
        self.stored.conversation.id.as_str()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.worker.clock.now()
    }

    /// The items that we were given and that nothing has become of yet.
    pub(super) fn open(&self) -> impl Iterator<Item = (&String, &Entry)> {
        let open = self.given.iter().filter(|(_, given)| given.outcome.is_none());
        open.map(|(key, given)| (key, &given.entry))
    }

    /// Notes what became of an item that we were given.
    pub(super) fn became(&mut self, event_key: &str, outcome: Outcome) {
        if let Some(given) = self.given.get_mut(event_key) {
            given.outcome = Some(outcome);
        }
    }

    /// Whether a call that may take `limit` can still be made in this invocation.
    pub(super) fn has_time_for(&self, limit: Duration) -> bool {
        self.now() + limit <= self.until
    }

    /// Sees to it that the conversation stays ours during a call that may take `limit`.
    pub(super) async fn hold(&mut self, limit: Duration) -> Result<(), Stop> {
        if self.lease.until() >= self.now() + limit + LEFT {
            return Ok(());
        }
        self.renew(limit).await
    }

    pub(super) async fn renew(&mut self, limit: Duration) -> Result<(), Stop> {
        let conversations = &self.worker.conversations;
        let claim = conversations.renew(&self.lease, limit + BEYOND).await?;
        self.renewed(claim)
    }

    pub(super) fn renewed(&mut self, claim: Claim<Stored>) -> Result<(), Stop> {
        match claim {
            Claim::Leased(mut stored, lease) => {
                self.outdated |= stored.conversation.version != self.stored.conversation.version;
                // What was stored beside the conversation is not written there yet.
                stored.conversation.catch_up(&self.turns);
                (self.stored, self.lease) = (stored, lease);
                Ok(())
            }
            Claim::Busy | Claim::Missing => Err(Stop::Lost),
        }
    }

    pub(super) async fn release(&self, settled_sends: Option<&str>) -> Result<Released, StoreError> {
        let conversations = &self.worker.conversations;
        conversations
            .release(&self.lease, &self.stored, settled_sends, self.asked)
            .await
    }

    /// Ends the lease after something went wrong; if that fails, it runs out by itself.
    pub(super) async fn let_go(&mut self) {
        for _ in 0..2 {
            match self.release(None).await {
                Ok(Released::Refused) if self.renew(BRAZE_TIMEOUT).await.is_ok() => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "a conversation's lease runs out by itself");
                    return;
                }
            }
        }
    }

    /// Writes down at once what became of an item, whether we were given it or found it. What else is done by then is
    /// written in the same call.
    pub(super) async fn note(&mut self, entry: &Entry, outcome: Outcome) -> Result<Settled, Stop> {
        let moved = match outcome {
            Outcome::Done => {
                let given = self.given.values();
                let is_done = |given: &&Given| {
                    given.outcome == Some(Outcome::Done) && given.entry.event_key != entry.event_key
                };
                let others = given.filter(is_done).map(|given| given.entry.clone());
                let done: Vec<Entry> = std::iter::once(entry.clone()).chain(others).collect();
                let outbox = &self.worker.outbox;
                persist(|| outbox.done(&done)).await?;
                for other in done.iter().skip(1) {
                    self.became(&other.event_key, Outcome::Settled(Settled::Done));
                }
                Settled::Done
            }
            outcome => self.worker.settler.settle(entry, outcome).await?,
        };
        self.noted(&entry.event_key, moved);
        Ok(moved)
    }

    /// What became of an item is written down.
    pub(super) fn noted(&mut self, event_key: &str, moved: Settled) {
        if self.given.contains_key(event_key) {
            self.became(event_key, Outcome::Settled(moved));
        } else {
            count(moved);
        }
    }
}

/// How long a write is tried whose loss would repeat a call.
const PERSISTENCE: Duration = Duration::from_secs(3);

/// Writes what follows from a call that was made: were it lost, the call would be made again. So it is tried
/// for some seconds, beyond what the SDK tries.
pub(super) async fn persist<T, Writing>(write: impl Fn() -> Writing) -> Result<T, StoreError>
where
    Writing: Future<Output = Result<T, StoreError>>,
{
    let mut rounds = Rounds::within(PERSISTENCE, "");
    loop {
        match write().await {
            Err(error) if !error.is_unreadable() && rounds.next().await.is_ok() => {
                tracing::warn!(%error, "what a call led to is not written yet");
            }
            written => return written,
        }
    }
}

// The dispatcher counts what it gave us.
fn count(moved: Settled) {
    let name = match moved {
        Settled::Done => telemetry::OUTBOX_DONE,
        Settled::Retried => telemetry::OUTBOX_RETRIED,
        Settled::Dead => telemetry::OUTBOX_DEAD,
        Settled::Left => return,
    };
    metrics::counter!(name).increment(1);
}
