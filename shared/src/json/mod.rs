//! JSON from outside, read leniently: one reader for what Meta, Braze, external systems and feeds send.
//!
//! The grammar of JSON allows what `serde_json` refuses or rounds. It is mended in the text ([`text`]), so that
//! whatever reads the text afterwards is `serde_json` itself: a byte order mark is skipped, half an emoji becomes
//! U+FFFD in values and in keys, integers beyond 64 bits keep their digits (as a string), bytes that are not
//! UTF-8 become U+FFFD, and what nests deeper than `serde_json` goes becomes null.
//!
//! Types for fields that may hold anything: [`Scalar`], [`Object`], [`List`].

mod lenient;
mod mend;
mod scalar;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::error::Category;

pub use lenient::{List, Members, Object};
pub(crate) use mend::unicode_escape;
pub use mend::{decode, text};
pub use scalar::Scalar;

/// Why JSON could not be read: the place and the kind, never what stood there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not JSON.
    #[error("not JSON at line {line}, column {column}")]
    Syntax {
        /// From 1.
        line: usize,
        /// In bytes, from 1.
        column: usize,
    },
    /// It is JSON, of another shape than the type asked for.
    #[error("{problem} at line {line}, column {column}")]
    Shape {
        /// `missing field …`, or that a value has the wrong type.
        problem: String,
        /// From 1.
        line: usize,
        /// In bytes, from 1.
        column: usize,
    },
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        if error.classify() != Category::Data {
            return Self::Syntax { line, column };
        }
        // Of serde's messages only this one names a field of ours; the others quote the value.
        let problem = error.to_string();
        let problem = match problem.split(" at line ").next() {
            Some(missing) if missing.starts_with("missing field") => missing.to_owned(),
            _ => "a value of another type".to_owned(),
        };
        Self::Shape {
            problem,
            line,
            column,
        }
    }
}

/// Reads `body`.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    parse(&text(body))
}

/// Reads what [`text`] gave, or a part of it; for types that borrow from it.
pub fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Error> {
    Ok(serde_json::from_str(text)?)
}

/// The scalar member `name` of `object`; absent if `object` is no object.
#[must_use]
pub fn member<'a>(object: &'a Value, name: &str) -> Scalar<'a> {
    object.get(name).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        scalar.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    /// As Meta writes it: everything outside ASCII is escaped.
    fn escaped(json: &str) -> String {
        let escape = |character: char| {
            if matches!(character, ' '..='~') {
                return character.to_string();
            }
            let mut units = [0; 2];
            let units = character.encode_utf16(&mut units);
            units
                .iter()
                .fold(String::new(), |text, unit| text + &format!("\\u{unit:04X}"))
        };
        json.chars().map(escape).collect()
    }

    /// What may be a string or a number.
    fn pieces() -> impl Strategy<Value = String> {
        let of = |pieces: &'static [&'static str]| {
            proptest::collection::vec(proptest::sample::select(pieces), 0..6)
                .prop_map(|pieces| pieces.concat())
        };
        prop_oneof![
            of(&[
                "\\",
                "\\u",
                "\\ud83d",
                "\\ude00",
                "d83d",
                "\\\"",
                "u",
                "a",
                "é",
                "[",
                "1",
                "99999999999999999999"
            ])
            .prop_map(|inside| format!("\"{inside}\"")),
            of(&[
                "-",
                "+",
                ".",
                "e",
                "E",
                "0",
                "1",
                "999999999",
                "12345678901234567890"
            ]),
        ]
    }

    /// Equal, but for numbers that `serde_json` rounds.
    fn same(read: &Value, expected: &Value) -> bool {
        match (read, expected) {
            (Value::String(digits), Value::Number(rounded)) => {
                rounded.is_f64() && digits.parse::<f64>().ok() == rounded.as_f64()
            }
            (Value::Array(read), Value::Array(expected)) => {
                read.len() == expected.len()
                    && read
                        .iter()
                        .zip(expected)
                        .all(|(read, expected)| same(read, expected))
            }
            (Value::Object(read), Value::Object(expected)) => {
                read.keys().eq(expected.keys())
                    && read
                        .values()
                        .zip(expected.values())
                        .all(|(read, expected)| same(read, expected))
            }
            _ => read == expected,
        }
    }

    proptest! {
        #[test]
        fn what_serde_json_reads_is_read_the_same_and_not_copied(value in any_json()) {
            for json in [value.to_string(), escaped(&value.to_string())] {
                let text = text(json.as_bytes());
                prop_assert!(matches!(text, std::borrow::Cow::Borrowed(_)), "{}", json);
                let expected: Value = serde_json::from_str(&json).unwrap();
                prop_assert_eq!(parse::<Value>(&text).unwrap(), expected);
            }
        }

        #[test]
        fn strings_and_numbers_of_any_pieces_are_read_the_same(values in proptest::collection::vec(pieces(), 1..3)) {
            let json = format!("[{0},{{{1}:{0}}}]", values.join(","), values.last().unwrap());
            if let Ok(expected) = serde_json::from_str::<Value>(&json) {
                let read = read::<Value>(json.as_bytes()).unwrap();
                prop_assert!(same(&read, &expected), "{} {}", read, expected);
            }
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(expected) = serde_json::from_slice::<Value>(&bytes) {
                prop_assert_eq!(read::<Value>(&bytes), Ok(expected));
            }
        }
    }

    #[test]
    fn an_error_says_where_and_never_what() {
        #[derive(Debug, Deserialize)]
        struct Shape {
            #[expect(dead_code, reason = "only its error is looked at")]
            id: u8,
        }
        for (json, expected) in [
            ("{\"id\":\n x}", "not JSON at line 2, column 2"),
            ("{}", "missing field `id` at line 1, column 2"),
            (
                r#"{"id":"+15551234567"}"#,
                "a value of another type at line 1, column 20",
            ),
        ] {
            let error = read::<Shape>(json.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(!format!("{error:?}").contains("555"));
        }
    }

    #[test]
    fn members_are_scalars_and_nothing_else_has_any() {
        let object = json!({"id": 7, "list": [1]});
        assert_eq!(member(&object, "id").id().as_deref(), Some("7"));
        assert_eq!(member(&object, "list"), Scalar::Absent);
        assert_eq!(member(&json!([1]), "id"), Scalar::Absent);
    }
}
