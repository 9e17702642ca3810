//! What was said, read from its end.

use std::collections::{BTreeMap, HashSet};

use super::Conversations;
use crate::store::{Item, StoreError, string, text};
use crate::telemetry;
use crate::whatsapp::conversation::{Turn, TurnStatus};
use crate::whatsapp::decide::answer::MAX_HANDED_OVER;
use crate::whatsapp::message::ConversationId;
use crate::whatsapp::request::HISTORY_TURNS;

/// Turns that are read at once: the history that is told along, and as many messages as are handed over.
const PAGE: i32 = 50;

/// Messages that wait and are held in memory at a time: some handovers, each of which may be large.
const MAX_WAITING: usize = 3 * MAX_HANDED_OVER;

/// A part of what was said in a conversation.
#[derive(Debug, Default)]
pub struct Said {
    /// The oldest messages that wait and what was said before and between them, in order.
    pub turns: Vec<Turn>,
    /// Ids of messages that wait behind these.
    pub later: HashSet<String>,
    /// Ids of turns that this version cannot read, and leaves alone.
    pub unreadable: HashSet<String>,
}

/// A turn without its content.
struct Place {
    sort_key: String,
    id: String,
    waits: bool,
}

/// The key of an item of a conversation.
pub(super) fn key(id: &ConversationId, sort_key: &str) -> Item {
    Item::from([
        ("conversation_id".to_owned(), string(id.as_str())),
        ("sort_key".to_owned(), string(sort_key)),
    ])
}

impl Conversations {
    /// What the next handovers need to know: the history, the oldest messages that wait, and the turns with the ids
    /// `wanted`, as far as there are any.
    pub async fn turns(&self, id: &ConversationId, wanted: &[&str]) -> Result<Said, StoreError> {
        let mut missing: HashSet<&str> = wanted.iter().copied().collect();
        let mut places: Vec<Place> = Vec::new();
        let mut read: BTreeMap<String, Item> = BTreeMap::new();
        let mut from: Option<Item> = None;
        loop {
            let is_first = places.is_empty();
            let mut query = self
                .table
                .query()
                .key_condition_expression("conversation_id = :id AND begins_with(sort_key, :turn)")
                .expression_attribute_values(":id", string(id.as_str()))
                .expression_attribute_values(":turn", string(Turn::SORT_KEY_PREFIX))
                .scan_index_forward(false)
                .consistent_read(true)
                .set_exclusive_start_key(from.take());
            // Further back only where each turn stands: thousands may wait, and not all of them fit into memory.
            query = if is_first {
                query.limit(PAGE)
            } else {
                query
                    .projection_expression("sort_key, #status")
                    .expression_attribute_names("#status", "status")
            };
            let answer = query.send().await;
            let answer = answer.map_err(|error| StoreError::sdk("Query", &error))?;
            let page = answer.items.unwrap_or_default();
            let found: Vec<Place> = page.iter().filter_map(place).collect();
            for place in &found {
                missing.remove(place.id.as_str());
            }
            // Messages are handed over oldest first, so those that wait end where nothing waits any more.
            let waits = found.iter().any(|place| place.waits);
            if is_first {
                let keys = found.iter().map(|place| place.sort_key.clone());
                read.extend(keys.zip(page));
            }
            places.extend(found);
            from = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if from.is_none() || !waits && missing.is_empty() {
                break;
            }
        }
        places.reverse();
        self.said(id, places, wanted, read).await
    }

    /// The part of `places` that matters, with its content.
    async fn said(
        &self,
        id: &ConversationId,
        places: Vec<Place>,
        wanted: &[&str],
        mut read: BTreeMap<String, Item>,
    ) -> Result<Said, StoreError> {
        let waiting = || places.iter().enumerate().filter(|(_, place)| place.waits);
        let first = waiting().next().map_or(places.len(), |(at, _)| at);
        let from = first.saturating_sub(HISTORY_TURNS);
        let behind = waiting().nth(MAX_WAITING).map_or(places.len(), |(at, _)| at);
        let mut said = Said::default();
        let mut kept = Vec::new();
        for (at, place) in places.into_iter().enumerate() {
            if (from..behind).contains(&at) || !place.waits && wanted.contains(&place.id.as_str()) {
                kept.push(place);
            } else if place.waits {
                said.later.insert(place.id);
            }
        }
        let unread = kept.iter().filter(|place| !read.contains_key(&place.sort_key));
        let unread: Vec<Item> = unread.map(|place| key(id, &place.sort_key)).collect();
        if !unread.is_empty() {
            for item in self.table.get_all(&unread).await? {
                if let Some(place) = place(&item) {
                    read.insert(place.sort_key, item);
                }
            }
        }
        for place in kept {
            let Some(item) = read.remove(&place.sort_key) else {
                continue;
            };
            match serde_dynamo::from_item(item) {
                Ok(turn) => said.turns.push(turn),
                Err(_) => _ = said.unreadable.insert(place.id),
            }
        }
        if !said.unreadable.is_empty() {
            metrics::counter!(telemetry::UNREADABLE_ITEMS).increment(said.unreadable.len() as u64);
            tracing::error!(
                items = said.unreadable.len(),
                conversation = telemetry::pseudonym(id.as_str()),
                "turns of a conversation cannot be read by this version"
            );
        }
        Ok(said)
    }
}

/// The id is the last part of the sort key, so that also a turn that cannot be read is known by it.
fn place(item: &Item) -> Option<Place> {
    let sort_key = text(item, "sort_key")?;
    Some(Place {
        id: sort_key.rsplit('#').next()?.to_owned(),
        waits: text(item, "status") == Some(TurnStatus::Pending.into()),
        sort_key: sort_key.to_owned(),
    })
}
