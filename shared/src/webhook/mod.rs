//! The HTTP edge: who may speak to us, and what we answer.
//!
//! ```text
//! Received ──verify──▶ Verified ──▶ a job's parser
//! ```
//!
//! Only [`signature`] makes a [`Verified`], and Meta's payload parsers take nothing else, so an unsigned
//! byte cannot reach them: forgetting the check does not compile. [`signed_request`] does the same for the forms that
//! Meta signs in another way.

pub mod access;
pub mod answer;
pub mod bearer;
pub mod handshake;
pub mod meta;
pub mod receive;
pub mod signature;
pub mod signed_request;
pub mod standard;

pub use answer::{Answer, ErrorCode, secrets_unavailable};
pub use signature::{Received, Verified};
