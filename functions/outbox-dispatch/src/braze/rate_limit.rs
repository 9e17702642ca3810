//! How long Braze asks us to wait, in the several ways it says so.
//!
//! `X-RateLimit-Reset` has two documented meanings: the UTC epoch second of the reset, and the seconds left.
//! (<https://www.braze.com/docs/api/api_limits>)

use std::time::Duration;

use http::{HeaderMap, header::RETRY_AFTER};
use jiff::Timestamp;

/// A value above this is an epoch second (2001 or later), not a number of seconds to wait.
const EARLIEST_EPOCH_SECOND: i64 = 1_000_000_000;

/// Limits reset on the clock hour, so no honest answer is longer.
const LONGEST: Duration = Duration::from_hours(1);

/// A time that is over already is one by a clock that is ahead of ours, or a whole second cut down to none.
const SHORTEST: Duration = Duration::from_secs(1);

/// The wait that the headers ask for, from a second to an hour; `None` if they ask for none.
pub(crate) fn wait(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    let seconds = number("x-ratelimit-retry-after")
        .or_else(|| number(RETRY_AFTER.as_str()))
        .or_else(|| seconds_until_date(headers, now))
        .or_else(|| {
            let reset = number("x-ratelimit-reset")?;
            Some(if reset > EARLIEST_EPOCH_SECOND {
                reset - now.as_second()
            } else {
                reset
            })
        })?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).clamp(SHORTEST, LONGEST))
}

fn seconds_until_date(headers: &HeaderMap, now: Timestamp) -> Option<i64> {
    let date = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let at = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    Some(at.as_second() - now.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(name: &'static str, value: &str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        wait(&headers, Timestamp::from_second(1_700_000_000).unwrap()).map(|wait| wait.as_secs())
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(seconds("x-ratelimit-retry-after", "7"), Some(7));
        assert_eq!(seconds("retry-after", "8"), Some(8));
        assert_eq!(seconds("retry-after", "Tue, 14 Nov 2023 22:13:29 GMT"), Some(9));
        assert_eq!(seconds("x-ratelimit-reset", "1700000010"), Some(10));
        assert_eq!(seconds("x-ratelimit-reset", "11"), Some(11));
    }

    #[test]
    fn nonsense_is_no_wait_and_the_past_is_a_second() {
        assert_eq!(seconds("x-ratelimit-reset", "soon"), None);
        assert_eq!(seconds("x-ratelimit-remaining", "0"), None);
        assert_eq!(seconds("x-ratelimit-reset", "1600000000"), Some(1));
        assert_eq!(seconds("retry-after", "0"), Some(1));
        assert_eq!(seconds("x-ratelimit-retry-after", "99999"), Some(3600));
    }
}
