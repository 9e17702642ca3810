//! Messenger and Instagram: from a signed webhook to what Braze must be told. Pure: no clock, no I/O.
//!
//! ```text
//! Verified ─payload::parse─▶ Vec<Event> ─user_ref::decide_user_ref─▶ UserRefLink
//!                               │                                        │
//!                               └────────────decide::decide◀────────────┘
//!                                    Contact + outbox items
//!                      Contact, Synced ─sync::plan─▶ identify, attributes
//! ```
//!
//! * [`key`]: channels, contacts' keys, and text that is never printed.
//! * [`event`]: what can happen, and what each kind means for a contact.
//! * [`payload`]: Meta's envelopes and items, read leniently and one by one.
//! * [`contact`]: the facts that are kept of a person, which only ever grow.
//! * [`link`]: link tokens, the proof that a person is a user.
//! * [`user_ref`]: people who are known by a plugin's `user_ref` first.
//! * [`decide`]: facts and events in, facts and outbox items out.
//! * [`sync`]: the difference between a contact and its Braze profile.

pub mod contact;
pub mod decide;
pub mod event;
pub mod key;
pub mod link;
pub mod payload;
pub mod settings;
pub mod sync;
pub mod table;
pub mod user_ref;

pub use contact::{Contact, Link, LinkedVia, Referral, Stamped};
pub use decide::{LinkCounts, Plan, Stored, decide};
pub use event::{Event, EventKind, Person};
pub use key::{Channel, ContactKey, UserRefKey};
pub use link::{LinkError, LinkKeys};
pub use payload::{Parsed, parse};
pub use user_ref::{UserRef, UserRefLink, decide_user_ref};

#[cfg(test)]
mod tests;
