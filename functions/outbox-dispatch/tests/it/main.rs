//! From a signed webhook to the fake Braze, through the embedded DynamoDB.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod erase;
mod fbe;
mod health;
mod messenger;
mod mortal;
mod unreadable;
mod waiting;
mod whatsapp;
