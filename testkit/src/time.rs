//! The time in tests, and waiting for what other tasks and processes bring about.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// When tests begin by their own clocks, whatever the day is: 2026-11-21T10:00:00Z, in milliseconds since 1970.
pub const START_MILLISECONDS: i64 = 1_795_255_200_000;

/// [`START_MILLISECONDS`] as a timestamp.
#[must_use]
pub fn start() -> Timestamp {
    Timestamp::from_millisecond(START_MILLISECONDS).unwrap_or_default()
}

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// How often a condition is looked at that rings no bell.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds, for [`PATIENCE`] at most. Says whether it does.
pub async fn eventually(condition: impl AsyncFnMut() -> bool) -> bool {
    eventually_within(PATIENCE, condition).await
}

/// The same for another time.
pub async fn eventually_within(patience: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    while !condition().await {
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_begin_on_a_saturday_morning() {
        assert_eq!(start().to_string(), "2026-11-21T10:00:00Z");
    }

    #[tokio::test(start_paused = true)]
    async fn a_condition_is_asked_until_it_holds_or_time_is_up() {
        let mut asked = 0;
        let holds = eventually(async || {
            asked += 1;
            asked == 3
        });
        assert!(holds.await);
        assert_eq!(asked, 3);
        let begin = Instant::now();
        assert!(!eventually(async || false).await);
        assert!(begin.elapsed() >= PATIENCE);
    }
}
