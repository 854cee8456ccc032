//! Elements become a protobuf message, by the tables.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use causeway_identity::MessageId;

use super::tree::Node;
use crate::error::{At, Problem, StanzaError, required};
use crate::shape::{Field, Form, Shape, Times, Value};
use crate::wire::write;

/// The message with `root` as its only field: a stanza.
pub(super) fn message(root: &Node<'_>, shape: &'static Shape) -> Result<Vec<u8>, StanzaError> {
    let mut out = Vec::new();
    let Some(field) = shape.fields.iter().find(|field| field.xml == root.name) else {
        return Err(Problem::UnknownElement.into());
    };
    element(root, field, &mut out).at(field.name)?;
    Ok(out)
}

/// Writes one child element as the field that it is.
fn element(node: &Node<'_>, field: &Field, out: &mut Vec<u8>) -> Result<(), StanzaError> {
    match field.form {
        Form::Element(inner) => {
            let mut message = Vec::new();
            fields(node, inner.fields, inner.choice, &mut message)?;
            write::bytes(out, field.number, &message);
        }
        Form::Fold(inner) => fields(node, inner, false, out)?,
        Form::Bytes => {
            no_children(node)?;
            write::bytes(out, field.number, &base64(&node.text)?);
        }
        Form::Items(attribute, kind) => {
            no_children(node)?;
            no_text(node)?;
            let text = required(attribute, node.attribute(attribute))?;
            value(text, kind, field.number, out).at(attribute)?;
        }
        // These are no elements: nothing finds them by an element's name.
        Form::Attribute(_) | Form::Content => return Err(Problem::UnknownElement.into()),
    }
    Ok(())
}

/// Writes the fields that an element holds. Attributes that no field has are a later version's, and skipped.
fn fields(node: &Node<'_>, fields: &'static [Field], choice: bool, out: &mut Vec<u8>) -> Result<(), StanzaError> {
    let mut content = false;
    for field in fields {
        match (field.form, node.attribute(field.xml)) {
            (Form::Attribute(kind), Some(text)) => {
                let none = text.is_empty() || (text == "0" && matches!(kind, Value::U32 | Value::U64));
                if field.times == Times::Maybe && none {
                    return Err(Problem::Default).at(field.name);
                }
                value(text, kind, field.number, out).at(field.name)?;
            }
            (Form::Attribute(_), None) if field.times == Times::Once => return Err(Problem::Missing).at(field.name),
            (Form::Content, _) => {
                content = true;
                write::bytes(out, field.number, &base64(&node.text).at(field.name)?);
            }
            _ => {}
        }
    }
    if !content {
        no_text(node)?;
    }

    // No table has more than 31 rows.
    let mut seen = [0_usize; 32];
    for child in &node.children {
        let Some((row, field)) = fields.iter().enumerate().find(|(_, field)| field.is_child(child.name)) else {
            return Err(Problem::UnknownElement.into());
        };
        let times = &mut seen[row & 31];
        *times += 1;
        match field.times {
            Times::UpTo(most) if *times > most => return Err(Problem::TooMany).at(field.name),
            Times::UpTo(_) => element(child, field, out).at_index(field.name, *times - 1)?,
            Times::Once | Times::Maybe if *times > 1 => return Err(Problem::Repeated).at(field.name),
            Times::Once | Times::Maybe => element(child, field, out).at(field.name)?,
        }
        if let Some(verb) = field.verb {
            match required("type", node.attribute("type"))? {
                text if text == verb => {}
                "get" | "set" | "result" | "error" => return Err(Problem::Contradiction).at("type"),
                _ => return Err(Problem::UnknownValue).at("type"),
            }
        }
    }
    for (row, field) in fields.iter().enumerate() {
        let missing = field.times == Times::Once && field.is_element() && seen[row & 31] == 0;
        if missing {
            return Err(Problem::Missing).at(field.name);
        }
    }
    match (choice, node.children.len()) {
        (false, _) | (true, 1) => Ok(()),
        (true, 0) => Err(Problem::Missing.into()),
        (true, _) => Err(Problem::Repeated.into()),
    }
}

/// Writes one value from its one spelling.
fn value(text: &str, kind: Value, number: u32, out: &mut Vec<u8>) -> Result<(), StanzaError> {
    match kind {
        Value::U32 => write::varint(out, number, u64::from(decimal::<u32>(text)?)),
        Value::U64 => write::varint(out, number, decimal::<u64>(text)?),
        Value::Bool => match text {
            "true" => write::varint(out, number, 1),
            "false" => write::varint(out, number, 0),
            _ => return Err(Problem::UnknownValue.into()),
        },
        Value::Text => write::bytes(out, number, text.as_bytes()),
        // All ids have the same spelling.
        Value::Id => write::bytes(out, number, text.parse::<MessageId>()?.as_bytes()),
        Value::Bytes => write::bytes(out, number, &base64(text)?),
        Value::Name(names) => {
            let (_, found) = names.iter().find(|(name, _)| *name == text).ok_or(Problem::UnknownValue)?;
            write::varint(out, number, u64::from(found.unsigned_abs()));
        }
    }
    Ok(())
}

/// A number in ASCII digits without sign, white space or leading zero.
fn decimal<T: std::str::FromStr>(text: &str) -> Result<T, Problem> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !canonical {
        return Err(Problem::Range);
    }
    text.parse().map_err(|_| Problem::Range)
}

/// Standard alphabet with padding; white space and stray bits are refused.
fn base64(text: &str) -> Result<Vec<u8>, Problem> {
    STANDARD.decode(text).map_err(|_| Problem::Base64)
}

fn no_children(node: &Node<'_>) -> Result<(), Problem> {
    if node.children.is_empty() { Ok(()) } else { Err(Problem::UnknownElement) }
}

fn no_text(node: &Node<'_>) -> Result<(), Problem> {
    if node.is_blank() { Ok(()) } else { Err(Problem::Text) }
}

impl Field {
    const fn is_element(&self) -> bool {
        !matches!(self.form, Form::Attribute(_) | Form::Content)
    }

    fn is_child(&self, name: &str) -> bool {
        self.is_element() && self.xml == name
    }
}
