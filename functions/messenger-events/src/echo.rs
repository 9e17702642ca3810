//! Echoes of messages that left through the bridge. Whatever became of the answer to the call, they have been sent: an item
//! that waits to be tried again is done.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use shared::messenger::event::Event;
use shared::messenger::send;
use shared::outbox::Outbox;
use shared::store::StoreError;

/// Writes under way at once.
const CONCURRENCY: usize = 32;

/// Settles these messages, each with its subject and event key.
///
/// # Errors
///
/// [`StoreError`] if the table does not answer.
pub(crate) async fn settle(outbox: &Outbox, messages: Vec<(String, String)>) -> Result<(), StoreError> {
    stream::iter(messages)
        .map(|(subject, event_key)| async move { outbox.done_key(&subject, &event_key).await })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
}

/// Subjects and event keys of the messages of ours whose echoes are among `events`.
pub(crate) fn own_messages(events: &[Event]) -> Vec<(String, String)> {
    let own = events.iter().filter_map(Event::own_message);
    own.map(|(contact, send_id)| (contact.to_string(), send::event_key(send_id)))
        .collect()
}
