//! The time, handed in from outside so that a test can set it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use jiff::Timestamp;

/// Tells the time. Cheap to clone; clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Option<Arc<Simulated>>);

/// A time that does not come from the machine.
#[derive(Debug)]
struct Simulated {
    /// Milliseconds since 1970, when [`Self::runs_since`] was read.
    at: AtomicI64,
    /// `None` = it stands still.
    runs_since: Option<Instant>,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still at `at` until [`Clock::set`] moves it.
    #[must_use]
    pub fn fixed(at: Timestamp) -> Self {
        Self::simulated(at, None)
    }

    /// A clock that shows `at` now and goes on from there.
    #[must_use]
    pub fn starting_at(at: Timestamp) -> Self {
        Self::simulated(at, Some(Instant::now()))
    }

    fn simulated(at: Timestamp, runs_since: Option<Instant>) -> Self {
        Self(Some(Arc::new(Simulated {
            at: AtomicI64::new(at.as_millisecond()),
            runs_since,
        })))
    }

    /// Moves a fixed or started clock to `at`, from where a started one goes on. The machine's is left alone.
    pub fn set(&self, at: Timestamp) {
        if let Some(simulated) = &self.0 {
            let at = at.as_millisecond() - simulated.elapsed();
            simulated.at.store(at, Ordering::SeqCst);
        }
    }

    /// Now, to the millisecond.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let millisecond = self.0.as_ref().map_or_else(machine, |simulated| {
            simulated.at.load(Ordering::SeqCst) + simulated.elapsed()
        });
        Timestamp::from_millisecond(millisecond).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

impl Simulated {
    /// Milliseconds since it was started; 0 if it stands still.
    fn elapsed(&self) -> i64 {
        let elapsed = self.runs_since.map_or(0, |since| since.elapsed().as_millis());
        i64::try_from(elapsed).unwrap_or(i64::MAX)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the machine's clock is read"
)]
fn machine() -> i64 {
    Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_fixed_clock_moves_when_it_is_set_and_takes_its_clones_along() {
        let start: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let clock = Clock::fixed(start);
        let clone = clock.clone();
        assert_eq!((clock.now(), clock.now()), (start, start));
        let later = start + SignedDuration::from_hours(1);
        clock.set(later);
        assert_eq!(clone.now(), later);
    }

    #[test]
    fn a_started_clock_goes_on_from_where_it_is_set() {
        let start: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let clock = Clock::starting_at(start);
        let (first, second) = (clock.now(), clock.now());
        assert!(start <= first && first <= second);
        let later = start + SignedDuration::from_hours(1);
        clock.set(later);
        assert!(clock.now() >= later);
        clock.set(start);
        assert!(clock.now() < later);
    }
}
