//! Removing a conversation.
//!
//! Bodies that Braze forwards carry no time, so its tries of a message that was here before are recognized by a hash of
//! the guard that the message had set.

use std::time::Duration;

use jiff::Timestamp;

use super::{CONVERSATION, Conversations, Stored, key, unpack};
use crate::erase::{Counts, tombstone};
use crate::store::table::find_all;
use crate::store::update::Update;
use crate::store::{Claim, Item, Lease, Released, StoreError, string, text, time};
use crate::whatsapp::conversation::Turn;
use crate::whatsapp::message::ConversationId;

/// The sort key of a conversation's tombstone.
const ERASED: &str = "erased";
/// What the sort keys of guards of Braze's dispatches begin with.
pub(super) const DISPATCH_GUARD: &str = "seen#dispatch#";

impl Conversations {
    /// Notes that a conversation was erased at `at`: what was taken in before makes no new one.
    pub async fn bury(&self, id: &ConversationId, at: Timestamp) -> Result<(), StoreError> {
        self.table
            .put_all(vec![tombstone::put(tombstone_key(id), at)])
            .await
    }

    /// Claims a conversation for `length`; `None` if this version cannot read it.
    pub async fn claim_whole(
        &self,
        id: &ConversationId,
        length: Duration,
    ) -> Result<Claim<Option<Stored>>, StoreError> {
        let update = Update::new(key(id, CONVERSATION)).when("attribute_exists(#facts)");
        let read = |item| {
            let stored = unpack(item);
            if let Err(error) = &stored {
                error.count_unreadable("conversation");
            }
            Ok(stored.ok())
        };
        self.table.claim(update, length, read).await
    }

    /// Ends a lease without a change.
    pub async fn give_back(&self, lease: &Lease) -> Result<Released, StoreError> {
        self.table.release(lease, lease.update()).await
    }

    /// How much there is of a conversation.
    pub async fn count(&self, id: &ConversationId) -> Result<Counts, StoreError> {
        Ok(count(&self.items(id).await?))
    }

    /// Removes what there is of a conversation; with `until`, only what was said until then: the conversation is of
    /// somebody who came back.
    pub async fn erase(&self, id: &ConversationId, until: Option<Timestamp>) -> Result<Counts, StoreError> {
        let mut items = self.items(id).await?;
        if let Some(until) = until {
            let limit = format!("{}{:015}", Turn::SORT_KEY_PREFIX, until.as_millisecond() + 1);
            items.retain(|item| {
                let sort_key = sort_key(item);
                sort_key.starts_with(Turn::SORT_KEY_PREFIX) && sort_key < limit.as_str()
            });
        }
        let guards = items.iter().filter_map(|item| {
            let until = time(item, "seen_until")?;
            let guard = Some(sort_key(item)).filter(|guard| guard.starts_with(DISPATCH_GUARD))?;
            Some(tombstone::put_until(guard_key(id, guard), until))
        });
        self.table.put_all(guards.collect()).await?;
        let erased = count(&items);
        let keys = items.iter().map(|item| key(id, sort_key(item)));
        self.table.delete_all(keys.collect()).await?;
        Ok(erased)
    }

    async fn items(&self, id: &ConversationId) -> Result<Vec<Item>, StoreError> {
        let query = self
            .table
            .query_of("conversation_id", id.as_str())
            .projection_expression("sort_key, seen_until")
            .consistent_read(true);
        find_all(query).await
    }
}

fn count(items: &[Item]) -> Counts {
    let of = |wanted: &dyn Fn(&str) -> bool| items.iter().filter(|item| wanted(sort_key(item))).count();
    Counts {
        conversations: of(&|sort_key| sort_key == CONVERSATION),
        turns: of(&|sort_key| sort_key.starts_with(Turn::SORT_KEY_PREFIX)),
        ..Counts::default()
    }
}

fn sort_key(item: &Item) -> &str {
    text(item, "sort_key").unwrap_or_default()
}

/// The key of a conversation's tombstone.
pub(super) fn tombstone_key(id: &ConversationId) -> Item {
    buried_key(id, ERASED.to_owned())
}

/// The key under which a guard of a conversation that was erased is remembered.
pub(super) fn guard_key(id: &ConversationId, guard: &str) -> Item {
    buried_key(id, tombstone::name(&format!("{}#{guard}", id.as_str())))
}

fn buried_key(id: &ConversationId, sort_key: String) -> Item {
    Item::from([
        ("conversation_id".to_owned(), string(tombstone::name(id.as_str()))),
        ("sort_key".to_owned(), string(sort_key)),
    ])
}
