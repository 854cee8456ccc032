//! What is wrong with a stanza, and where. Nothing of its content is ever quoted.

use std::fmt;

use causeway_identity::{AddressError, IdError, NoiseKeyError};

/// Why bytes are not a stanza: the first thing that was found wrong, and the field it was found in.
#[derive(Clone, PartialEq, Eq)]
pub struct StanzaError {
    problem: Problem,
    path: String,
}

impl StanzaError {
    /// The kind of the fault; a label of bounded variety.
    pub const fn problem(&self) -> Problem {
        self.problem
    }

    /// The place, in names of this protocol only: `message.enc[3].device`. Empty for the record as a whole.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same fault seen from the element that holds `field`.
    pub(crate) fn inside(mut self, field: &str) -> Self {
        if !self.path.is_empty() {
            self.path.insert(0, '.');
        }
        self.path.insert_str(0, field);
        self
    }
}

impl From<Problem> for StanzaError {
    fn from(problem: Problem) -> Self {
        Self { problem, path: String::new() }
    }
}

impl From<IdError> for StanzaError {
    fn from(error: IdError) -> Self {
        match error {
            IdError::Device => Problem::Range.into(),
            IdError::Length(_) | IdError::Hex => Problem::Id.into(),
        }
    }
}

impl From<AddressError> for StanzaError {
    fn from(_: AddressError) -> Self {
        Problem::Address.into()
    }
}

impl From<NoiseKeyError> for StanzaError {
    fn from(_: NoiseKeyError) -> Self {
        Problem::Id.into()
    }
}

impl fmt::Display for StanzaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.path.is_empty() { "record" } else { &self.path };
        write!(f, "{place}: {}", self.problem)
    }
}

impl fmt::Debug for StanzaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StanzaError({self})")
    }
}

impl std::error::Error for StanzaError {}

/// Puts the name of the field that was being read before the path of an error.
pub(crate) trait At<T> {
    fn at(self, field: &str) -> Result<T, StanzaError>;
    fn at_index(self, field: &str, index: usize) -> Result<T, StanzaError>;
}

impl<T, E: Into<StanzaError>> At<T> for Result<T, E> {
    fn at(self, field: &str) -> Result<T, StanzaError> {
        self.map_err(|error| error.into().inside(field))
    }

    fn at_index(self, field: &str, index: usize) -> Result<T, StanzaError> {
        self.map_err(|error| error.into().inside(&format!("{field}[{index}]")))
    }
}

/// The value of a field that must be there.
pub(crate) fn required<T>(field: &str, value: Option<T>) -> Result<T, StanzaError> {
    value.ok_or(Problem::Missing).at(field)
}

macro_rules! problems {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal, $text:literal;)+) => {
        /// The kinds of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
        #[non_exhaustive]
        pub enum Problem {
            $($(#[doc = $doc])+ #[error($text)] $name,)+
        }

        impl Problem {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Stable name: metric label and log field.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $label),+ }
            }
        }
    };
}

problems! {
    /// The record is longer than the bound.
    TooLarge = "too-large", "larger than the bound";
    /// The record has no bytes: a keep-alive is not a stanza.
    Empty = "empty", "no bytes";

    /// XML: not UTF-8.
    Utf8 = "utf8", "not valid UTF-8";
    /// XML: a character that XML 1.0 does not allow, written out or as a reference.
    Character = "character", "a character that is not allowed";
    /// XML: not well-formed.
    Syntax = "syntax", "not well-formed";
    /// XML: a document type declaration or another markup declaration.
    Doctype = "doctype", "a document type declaration";
    /// XML: a processing instruction, or an XML declaration.
    Instruction = "instruction", "a processing instruction or XML declaration";
    /// XML: a comment.
    Comment = "comment", "a comment";
    /// XML: a CDATA section.
    Cdata = "cdata", "a CDATA section";
    /// XML: a reference to an entity that is not one of the five predefined ones.
    Entity = "entity", "an entity that is not predefined";
    /// XML: more than 16 elements inside each other.
    Depth = "depth", "more than 16 levels";
    /// XML: more elements than any stanza needs.
    Elements = "elements", "too many elements";
    /// XML: more than 64 attributes in one element.
    Attributes = "attributes", "more than 64 attributes";
    /// XML: an attribute twice in one element.
    DuplicateAttribute = "duplicate-attribute", "an attribute twice";
    /// XML: another namespace than `urn:causeway:1`, none, or a prefix.
    Namespace = "namespace", "not in the namespace urn:causeway:1 without prefix";
    /// XML: an element that has no place here.
    UnknownElement = "unknown-element", "an element that has no place here";
    /// XML: text where only elements belong.
    Text = "text", "text where none belongs";
    /// XML: an optional value is written out though it is the same as none.
    Default = "default", "a value that means the same as none";

    /// BINARY: not a protobuf message.
    Protobuf = "protobuf", "not valid protobuf";
    /// BINARY: a known field with another wire type than its own.
    WireType = "wire-type", "a field of the wrong wire type";
    /// BINARY: a group.
    Group = "group", "a protobuf group";

    /// A field that must be there is not.
    Missing = "missing", "missing";
    /// A field that may be there once is there again, or two of which only one may be there.
    Repeated = "repeated", "more than once";
    /// More items than the bound.
    TooMany = "too-many", "more items than allowed";
    /// The same device or provider twice in one list.
    Duplicate = "duplicate", "the same entry twice";
    /// Not a value of this closed list.
    UnknownValue = "unknown-value", "not a value of this list";
    /// Not a number in its one decimal form, or out of range.
    Range = "range", "not a canonical number in range";
    /// Text or bytes shorter or longer than allowed.
    Length = "length", "of a length that is not allowed";
    /// Not base64 in its one form: standard alphabet, padded, no white space, unused bits zero.
    Base64 = "base64", "not canonical base64";
    /// Not an id: 16 bytes, in XML 32 lower-case hex digits.
    Id = "id", "not an id";
    /// Not an address, or not a provider's domain.
    Address = "address", "not an address";
    /// Fields that contradict each other.
    Contradiction = "contradiction", "contradicts another field";
}
