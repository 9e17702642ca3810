//! The conversations table.
//!
//! Key: (`conversation_id`, `sort_key`). Under one conversation lie
//! * `conversation`: the conversation, its version and, while somebody works on it, a lease;
//! * `turn#…`: what was said, in order (see [`Turn::sort_key`]), removed after a month;
//! * `seen#…`: markers that tell duplicates, removed once they mean nothing.
//!
//! Everything that follows from one message or one answer is written in one transaction together with its
//! outbox items, on condition that the version is still the one that was decided on.

use std::collections::HashSet;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::TransactWriteItem;
use jiff::SignedDuration;
use serde::Deserialize;

use super::conversation::{Conversation, Turn, TurnStatus};
use super::duplicate::DuplicateGuard;
use super::message::ConversationId;
use super::plan::Plan;
use crate::clock::Clock;
use crate::outbox::Outbox;
use crate::store::table::Table;
use crate::store::transact::transact;
use crate::store::update::Update;
use crate::store::{Claim, Item, Lease, Released, StoreError, attribute, number, string};

/// The sort key of the conversation itself.
const CONVERSATION: &str = "conversation";

/// How long turns are kept: long enough for every retry, and for a chatbot's memory.
const KEEP_TURNS: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Turns that are read at once: the history that is told along, and as many messages as are handed over.
const PAGE: i32 = 50;

/// Pages that are read at most.
const MAX_PAGES: usize = 40;

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
    #[serde(default)]
    pub settled_sends: Option<String>,
}

/// What became of a [`Plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// All is written.
    Yes,
    /// Nothing is written: a guard or an outbox item was there.
    Duplicate,
    /// Nothing is written: the conversation has changed. Read, decide and write again.
    Stale,
    /// Nothing is written: another worker has handed the turns over.
    HandedOver,
}

/// The writes of a plan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Guard,
    Conversation,
    HandedOver,
    NewTurn,
    Effect,
}

