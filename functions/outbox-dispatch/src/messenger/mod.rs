//! Messenger and Instagram: what leaves for Braze.

mod pace;
pub(crate) mod send;
pub(crate) mod sync;

use serde_json::{Map, Value};

/// What is to be done for a contact.
pub(crate) enum MessengerEffect {
    /// Bring the profile up to date.
    Sync,
    /// Send this custom event.
    Event(Map<String, Value>),
}
