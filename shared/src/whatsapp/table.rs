//! The conversations table.
//!
//! Key: (`conversation_id`, `sort_key`). Under one conversation lie
//! * `conversation`: the conversation, its version and, while somebody works on it, a lease;
//! * `turn#…`: what was said, in order (see [`Turn::sort_key`]), removed after a month;
//! * `seen#…`: markers that tell duplicates, removed once they mean nothing.
//!
//! A conversation is removed a month after its last turn. `erased#<hash>` says which ones were erased.
//!
//! Everything that follows from one message or one answer is written in one transaction together with its
//! outbox items, on condition that the version is still the one that was decided on.

mod erase;
mod turns;

use std::time::Duration;

use aws_sdk_dynamodb::types::TransactWriteItem;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::conversation::{Conversation, Turn, TurnStatus};
use super::duplicate::DuplicateGuard;
use super::message::ConversationId;
use super::plan::Plan;
use super::reply::{SENDS, send_number};
use crate::erase::tombstone;
use crate::outbox::{Kind, Outbox};
use crate::store::table::Table;
use crate::store::transact::{Transacted, transact, transact_once};
use crate::store::update::Update;
use crate::store::{
    Claim, Item, Lease, Released, StoreError, attribute, milliseconds, number, string, text, time,
};
use crate::telemetry;

use erase::{DISPATCH_GUARD, guard_key, tombstone_key};
pub use turns::Said;
use turns::key;

/// The sort key of the conversation itself.
const CONVERSATION: &str = "conversation";

/// How long turns are kept: long enough for every retry, and for a chatbot's memory.
const KEEP_TURNS: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The conversations table.
#[derive(Clone, Debug)]
pub struct Conversations {
    table: Table,
    outbox: Outbox,
}

/// A conversation as stored.
#[derive(Debug, Clone, Deserialize)]
pub struct Stored {
    /// The conversation.
    #[serde(rename = "facts")]
    pub conversation: Conversation,
    /// All sends up to this event key are settled.
    pub settled_sends: Option<String>,
    /// Sort keys of the turns that the external system is being asked for, or may have got without our getting its
    /// answer.
    #[serde(default)]
    pub asking: Vec<String>,
    /// Another value with each message that is stored beside the conversation.
    nudge: Option<String>,
    /// When the latest of them came (ms).
    heard_at: Option<i64>,
}

/// What became of a [`Plan`], in the order in which it counts: a duplicate is one also where the conversation has changed
/// since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Committed {
    /// Nothing is written: the conversation was erased after this was taken in.
    Erased,
    /// Nothing is written: a guard or an outbox item was there.
    Duplicate,
    /// Nothing is written: turns are handed over already, or given up.
    HandedOver,
    /// Nothing is written: the conversation has changed. Read, decide and write again.
    Stale,
    /// Nothing is written: the outbox has sends with these numbers. It is ahead of the conversation, which was restored
    /// or half erased: see [`Conversations::skip_ahead`].
    Behind,
    /// All is written.
    Yes,
}

/// Who commits a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The function that takes requests: what it plans needs a worker woken.
    Door,
    /// A worker, which sends its replies itself.
    Worker,
}

impl Conversations {
    /// The table `table`, with the outbox that its effects go to.
    #[must_use]
    pub fn new(table: String, outbox: Outbox) -> Self {
        Self {
            table: outbox.table.beside(table),
            outbox,
        }
    }

    /// The conversation, read consistently.
    pub async fn read(&self, id: &ConversationId) -> Result<Option<Conversation>, StoreError> {
        let item = self.table.get(key(id, CONVERSATION)).await?;
        let stored = item.map(unpack).transpose()?;
        Ok(stored.map(|stored| stored.conversation))
    }

    /// The conversation, and whether `guard` is set, in one call.
    pub async fn read_guarded(
        &self,
        id: &ConversationId,
        guard: &DuplicateGuard,
    ) -> Result<(Option<Stored>, bool), StoreError> {
        let keys = [key(id, CONVERSATION), key(id, &guard.key)];
        let (mut conversation, mut guarded) = (None, false);
        let now = self.table.now();
        for item in self.table.get_all(&keys).await? {
            if text(&item, "sort_key") == Some(CONVERSATION) {
                conversation = Some(unpack(item)?);
            } else {
                guarded = time(&item, "seen_until") > Some(now);
            }
        }
        Ok((conversation, guarded))
    }

    /// Claims the conversation for `length` and reads it in the same call.
    pub async fn claim(&self, id: &ConversationId, length: Duration) -> Result<Claim<Stored>, StoreError> {
        let update = Update::new(key(id, CONVERSATION)).when("attribute_exists(#facts)");
        self.table.claim(update, length, unpack).await
    }

