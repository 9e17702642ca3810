//! The conversations table.
//!
//! Key: (`conversation_id`, `sort_key`). Under one conversation lie
//! * `conversation`: the conversation, its version and, while somebody works on it, a lease;
//! * `turn#…`: what was said, in order (see [`Turn::sort_key`]), removed after a month;
//! * `seen#…`: markers that tell duplicates, removed once they mean nothing.
//!
//! Everything that follows from one message or one answer is written in one transaction together with its
//! outbox items, on condition that the version is still the one that was decided on.

mod lease;

use std::collections::HashSet;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem, Update};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

pub use self::lease::{Claim, Leased};
use crate::clock::Clock;
use crate::outbox::OutboxItem;
use crate::outbox::{Entry, Outbox};
use crate::store::batch::batch_get;
use crate::store::{Item, MAX_TRANSACT, StoreError, number, string};
use crate::whatsapp::conversation::{Conversation, Turn, TurnStatus};
use crate::whatsapp::decide::InboundPlan;
use crate::whatsapp::duplicate::DuplicateGuard;
use crate::whatsapp::message::ConversationId;
use crate::whatsapp::settle::AnswerPlan;

/// The sort key of the conversation itself.
const CONVERSATION: &str = "conversation";

/// How long turns are kept: long enough for every retry, and for a chatbot's memory.
const KEEP_TURNS: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Turns that are read at once: the history that is told along, and as many messages as are handed over.
const PAGE: i32 = 50;

/// Pages that are read at most.
const MAX_PAGES: usize = 40;

/// How often a transaction that met another one is tried.
const TRANSACTION_TRIES: u32 = 7;

/// The conversations table.
#[derive(Clone, Debug)]
pub struct Conversations {
    client: Client,
    table: String,
    outbox: Outbox,
    clock: Clock,
}

/// What is to be written together.
#[derive(Debug, Clone, Copy)]
pub struct Changes<'a> {
    /// As it is to be stored.
    pub conversation: &'a Conversation,
    /// The version that must still be stored; 0 = there must be none.
    pub expected_version: u64,
    /// What must not be there, and then is.
    pub guards: &'a [DuplicateGuard],
    /// New turns.
    pub turns: &'a [Turn],
    /// Sort keys of turns that must not be handed over yet, and then are.
    pub handed_over: &'a [String],
    /// New outbox items.
    pub outbox: &'a [OutboxItem],
}

impl<'a> From<&'a InboundPlan> for Changes<'a> {
    fn from(plan: &'a InboundPlan) -> Self {
        Self {
            conversation: &plan.conversation,
            expected_version: plan.expected_version,
            guards: &plan.guards,
            turns: std::slice::from_ref(&plan.turn),
            handed_over: &[],
            outbox: &plan.outbox,
        }
    }
}

impl<'a> From<&'a AnswerPlan> for Changes<'a> {
    fn from(plan: &'a AnswerPlan) -> Self {
        Self {
            conversation: &plan.conversation,
            expected_version: plan.expected_version,
            guards: &[],
            turns: &plan.turns,
            handed_over: &plan.handed_over,
            outbox: &plan.outbox,
        }
    }
}

/// What became of [`Changes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// All is written.
    Yes,
    /// Nothing is written: a guard or an outbox item was there.
    Duplicate,
    /// Nothing is written: the conversation has changed. Read, decide and write again.
    Stale,
    /// Nothing is written: somebody else has handed the turns over.
    HandedOver,
}

#[derive(Deserialize)]
struct ConversationItem {
    facts: Conversation,
    #[serde(default)]
    settled_sends: Option<String>,
}

impl Conversations {
    /// The table `table`, with the outbox that its effects go to.
    #[must_use]
    pub fn new(client: Client, table: String, outbox: Outbox, clock: Clock) -> Self {
        Self {
            client,
            table,
            outbox,
            clock,
        }
    }

