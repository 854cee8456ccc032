//! Bytes become elements. What is accepted is well-formed XML 1.0 without DTD, processing instructions, XML
//! declaration, comments, CDATA sections and prefixes, with names in ASCII.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::{MAX_ATTRIBUTES, MAX_DEPTH, MAX_ELEMENTS, is_ours};
use crate::error::{Problem, StanzaError};

/// An element in the one namespace.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    pub(crate) name: &'a str,
    attributes: Vec<(&'a str, Cow<'a, str>)>,
    pub(crate) children: Vec<Node<'a>>,
    /// All text directly inside.
    pub(crate) text: Cow<'a, str>,
}

impl Node<'_> {
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_ref())
    }

    /// All attributes but the namespace declaration.
    #[cfg(test)]
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.attributes.iter().map(|(name, value)| (*name, value.as_ref()))
    }

    /// Nothing but white space, which carries no meaning between elements.
    pub(super) fn is_blank(&self) -> bool {
        self.text.bytes().all(is_space)
    }
}

/// Parses a whole record. Stops at the first fault, so nothing behind it costs anything.
pub(crate) fn parse(record: &[u8]) -> Result<Node<'_>, StanzaError> {
    let text = std::str::from_utf8(record).map_err(|_| Problem::Utf8)?;
    // The tokenizer would skip a byte order mark, and the slices below would be off by it.
    if text.starts_with('\u{FEFF}') {
        return Err(Problem::Character.into());
    }
    if !text.chars().all(is_char) {
        return Err(Problem::Character.into());
    }

    let mut reader = Reader::from_str(text);
    let mut open: Vec<Node<'_>> = Vec::new();
    let mut root = None;
    let mut elements = 0;
    loop {
        let start = position(&reader);
        let event = reader.read_event().map_err(|_| Problem::Syntax)?;
        let raw = text.get(start..position(&reader)).ok_or(Problem::Syntax)?;
        let closed = match event {
            Event::Start(_) | Event::Empty(_) => {
                if root.is_some() {
                    return Err(Problem::Syntax.into());
                }
                if open.len() == MAX_DEPTH {
                    return Err(Problem::Depth.into());
                }
                elements += 1;
                if elements > MAX_ELEMENTS {
                    return Err(Problem::Elements.into());
                }
                let empty = matches!(event, Event::Empty(_));
                let node = tag(raw, empty, open.is_empty())?;
                if empty {
                    Some(node)
                } else {
                    open.push(node);
                    None
                }
            }
            Event::End(_) => Some(open.pop().ok_or(Problem::Syntax)?),
            Event::Text(_) => {
                if raw.contains("]]>") {
                    return Err(Problem::Syntax.into());
                }
                match open.last_mut() {
                    Some(node) => append(&mut node.text, line_ends(raw)),
                    None if raw.bytes().all(is_space) => {}
                    None => return Err(Problem::Syntax.into()),
                }
                None
            }
            Event::GeneralRef(_) => {
                let name = raw.strip_prefix('&').and_then(|rest| rest.strip_suffix(';')).ok_or(Problem::Syntax)?;
                let node = open.last_mut().ok_or(Problem::Syntax)?;
                node.text.to_mut().push(referred(name)?);
                None
            }
            Event::CData(_) => return Err(Problem::Cdata.into()),
            Event::Comment(_) => return Err(Problem::Comment.into()),
            Event::Decl(_) | Event::PI(_) => return Err(Problem::Instruction.into()),
            Event::DocType(_) => return Err(Problem::Doctype.into()),
            Event::Eof => break,
        };
        if let Some(node) = closed {
            match open.last_mut() {
                Some(parent) => parent.children.push(node),
                None => root = Some(node),
            }
        }
    }
    if !open.is_empty() {
        return Err(Problem::Syntax.into());
    }
    Ok(root.ok_or(Problem::Syntax)?)
}

fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