    /// Holds the conversation for `length` from now, and reads it again. [`Claim::Busy`] if it is no longer ours.
    pub async fn renew(&self, lease: &Lease, length: Duration) -> Result<Claim<Stored>, StoreError> {
        self.table.renew(lease, lease.update(), length, unpack).await
    }

    /// As [`Conversations::renew`], and notes that the external system is asked for `turns`.
    pub async fn ask(
        &self,
        lease: &Lease,
        turns: &[Turn],
        length: Duration,
    ) -> Result<Claim<Stored>, StoreError> {
        let keys: Vec<String> = turns.iter().map(Turn::sort_key).collect();
        let update = lease.update().set("asking", attribute(&keys)?);
        self.table.renew(lease, update, length, unpack).await
    }

    /// Ends the lease, if the conversation is still as `stored`. [`Released::Refused`] if it has changed: then it
    /// is still ours, and there may be something new to do. So a worker that was turned away because it was ours is not
    /// forgotten. `settled_sends` as in [`Stored`], if it is to be written; `asked` = the external system was asked
    /// and may answer later.
    pub async fn release(
        &self,
        lease: &Lease,
        stored: &Stored,
        settled_sends: Option<&str>,
        asked: bool,
    ) -> Result<Released, StoreError> {
        let mut update = lease
            .update()
            .value("version", number(stored.conversation.version))
            .when("#version = :version");
        update = match &stored.nudge {
            Some(nudge) => update.value("nudge", string(nudge)).when("#nudge = :nudge"),
            None => update.when("attribute_not_exists(#nudge)"),
        };
        if let Some(key) = settled_sends {
            update = update.set("settled_sends", string(key));
        }
        if !asked {
            update = update.remove(&["asking"]);
        }
        self.table.release(lease, update).await
    }

    /// Writes what is planned, wholly or not at all, in one call; more only where other transactions are in the way.
    pub async fn commit(&self, plan: &Plan, by: By) -> Result<Committed, StoreError> {
        let refused = transact(&self.table.client, self.writes(plan, by)?).await?;
        Ok(committed(refused))
    }

    /// [`Conversations::commit`] that takes another transaction at the conversation for a change of it.
    pub async fn commit_once(&self, plan: &Plan) -> Result<Committed, StoreError> {
        let transacted = transact_once(&self.table.client, self.writes(plan, By::Door)?).await?;
        Ok(match transacted {
            Transacted::Written => Committed::Yes,
            Transacted::Refused(refused) => committed(refused),
            Transacted::Conflict => Committed::Stale,
        })
    }

    /// Writes what is planned beside the conversation, which has to be there: of many messages that come at once, not
    /// each could be written into it. See [`super::decide::beside_conversation`].
    pub async fn commit_beside(&self, plan: &Plan) -> Result<Committed, StoreError> {
        let mut writes = self.writes(plan, By::Door)?;
        writes.retain(|(refused, _)| *refused != Committed::Stale);
        let committed = committed(transact(&self.table.client, writes).await?);
        if committed == Committed::Yes {
            let expires_at = self.table.now() + KEEP_TURNS;
            let nudged = Update::new(key(&plan.conversation.id, CONVERSATION))
                .set("expires_at", number(expires_at.as_second()))
                .set("nudge", string(uuid::Uuid::new_v4().to_string()))
                .set("heard_at", milliseconds(plan.conversation.last_inbound_at))
                .when("attribute_exists(#facts)");
            if let Err(error) = self.table.update(nudged).await {
                // The message is stored, and the schedule finds it.
                tracing::warn!(%error, "a worker that has the conversation does not learn of a message at once");
            }
        }
        Ok(committed)
    }

    /// The writes of a plan, each with what it means if it is refused.
    fn writes(&self, plan: &Plan, by: By) -> Result<Vec<(Committed, TransactWriteItem)>, StoreError> {
        let id = &plan.conversation.id;
        let expires_at = number((self.table.now() + KEEP_TURNS).as_second());
        let mut writes = self.unless_erased(plan)?;
        for guard in &plan.guards {
            writes.push((Committed::Duplicate, self.guard(id, guard)?));
        }
        // An update and no put: the lease beside the facts is another worker's.
        let mut conversation = Update::new(key(id, CONVERSATION))
            .set("facts", attribute(&plan.conversation)?)
            .set("expires_at", expires_at.clone())
            .version(plan.conversation.version);
        if !plan.handed_over.is_empty() {
            conversation = conversation.remove(&["asking"]);
        }
        let conversation = conversation.in_transaction(&self.table.name)?;
        writes.push((Committed::Stale, conversation));
        for sort_key in &plan.handed_over {
            let turn = self.turn_status(id, sort_key, TurnStatus::HandedOver, by)?;
            writes.push((Committed::HandedOver, turn));
        }
        for turn in &plan.turns {
            let mut item: Item =
                serde_dynamo::to_item(turn).map_err(|error| StoreError::new("turn write", error))?;
            item.extend(key(id, &turn.sort_key()));
            item.insert("expires_at".to_owned(), expires_at.clone());
            // On no condition, so it is never refused.
            writes.push((Committed::Duplicate, self.table.put(item, None)?));
        }
        for item in &plan.outbox {
            writes.push(match item.kind {
                Kind::RelayMessage => (Committed::Duplicate, self.outbox.put_waking(item)?),
                _ if by == By::Door => (Committed::Behind, self.outbox.put_waking(item)?),
                _ => (Committed::Behind, self.outbox.put(item)?),
            });
        }
        Ok(writes)
    }

