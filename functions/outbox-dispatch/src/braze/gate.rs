//! When many requests must stop.

use std::sync::OnceLock;

use tokio::time::Instant;

use super::BrazeError;

/// Whether another request may begin: not after a time, and not once Braze throttles, is out of reach or
/// refuses the key.
pub(super) struct Gate {
    last_start: Instant,
    shut: OnceLock<BrazeError>,
}

impl Gate {
    pub(super) fn new(last_start: Instant) -> Self {
        Self {
            last_start,
            shut: OnceLock::new(),
        }
    }

    pub(super) fn check(&self) -> Result<(), BrazeError> {
        if let Some(error) = self.shut.get() {
            return Err(error.clone());
        }
        if Instant::now() > self.last_start {
            return Err(BrazeError::OutOfTime);
        }
        Ok(())
    }

    /// Notes how a request failed.
    pub(super) fn failed(&self, error: &BrazeError) {
        if error.is_outage() {
            self.shut.get_or_init(|| error.clone());
        }
    }
}
