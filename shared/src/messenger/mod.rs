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
//! * [`event`]: what can happen.
//! * [`act`]: what each kind of event means for a contact, in one table.
//! * [`payload`]: Meta's envelopes and items, read leniently and one by one.
//! * [`contact`]: the facts that are kept of a person, which only ever grow.
//! * [`window`]: when the 24 hours end, and [`topic`]: consent to marketing messages.
//! * [`late`]: events of people who were erased since.
//! * [`link`]: link tokens, and [`proof`]: whom they prove, once each.
//! * [`user_ref`]: people who are known by a plugin's `user_ref` first.
//! * [`decide`]: facts and events in, facts and outbox items out.
//! * [`send`]: what may be sent to whom through us, and what Meta's answers mean.
//! * [`sync`]: the difference between a contact and its Braze profile.

pub mod act;
pub mod contact;
mod custom_event;
pub mod decide;
pub mod event;
pub mod key;
pub mod late;
pub mod link;
pub mod payload;
pub mod proof;
pub mod send;
pub mod settings;
pub mod stamped;
pub mod sync;
pub mod table;
pub mod topic;
pub mod user_ref;
pub mod window;

pub use act::{Act, Effect};
pub use contact::{Contact, Link, LinkedVia, Referral};
pub use decide::{Plan, decide};
pub use event::{Event, EventKind, Person};
pub use key::{Channel, ContactKey, UserRefKey};
pub use link::{LinkError, LinkKeys};
pub use payload::{Parsed, parse};
pub use proof::{Holders, Judge, LinkCounts};
pub use stamped::Stamped;
pub use sync::Stored;
pub use user_ref::{UserRef, UserRefLink, decide_user_ref};

#[cfg(test)]
mod tests;
