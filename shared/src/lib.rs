//! What the functions of meta-braze-bridge have in common.
//!
//! Data moves one way, and each room hands on a type that proves it was passed:
//!
//! ```text
//! webhook ─▶ Received ─▶ Verified ─▶ Vec<Event> ─▶ Plan ─▶ committed ─▶ 2xx
//!            bytes       same bytes   domain words   pure    DynamoDB, once
//! ```
//!
//! * [`webhook`]: the HTTP edge. Signatures, the `hub.challenge` handshake, bearer tokens, answers.
//! * [`messenger`], [`fbe`], [`whatsapp`]: one module a job. Payload → events → a pure decision.
//! * [`store`]: what DynamoDB holds, and the commits that keep it consistent.
//! * [`outbox`]: pending effects and their table; the function `outbox-dispatch` sends them.
//! * [`erase`]: forgetting a person: orders, receipts, and what keeps it done.
//! * [`clients`]: HTTP, AWS and Meta's Graph API.
//! * [`health`]: whether the app and its pages are set up at Meta, as checks with a remedy each.
//! * [`json`]: one lenient reader for JSON from outside. [`personal`]: what no log shows. [`digest`]: ids and keys.
//! * [`start`], [`secrets`], [`config`], [`telemetry`]: what every function needs at start.
//!
//! # Words
//!
//! * **Contact**: a person on one page or Instagram account; **user**: the brand's, by Braze's external id.
//! * **Subject**: what an outbox item is about: a contact, a business or a conversation. Items of one subject are settled
//!   one after the other.
//! * **Effect**: a call to Braze, Meta or an external system that follows from a webhook; an **item** is one in the outbox.
//! * **Lane**: which deployment of `outbox-dispatch` settles an item. **Tick**: a run that the schedule starts.
//! * **To settle**: to try an item and store its outcome: done, retried, waiting or dead.
//! * **Synced**, or **told**: the state of a contact that Braze has accepted.
//! * **Turn**: one message of a conversation, with its answers. **Guard**: a record that recognises a duplicate.
//! * **Tombstone**: the keyed hash by which a table recognizes who was erased.
//! * **Holder**: the contact that a link token has linked.

pub mod clients;
pub mod clock;
pub mod config;
pub mod digest;
pub mod erase;
pub mod fbe;
pub mod health;
pub mod json;
pub mod messenger;
pub mod outbox;
pub mod personal;
pub mod sdk_error;
pub mod secrets;
pub mod start;
pub mod store;
pub mod telemetry;
pub mod webhook;
pub mod whatsapp;
