//! The whole house through its HTTP API, and the command as people and scripts use it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod browser;
mod console;
mod cost;
mod crash;
mod dead;
mod erase;
mod events;
mod fbe;
mod house;
mod openapi;
mod order;
mod process;
mod setup;
mod usage;
