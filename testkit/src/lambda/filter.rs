//! The event patterns by which a stream's records are chosen: the part of EventBridge's language that tables
//! are filtered by. An operator that is not known here is an error, never a pattern that lets everything by.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

/// A pattern, parsed.
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// use serde_json::json;
/// let pattern = testkit::lambda::Pattern::parse(r#"{"eventName": ["INSERT"]}"#)?;
/// assert!(pattern.matches(&json!({"eventName": "INSERT", "eventID": "1"})));
/// assert!(!pattern.matches(&json!({"eventName": "MODIFY"})));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern(Node);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    /// Every member has to match.
    Object(Vec<(String, Node)>),
    /// One of the tests has to pass.
    Any(Vec<Test>),
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    Equals(Value),
    Prefix(String),
    Exists(bool),
    AnythingBut(Vec<Value>),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// When it is not JSON, not an object, or uses an operator besides plain values, `prefix`, `exists` and
    /// `anything-but`.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let pattern: Value = serde_json::from_str(text).context("an event pattern is not JSON")?;
        let Value::Object(object) = pattern else {
            bail!("an event pattern is a JSON object");
        };
        Ok(Self(node(object)?))
    }

    /// Whether the event fits.
    #[must_use]
    pub fn matches(&self, event: &Value) -> bool {
        self.0.matches(Some(event))
    }
}

fn node(object: Map<String, Value>) -> anyhow::Result<Node> {
    let mut members = Vec::new();
    for (key, value) in object {
        let member = match value {
            Value::Object(inner) => node(inner)?,
            Value::Array(tests) => Node::Any(tests.into_iter().map(test).collect::<Result<_, _>>()?),
            _ => bail!("event pattern: {key} has to be an object or a list"),
        };
        members.push((key, member));
    }
    Ok(Node::Object(members))
}

fn test(value: Value) -> anyhow::Result<Test> {
    let Value::Object(operator) = value else {
        return Ok(Test::Equals(value));
    };
    let mut operators = operator.into_iter();
    Ok(match (operators.next(), operators.next()) {
        (Some((name, argument)), None) => match (name.as_str(), argument) {
            ("prefix", Value::String(prefix)) => Test::Prefix(prefix),
            ("exists", Value::Bool(exists)) => Test::Exists(exists),
            ("anything-but", Value::Array(values)) => Test::AnythingBut(values),
            ("anything-but", value @ (Value::String(_) | Value::Number(_))) => Test::AnythingBut(vec![value]),
            (name, _) => bail!("event pattern: the operator {name} is not known here"),
        },
        _ => bail!("event pattern: an operator is an object with one member"),
    })
}

impl Node {
    fn matches(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Object(members) => members
                .iter()
                .all(|(key, node)| node.matches(value.and_then(|value| value.get(key)))),
            // A list in the event matches if one of its members does.
            Self::Any(tests) => tests.iter().any(|test| match value {
                Some(Value::Array(values)) => values.iter().any(|value| test.passes(Some(value))),
                value => test.passes(value),
            }),
        }
    }
}

impl Test {
    fn passes(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Equals(expected), Some(value)) => expected == value,
            (Self::Prefix(prefix), Some(Value::String(text))) => text.starts_with(prefix.as_str()),
            (Self::Exists(exists), value) => *exists == value.is_some(),
            (Self::AnythingBut(values), Some(value)) => !values.contains(value),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(name: &str, lane: &str) -> Value {
        json!({"eventName": name, "dynamodb": {"NewImage": {"lane": {"S": lane}, "tries": {"N": "1"}}}})
    }

    #[test]
    fn a_lane_gets_its_own_inserts() {
        let text = r#"{"eventName":["INSERT"],"dynamodb":{"NewImage":{"lane":{"S":["sync"]}}}}"#;
        let pattern = Pattern::parse(text).unwrap();
        assert!(pattern.matches(&record("INSERT", "sync")));
        assert!(!pattern.matches(&record("INSERT", "relay")));
        assert!(!pattern.matches(&record("MODIFY", "sync")));
        assert!(!pattern.matches(&json!({"eventName": "INSERT", "dynamodb": {}})));
    }

    #[test]
    fn operators() {
        for (pattern, matching) in [
            (r#"{"a":[{"prefix":"ab"}]}"#, true),
            (r#"{"a":[{"prefix":"b"}]}"#, false),
            (r#"{"a":[{"exists":true}]}"#, true),
            (r#"{"a":[{"exists":false}]}"#, false),
            (r#"{"b":[{"exists":false}]}"#, true),
            (r#"{"b":[{"anything-but":["x"]}]}"#, false),
            (r#"{"a":[{"anything-but":["x"]}]}"#, true),
            (r#"{"a":[{"anything-but":"abc"}]}"#, false),
            (r#"{"a":["x","abc"]}"#, true),
            (r#"{"list":["two"]}"#, true),
            (r#"{"list":["three"]}"#, false),
            (r#"{"n":[1]}"#, true),
            (r#"{"n":["1"]}"#, false),
            (r#"{"a":[]}"#, false),
        ] {
            let event = json!({"a": "abc", "list": ["one", "two"], "n": 1});
            assert_eq!(
                Pattern::parse(pattern).unwrap().matches(&event),
                matching,
                "{pattern}"
            );
        }
    }

    #[test]
    fn what_is_not_understood_lets_nothing_by() {
        for text in [
            "",
            "[]",
            r#"{"a":"x"}"#,
            r#"{"a":[{"numeric":[">",1]}]}"#,
            r#"{"a":[{"prefix":1}]}"#,
        ] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }
}
