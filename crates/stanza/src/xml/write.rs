//! A protobuf message of our own becomes canonical XML, by the tables.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::NAMESPACE;
use crate::shape::{Field, Form, Shape, Times, Value};
use crate::wire::{Fields, Packed, Raw, RawValue};

/// The stanza in `message`, which must be one that this crate has encoded.
pub(super) fn document(message: &[u8], shape: &'static Shape) -> Vec<u8> {
    // Base64 makes four characters of three bytes; the rest is names.
    let mut out = String::with_capacity(message.len() / 3 * 4 + 512);
    for raw in Fields::new(message).flatten() {
        if let (Some(Field { xml, form: Form::Element(inner), .. }), RawValue::Bytes(bytes)) =
            (shape.by_number(raw.number), raw.value)
        {
            let declaration = format!(" xmlns=\"{NAMESPACE}\"");
            element(&mut out, xml, &declaration, inner.fields, bytes);
        }
    }
    out.into_bytes()
}

/// Writes an element with the fields of `message` that its table names.
fn element(out: &mut String, name: &str, declaration: &str, fields: &'static [Field], message: &[u8]) {
    let raws: Vec<Raw<'_>> = Fields::new(message).flatten().collect();
    out.push('<');
    out.push_str(name);
    out.push_str(declaration);
    for field in fields {
        if let Form::Attribute(value) = field.form {
            let raw = raws.iter().find(|raw| raw.number == field.number).map(|raw| raw.value);
            attribute(out, field, value, raw);
        }
    }
    let verb = raws.iter().find_map(|raw| fields.iter().find(|field| field.number == raw.number)?.verb);
    if let Some(verb) = verb {
        push_attribute(out, "type", verb);
    }
    out.push('>');
    let start = out.len();
    for field in fields {
        let mut absent = true;
        for raw in raws.iter().filter(|raw| raw.number == field.number) {
            child(out, field, raw.value);
            absent = false;
        }
        // Protobuf leaves out empty bytes; XML says that they are there.
        if absent && field.times == Times::Once && matches!(field.form, Form::Bytes) {
            child(out, field, RawValue::Bytes(&[]));
        }
        if let Form::Fold(inner) = field.form {
            element(out, field.xml, "", inner, message);
        }
    }
    if out.len() == start {
        out.pop();
        out.push_str("/>");
    } else {
        out.push_str("</");
        out.push_str(name);
        out.push('>');
    }
}

fn child(out: &mut String, field: &Field, value: RawValue<'_>) {
    match (field.form, value) {
        (Form::Element(inner), RawValue::Bytes(bytes)) => element(out, field.xml, "", inner.fields, bytes),
        (Form::Content, RawValue::Bytes(bytes)) => STANDARD.encode_string(bytes, out),
        (Form::Bytes, RawValue::Bytes(bytes)) => {
            let name = field.xml;
            out.push_str(&format!("<{name}>"));
            STANDARD.encode_string(bytes, out);
            out.push_str(&format!("</{name}>"));
        }
        (Form::Items(attribute, Value::U32), RawValue::Bytes(packed)) => {
            for number in Packed::new(packed).flatten() {
                item(out, field.xml, attribute, &number.to_string());
            }
        }
        (Form::Items(attribute, _), RawValue::Bytes(bytes)) => {
            item(out, field.xml, attribute, &String::from_utf8_lossy(bytes));
        }
        _ => {}
    }
}

fn item(out: &mut String, name: &str, attribute: &str, value: &str) {
    out.push('<');
    out.push_str(name);
    push_attribute(out, attribute, value);
    out.push_str("/>");
}

/// Writes an attribute; one that is absent in protobuf has its zero value and, if it may be absent, is left out.
fn attribute(out: &mut String, field: &Field, kind: Value, value: Option<RawValue<'_>>) {
    let text = match (kind, value) {
        (_, None) if field.times == Times::Maybe => return,
        (Value::Bool, None | Some(RawValue::Varint(0))) => "false".to_owned(),
        (Value::Bool, Some(RawValue::Varint(_))) => "true".to_owned(),
        (Value::U32 | Value::U64, None) => "0".to_owned(),
        (Value::U32 | Value::U64, Some(RawValue::Varint(number))) => number.to_string(),
        (Value::Name(names), Some(RawValue::Varint(number))) => {
            let known = names.iter().find(|(_, known)| u64::from(known.unsigned_abs()) == number);
            known.map(|(name, _)| (*name).to_owned()).unwrap_or_default()
        }
        (Value::Text, Some(RawValue::Bytes(bytes))) => String::from_utf8_lossy(bytes).into_owned(),
        (Value::Id, Some(RawValue::Bytes(bytes))) => hex::encode(bytes),
        (Value::Bytes, Some(RawValue::Bytes(bytes))) => STANDARD.encode(bytes),
        _ => String::new(),
    };
    push_attribute(out, field.xml, &text);
}

fn push_attribute(out: &mut String, name: &str, value: &str) {
    out.push(' ');
    out.push_str(name);
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out.push('"');
}
