//! Forgetting a person or a business: who asked for it, how far it has come, and what keeps it done.
//!
//! ```text
//! callback · keyword · operator ─▶ Order ─▶ outbox(erase) ─▶ Progress … ─▶ Receipt
//!                                                 └▶ tombstones, which every writer of a new record passes
//! ```
//!
//! * [`order`]: what is to be erased, and how far it has come; the payload of the outbox item.
//! * [`receipt`]: what is told of it, without personal data; [`counts`]: how much of what.
//! * [`tombstone`]: by which the tables recognize the late events of somebody who was erased.
//! * [`table`]: where orders and receipts are kept.

pub mod counts;
pub mod order;
pub mod receipt;
pub mod settings;
pub mod table;
pub mod tombstone;

pub use counts::Counts;
pub use order::{Found, Order, Progress, Source, Target, UnlessErased};
pub use receipt::{Receipt, Status};
pub use settings::{EraseInBraze, keywords};
pub use table::Erasures;