/// Reads `<name a="b">` or `<name a="b"/>`. The tokenizer is more tolerant here than XML is, so this is done by hand.
fn tag(raw: &str, empty: bool, is_root: bool) -> Result<Node<'_>, Problem> {
    let end = if empty { "/>" } else { ">" };
    let inner = raw.strip_prefix('<').and_then(|rest| rest.strip_suffix(end)).ok_or(Problem::Syntax)?;
    let (name, mut rest) = split_name(inner)?;
    let mut node = Node { name, attributes: Vec::new(), children: Vec::new(), text: Cow::Borrowed("") };
    let mut count = 0;
    let mut namespace = false;
    loop {
        let trimmed = skip_space(rest);
        if trimmed.is_empty() {
            break;
        }
        if trimmed.len() == rest.len() {
            return Err(Problem::Syntax);
        }
        let (attribute, after) = split_name(trimmed)?;
        let after = skip_space(after).strip_prefix('=').ok_or(Problem::Syntax)?;
        let quoted = skip_space(after);
        let quote = quoted.chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or(Problem::Syntax)?;
        let (value, after) = quoted[1..].split_once(quote).ok_or(Problem::Syntax)?;
        rest = after;
        count += 1;
        if count > MAX_ATTRIBUTES {
            return Err(Problem::Attributes);
        }
        let value = attribute_value(value)?;
        if attribute == "xmlns" {
            if namespace {
                return Err(Problem::DuplicateAttribute);
            }
            is_ours(&value)?;
            namespace = true;
        } else if node.attributes.iter().any(|(known, _)| *known == attribute) {
            return Err(Problem::DuplicateAttribute);
        } else {
            node.attributes.push((attribute, value));
        }
    }
    if is_root && !namespace {
        return Err(Problem::Namespace);
    }
    Ok(node)
}

/// A name in ASCII, without a prefix, and what follows it.
fn split_name(text: &str) -> Result<(&str, &str), Problem> {
    let end = text.bytes().position(|b| is_space(b) || b == b'=').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.contains(':') {
        return Err(Problem::Namespace);
    }
    let starts_well = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let goes_on_well = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if starts_well && goes_on_well { Ok((name, rest)) } else { Err(Problem::Syntax) }
}

/// References resolved, and white space normalised as XML 1.0 section 3.3.3 says.
fn attribute_value(raw: &str) -> Result<Cow<'_, str>, Problem> {
    if raw.contains('<') {
        return Err(Problem::Syntax);
    }
    if !raw.contains(['&', '\t', '\n', '\r']) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut value = String::with_capacity(raw.len());
    let normal = line_ends(raw);
    let mut rest: &str = &normal;
    while let Some(at) = rest.find(['&', '\t', '\n']) {
        value.push_str(&rest[..at]);
        if rest[at..].starts_with('&') {
            let (name, after) = rest[at + 1..].split_once(';').ok_or(Problem::Syntax)?;
            value.push(referred(name)?);
            rest = after;
        } else {
            value.push(' ');
            rest = &rest[at + 1..];
        }
    }
    value.push_str(rest);
    Ok(Cow::Owned(value))
}

/// The character that `&name;` stands for.
fn referred(name: &str) -> Result<char, Problem> {
    let number = match name {
        "lt" => return Ok('<'),
        "gt" => return Ok('>'),
        "amp" => return Ok('&'),
        "apos" => return Ok('\''),
        "quot" => return Ok('"'),
        _ => name.strip_prefix('#').ok_or(Problem::Entity)?,
    };
    let (digits, radix) = match number.strip_prefix('x') {
        Some(hex) => (hex, 16),
        None => (number, 10),
    };
    // `from_str_radix` would take a sign.
    if digits.is_empty() || digits.len() > 8 || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(Problem::Syntax);
    }
    let code = u32::from_str_radix(digits, radix).map_err(|_| Problem::Character)?;
    char::from_u32(code).filter(|c| is_char(*c)).ok_or(Problem::Character)
}

