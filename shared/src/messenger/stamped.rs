//! Facts of which the latest counts.

use std::cmp::Ordering;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A value with the time it was said: the later one counts, and of two at the same time the greater value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamped<T> {
    /// The time of the event that said so.
    pub at: Timestamp,
    /// What was said.
    pub value: T,
}

impl<T: Ord> Stamped<T> {
    /// Keeps the later of two registers in `register`.
    pub fn merge(register: &mut Option<Self>, other: Self) {
        let newer = register
            .as_ref()
            .is_none_or(|known| known.cmp(&other) == Ordering::Less);
        if newer {
            *register = Some(other);
        }
    }
}
