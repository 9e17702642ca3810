//! When a failed item is tried again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use shared::config::Env;

/// No wait is shorter, a server's neither, or the tick that failed would meet the item again in its next round.
const SHORTEST: Duration = Duration::from_secs(1);

/// No wait of ours is longer; a server's own may be.
const LONGEST: Duration = Duration::from_hours(1);

/// But not longer than this: more is a mistake in the unit, or of somebody who means harm.
const LONGEST_TOLD: Duration = Duration::from_hours(24);

/// Exponential backoff with full jitter, doubling from a base to an hour, given up after a while.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    base: Duration,
    keep_trying: SignedDuration,
}

impl Backoff {
    /// Reads `RETRY_BASE_SECONDS`, the first step, and `RETRY_FOR_HOURS`, after which an item is dead.
    pub fn read(env: &mut Env<'_>) -> Self {
        let base = env.seconds("RETRY_BASE_SECONDS", 60);
        let hours: u32 = env.parsed("RETRY_FOR_HOURS", 36, "a whole number of hours");
        if base.is_zero() {
            env.problem("RETRY_BASE_SECONDS is 0, but expects at least 1");
        }
        Self {
            base,
            keep_trying: SignedDuration::from_hours(hours.into()),
        }
    }

    /// When to try again after `attempts` failures of something that began at `created`, or `None` if it has
    /// been tried for long enough. The server's own `wait` wins over ours.
    #[must_use]
    pub fn next(
        &self,
        now: Timestamp,
        created: Timestamp,
        attempts: u32,
        wait: Option<Duration>,
    ) -> Option<Timestamp> {
        if now.duration_since(created) >= self.keep_trying {
            return None;
        }
        let wait = wait.map_or_else(|| self.pause(attempts), |told| told.clamp(SHORTEST, LONGEST_TOLD));
        now.checked_add(wait).ok()
    }

    /// When to try again what is never given up: after `wait`, or as long as `attempts` failures suggest, but
    /// within an hour.
    #[must_use]
    pub fn within_an_hour(&self, now: Timestamp, attempts: u32, wait: Option<Duration>) -> Timestamp {
        let wait = wait.unwrap_or_else(|| self.pause(attempts));
        now + wait.clamp(SHORTEST, LONGEST)
    }

    fn pause(&self, attempts: u32) -> Duration {
        let longest = self
            .base
            .saturating_mul(2_u32.saturating_pow(attempts))
            .min(LONGEST);
        // Jitter, so that items that failed together do not come back together.
        longest.mul_f64(fastrand::f64()).max(SHORTEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Env::from_pairs(&[]).finish(Backoff::read).unwrap()
    }

    #[test]
    fn waits_grow_to_an_hour_and_vary() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let waits = |attempts| -> Vec<i64> {
            (0..200)
                .map(|_| backoff().next(now, now, attempts, None).unwrap().as_second() - now.as_second())
                .collect()
        };
        assert!(waits(0).iter().all(|wait| (1..=60).contains(wait)));
        let late = waits(20);
        assert!(late.iter().all(|wait| (1..=3600).contains(wait)));
        assert!(late.iter().max() != late.iter().min(), "full jitter spreads");
        assert!(late.iter().any(|wait| *wait > 600), "the waits grow");
    }

    #[test]
    fn a_servers_wait_wins() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let next = backoff().next(now, now, 0, Some(Duration::from_secs(7))).unwrap();
        assert_eq!(next.as_second() - now.as_second(), 7);
    }

    #[test]
    fn who_says_that_no_time_is_to_be_waited_is_left_alone_for_a_second() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let next = backoff().next(now, now, 0, Some(Duration::ZERO)).unwrap();
        assert_eq!(next.as_second() - now.as_second(), 1);
        let next = backoff().within_an_hour(now, 0, Some(Duration::ZERO));
        assert_eq!(next.as_second() - now.as_second(), 1);
    }

    #[test]
    fn after_36_hours_it_is_given_up() {
        let created = Timestamp::from_second(1_700_000_000).unwrap();
        let later = created + SignedDuration::from_hours(36);
        assert_eq!(backoff().next(later, created, 3, None), None);
        assert!(
            backoff()
                .next(later - SignedDuration::from_secs(1), created, 3, None)
                .is_some()
        );
    }

    #[test]
    fn what_is_never_given_up_is_tried_every_hour() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let wait = |attempts, wait| {
            let next = backoff().within_an_hour(now, attempts, wait);
            next.as_second() - now.as_second()
        };
        assert!((0..200).all(|_| wait(1_000, None) <= 3600));
        assert_eq!(wait(0, Some(Duration::from_hours(5))), 3600);
        assert_eq!(wait(0, Some(Duration::from_secs(7))), 7);
    }
}
