//! Types of fields that take every JSON type: a value of another type reads as absent and never fails what is
//! around it, and what is not asked for is skipped without being built, however deep it nests.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

use super::Scalar;

/// An object, or what stands where one should be. A derived struct alone would take a list as well, by the order of
/// its fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Object<T> {
    /// Missing or null.
    #[default]
    Absent,
    /// There, and not an object.
    Other,
    /// An object.
    Is(T),
}

impl<T> Object<T> {
    /// The object, if it is one.
    #[must_use]
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Is(object) => Some(object),
            Self::Absent | Self::Other => None,
        }
    }

    /// Whether it is missing or null.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// A list, or what stands where one should be.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum List<T> {
    /// Missing or null.
    #[default]
    Absent,
    /// There, and not a list.
    Other,
    /// A list.
    Is(Vec<T>),
}

impl<T> List<T> {
    /// Its members; none if it is no list.
    #[must_use]
    pub fn members(&self) -> &[T] {
        match self {
            Self::Is(members) => members,
            Self::Absent | Self::Other => &[],
        }
    }
}

/// The members of an object in their order, repeated keys too.
#[serde_with::serde_as]
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Members(#[serde_as(as = "serde_with::Map<_, _>")] pub Vec<(String, Value)>);

/// A type that is made of any JSON value.
trait Lenient<'de>: Default {
    /// Of what it does not look into.
    fn other() -> Self;

    fn scalar(scalar: Scalar<'de>) -> Self {
        if scalar.is_absent() {
            Self::default()
        } else {
            Self::other()
        }
    }

    fn list<A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        IgnoredAny.visit_seq(list)?;
        Ok(Self::other())
    }

    fn object<A: MapAccess<'de>>(object: A) -> Result<Self, A::Error> {
        IgnoredAny.visit_map(object)?;
        Ok(Self::other())
    }
}

impl<'de> Lenient<'de> for Scalar<'de> {
    fn scalar(scalar: Scalar<'de>) -> Self {
        scalar
    }

    fn other() -> Self {
        Self::Absent
    }
}

impl<'de, T: Deserialize<'de>> Lenient<'de> for Object<T> {
    fn other() -> Self {
        Self::Other
    }

    fn object<A: MapAccess<'de>>(object: A) -> Result<Self, A::Error> {
        T::deserialize(MapAccessDeserializer::new(object)).map(Self::Is)
    }
}

impl<'de, T: Deserialize<'de>> Lenient<'de> for List<T> {
    fn other() -> Self {
        Self::Other
    }

    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = list.next_element()? {
            members.push(member);
        }
        Ok(Self::Is(members))
    }
}

struct Any<T>(PhantomData<T>);

impl<'de, T: Lenient<'de>> Visitor<'de> for Any<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::scalar(Scalar::Absent))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<T, E> {
        Ok(T::scalar(Scalar::Flag(flag)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<T, E> {
        Ok(T::scalar(Scalar::Number(number.into())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<T, E> {
        Ok(T::scalar(Scalar::Number(number.into())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<T, E> {
        let number = Number::from_f64(number);
        Ok(T::scalar(number.map_or(Scalar::Absent, Scalar::Number)))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<T, E> {
        Ok(T::scalar(Scalar::Text(text.into())))
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(T::scalar(Scalar::Text(text.to_owned().into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
        T::list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<T, A::Error> {
        T::object(object)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any::<Scalar<'de>>(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::read;
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, bound(deserialize = "'de: 'a"))]
    struct Item<'a> {
        id: Scalar<'a>,
        party: Object<Party<'a>>,
        list: List<Object<Party<'a>>>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, bound(deserialize = "'de: 'a"))]
    struct Party<'a> {
        id: Scalar<'a>,
    }

    fn item(json: &str) -> Item<'_> {
        super::super::parse(json).unwrap()
    }

    #[test]
    fn every_type_is_taken_everywhere() {
        for value in [
            "null",
            "7",
            "-7",
            "7.5",
            "true",
            r#""a""#,
            "[[1]]",
            r#"{"x":[{}]}"#,
        ] {
            let json = format!(r#"{{"id":{value},"party":{value},"list":{value},"more":{value}}}"#);
            let item = item(&json);
            let value: Value = serde_json::from_str(value).unwrap();
            assert_eq!(item.id, Scalar::from(&value), "{value}");
            assert_eq!(item.party.get().is_some(), value.is_object(), "{value}");
            assert_eq!(item.party.is_absent(), value.is_null(), "{value}");
            assert_eq!(
                item.list.members().len(),
                value.as_array().map_or(0, Vec::len),
                "{value}"
            );
        }
        assert_eq!(item("{}"), Item::default());
    }

    #[test]
    fn a_list_is_no_object_by_the_order_of_its_fields() {
        assert_eq!(item(r#"{"party":["7"]}"#).party, Object::Other);
        assert_eq!(
            item(r#"{"list":[["7"],{"id":"7"}]}"#).list.members()[0],
            Object::Other
        );
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        for (json, borrowed) in [(r#"{"id":"a"}"#, true), (r#"{"id":"\u00e9"}"#, false)] {
            let Scalar::Text(text) = item(json).id else {
                panic!("{json}");
            };
            assert_eq!(matches!(text, std::borrow::Cow::Borrowed(_)), borrowed, "{json}");
        }
    }

    #[test]
    fn members_keep_their_order_and_repetitions() {
        let Members(members) = read(br#"{"b":1,"a":2,"b":3}"#).unwrap();
        let members: Vec<_> = members.iter().map(|(key, value)| (key.as_str(), value)).collect();
        assert_eq!(members, [("b", &json!(1)), ("a", &json!(2)), ("b", &json!(3))]);
        assert!(read::<Members>(b"[1]").is_err());
    }
}
