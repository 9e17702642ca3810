//! The relay's two routes, from the gateway's event to the answer and what was stored.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod door;
mod inbound;
mod reply;
