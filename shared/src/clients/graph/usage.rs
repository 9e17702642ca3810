//! How much of Graph's limits is used up, and when it may be called again.
//! (<https://developers.facebook.com/docs/graph-api/overview/rate-limiting>)

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::json::{self, Scalar};

/// Fill level of the tightest limit that an answer reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Percent of the limit; calls are refused from 100 on.
    pub percent: u64,
    /// How long calls will be refused, if they are.
    pub regain: Option<Duration>,
}

impl Usage {
    /// Reads `X-App-Usage`, `X-Ad-Account-Usage` and `X-Business-Use-Case-Usage`. The last is an object of
    /// lists by the id of whatever is limited, with the time to wait in minutes.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Self {
        let mut usage = Self::default();
        for name in ["x-app-usage", "x-ad-account-usage", "x-business-use-case-usage"] {
            for value in headers.get_all(name) {
                if let Ok(value) = json::read::<Value>(value.as_bytes()) {
                    usage.add(&value, 0);
                }
            }
        }
        usage
    }

    fn add(&mut self, value: &Value, depth: u8) {
        match value {
            Value::Array(items) if depth < 3 => items.iter().for_each(|item| self.add(item, depth + 1)),
            Value::Object(members) => {
                for (name, member) in members {
                    match (name.as_str(), number(member)) {
                        (
                            "call_count" | "total_time" | "total_cputime" | "acc_id_util_pct",
                            Some(percent),
                        ) => {
                            self.percent = self.percent.max(percent);
                        }
                        ("estimated_time_to_regain_access", Some(minutes)) if minutes > 0 => {
                            let wait = Duration::from_secs(minutes.saturating_mul(60).min(7 * 24 * 3600));
                            self.regain = self.regain.max(Some(wait));
                        }
                        _ if depth < 3 => self.add(member, depth + 1),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "percentages and minutes; the cast saturates"
)]
fn number(value: &Value) -> Option<u64> {
    Scalar::from(value).number().map(|number| number.ceil() as u64)
}

/// How long an answer asks to wait: `Retry-After` in seconds, else the longest time to regain access.
#[must_use]
pub fn wait(headers: &HeaderMap) -> Option<Duration> {
    let retry_after = headers.get("retry-after").and_then(|value| {
        let seconds: u64 = value.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds.min(24 * 3600)))
    });
    retry_after.or(Usage::read(headers).regain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_documented_headers_are_read() {
        let headers = headers(&[
            (
                "x-app-usage",
                r#"{"call_count":28,"total_time":25,"total_cputime":25}"#,
            ),
            (
                "x-business-use-case-usage",
                r#"{"112130216863063":[{"type":"pages","call_count":1,"total_cputime":1,"total_time":1,"estimated_time_to_regain_access":0}],"7":[{"type":"ads","call_count":101,"estimated_time_to_regain_access":3}]}"#,
            ),
        ]);
        let usage = Usage::read(&headers);
        assert_eq!(usage.percent, 101);
        assert_eq!(usage.regain, Some(Duration::from_mins(3)));
        assert_eq!(wait(&headers), Some(Duration::from_mins(3)));
    }

    #[test]
    fn numbers_are_read_as_text_and_rounded_up() {
        let headers = headers(&[("x-app-usage", r#"{"call_count":"28.2","total_time":27}"#)]);
        assert_eq!(Usage::read(&headers).percent, 29);
    }

    #[test]
    fn a_retry_after_comes_first_and_nonsense_is_nothing() {
        assert_eq!(
            wait(&headers(&[("retry-after", "7")])),
            Some(Duration::from_secs(7))
        );
        let nonsense = headers(&[
            ("retry-after", "soon"),
            ("x-app-usage", "[[[[{}]]]]"),
            ("x-ad-account-usage", "{"),
        ]);
        assert_eq!(wait(&nonsense), None);
        assert_eq!(Usage::read(&nonsense), Usage::default());
    }
}
