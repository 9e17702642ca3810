//! One conversation, from taking it to letting it go.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::try_join;
use jiff::{SignedDuration, Timestamp};
use shared::outbox::Kind;
use shared::outbox::dispatch::{Moved, Outcome};
use shared::store::StoreError;
use shared::store::conversations::{Claim, Leased};
use shared::store::outbox::Entry;
use shared::telemetry;
use shared::whatsapp::conversation::{Turn, TurnStatus};
use shared::whatsapp::message::ConversationId;
use shared::whatsapp::reply::event_key;

use super::RelayWorker;

/// Braze is given 30 s for a request.
pub(super) const BRAZE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a lease lasts beyond the limit of the call that it is for.
const BEYOND: Duration = Duration::from_secs(45);

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
    /// Not before this time, since it failed.
    pub(super) backs_off_until: Option<Timestamp>,
}

/// A conversation that is being drained.
pub(super) struct Drain<'a> {
    pub(super) worker: &'a RelayWorker,
    pub(super) subject: &'a str,
    pub(super) until: Timestamp,
    /// The items that we were given, by event key.
    pub(super) given: BTreeMap<&'a str, (usize, &'a Entry)>,
    pub(super) outcomes: BTreeMap<usize, Outcome>,
    pub(super) leased: Leased,
    /// What was said, in order.
    pub(super) turns: Vec<Turn>,
    /// Replies that wait, in order.
    pub(super) replies: VecDeque<Waiting>,
    /// All sends up to this one are settled.
    pub(super) settled_sends: Option<String>,
    /// A reply has to wait, and those behind it with it.
    pub(super) blocked: bool,
    /// The external system was asked and failed, or cannot be asked.
    pub(super) failed: bool,
    /// What was read is no longer what is stored.
    pub(super) outdated: bool,
    /// We have waited until then, whatever the clock says.
    pub(super) waited_until: Timestamp,
}

