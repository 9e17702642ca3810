//! Facebook Business Extension: what a business granted, and what follows from it.
//!
//! ```text
//! Verified ─payload─▶ InstallEvent ─decide─▶ Plan { install, secret, outbox } ─▶ follow-ups
//! ```
//!
//! * [`payload`]: bodies of `fbe_install` and `business_integration_*` webhooks → [`event`]s.
//! * [`read`]: JSON as Meta and its bridges really write it → [`asset::Assets`] and [`features`].
//! * [`install`]: what is stored of a business. Never a token: those are in [`secret`].
//! * [`manager`], [`ownership`]: what each Business Manager granted, and whose the business therefore is.
//! * [`decide`]: what an event changes, and what follows from it. Pure.
//! * [`push`]: a catalog push, as far as it has come.
//! * [`view`]: what the partner's platform is sent and may read.

pub mod asset;
pub mod decide;
pub mod drift;
pub mod event;
pub mod features;
pub mod install;
pub mod manager;
pub mod ownership;
pub mod payload;
pub mod plan;
pub mod push;
pub mod read;
pub mod redact;
pub mod secret;
pub mod secrets;
pub mod settings;
pub mod table;
pub mod view;
