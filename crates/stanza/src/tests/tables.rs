//! The tables say what the .proto says.

use std::collections::BTreeMap;

use crate::shape::{Field, Form, Shape, Times, Value};
use crate::shapes;

/// A field of a message: its type, its number, and whether it is repeated.
type Known = BTreeMap<String, (String, u32, bool)>;

/// Reads `message X { type name = number; }` from the .proto; arms of a oneof count as fields of the message.
fn messages() -> BTreeMap<String, Known> {
    let mut messages = BTreeMap::new();
    for file in ["stanza", "handshake"] {
        let path = format!("{}/../../proto/causeway/wire/v1/{file}.proto", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).expect(&path);
        let mut current: Option<String> = None;
        for line in text.lines().map(|line| line.split("//").next().unwrap_or_default().trim()) {
            let words: Vec<&str> = line.split([' ', ';']).filter(|word| !word.is_empty()).collect();
            match words.as_slice() {
                ["message", name, rest @ ..] => {
                    messages.insert((*name).to_owned(), Known::new());
                    current = (!rest.contains(&"{}") && !name.ends_with("{}")).then(|| (*name).to_owned());
                }
                ["enum", ..] => current = None,
                ["repeated", kind, name, "=", number] => {
                    insert(&mut messages, current.as_ref(), kind, name, number, true);
                }
                [kind, name, "=", number] if current.is_some() => {
                    insert(&mut messages, current.as_ref(), kind, name, number, false);
                }
                _ => {}
            }
        }
    }
    messages
}

fn insert(
    messages: &mut BTreeMap<String, Known>,
    to: Option<&String>,
    kind: &str,
    name: &str,
    number: &str,
    many: bool,
) {
    let known = messages.get_mut(to.expect("a field is in a message")).expect("the message was inserted");
    known.insert(name.to_owned(), (kind.to_owned(), number.parse().expect("a number"), many));
}

fn flatten(fields: &'static [Field], out: &mut Vec<&'static Field>) {
    for field in fields {
        match field.form {
            Form::Fold(inner) => flatten(inner, out),
            _ => out.push(field),
        }
    }
}

fn compare(shape: &'static Shape, messages: &BTreeMap<String, Known>, seen: &mut Vec<&'static str>) {
    if seen.contains(&shape.message) {
        return;
    }
    seen.push(shape.message);
    let known = &messages[shape.message];
    let mut fields = Vec::new();
    flatten(shape.fields, &mut fields);
    assert_eq!(fields.len(), known.len(), "{} has other fields", shape.message);
    assert!(shape.fields.len() < 32, "the decoders count up to 31 rows");
    for field in fields {
        let place = format!("{}.{}", shape.message, field.name);
        let (kind, number, many) = known.get(field.name).unwrap_or_else(|| panic!("{place} is not in the .proto"));
        assert_eq!(field.number, *number, "{place}");
        assert!(field.number < 32, "{place}: the walk counts up to 31");
        assert_eq!(matches!(field.times, Times::UpTo(_)), *many, "{place}");
        let expected = match field.form {
            Form::Attribute(value) | Form::Items(_, value) => match value {
                Value::U32 => "uint32",
                Value::U64 => "uint64",
                Value::Bool => "bool",
                Value::Text => "string",
                Value::Id | Value::Bytes => "bytes",
                // The names come from the generated enum of the same name; here only that it is one.
                Value::Name(_) => kind.as_str(),
            },
            Form::Content | Form::Bytes => "bytes",
            Form::Element(inner) => {
                compare(inner, messages, seen);
                inner.message
            }
            Form::Fold(_) => unreachable!("flattened"),
        };
        assert_eq!(kind, expected, "{place}");
    }
}

#[test]
fn every_message_has_the_fields_of_the_proto() {
    let messages = messages();
    let mut seen = Vec::new();
    for root in [&shapes::CLIENT, &shapes::SERVER, &shapes::CLIENT_HELLO, &shapes::SERVER_HELLO] {
        compare(root, &messages, &mut seen);
    }
    let missed: Vec<_> =
        messages.keys().filter(|name| !seen.contains(&name.as_str()) && *name != "CertificateBody").collect();
    assert!(missed.is_empty(), "without a table: {missed:?}");
}

#[test]
fn no_element_has_two_meanings() {
    fn check(fields: &'static [Field], place: &str) {
        let mut names: Vec<_> = fields.iter().map(|field| field.xml).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), fields.len(), "{place}: a name twice");
        for field in fields {
            match field.form {
                Form::Element(inner) => check(inner.fields, inner.message),
                Form::Fold(inner) => check(inner, field.name),
                _ => {}
            }
        }
    }
    check(shapes::CLIENT.fields, "ClientStanza");
    check(shapes::SERVER.fields, "ServerStanza");
}