impl Conversations {
    /// The table `table`, with the outbox that its effects go to.
    #[must_use]
    pub fn new(client: Client, table: String, outbox: Outbox, clock: Clock) -> Self {
        Self {
            table: Table::new(client, table, clock),
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
    ) -> Result<(Option<Conversation>, bool), StoreError> {
        let keys = [key(id, CONVERSATION), key(id, &guard.key)];
        let (mut conversation, mut guarded) = (None, false);
        let now = self.table.now().as_millisecond();
        for item in self.table.get_all(&keys).await? {
            if item.get("sort_key") == Some(&string(CONVERSATION)) {
                conversation = Some(unpack(item)?.conversation);
            } else {
                let until = item.get("seen_until").and_then(|until| until.as_n().ok());
                guarded = until
                    .and_then(|until| until.parse::<i64>().ok())
                    .is_some_and(|until| until > now);
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

    /// Ends the lease, if the conversation is still of this `version`. [`Released::Refused`] if it has changed: then it
    /// is still ours, and there may be something new to do. So a worker that was turned away because it was ours is not
    /// forgotten. `settled_sends` as in [`Stored`], if it is to be written.
    pub async fn release(
        &self,
        lease: &Lease,
        version: u64,
        settled_sends: Option<&str>,
    ) -> Result<Released, StoreError> {
        let mut update = lease.update().value("version", number(version));
        if let Some(key) = settled_sends {
            update = update.set("settled_sends", string(key));
        }
        self.table
            .release(lease, update.when("#version = :version"))
            .await
    }

    /// Writes what is planned, wholly or not at all, in one call; more only where other transactions are in the way.
    pub async fn commit(&self, plan: &Plan) -> Result<Committed, StoreError> {
        let id = &plan.conversation.id;
        let expires_at = number((self.table.now() + KEEP_TURNS).as_second());
        let mut writes = Vec::new();
        for guard in &plan.guards {
            writes.push((Part::Guard, self.guard(id, guard)?));
        }
        // An update and no put: the lease beside the facts is another worker's.
        let conversation = Update::new(key(id, CONVERSATION))
            .set("facts", attribute(&plan.conversation)?)
            .version(plan.conversation.version);
        let conversation = conversation.in_transaction(&self.table.name)?;
        writes.push((Part::Conversation, conversation));
        for sort_key in &plan.handed_over {
            let turn = self.turn_status(id, sort_key, TurnStatus::HandedOver)?;
            writes.push((Part::HandedOver, turn));
        }
        for turn in &plan.turns {
            let mut item: Item =
                serde_dynamo::to_item(turn).map_err(|error| StoreError::new("turn write", error))?;
            item.extend(key(id, &turn.sort_key()));
            item.insert("expires_at".to_owned(), expires_at.clone());
            writes.push((Part::NewTurn, self.table.put(item, None)?));
        }
        for item in &plan.outbox {
            writes.push((Part::Effect, self.outbox.put(item)?));
        }
        let refused = transact(&self.table.client, writes).await?;
        let first_of = |parts: &[Part]| parts.iter().copied().find(|part| refused.contains(part));
        // A duplicate is one also where the conversation has changed since.
        Ok(
            match first_of(&[Part::Guard, Part::HandedOver, Part::Conversation, Part::Effect]) {
                None => Committed::Yes,
                Some(Part::HandedOver) => Committed::HandedOver,
                Some(Part::Conversation) => Committed::Stale,
                Some(Part::Guard | Part::Effect | Part::NewTurn) => Committed::Duplicate,
            },
        )
    }

    fn guard(&self, id: &ConversationId, guard: &DuplicateGuard) -> Result<TransactWriteItem, StoreError> {
        let mut item = key(id, &guard.key);
        item.insert("seen_until".to_owned(), number(guard.expires_at.as_millisecond()));
        item.insert("expires_at".to_owned(), number(guard.expires_at.as_second() + 1));
        let now = number(self.table.now().as_millisecond());
        let unless_seen = "attribute_not_exists(sort_key) OR seen_until <= :now";
        self.table
            .put(item, Some((unless_seen, Item::from([(":now".to_owned(), now)]))))
    }

    fn turn_status(
        &self,
        id: &ConversationId,
        sort_key: &str,
        status: TurnStatus,
    ) -> Result<TransactWriteItem, StoreError> {
        let update = Update::new(key(id, sort_key))
            .set("status", attribute(&status)?)
            .value("handed_over", attribute(&TurnStatus::HandedOver)?)
            .when("attribute_exists(#sort_key) AND #status <> :handed_over");
        update.in_transaction(&self.table.name)
    }

    /// Notes that nobody will take these turns, so that later messages go without them. Some of them may be
    /// noted and others not if it fails.
    pub async fn give_up(&self, id: &ConversationId, turns: &[Turn]) -> Result<(), StoreError> {
        let mut writes = Vec::new();
        for turn in turns {
            writes.push(((), self.turn_status(id, &turn.sort_key(), TurnStatus::GivenUp)?));
        }
        // Refused: another worker has handed them over after all.
        transact(&self.table.client, writes).await.map(drop)
    }

    /// The latest turns, oldest first: at least the history that is told along, every turn that is still
    /// pending, and those with the ids `wanted`, as far as there are any.
    pub async fn turns(&self, id: &ConversationId, wanted: &[&str]) -> Result<Vec<Turn>, StoreError> {
        let mut turns: Vec<Turn> = Vec::new();
        let mut missing: HashSet<&str> = wanted.iter().copied().collect();
        let mut from: Option<Item> = None;
        for _ in 0..MAX_PAGES {
            let answer = self
                .table
                .query()
                .key_condition_expression("conversation_id = :id AND begins_with(sort_key, :turn)")
                .expression_attribute_values(":id", string(id.as_str()))
                .expression_attribute_values(":turn", string(Turn::SORT_KEY_PREFIX))
                .scan_index_forward(false)
                .consistent_read(true)
                .limit(PAGE)
                .set_exclusive_start_key(from.take())
                .send()
                .await
                .map_err(|error| StoreError::sdk("Query", &error))?;
            let page = answer
                .items
                .unwrap_or_default()
                .into_iter()
                .map(|item| {
                    serde_dynamo::from_item::<_, Turn>(item).map_err(|_| StoreError::unreadable("turn read"))
                })
                .collect::<Result<Vec<_>, _>>()?;
            // Messages are handed over oldest first, so those that wait end where nothing waits any more.
            let waiting = page.iter().any(|turn| turn.status == Some(TurnStatus::Pending));
            for turn in &page {
                missing.remove(turn.id.as_str());
            }
            turns.extend(page);
            from = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if from.is_none() || !waiting && missing.is_empty() {
                break;
            }
        }
        turns.reverse();
        Ok(turns)
    }
}

fn key(id: &ConversationId, sort_key: &str) -> Item {
    Item::from([
        ("conversation_id".to_owned(), string(id.as_str())),
        ("sort_key".to_owned(), string(sort_key)),
    ])
}

fn unpack(item: Item) -> Result<Stored, StoreError> {
    serde_dynamo::from_item(item).map_err(|_| StoreError::unreadable("conversation read"))
}
