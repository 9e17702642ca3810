//! The webhook's edge, and what it leaves in DynamoDB and Secrets Manager.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod edge;
mod erased;
mod house;
mod installs;
mod order;
mod secret;
