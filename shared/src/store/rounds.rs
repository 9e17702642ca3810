//! Doing something again until no other writer is in the way: with jitter, and with an end.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use super::StoreError;

/// How long to go on in all, unless told otherwise: a webhook's sender waits for the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The rounds of reading, deciding and writing, or of one write that meets conflicts.
///
/// The pauses double from 10 ms to 250 ms. Each is stretched by up to its own length (jitter), so that two writers
/// do not collide again.
pub struct Rounds {
    pauses: <ExponentialBuilder as BackoffBuilder>::Backoff,
    reason: &'static str,
}

impl Rounds {
    /// Rounds that end with [`StoreError::conflict`] and this reason.
    #[must_use]
    pub fn new(reason: &'static str) -> Self {
        Self::within(PATIENCE, reason)
    }

    /// Rounds whose pauses add up to `patience` at most.
    #[must_use]
    pub fn within(patience: Duration, reason: &'static str) -> Self {
        let pauses = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(10))
            .with_max_delay(Duration::from_millis(250))
            .without_max_times()
            .with_total_delay(Some(patience))
            .with_jitter();
        Self {
            pauses: pauses.build(),
            reason,
        }
    }

    /// Waits for the next round.
    ///
    /// # Errors
    ///
    /// [`StoreError::conflict`] if there is none.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        let pause = self.pauses.next();
        tokio::time::sleep(pause.ok_or_else(|| StoreError::conflict(self.reason))?).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rounds_end_and_say_why() {
        let began = tokio::time::Instant::now();
        let mut rounds = Rounds::new("the other writer never stops");
        let mut passed = 0;
        let error = loop {
            match rounds.next().await {
                Ok(()) => passed += 1,
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("the other writer never stops"));
        assert!((6..20).contains(&passed), "{passed}");
        assert!(began.elapsed() <= PATIENCE + Duration::from_millis(50));
    }

    #[test]
    fn two_writers_do_not_wait_equally_long() {
        let pauses = || Rounds::new("").pauses.take(5).collect::<Vec<_>>();
        assert_ne!(pauses(), pauses());
    }
}
