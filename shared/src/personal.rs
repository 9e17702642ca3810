//! Personal data that no log, error or `Debug` shows.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};

/// Something that says who a person is or what they wrote. Used, stored and sent as what it holds; only `Debug` shows
/// nothing of it, and there is no `Display`. Where a log has to follow a person, it takes
/// [`pseudonym`](crate::telemetry::pseudonym). Secrets are [`secrecy::SecretString`]s instead.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Personal<T>(pub T);

impl<T> Deref for Personal<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Personal<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> From<T> for Personal<T> {
    fn from(inner: T) -> Self {
        Self(inner)
    }
}

impl From<&str> for Personal<String> {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl<T> fmt::Debug for Personal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_it_holds_and_shows_nothing_of_it() {
        let mut text: Personal<String> = "+1555".into();
        text.push_str("1234");
        assert_eq!(text.as_str(), "+15551234");
        assert_eq!(
            format!("{text:?} {:?}", Some(&text)),
            "[redacted] Some([redacted])"
        );
        let stored = serde_json::to_string(&text).unwrap();
        assert_eq!(stored, r#""+15551234""#);
        assert_eq!(serde_json::from_str::<Personal<String>>(&stored).unwrap(), text);
    }
}