    /// A new conversation is made of nothing that was taken in before the last one was erased, and for a day of no
    /// message that was here before. One that is known takes no condition.
    fn unless_erased(&self, plan: &Plan) -> Result<Vec<(Committed, TransactWriteItem)>, StoreError> {
        let (conversation, now) = (&plan.conversation, self.table.now());
        let mut writes = Vec::new();
        if conversation.version <= 1 {
            let stone = tombstone_key(&conversation.id);
            let check = tombstone::unless_erased(&self.table, stone, conversation.last_inbound_at)?;
            writes.push((Committed::Erased, check));
        }
        let is_young = |first: Timestamp| now.duration_since(first) < SignedDuration::from_hours(24);
        if conversation.first_inbound_at.is_some_and(is_young) {
            for guard in plan
                .guards
                .iter()
                .filter(|guard| guard.key.starts_with(DISPATCH_GUARD))
            {
                let stone = guard_key(&conversation.id, &guard.key);
                let check = tombstone::unless_known(&self.table, stone, now)?;
                writes.push((Committed::Duplicate, check));
            }
        }
        Ok(writes)
    }

    /// Lets the numbers of sends go on behind those that the outbox has. For a conversation for which a commit was
    /// [`Committed::Behind`].
    pub async fn skip_ahead(&self, conversation: &mut Conversation) -> Result<(), StoreError> {
        let subject = conversation.id.as_str();
        let last = self.outbox.last_event_key(subject, SENDS).await?;
        let number = last.as_deref().and_then(send_number).unwrap_or_default();
        tracing::warn!(
            conversation = telemetry::pseudonym(subject),
            skipped = number.saturating_sub(conversation.sends),
            "the outbox is ahead of a conversation, which was restored or half erased"
        );
        conversation.sends = conversation.sends.max(number);
        Ok(())
    }

    fn guard(&self, id: &ConversationId, guard: &DuplicateGuard) -> Result<TransactWriteItem, StoreError> {
        let mut item = key(id, &guard.key);
        item.insert("seen_until".to_owned(), milliseconds(guard.expires_at));
        item.insert("expires_at".to_owned(), number(guard.expires_at.as_second() + 1));
        let now = milliseconds(self.table.now());
        let unless_seen = "attribute_not_exists(sort_key) OR seen_until <= :now";
        self.table
            .put(item, Some((unless_seen, Item::from([(":now".to_owned(), now)]))))
    }

    fn turn_status(
        &self,
        id: &ConversationId,
        sort_key: &str,
        status: TurnStatus,
        by: By,
    ) -> Result<TransactWriteItem, StoreError> {
        let update = Update::new(key(id, sort_key)).set("status", attribute(&status)?);
        // A worker knows what it has handed over; whoever only posts an answer settles what still waits.
        let update = match by {
            By::Worker => update
                .value("handed_over", attribute(&TurnStatus::HandedOver)?)
                .when("attribute_exists(#sort_key) AND #status <> :handed_over"),
            By::Door => update
                .value("pending", attribute(&TurnStatus::Pending)?)
                .when("#status = :pending"),
        };
        update.in_transaction(&self.table.name)
    }

    /// Notes that nobody will take these turns, so that later messages go without them. Some of them may be
    /// noted and others not if it fails.
    pub async fn give_up(&self, id: &ConversationId, turns: &[Turn]) -> Result<(), StoreError> {
        let mut writes = Vec::new();
        for turn in turns {
            let status = self.turn_status(id, &turn.sort_key(), TurnStatus::GivenUp, By::Worker)?;
            writes.push(((), status));
        }
        // Refused: another worker has handed them over after all.
        transact(&self.table.client, writes).await.map(drop)
    }
}

fn committed(refused: Vec<Committed>) -> Committed {
    refused.into_iter().min().unwrap_or(Committed::Yes)
}

fn unpack(item: Item) -> Result<Stored, StoreError> {
    let mut stored: Stored =
        serde_dynamo::from_item(item).map_err(|_| StoreError::unreadable("conversation read"))?;
    if let Some(at) = stored
        .heard_at
        .and_then(|at| Timestamp::from_millisecond(at).ok())
    {
        stored.conversation.heard(at);
    }
    Ok(stored)
}
