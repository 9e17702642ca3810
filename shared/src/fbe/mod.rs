//! Facebook Business Extension: what a business granted, and what follows from it.
//!
//! ```text
//! Verified ─payload─▶ InstallEvent ─decide─▶ Plan { install, secret, outbox } ─▶ follow-ups
//!                                                    reconcile ◀─ Graph's answer
//! ```
//!
//! * [`payload`]: bodies of `fbe_install` and `business_integration_*` webhooks → [`event`]s.
//! * [`read`]: JSON as Meta and its bridges really write it → [`asset::Assets`] and [`features`].
//! * [`install`]: what is stored of a business. Never a token: those are in [`secret`].
//! * [`decide`], [`reconcile`], [`token`]: pure decisions about an install.
//! * [`catalog`], [`catalog_push`]: the feed in batches, and how far a push has come.

pub mod asset;
pub mod catalog;
pub mod catalog_push;
pub mod decide;
pub mod event;
pub mod features;
pub mod install;
pub mod payload;
pub mod plan;
pub mod read;
pub mod reconcile;
pub mod redact;
pub mod secret;
pub mod secrets;
pub mod settings;
pub mod table;
pub mod token;
