//! From a signed webhook to the fake Braze, through the embedded DynamoDB.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod faults;
mod fbe;
mod health;
mod house;
mod journey;
mod load;
mod moves;
mod objects;
mod refused;
mod relay;
mod relay_burst;
mod relay_faults;
mod relay_house;
mod relay_kinds;
mod relay_meanwhile;
mod relay_pace;
mod relay_replies;
mod unreadable;
mod waiting;
