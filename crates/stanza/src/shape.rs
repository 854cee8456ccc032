//! How a message of the .proto looks in both encodings: one table, from which the binary codec takes its bounds and
//! the XML codec its element and attribute names. The tables themselves are in `shapes.rs`.

/// One protobuf message.
pub(crate) struct Shape {
    /// Its name in the .proto.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test compares the tables with the .proto"))]
    pub(crate) message: &'static str,
    pub(crate) fields: &'static [Field],
    /// Exactly one of its fields that are elements is there: a oneof.
    pub(crate) choice: bool,
}

/// One field of a message.
pub(crate) struct Field {
    /// Number in the .proto; 0 for an element that exists in XML only.
    pub(crate) number: u32,
    /// Name in the .proto; error paths use it.
    pub(crate) name: &'static str,
    /// Name of the attribute or element.
    pub(crate) xml: &'static str,
    pub(crate) form: Form,
    pub(crate) times: Times,
    /// An arm of an iq: the value of the iq's `type` attribute.
    pub(crate) verb: Option<&'static str>,
}

/// Where a field stands in XML, and what it is.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// An attribute.
    Attribute(Value),
    /// The text of the element itself, in base64.
    Content,
    /// A child element whose text is the bytes in base64.
    Bytes,
    /// A child element that is a message.
    Element(&'static Shape),
    /// A child element for each item, the item in an attribute of this name.
    Items(&'static str, Value),
    /// A child element that exists in XML only and holds fields of the message around it.
    Fold(&'static [Field]),
}

/// What a value is, and so its spelling in XML.
#[derive(Clone, Copy)]
pub(crate) enum Value {
    /// Canonical decimal.
    U32,
    /// Canonical decimal.
    U64,
    /// `true` or `false`.
    Bool,
    /// As it is.
    Text,
    /// 16 bytes: 32 lower-case hex digits.
    Id,
    /// Base64.
    Bytes,
    /// A name of a closed list.
    Name(&'static [(&'static str, i32)]),
}

/// How often a field may be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// Must be there in XML. (In BINARY a missing scalar is its zero; the typed form refuses it where it must.)
    Once,
    /// May be absent; absent and zero are the same.
    Maybe,
    /// A repeated field of at most so many items.
    UpTo(usize),
}

impl Times {
    pub(crate) const fn most(self) -> usize {
        match self {
            Self::Once | Self::Maybe => 1,
            Self::UpTo(most) => most,
        }
    }
}

pub(crate) const fn shape(message: &'static str, fields: &'static [Field]) -> Shape {
    Shape { message, fields, choice: false }
}

pub(crate) const fn choice(message: &'static str, fields: &'static [Field]) -> Shape {
    Shape { message, fields, choice: true }
}

impl Field {
    const fn new(number: u32, name: &'static str, xml: &'static str, form: Form, times: Times) -> Self {
        Self { number, name, xml, form, times, verb: None }
    }

    /// An attribute that must be there.
    pub(crate) const fn attr(number: u32, name: &'static str, xml: &'static str, value: Value) -> Self {
        Self::new(number, name, xml, Form::Attribute(value), Times::Once)
    }

    /// The same, but it may be absent.
    pub(crate) const fn maybe_attr(number: u32, name: &'static str, xml: &'static str, value: Value) -> Self {
        Self::new(number, name, xml, Form::Attribute(value), Times::Maybe)
    }

    /// The element's own text.
    pub(crate) const fn content(number: u32, name: &'static str) -> Self {
        Self::new(number, name, "", Form::Content, Times::Maybe)
    }

    /// A child element with bytes, which must be there.
    pub(crate) const fn bytes(number: u32, name: &'static str, xml: &'static str) -> Self {
        Self::new(number, name, xml, Form::Bytes, Times::Once)
    }

    /// The same, but it may be absent.
    pub(crate) const fn maybe_bytes(number: u32, name: &'static str, xml: &'static str) -> Self {
        Self::new(number, name, xml, Form::Bytes, Times::Maybe)
    }

    /// A child element that must be there.
    pub(crate) const fn one(number: u32, name: &'static str, xml: &'static str, of: &'static Shape) -> Self {
        Self::new(number, name, xml, Form::Element(of), Times::Once)
    }

    /// A child element that may be absent; an arm of a choice.
    pub(crate) const fn maybe(number: u32, name: &'static str, xml: &'static str, of: &'static Shape) -> Self {
        Self::new(number, name, xml, Form::Element(of), Times::Maybe)
    }

    /// Child elements.
    pub(crate) const fn many(
        number: u32,
        name: &'static str,
        xml: &'static str,
        of: &'static Shape,
        most: usize,
    ) -> Self {
        Self::new(number, name, xml, Form::Element(of), Times::UpTo(most))
    }

    /// Child elements, each with one value in the attribute `attribute`.
    pub(crate) const fn items(
        number: u32,
        name: &'static str,
        xml: &'static str,
        attribute: &'static str,
        value: Value,
        most: usize,
    ) -> Self {
        Self::new(number, name, xml, Form::Items(attribute, value), Times::UpTo(most))
    }

    /// An element around some fields, in XML only.
    pub(crate) const fn fold(xml: &'static str, fields: &'static [Self]) -> Self {
        Self::new(0, xml, xml, Form::Fold(fields), Times::Once)
    }

    /// An arm of an iq.
    pub(crate) const fn arm(
        number: u32,
        name: &'static str,
        xml: &'static str,
        verb: &'static str,
        of: &'static Shape,
    ) -> Self {
        Self { verb: Some(verb), ..Self::new(number, name, xml, Form::Element(of), Times::Maybe) }
    }
}

impl Shape {
    /// The field with this number, also inside a fold.
    pub(crate) fn by_number(&self, number: u32) -> Option<&'static Field> {
        find_number(self.fields, number)
    }
}

fn find_number(fields: &'static [Field], number: u32) -> Option<&'static Field> {
    for field in fields {
        match field.form {
            Form::Fold(inner) => {
                if let Some(found) = find_number(inner, number) {
                    return Some(found);
                }
            }
            _ if field.number == number => return Some(field),
            _ => {}
        }
    }
    None
}
