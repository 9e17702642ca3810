//! Whether the app and its pages are set up at Meta: what Graph answers, as checks with a remedy each.
//!
//! `bridge setup`, `bridge doctor` and the stack's own health check read the same checks. All but [`look`] is pure.
//!
//! * [`check`]: a check and its status.
//! * [`settings`]: the fields that are wanted.
//! * [`subscription`]: the app's subscription, and a page's.
//! * [`token`]: a page's token.
//! * [`refusal`]: what to do about what Graph refuses.
//! * [`look`]: asks Graph.

/// The subject of the outbox items that ask for a look at the app and its pages.
pub const SUBJECT: &str = "health";

pub mod check;
pub mod look;
pub mod refusal;
pub mod settings;
pub mod subscription;
pub mod token;

pub use check::{Check, Status};
pub use look::{Seen, look_at_pages, subscribe_page};
pub use settings::HealthSettings;
