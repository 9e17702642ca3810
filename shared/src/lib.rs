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
//! * [`outbox`]: effects that are still to leave, and the dispatcher that sends them.
//! * [`clients`]: Braze, Meta's Graph API, the external system.
//! * [`health`]: whether the app and its pages are set up at Meta, as checks with a remedy each.
//! * [`json`]: one lenient reader for JSON from outside. [`personal`]: what no log shows. [`digest`]: ids and keys.
//! * [`secrets`], [`config`], [`telemetry`]: what every function needs at start.

pub mod clients;
pub mod clock;
pub mod config;
pub mod digest;
pub mod fbe;
pub mod health;
pub mod json;
pub mod messenger;
pub mod outbox;
pub mod personal;
pub mod secrets;
pub mod store;
pub mod telemetry;
pub mod webhook;
pub mod whatsapp;
