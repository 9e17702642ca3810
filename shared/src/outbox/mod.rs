//! The transactional outbox: effects that are committed together with the state they follow from, and leave
//! afterwards.
//!
//! A webhook function never calls Braze, Meta or the external system before it answers. It commits
//! [`OutboxItem`]s; the function `outbox-dispatch` is woken by the table's stream and by a schedule, and settles
//! them one by one. So a dead third party costs delay, not data.

mod due;
mod entry;
mod erase;
pub mod item;
mod quarantine;
mod reason;
mod table;

pub use due::{Due, Position};
pub use entry::{Entry, SHARDS, Status, UnreadablePayload};
pub use item::{Kind, Lane, OutboxItem};
pub use quarantine::{Kept, Quarantined};
pub use reason::Reason;
pub use table::Outbox;
pub(crate) use table::key;
