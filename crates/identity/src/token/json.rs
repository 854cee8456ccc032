//! JSON as tokens and key sets need it: one member of a name an object, and integers only where a number is asked for.
//! Parsers that disagree about a repeated member are how a forged claim hides behind a checked one.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// An object whose names are all different.
pub(super) type Object = BTreeMap<String, Json>;

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Json {
    /// `true`, `false`, `null`, and numbers that are negative, fractional, written with an exponent or above 2^64-1:
    /// nothing here ever wants one of them.
    Other,
    /// An integer from 0 to 2^64-1.
    Integer(u64),
    /// A string.
    Text(String),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Object),
}

impl Json {
    /// Parses one object and nothing after it. `None` for anything else: other JSON, repeated names, invalid UTF-8,
    /// unpaired surrogates, more than 128 levels.
    pub(super) fn object(bytes: &[u8]) -> Option<Object> {
        match serde_json::from_slice(bytes) {
            Ok(Self::Object(members)) => Some(members),
            _ => None,
        }
    }

    /// The string, if it is one.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if it is one.
    pub(super) fn as_integer(&self) -> Option<u64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The elements, if it is an array.
    pub(super) fn as_array(&self) -> Option<&[Json]> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The members, if it is an object.
    pub(super) fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
        Ok(u64::try_from(number).map_or(Json::Other, Json::Integer))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Integer(number))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element()? {
            array.push(element);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = Object::new();
        while let Some((name, value)) = members.next_entry::<String, Json>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a member's name is repeated"));
            }
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_name_is_refused_at_every_depth_and_in_every_spelling() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"b":2,"a":3}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"a":2}}"#,
            r#"{"x":[{"a":1,"a":2}]}"#,
        ] {
            assert_eq!(Json::object(text.as_bytes()), None, "{text}");
        }
        assert!(Json::object(br#"{"a":1,"A":2,"x":{"a":3}}"#).is_some());
    }

    #[test]
    fn only_plain_integers_are_integers() {
        let members = Json::object(br#"{"a":0,"b":18446744073709551615,"c":-1,"d":1.0,"e":1e3,"f":18446744073709551616,"g":-0,"h":"1","i":true,"j":null}"#).unwrap();
        assert_eq!(members["a"], Json::Integer(0));
        assert_eq!(members["b"], Json::Integer(u64::MAX));
        for name in ["c", "d", "e", "f", "g", "h", "i", "j"] {
            assert_eq!(members[name].as_integer(), None, "{name}");
        }
    }

    #[test]
    fn what_is_not_one_json_object_is_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
        for text in
            ["", "[]", "1", "\"a\"", "null", "{}{}", "{} x", "{'a':1}", "{\"a\":1,}", "{\"a\":01}", "\u{feff}{}", &deep]
        {
            assert_eq!(Json::object(text.as_bytes()), None, "{text}");
        }
        for bytes in
            [&b"{\"a\":\"\xff\"}"[..], b"{\"a\":\"\\ud800\"}", b"{\"a\":\"\x01\"}", b"{\"a\":\"\xed\xa0\x80\"}"]
        {
            assert_eq!(Json::object(bytes), None);
        }
        assert_eq!(Json::object(b" { } \n"), Some(Object::new()));
    }
}
