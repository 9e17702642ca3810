//! What we speak to: AWS, Braze, Meta's Graph API, the external system.
//!
//! The clients know nothing of the store, and the store nothing of them.

pub mod aws;
pub mod graph;
pub mod http;
