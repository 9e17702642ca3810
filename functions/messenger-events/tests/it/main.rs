//! `messenger-events` on the embedded AWS.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod contacts;
mod edge;
mod house;