    /// The conversation, read consistently.
    pub async fn read(&self, id: &ConversationId) -> Result<Option<Conversation>, StoreError> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(key(id, CONVERSATION)))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| StoreError::sdk("GetItem", &error))?;
        let item = answer.item.map(read_conversation).transpose()?;
        Ok(item.map(|item| item.facts))
    }

    /// The conversation, and whether `guard` is set, in one call.
    pub async fn read_guarded(
        &self,
        id: &ConversationId,
        guard: &DuplicateGuard,
    ) -> Result<(Option<Conversation>, bool), StoreError> {
        let keys = vec![key(id, CONVERSATION), key(id, &guard.key)];
        let (mut conversation, mut guarded) = (None, false);
        let now = self.clock.now().as_millisecond();
        for item in batch_get(&self.client, &self.table, keys).await? {
            if text(&item, "sort_key") == Some(CONVERSATION) {
                conversation = Some(read_conversation(item)?.facts);
            } else {
                let until = item.get("seen_until").and_then(|until| until.as_n().ok());
                guarded = until
                    .and_then(|until| until.parse::<i64>().ok())
                    .is_some_and(|until| until > now);
            }
        }
        Ok((conversation, guarded))
    }

    /// Writes `changes`, wholly or not at all, in one call; more only where another transaction is in the way.
    pub async fn commit(&self, id: &ConversationId, changes: Changes<'_>) -> Result<Committed, StoreError> {
        let writes = self.writes(id, changes)?;
        if writes.len() > MAX_TRANSACT {
            return Err(StoreError::new(
                "TransactWriteItems",
                "too many writes for one transaction",
            ));
        }
        // In the order of the writes: guards, conversation, turns that are handed over, new turns, outbox items.
        let conversation = changes.guards.len();
        let handed_over = conversation + 1;
        let new_turns = handed_over + changes.handed_over.len();
        let outbox = new_turns + changes.turns.len();
        let mut tries = 0;
        loop {
            let answer = self
                .client
                .transact_write_items()
                .set_transact_items(Some(writes.clone()))
                .send()
                .await;
            let Err(error) = answer else {
                return Ok(Committed::Yes);
            };
            let Some(failed) = failed_conditions(&error) else {
                return Err(StoreError::sdk("TransactWriteItems", &error));
            };
            let any = |from: usize, to: usize| failed.iter().any(|at| (from..to).contains(at));
            if any(0, conversation) {
                return Ok(Committed::Duplicate);
            }
            if any(handed_over, new_turns) {
                return Ok(Committed::HandedOver);
            }
            if any(conversation, handed_over) {
                return Ok(Committed::Stale);
            }
            if any(outbox, writes.len()) {
                return Ok(Committed::Duplicate);
            }
            tries += 1;
            if tries == TRANSACTION_TRIES {
                return Err(StoreError::new(
                    "TransactWriteItems",
                    "another transaction keeps getting in the way",
                ));
            }
            tokio::time::sleep(pause(tries)).await;
        }
    }

    fn writes(
        &self,
        id: &ConversationId,
        changes: Changes<'_>,
    ) -> Result<Vec<TransactWriteItem>, StoreError> {
        let now = self.clock.now();
        let mut writes = Vec::new();
        for guard in changes.guards {
            writes.push(self.guard(id, guard, now)?);
        }
        writes.push(self.conversation(id, changes)?);
        for sort_key in changes.handed_over {
            writes.push(self.turn_status(id, sort_key, TurnStatus::HandedOver)?);
        }
        for turn in changes.turns {
            let mut item: Item =
                serde_dynamo::to_item(turn).map_err(|error| StoreError::new("turn write", error))?;
            item.extend(key(id, &turn.sort_key()));
            item.insert("expires_at".to_owned(), number((now + KEEP_TURNS).as_second()));
            writes.push(self.put(item, None)?);
        }
        for item in changes.outbox {
            writes.push(self.outbox.put(item)?);
        }
        Ok(writes)
    }

    fn guard(
        &self,
        id: &ConversationId,
        guard: &DuplicateGuard,
        now: Timestamp,
    ) -> Result<TransactWriteItem, StoreError> {
        let mut item = key(id, &guard.key);
        item.insert("seen_until".to_owned(), number(guard.expires_at.as_millisecond()));
        item.insert("expires_at".to_owned(), number(guard.expires_at.as_second() + 1));
        self.put(item, Some(now))
    }

    /// `unless_seen_at` = only if there is none, or one that means nothing any more at that time.
    fn put(&self, item: Item, unless_seen_at: Option<Timestamp>) -> Result<TransactWriteItem, StoreError> {
        let mut put = Put::builder().table_name(&self.table).set_item(Some(item));
        if let Some(now) = unless_seen_at {
            put = put
                .condition_expression("attribute_not_exists(sort_key) OR seen_until <= :now")
                .expression_attribute_values(":now", number(now.as_millisecond()));
        }
        let put = put
            .build()
            .map_err(|error| StoreError::new("conversation write", error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    // An update and no put: the lease beside the facts is somebody else's.
    fn conversation(
        &self,
        id: &ConversationId,
        changes: Changes<'_>,
    ) -> Result<TransactWriteItem, StoreError> {
        let facts = serde_dynamo::to_attribute_value(changes.conversation)
            .map_err(|error| StoreError::new("conversation write", error))?;
        let mut update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key(id, CONVERSATION)))
            .update_expression("SET facts = :facts, version = :version")
            .expression_attribute_values(":facts", facts)
            .expression_attribute_values(":version", number(changes.conversation.version));
        update = if changes.expected_version == 0 {
            update.condition_expression("attribute_not_exists(version)")
        } else {
            update
                .condition_expression("version = :expected")
                .expression_attribute_values(":expected", number(changes.expected_version))
        };
        let update = update
            .build()
            .map_err(|error| StoreError::new("conversation write", error))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    fn turn_status(
        &self,
        id: &ConversationId,
        sort_key: &str,
        status: TurnStatus,
    ) -> Result<TransactWriteItem, StoreError> {
        let name = |status: TurnStatus| {
            serde_dynamo::to_attribute_value(status).map_err(|error| StoreError::new("turn write", error))
        };
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key(id, sort_key)))
            .update_expression("SET #status = :status")
            .condition_expression("attribute_exists(sort_key) AND #status <> :handed_over")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":status", name(status)?)
            .expression_attribute_values(":handed_over", name(TurnStatus::HandedOver)?)
            .build()
            .map_err(|error| StoreError::new("turn write", error))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// Notes that nobody will take these turns, so that later messages go without them. Some of them may be
    /// noted and others not if it fails.
    pub async fn give_up(&self, id: &ConversationId, turns: &[Turn]) -> Result<(), StoreError> {
        let writes = turns
            .iter()
            .map(|turn| self.turn_status(id, &turn.sort_key(), TurnStatus::GivenUp))
            .collect::<Result<Vec<_>, _>>()?;
        if writes.is_empty() {
            return Ok(());
        }
        let request = self
            .client
            .transact_write_items()
            .set_transact_items(Some(writes));
        match request.send().await {
            Ok(_) => Ok(()),
            // Somebody has handed them over after all.
            Err(error) if failed_conditions(&error).is_some_and(|failed| !failed.is_empty()) => Ok(()),
            Err(error) => Err(StoreError::sdk("TransactWriteItems", &error)),
        }
    }

    /// The latest turns, oldest first: at least the history that is told along, every turn that is still
    /// pending, and those with the ids `wanted`, as far as there are any.
    pub async fn turns(&self, id: &ConversationId, wanted: &[&str]) -> Result<Vec<Turn>, StoreError> {
        let mut turns: Vec<Turn> = Vec::new();
        let mut missing: HashSet<&str> = wanted.iter().copied().collect();
        let mut from: Option<Item> = None;
        for _ in 0..MAX_PAGES {
            let answer = self
                .client
                .query()
                .table_name(&self.table)
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

    /// Replaces a settled outbox item by others, in one transaction. `false` if it was settled before.
    pub async fn replace(&self, entry: &Entry, items: &[OutboxItem]) -> Result<bool, StoreError> {
        self.exchange(self.outbox.settle_done(entry)?, items).await
    }

    /// Gives an outbox item up and keeps `payload` of it; `item` does the rest of its work. In one transaction,
    /// `false` if it was settled before.
    pub async fn give_up_but(
        &self,
        entry: &Entry,
        reason: &str,
        payload: &Value,
        item: &OutboxItem,
    ) -> Result<bool, StoreError> {
        let dead = self.outbox.settle_dead(entry, reason, payload)?;
        self.exchange(dead, std::slice::from_ref(item)).await
    }

    async fn exchange(&self, settled: TransactWriteItem, items: &[OutboxItem]) -> Result<bool, StoreError> {
        let mut writes = vec![settled];
        for item in items {
            writes.push(self.outbox.put(item)?);
        }
        let request = self
            .client
            .transact_write_items()
            .set_transact_items(Some(writes));
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) if failed_conditions(&error).is_some_and(|failed| !failed.is_empty()) => Ok(false),
            Err(error) => Err(StoreError::sdk("TransactWriteItems", &error)),
        }
    }
}