impl<'a> Drain<'a> {
    /// Drains the conversation that the entries at `positions` belong to, and says what became of these.
    pub(super) async fn run(
        worker: &'a RelayWorker,
        entries: &'a [Entry],
        positions: Vec<usize>,
        until: Timestamp,
    ) -> Vec<(usize, Outcome)> {
        let given: Vec<(usize, &'a Entry)> = positions
            .into_iter()
            .filter_map(|position| Some((position, entries.get(position)?)))
            .collect();
        let subject = given.first().map_or("", |(_, entry)| entry.subject.as_str());
        let all = |outcome: Outcome| given.iter().map(|(at, _)| (*at, outcome.clone())).collect();
        let Some(id) = ConversationId::parse(subject) else {
            return all(dead("unknown_conversation"));
        };
        if worker.clock.now() >= until {
            return all(Outcome::Busy);
        }
        let lease = worker.settings.external_system_timeout.max(BRAZE_TIMEOUT) + BEYOND;
        let leased = match worker.conversations.claim(&id, lease).await {
            Ok(Claim::Leased(leased)) => *leased,
            Ok(Claim::Busy) => return all(Outcome::Busy),
            Ok(Claim::Missing) => return all(dead("unknown_conversation")),
            Err(error) => return all(Outcome::from(&error)),
        };
        let mut drain = Self {
            worker,
            subject,
            until,
            given: given
                .into_iter()
                .map(|(position, entry)| (entry.event_key.as_str(), (position, entry)))
                .collect(),
            outcomes: BTreeMap::new(),
            settled_sends: leased.settled_sends.clone(),
            leased,
            turns: Vec::new(),
            replies: VecDeque::new(),
            blocked: false,
            failed: false,
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
                Outcome::from(&error)
            }
        };
        let (given, mut outcomes) = (drain.given, drain.outcomes);
        for (position, _) in given.values() {
            outcomes.entry(*position).or_insert_with(|| rest.clone());
        }
        outcomes.into_iter().collect()
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
            let news = settled.filter(|settled| self.leased.settled_sends.as_deref() != Some(settled));
            if self.worker.conversations.release(&self.leased, news).await? {
                return Ok(());
            }
            // Something came in meanwhile, and whoever brought it was turned away.
            self.renew(self.worker.settings.external_system_timeout.max(BRAZE_TIMEOUT))
                .await?;
            self.outdated = true;
        }
        Err(Stop::OutOfTime)
    }

    async fn read(&mut self) -> Result<(), Stop> {
        let id = &self.leased.conversation.id;
        let (turns, replies) = try_join!(self.worker.conversations.turns(id), self.waiting_replies())?;
        self.turns = turns;
        let mut waiting: BTreeMap<String, Option<Timestamp>> = replies
            .into_iter()
            .map(|entry| {
                let backs_off = entry.due().filter(|_| entry.attempts > 0);
                (entry.event_key, backs_off)
            })
            .collect();
        // One that was given up and redriven may lie before those that are settled.
        for (event_key, (position, entry)) in &self.given {
            if entry.kind == Kind::RelayReply && !self.outcomes.contains_key(position) {
                waiting.entry((*event_key).to_owned()).or_insert(None);
            }
        }
        self.replies = waiting
            .into_iter()
            .map(|(event_key, backs_off_until)| Waiting {
                event_key,
                backs_off_until,
            })
            .collect();
        self.outdated = false;
        Ok(())
    }

    async fn waiting_replies(&self) -> Result<Vec<Entry>, StoreError> {
        let last = event_key(self.leased.conversation.sends);
        let settled = self.settled_sends.as_deref();
        if self.leased.conversation.sends == 0 || settled.is_some_and(|settled| settled >= last.as_str()) {
            return Ok(Vec::new());
        }
        let from = settled.unwrap_or(SENDS.0);
        self.worker.outbox.pending(self.subject, from, SENDS.1).await
    }

    /// A message's item is only a wake-up: its turn says whether it still waits.
    fn settle_messages(&mut self) {
        for (event_key, (position, entry)) in &self.given {
            if entry.kind != Kind::RelayMessage || self.outcomes.contains_key(position) {
                continue;
            }
            let turn = self.turns.iter().find(|turn| message_key(turn) == **event_key);
            if turn.is_none_or(|turn| turn.status == Some(TurnStatus::HandedOver)) {
                self.outcomes.insert(*position, Outcome::Done);
            }
        }
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
        if self.leased.until >= self.worker.clock.now() + signed(limit) + signed(LEFT) {
            return Ok(());
        }
        self.renew(limit).await
    }

    pub(super) async fn renew(&mut self, limit: Duration) -> Result<(), Stop> {
        match self
            .worker
            .conversations
            .renew(&self.leased, limit + BEYOND)
            .await?
        {
            Claim::Leased(leased) => {
                self.outdated |= leased.conversation.version != self.leased.conversation.version;
                self.leased = *leased;
                Ok(())
            }
            Claim::Busy | Claim::Missing => Err(Stop::Lost),
        }
    }

    /// Writes down at once what became of an item, whether we were given it or found it.
    pub(super) async fn note(&mut self, entry: &Entry, outcome: Outcome) -> Result<(), Stop> {
        let moved = match outcome {
            Outcome::Done => {
                let outbox = &self.worker.outbox;
                persist(move || outbox.done([entry.clone()])).await?;
                Moved::Done
            }
            outcome => self.worker.settler.settle(entry, outcome).await?,
        };
        match self.given.get(entry.event_key.as_str()) {
            Some((position, _)) => {
                self.outcomes.insert(*position, Outcome::Noted(moved));
            }
            None => count(moved),
        }
        Ok(())
    }

    /// Ends the lease after something went wrong; if that fails, it runs out by itself.
    async fn let_go(&mut self) {
        for _ in 0..2 {
            match self.worker.conversations.release(&self.leased, None).await {
                Ok(false) if self.renew(BRAZE_TIMEOUT).await.is_ok() => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "a conversation's lease runs out by itself");
                    return;
                }
            }
        }
    }
}

/// How often something is written that cannot be taken back outside.
const PERSISTENCE: u32 = 5;

/// Writes what follows from a call that was made: were it lost, the call would be made again. So it is tried
/// for some seconds, beyond what the SDK tries.
pub(super) async fn persist<T, Writing>(write: impl Fn() -> Writing) -> Result<T, StoreError>
where
    Writing: Future<Output = Result<T, StoreError>>,
{
    let mut tries = 0;
    loop {
        match write().await {
            Err(error) if tries < PERSISTENCE => {
                tracing::warn!(%error, "what a call led to is not written yet");
                tokio::time::sleep(Duration::from_millis(100 << tries)).await;
                tries += 1;
            }
            written => return written,
        }
    }
}

/// The event key of the item that wakes us for a message.
pub(super) fn message_key(turn: &Turn) -> String {
    format!("message#{}", turn.id)
}

pub(super) fn dead(reason: &str) -> Outcome {
    Outcome::Dead {
        reason: reason.to_owned(),
    }
}

pub(super) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

// The dispatcher counts what it gave us.
fn count(moved: Moved) {
    let name = match moved {
        Moved::Done => telemetry::OUTBOX_DONE,
        Moved::Retried => telemetry::OUTBOX_RETRIED,
        Moved::Dead => telemetry::OUTBOX_DEAD,
        Moved::Left => return,
    };
    metrics::counter!(name).increment(1);
}
