//! Text, bytes and lists whose bounds are part of their type.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use crate::error::{At, Problem, StanzaError};

/// Text of `MIN` to `MAX` bytes without control characters. Prints as its length: it may be personal.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Text<const MIN: usize, const MAX: usize>(String);

impl<const MIN: usize, const MAX: usize> Text<MIN, MAX> {
    /// Most bytes that fit.
    pub const MAX_BYTES: usize = MAX;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for text that is one.
    pub(crate) fn fits(text: &str) -> bool {
        (MIN..=MAX).contains(&text.len()) && text.chars().all(allowed)
    }

    /// As much of `text` as fits; characters that are not allowed become `?`. For texts of our own making.
    pub fn lossy(text: &str) -> Self {
        let mut kept = String::with_capacity(text.len().min(MAX));
        for c in text.chars().map(|c| if allowed(c) { c } else { '?' }) {
            if kept.len() + c.len_utf8() > MAX {
                break;
            }
            kept.push(c);
        }
        while kept.len() < MIN {
            kept.push('?');
        }
        Self(kept)
    }
}

impl<const MIN: usize, const MAX: usize> TryFrom<String> for Text<MIN, MAX> {
    type Error = Problem;

    fn try_from(text: String) -> Result<Self, Problem> {
        if !(MIN..=MAX).contains(&text.len()) {
            return Err(Problem::Length);
        }
        if !text.chars().all(allowed) {
            return Err(Problem::Character);
        }
        Ok(Self(text))
    }
}

impl<const MIN: usize, const MAX: usize> TryFrom<&str> for Text<MIN, MAX> {
    type Error = Problem;

    fn try_from(text: &str) -> Result<Self, Problem> {
        Self::try_from(text.to_owned())
    }
}

impl<const MIN: usize, const MAX: usize> From<Text<MIN, MAX>> for String {
    fn from(text: Text<MIN, MAX>) -> Self {
        text.0
    }
}

impl<const MIN: usize, const MAX: usize> fmt::Debug for Text<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes of text>", self.0.len())
    }
}

/// What both encodings can carry: XML has no form for most controls and for U+FFFE and U+FFFF.
fn allowed(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{FFFE}' | '\u{FFFF}')
}

/// `MIN` to `MAX` bytes: ciphertext, keys, opaque tokens. Prints as its length.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Blob<const MIN: usize, const MAX: usize>(Bytes);

impl<const MIN: usize, const MAX: usize> Blob<MIN, MAX> {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True for bytes that are one.
    pub(crate) fn fits(bytes: &[u8]) -> bool {
        (MIN..=MAX).contains(&bytes.len())
    }

    /// The bytes, to be shared or sent on without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl<const MIN: usize, const MAX: usize> TryFrom<Bytes> for Blob<MIN, MAX> {
    type Error = Problem;

    fn try_from(bytes: Bytes) -> Result<Self, Problem> {
        if (MIN..=MAX).contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(Problem::Length) }
    }
}

impl<const MIN: usize, const MAX: usize> TryFrom<Vec<u8>> for Blob<MIN, MAX> {
    type Error = Problem;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Problem> {
        Self::try_from(Bytes::from(bytes))
    }
}

impl<const MIN: usize, const MAX: usize> TryFrom<&[u8]> for Blob<MIN, MAX> {
    type Error = Problem;

    fn try_from(bytes: &[u8]) -> Result<Self, Problem> {
        Self::try_from(Bytes::copy_from_slice(bytes))
    }
}

impl<const MIN: usize, const MAX: usize> From<Blob<MIN, MAX>> for Bytes {
    fn from(blob: Blob<MIN, MAX>) -> Self {
        blob.0
    }
}

impl<const MIN: usize, const MAX: usize> AsRef<[u8]> for Blob<MIN, MAX> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MIN: usize, const MAX: usize> fmt::Debug for Blob<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

/// At most `MAX` items, in the order of the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct List<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> List<T, MAX> {
    /// Most items that fit.
    pub const MAX_ITEMS: usize = MAX;

    /// No items.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The items.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }

    /// Reads each item of the field `name`.
    pub(crate) fn read<P, E: Into<StanzaError>>(
        name: &str,
        items: Vec<P>,
        read: impl Fn(P) -> Result<T, E>,
    ) -> Result<Self, StanzaError> {
        if items.len() > MAX {
            return Err(Problem::TooMany).at(name);
        }
        let read_one = |(index, item)| read(item).at_index(name, index);
        Ok(Self(items.into_iter().enumerate().map(read_one).collect::<Result<_, _>>()?))
    }

    /// Refuses a list in which two items have the same key.
    pub(crate) fn distinct<K: Ord>(self, name: &str, key: impl Fn(&T) -> K) -> Result<Self, StanzaError> {
        if self.0.len() < 2 {
            return Ok(self);
        }
        let mut keys: Vec<K> = self.0.iter().map(key).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Problem::Duplicate).at(name);
        }
        Ok(self)
    }

    /// The items as generated types.
    pub(crate) fn write<P>(self, write: impl Fn(T) -> P) -> Vec<P> {
        self.0.into_iter().map(write).collect()
    }
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const MAX: usize> TryFrom<Vec<T>> for List<T, MAX> {
    type Error = Problem;

    fn try_from(items: Vec<T>) -> Result<Self, Problem> {
        if items.len() > MAX { Err(Problem::TooMany) } else { Ok(Self(items)) }
    }
}

impl<T, const MAX: usize> Deref for List<T, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const MAX: usize> IntoIterator for List<T, MAX> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T, const MAX: usize> IntoIterator for &'a List<T, MAX> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