fn append<'a>(text: &mut Cow<'a, str>, more: Cow<'a, str>) {
    if text.is_empty() {
        *text = more;
    } else {
        text.to_mut().push_str(&more);
    }
}

/// XML 1.0 section 2.11: all line ends are line feeds.
fn line_ends(raw: &str) -> Cow<'_, str> {
    if raw.contains('\r') { Cow::Owned(raw.replace("\r\n", "\n").replace('\r', "\n")) } else { Cow::Borrowed(raw) }
}

fn skip_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r'])
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// XML 1.0 section 2.2.
const fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Option<Problem> {
        parse(text.as_bytes()).err().map(|error| error.problem())
    }

    #[test]
    fn sixteen_levels_are_accepted_and_the_seventeenth_start_tag_is_not() {
        let nested = |levels: usize| {
            let root = "<a xmlns='urn:causeway:1'>";
            format!("{root}{}{}</a>", "<a>".repeat(levels - 1), "</a>".repeat(levels - 1))
        };
        assert_eq!(problem(&nested(16)), None);
        assert_eq!(problem(&nested(17)), Some(Problem::Depth));
        let sixteen = format!("<a xmlns='urn:causeway:1'>{}", "<a>".repeat(14));
        assert_eq!(problem(&format!("{sixteen}<b/>{}</a>", "</a>".repeat(14))), None);
        let unclosed = format!("<a xmlns='urn:causeway:1'>{}", "<a>".repeat(30_000));
        assert_eq!(problem(&unclosed), Some(Problem::Depth));
    }

    #[test]
    fn attributes_and_elements_are_counted() {
        let element = |count: usize| {
            let attributes: String = (0..count).map(|n| format!(" a{n}='x'")).collect();
            format!("<a xmlns='urn:causeway:1'{attributes}/>")
        };
        assert_eq!(problem(&element(63)), None);
        assert_eq!(problem(&element(64)), Some(Problem::Attributes));
        let children = |count: usize| format!("<a xmlns='urn:causeway:1'>{}</a>", "<b/>".repeat(count));
        assert_eq!(problem(&children(1023)), None);
        assert_eq!(problem(&children(1024)), Some(Problem::Elements));
    }

    #[test]
    fn text_and_values_are_what_xml_says_they_are() {
        let node =
            parse(b"\n<a xmlns='urn:causeway:1' b='1&#9;2\t3\r\n4&amp;&quot;' >x\r\ny\r&lt;&#x41; </a >\n").unwrap();
        assert_eq!(node.attribute("b"), Some("1\t2 3 4&\""));
        assert_eq!(node.text, "x\ny\n<A ");
    }

    #[test]
    fn what_xml_does_not_allow_is_refused() {
        for inner in [
            "<b c='1'c='2'/>",
            "<b c/>",
            "<b c=1/>",
            "<b c='1/>",
            "<b c='<'/>",
            "<1/>",
            "<b / >",
            "< b/>",
            "<b></c>",
            "<b c='&amp'/>",
            "&",
            "&amp",
            "]]>",
            "<b \u{e9}='1'/>",
            "<b/ c='1'>",
            "</a><a>",
            "<b c='1' d/>",
            "<>",
            "</>",
            "<b c = = '1'/>",
            "<b 'c'/>",
            "<b",
            "<b c='&;'/>",
        ] {
            let text = format!("<a xmlns='urn:causeway:1'>{inner}</a>");
            assert!(matches!(problem(&text), Some(Problem::Syntax | Problem::Entity)), "{inner} {:?}", problem(&text));
        }
        for text in ["", " ", "x", "<a xmlns='urn:causeway:1'/>x", "<a xmlns='urn:causeway:1'/><b/>", "&lt;"] {
            assert_eq!(problem(text), Some(Problem::Syntax), "{text}");
        }
    }
}
