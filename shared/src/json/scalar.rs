//! A value that is not a container, in whatever type it came.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Number, Value};

/// From here on a number of seconds would be the year 5138, so it is milliseconds.
const MILLISECONDS_FROM: f64 = 1e11;

/// Up to here every whole number of milliseconds is exact in an f64.
const LAST_MILLISECOND: f64 = 9_007_199_254_740_992.0;

/// A scalar of any type. Ids, numbers, booleans and times come as text as well as in their own type.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Scalar<'a> {
    /// Missing, null, or not a scalar.
    #[default]
    Absent,
    /// A boolean.
    Flag(bool),
    /// A number.
    Number(Number),
    /// A string.
    Text(Cow<'a, str>),
}

impl Scalar<'_> {
    /// The text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// As text, whatever it is; empty text is absent.
    #[must_use]
    pub fn any(&self) -> Option<String> {
        match self {
            Self::Absent => None,
            Self::Flag(flag) => Some(flag.to_string()),
            Self::Number(number) => Some(number.to_string()),
            Self::Text(text) => Some(text.clone().into_owned()).filter(|text| !text.is_empty()),
        }
    }

    /// An id: text that is not blank, or a whole number. `None` for an id of which something is lost (a fraction has
    /// lost digits, U+FFFD stands for a lost character): it might be that of another.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        let id = match self {
            Self::Text(text) => text.trim().to_owned(),
            Self::Number(number) if !number.is_f64() => number.to_string(),
            _ => return None,
        };
        (!id.is_empty() && !id.contains(char::REPLACEMENT_CHARACTER)).then_some(id)
    }

    /// A boolean, also as text (`true`, `1`, `yes` and their opposites) or number.
    #[must_use]
    pub fn boolean(&self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(*flag),
            Self::Number(number) => Some(number.as_i64()? != 0),
            Self::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" => Some(true),
                "false" | "0" | "no" => Some(false),
                _ => None,
            },
            Self::Absent => None,
        }
    }

    /// A whole number, also as text.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Number(number) => number.as_i64(),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// A number, also as text.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.as_f64(),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// A time: RFC 3339, or seconds or milliseconds since 1970 (told apart by magnitude), as number or text.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        let Some(number) = self.number() else {
            return self.text()?.trim().parse().ok();
        };
        let milliseconds = if number >= MILLISECONDS_FROM {
            number
        } else {
            number * 1000.0
        };
        if !(milliseconds > 0.0 && milliseconds <= LAST_MILLISECOND) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "in range, and fractions of a millisecond go"
        )]
        Timestamp::from_millisecond(milliseconds as i64).ok()
    }

    /// Whether it is missing, null, or not a scalar.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<'a> From<&'a Value> for Scalar<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Bool(flag) => Self::Flag(*flag),
            Value::Number(number) => Self::Number(number.clone()),
            Value::String(text) => Self::Text(text.into()),
            Value::Null | Value::Array(_) | Value::Object(_) => Self::Absent,
        }
    }
}

impl<'a> From<Option<&'a Value>> for Scalar<'a> {
    fn from(value: Option<&'a Value>) -> Self {
        value.map_or(Self::Absent, Self::from)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_text_or_whole_numbers() {
        for (value, expected) in [
            (json!(" 12 "), Some("12")),
            (json!(12), Some("12")),
            (json!(u64::MAX), Some("18446744073709551615")),
            (json!("0"), Some("0")),
            (json!(""), None),
            (json!(" "), None),
            (json!(1.5), None),
            (json!("a\u{FFFD}"), None),
            (json!(true), None),
            (json!(null), None),
            (json!(["12"]), None),
            (json!({"id": "12"}), None),
        ] {
            assert_eq!(Scalar::from(&value).id().as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn booleans_and_numbers_are_read_as_text_too() {
        for (value, expected) in [
            (json!(true), Some(true)),
            (json!("True"), Some(true)),
            (json!(" yes"), Some(true)),
            (json!(1), Some(true)),
            (json!("0"), Some(false)),
            (json!(0), Some(false)),
            (json!("no"), Some(false)),
            (json!("perhaps"), None),
            (json!(null), None),
        ] {
            assert_eq!(Scalar::from(&value).boolean(), expected, "{value}");
        }
        for (value, integer, number) in [
            (json!(-7), Some(-7), Some(-7.0)),
            (json!(" 7 "), Some(7), Some(7.0)),
            (json!(7.5), None, Some(7.5)),
            (json!("7.5"), None, Some(7.5)),
            (json!("seven"), None, None),
            (json!(true), None, None),
        ] {
            let scalar = Scalar::from(&value);
            assert_eq!((scalar.integer(), scalar.number()), (integer, number), "{value}");
        }
    }

    #[test]
    fn times_are_read_in_every_recorded_shape() {
        let expected = Timestamp::from_second(1_700_000_000).unwrap();
        for value in [
            json!(1_700_000_000),
            json!(" 1700000000 "),
            json!(1_700_000_000_000_i64),
            json!("1700000000000"),
            json!(1_700_000_000.0),
            json!("2023-11-14T22:13:20Z"),
            json!("2023-11-14T23:13:20+01:00"),
        ] {
            assert_eq!(Scalar::from(&value).time(), Some(expected), "{value}");
        }
        for value in [
            json!(0),
            json!(-5),
            json!("soon"),
            json!("NaN"),
            json!("inf"),
            json!(i64::MAX),
            json!(true),
            json!(null),
        ] {
            assert_eq!(Scalar::from(&value).time(), None, "{value}");
        }
    }
}