/// Before the next try of a transaction, with some chance in it so that rivals do not meet again in step.
fn pause(tries: u32) -> Duration {
    let chance = uuid::Uuid::new_v4()
        .as_bytes()
        .first()
        .copied()
        .unwrap_or_default();
    let longest = 20_u64 << tries.min(5);
    Duration::from_millis(longest / 2 + longest * u64::from(chance) / 512)
}

/// Positions whose condition did not hold; `None` if it failed for another reason. Empty = another transaction
/// was in the way.
fn failed_conditions<R>(error: &SdkError<TransactWriteItemsError, R>) -> Option<Vec<usize>> {
    match error.as_service_error()? {
        TransactWriteItemsError::TransactionCanceledException(cancelled) => {
            let reasons = cancelled.cancellation_reasons().iter().enumerate();
            let failed = reasons.filter(|(_, reason)| reason.code() == Some("ConditionalCheckFailed"));
            Some(failed.map(|(at, _)| at).collect())
        }
        TransactWriteItemsError::TransactionInProgressException(_) => Some(Vec::new()),
        _ => None,
    }
}

fn key(id: &ConversationId, sort_key: &str) -> Item {
    Item::from([
        ("conversation_id".to_owned(), string(id.as_str())),
        ("sort_key".to_owned(), string(sort_key)),
    ])
}

fn text<'a>(item: &'a std::collections::HashMap<String, AttributeValue>, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

fn read_conversation(item: Item) -> Result<ConversationItem, StoreError> {
    serde_dynamo::from_item(item).map_err(|_| StoreError::unreadable("conversation read"))
}
