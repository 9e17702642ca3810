//! One conversation, from taking it to letting it go.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::effect::{Group, Task};
use crate::settle::{Outcome, Settled};
use crate::whatsapp::pace::Learned;
use jiff::{SignedDuration, Timestamp};
use shared::outbox::Kind;
use shared::outbox::{Entry, Reason};
use shared::store::{Claim, Lease, Released, Rounds, StoreError};
use shared::telemetry;
use shared::whatsapp::conversation::Turn;
use shared::whatsapp::message::ConversationId;
use shared::whatsapp::reply::event_key;
use shared::whatsapp::table::Stored;

use super::RelayWorker;
use super::messages::Tried;

/// Braze is given 30 s for a request.
pub(super) const BRAZE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a lease lasts beyond the limit of the call that it is for.
pub(super) const BEYOND: Duration = Duration::from_secs(45);

/// What must be left of a lease when a call is over.
const LEFT: Duration = Duration::from_secs(15);

/// How often one drain looks for something new. Somebody who never stops writing has to let others go on.
const ROUNDS: u32 = 50;

/// Between the first and the last event key of a conversation's sends.
const SENDS: (&str, &str) = ("reply#", "reply#~");

/// Why a drain ends before its end.
pub(super) enum Stop {
    /// DynamoDB could not do it.
    Store(StoreError),
    /// The lease ran out, and somebody else has the conversation.
    Lost,
    /// The invocation's time is over.
    OutOfTime,
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A reply that waits.
pub(super) struct Waiting {
    pub(super) event_key: String,
    /// When the schedule picks it up; `None` = soon.
    pub(super) due: Option<Timestamp>,
    /// Not before this time, since it failed.
    pub(super) backs_off_until: Option<Timestamp>,
}

impl Waiting {
    /// A new one.
    pub(super) fn new(event_key: String) -> Self {
        Self {
            event_key,
            due: None,
            backs_off_until: None,
        }
    }
}

/// An item that we were given.
pub(super) struct Given {
    pub(super) entry: Entry,
    /// What became of it, once that is known.
    pub(super) outcome: Option<Outcome>,
}

impl Given {
    /// Whether it is an item of this kind of which nothing is known yet.
    pub(super) fn is_open(&self, kind: Kind) -> bool {
        self.entry.kind == kind && self.outcome.is_none()
    }
}

/// A conversation that is being drained.
pub(super) struct Drain<'a> {
    pub(super) worker: &'a RelayWorker,
    pub(super) subject: String,
    pub(super) until: Timestamp,
    /// The items that we were given, by event key.
    pub(super) given: BTreeMap<String, Given>,
    pub(super) stored: Stored,
    pub(super) lease: Lease,
    /// What was said, in order.
    pub(super) turns: Vec<Turn>,
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
    /// The rest of a burst is still to come, and takes too long to wait for here.
    pub(super) waits_for_burst: bool,
    /// What was read is no longer what is stored.
    pub(super) outdated: bool,
    /// We have waited until then, whatever the clock says.
    pub(super) waited_until: Timestamp,
}

impl<'a> Drain<'a> {
    /// Drains the conversation that the items belong to, and says what became of these.
    pub(super) async fn run(
        worker: &'a RelayWorker,
        group: Group<()>,
        until: Timestamp,
    ) -> Vec<(Entry, Outcome)> {
        let Some(id) = ConversationId::parse(&group.subject) else {
            return group.outcome(&Outcome::dead(Reason::UnknownConversation));
        };
        if worker.clock.now() >= until {
            return group.outcome(&Outcome::Busy);
        }
        let lease = worker.settings.external_system_timeout.max(BRAZE_TIMEOUT) + BEYOND;
        let (stored, lease) = match worker.conversations.claim(&id, lease).await {
            Ok(Claim::Leased(stored, lease)) => (stored, lease),
            Ok(Claim::Busy) => return group.outcome(&Outcome::Busy),
            Ok(Claim::Missing) => return group.outcome(&Outcome::dead(Reason::UnknownConversation)),
            Err(error) => return group.outcome(&error.into()),
        };
        let given = group.tasks.into_iter().map(|Task { entry, .. }| {
            let outcome = None;
            (entry.event_key.clone(), Given { entry, outcome })
        });
        let mut drain = Self {
            worker,
            subject: group.subject,
            until,
            given: given.collect(),
            settled_sends: stored.settled_sends.clone(),
            stored,
            lease,
            turns: Vec::new(),
            found: BTreeMap::new(),
            tried: BTreeMap::new(),
            learned: Learned::default(),
            asks_again_at: None,
            replies: VecDeque::new(),
            blocked: false,
            waits_for_burst: false,
            outdated: true,
            waited_until: Timestamp::MIN,
        };
        let rest = match drain.drain().await {
            Ok(()) | Err(Stop::Lost) => Outcome::Busy,
            Err(Stop::OutOfTime) => {
                drain.let_go().await;
                Outcome::Busy
            }
            Err(Stop::Store(error)) => {
                drain.let_go().await;
                Outcome::from(error)
            }
        };
        let given = drain.given.into_values();
        given
            .map(|Given { entry, outcome }| (entry, outcome.unwrap_or_else(|| rest.clone())))
            .collect()
    }

