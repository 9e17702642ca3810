//! How long another service asks us to wait, in the several ways it says so.
//!
//! | header | value |
//! |---|---|
//! | `Retry-After-Ms` | milliseconds |
//! | `X-RateLimit-Retry-After`, `Retry-After` | seconds, or a date |
//! | `X-RateLimit-Reset` | seconds left, or the time of the reset; counts where the limit is used up |
//!
//! A number tells its unit by its size, as Braze documents two readings of `X-RateLimit-Reset`
//! (<https://www.braze.com/docs/api/api_limits>) and other services use milliseconds and durations such as `6m0s`.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};

/// From here on a number of seconds is a time: 2001, in seconds since 1970.
const EPOCH_SECONDS: f64 = 1e9;

/// From here on it is in milliseconds: 1973. In seconds it would be the year 5138.
const EPOCH_MILLISECONDS: f64 = 1e11;

/// Limits reset on the clock hour, so no honest answer is longer.
const LONGEST: Duration = Duration::from_hours(1);

/// A time that is over already is one by a clock that is ahead of ours, or a whole second cut down to none.
const SHORTEST: Duration = Duration::from_secs(1);

/// The wait that an answer of `status` asks for, from a second to an hour; `None` if it asks for none.
pub(crate) fn wait(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim());
    let used_up = status == StatusCode::TOO_MANY_REQUESTS || text("x-ratelimit-remaining") == Some("0");
    let milliseconds = || non_negative(text("retry-after-ms")?).map(|number| seconds(number / 1e3));
    let wait = milliseconds()
        .or_else(|| read(text("x-ratelimit-retry-after")?, now))
        .or_else(|| read(text("retry-after")?, now))
        .or_else(|| read(text("x-ratelimit-reset").filter(|_| used_up)?, now))?;
    Some(bounded(wait))
}

/// A wait that somebody asks for, from a second to an hour.
pub(crate) fn bounded(wait: Duration) -> Duration {
    if wait > LONGEST {
        tracing::warn!(
            wait_seconds = wait.as_secs(),
            "a wait is cut to an hour; its unit may be another one"
        );
    }
    wait.clamp(SHORTEST, LONGEST)
}

/// A number, a duration or a date as the time from now; what is over is no time at all.
fn read(value: &str, now: Timestamp) -> Option<Duration> {
    if let Some(number) = non_negative(value) {
        let now = now.as_duration().as_secs_f64();
        return Some(match number {
            number if number < EPOCH_SECONDS => seconds(number),
            number if number < EPOCH_MILLISECONDS => seconds(number - now),
            number => seconds(number / 1e3 - now),
        });
    }
    let date = || Some(jiff::fmt::rfc2822::parse(value).ok()?.timestamp());
    if let Some(at) = date().or_else(|| value.parse().ok()) {
        return Some(at.duration_since(now).try_into().unwrap_or_default());
    }
    // Its own spelling of nothing would be an empty duration.
    let duration: SignedDuration = value.parse().ok()?;
    duration.try_into().ok()
}

fn non_negative(value: &str) -> Option<f64> {
    let number: f64 = value.parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waited(status: u16, headers: &[(&'static str, &str)]) -> Option<u64> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        wait(status, &headers, now).map(|wait| wait.as_secs())
    }

    #[test]
    fn every_form_is_read_whatever_the_status() {
        for status in [408, 425, 429, 500, 502, 503, 504] {
            for (name, value, expected) in [
                ("x-ratelimit-retry-after", "7", 7),
                ("retry-after", "8", 8),
                ("retry-after", " 8.0 ", 8),
                ("retry-after", "Tue, 14 Nov 2023 22:13:29 GMT", 9),
                ("retry-after", "2023-11-14T22:13:30Z", 10),
                ("retry-after-ms", "11000", 11),
            ] {
                assert_eq!(
                    waited(status, &[(name, value)]),
                    Some(expected),
                    "{status} {name}"
                );
            }
        }
    }

    #[test]
    fn a_reset_is_told_by_its_size() {
        for (value, expected) in [
            ("11", 11),
            ("1700000010", 10),
            ("1700000010000", 10),
            ("6m0s", 360),
            ("1h2m3s", 3600),
            ("12ms", 1),
            ("2023-11-14T22:13:30Z", 10),
        ] {
            assert_eq!(
                waited(429, &[("x-ratelimit-reset", value)]),
                Some(expected),
                "{value}"
            );
        }
    }

    #[test]
    fn a_reset_counts_only_where_the_limit_is_used_up() {
        let reset = ("x-ratelimit-reset", "1700000010");
        assert_eq!(waited(503, &[reset]), None);
        assert_eq!(waited(503, &[reset, ("x-ratelimit-remaining", "249998")]), None);
        assert_eq!(waited(503, &[reset, ("x-ratelimit-remaining", "0")]), Some(10));
    }

    #[test]
    fn the_nearest_header_counts() {
        let all = [
            ("x-ratelimit-reset", "40"),
            ("retry-after", "30"),
            ("x-ratelimit-retry-after", "20"),
            ("retry-after-ms", "10000"),
        ];
        let read: Vec<_> = (0..4).map(|cut| waited(429, &all[..=cut])).collect();
        assert_eq!(read, [Some(40), Some(30), Some(20), Some(10)]);
    }

    #[test]
    fn nonsense_is_no_wait_and_the_past_is_a_second() {
        for nonsense in ["soon", "", "-1", "-5s", "NaN", "inf"] {
            assert_eq!(
                waited(429, &[("x-ratelimit-reset", nonsense)]),
                None,
                "{nonsense}"
            );
            assert_eq!(waited(503, &[("retry-after", nonsense)]), None, "{nonsense}");
        }
        assert_eq!(waited(429, &[("x-ratelimit-remaining", "0")]), None);
        assert_eq!(waited(429, &[("x-ratelimit-reset", "1600000000")]), Some(1));
        assert_eq!(waited(429, &[("retry-after", "0")]), Some(1));
        assert_eq!(waited(429, &[("x-ratelimit-retry-after", "99999")]), Some(3600));
    }
}