    async fn drain(&mut self) -> Result<(), Stop> {
        for _ in 0..ROUNDS {
            if self.outdated {
                self.read().await?;
            }
            self.send_replies().await?;
            if self.hand_over().await? {
                continue;
            }
            self.settle_messages();
            if self.outdated {
                continue;
            }
            let settled = self.settled_sends.as_deref();
            let news = settled.filter(|settled| self.stored.settled_sends.as_deref() != Some(settled));
            match self.release(news).await? {
                Released::Yes => return Ok(()),
                Released::Lost => return Err(Stop::Lost),
                Released::Refused => {}
            }
            // Something came in meanwhile, and the worker that it woke was turned away.
            self.renew(self.worker.settings.external_system_timeout.max(BRAZE_TIMEOUT))
                .await?;
            self.outdated = true;
        }
        Err(Stop::OutOfTime)
    }

    async fn release(&self, settled_sends: Option<&str>) -> Result<Released, StoreError> {
        let (conversations, version) = (&self.worker.conversations, self.stored.conversation.version);
        conversations.release(&self.lease, version, settled_sends).await
    }

    async fn read(&mut self) -> Result<(), Stop> {
        self.read_turns().await?;
        let mut waiting: BTreeMap<String, Waiting> = BTreeMap::new();
        for entry in self.waiting_replies().await? {
            let reply = Waiting {
                due: entry.due(),
                backs_off_until: entry.due().filter(|_| entry.attempts > 0),
                event_key: entry.event_key,
            };
            waiting.insert(reply.event_key.clone(), reply);
        }
        // One that was given up and redriven may lie before those that are settled.
        for (key, given) in &self.given {
            if given.is_open(Kind::RelayReply) {
                waiting.entry(key.clone()).or_insert(Waiting::new(key.clone()));
            }
        }
        self.replies = waiting.into_values().collect();
        self.outdated = false;
        Ok(())
    }

    async fn waiting_replies(&self) -> Result<Vec<Entry>, StoreError> {
        let last = event_key(self.stored.conversation.sends);
        let settled = self.settled_sends.as_deref();
        if self.stored.conversation.sends == 0 || settled.is_some_and(|settled| settled >= last.as_str()) {
            return Ok(Vec::new());
        }
        let from = settled.unwrap_or(SENDS.0);
        self.worker.outbox.pending(&self.subject, from, SENDS.1).await
    }

    /// The time, as far as we have waited for it.
    pub(super) fn now(&self) -> Timestamp {
        self.worker.clock.now().max(self.waited_until)
    }

    /// Whether a call that may take `limit` can still be made in this invocation.
    pub(super) fn has_time_for(&self, limit: Duration) -> bool {
        self.now() + signed(limit) <= self.until
    }

    /// Sees to it that the conversation stays ours during a call that may take `limit`.
    pub(super) async fn hold(&mut self, limit: Duration) -> Result<(), Stop> {
        if self.lease.until() >= self.worker.clock.now() + signed(limit) + signed(LEFT) {
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
            Claim::Leased(stored, lease) => {
                self.outdated |= stored.conversation.version != self.stored.conversation.version;
                (self.stored, self.lease) = (stored, lease);
                Ok(())
            }
            Claim::Busy | Claim::Missing => Err(Stop::Lost),
        }
    }

    /// Writes down at once what became of an item, whether we were given it or found it.
    pub(super) async fn note(&mut self, entry: &Entry, outcome: Outcome) -> Result<Settled, Stop> {
        if outcome == Outcome::Done {
            let outbox = &self.worker.outbox;
            persist(|| outbox.done(std::slice::from_ref(entry))).await?;
        }
        let settled = self.worker.settler.settle(entry, outcome).await?;
        self.noted(&entry.event_key, settled);
        Ok(settled)
    }

    /// What became of an item is written down.
    pub(super) fn noted(&mut self, event_key: &str, settled: Settled) {
        if !self.know(event_key, Outcome::Settled(settled)) {
            // The dispatcher counts what it gave us.
            count(settled);
        }
    }

    /// What became of an item is known. `false` if we were not given it.
    pub(super) fn know(&mut self, event_key: &str, outcome: Outcome) -> bool {
        let given = self.given.get_mut(event_key);
        given.map(|given| given.outcome = Some(outcome)).is_some()
    }

    /// Ends the lease after something went wrong; if that fails, it runs out by itself.
    async fn let_go(&mut self) {
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
            Err(error) if rounds.next().await.is_ok() => {
                tracing::warn!(%error, "what a call led to is not written yet");
            }
            written => return written,
        }
    }
}

pub(super) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn count(settled: Settled) {
    let name = match settled {
        Settled::Done => telemetry::OUTBOX_DONE,
        Settled::Retried => telemetry::OUTBOX_RETRIED,
        Settled::Dead => telemetry::OUTBOX_DEAD,
        Settled::Left => return,
    };
    metrics::counter!(name).increment(1);
}
