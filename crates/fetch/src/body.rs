//! Answers that are read piece by piece, and parts of them.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::{BoxStream, Stream};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE};

use crate::error::FetchError;

/// A part to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte, from 0.
    pub first: u64,
    /// Last byte, included; `None`: to the end.
    pub last: Option<u64>,
}

/// As in the header `Range` (RFC 9110, section 14.2).
impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes={}-", self.first)?;
        self.last.map_or(Ok(()), |last| write!(f, "{last}"))
    }
}

/// The part that came (RFC 9110, section 14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// First byte, from 0.
    pub first: u64,
    /// Last byte, included.
    pub last: u64,
    /// Length of the whole, if the host knows it.
    pub total: Option<u64>,
}

impl ContentRange {
    /// Number of bytes of the part.
    pub const fn length(&self) -> u64 {
        self.last - self.first + 1
    }

    /// Reads `bytes first-last/total`.
    fn parse(text: &str) -> Option<Self> {
        let (part, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = part.split_once('-')?;
        let range = Self {
            first: digits(first)?,
            last: digits(last)?,
            total: if total == "*" { None } else { Some(digits(total)?) },
        };
        let ordered = range.first <= range.last && range.last < u64::MAX;
        let inside = range.total.is_none_or(|total| range.last < total);
        (ordered && inside).then_some(range)
    }

    /// True if this is all of `asked` that exists.
    fn answers(&self, asked: ByteRange) -> bool {
        let end = match (asked.last, self.total) {
            (Some(last), Some(total)) => Some(last.min(total - 1)),
            (Some(last), None) => Some(last),
            (None, total) => total.map(|total| total - 1),
        };
        self.first == asked.first && end.is_none_or(|end| self.last == end)
    }
}

/// An answer whose status and lengths were checked; its bytes are still to come.
pub struct FetchedBody {
    /// 200, or 206 when a part was asked for and came.
    pub status: u16,
    /// Bytes that will come, if the host says so.
    pub content_length: Option<u64>,
    /// With 206: which part came; it is the one that was asked for.
    pub content_range: Option<ContentRange>,
    /// The bytes. Ends with an error when they are more or fewer than announced, more than allowed, or too slow; what
    /// came before the error is then a part only.
    pub stream: BoxStream<'static, Result<Bytes, FetchError>>,
}

impl fmt::Debug for FetchedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchedBody")
            .field("status", &self.status)
            .field("content_length", &self.content_length)
            .field("content_range", &self.content_range)
            .finish_non_exhaustive()
    }
}

/// What the headers of an answer announce, checked against what was asked for.
pub(crate) struct Announced {
    pub(crate) length: Option<u64>,
    pub(crate) range: Option<ContentRange>,
}

impl Announced {
    pub(crate) fn read(status: u16, headers: &HeaderMap, asked: Option<ByteRange>) -> Result<Self, FetchError> {
        check_encoding(headers)?;
        let mut length =
            single(headers, &CONTENT_LENGTH)?.map(|text| digits(text).ok_or(FetchError::Broken)).transpose()?;
        if status != 206 {
            return Ok(Self { length, range: None });
        }
        let asked = asked.ok_or(FetchError::Range)?;
        let text = single(headers, &CONTENT_RANGE)?.ok_or(FetchError::Range)?;
        let range = ContentRange::parse(text).ok_or(FetchError::Range)?;
        if !range.answers(asked) || *length.get_or_insert(range.length()) != range.length() {
            return Err(FetchError::Range);
        }
        Ok(Self { length, range: Some(range) })
    }
}

pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), FetchError> {
    let plain =
        headers.get_all(CONTENT_ENCODING).iter().all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if plain { Ok(()) } else { Err(FetchError::Encoding) }
}

fn single<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> Result<Option<&'h str>, FetchError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(FetchError::Broken);
    }
    first.map(|value| value.to_str().map_err(|_| FetchError::Broken)).transpose()
}

fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Counts what passes and ends with an error when it is not what was announced.
pub(crate) struct Bounded<S> {
    inner: S,
    passed: u64,
    most: u64,
    exactly: Option<u64>,
    over: bool,
}

impl<S> Bounded<S> {
    pub(crate) const fn new(inner: S, most: u64, exactly: Option<u64>) -> Self {
        Self { inner, passed: 0, most, exactly, over: false }
    }
}

impl<S: Stream<Item = Result<Bytes, FetchError>> + Unpin> Stream for Bounded<S> {
    type Item = Result<Bytes, FetchError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let Poll::Ready(item) = Pin::new(&mut self.inner).poll_next(cx) else { return Poll::Pending };
        let item = match item {
            Some(Ok(piece)) => {
                self.passed = self.passed.saturating_add(piece.len() as u64);
                if self.passed > self.most {
                    Some(Err(FetchError::TooLarge))
                } else if self.exactly.is_some_and(|length| self.passed > length) {
                    Some(Err(FetchError::Broken))
                } else {
                    Some(Ok(piece))
                }
            }
            None if self.exactly.is_some_and(|length| self.passed < length) => Some(Err(FetchError::Broken)),
            other => other,
        };
        self.over = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_that_was_asked_for_is_its_answer() {
        let asked = ByteRange { first: 10, last: Some(19) };
        assert_eq!(asked.to_string(), "bytes=10-19");
        assert_eq!(ByteRange { first: 10, last: None }.to_string(), "bytes=10-");
        for (text, fits) in [
            ("bytes 10-19/100", true),
            ("bytes 10-19/*", true),
            ("bytes 10-14/15", true),
            ("bytes 10-14/100", false),
            ("bytes 10-14/*", false),
            ("bytes 10-20/100", false),
            ("bytes 9-19/100", false),
            ("bytes 0-9/100", false),
        ] {
            assert_eq!(ContentRange::parse(text).unwrap().answers(asked), fits, "{text}");
        }
        for text in [
            "",
            "bytes",
            "bytes */100",
            "bytes 10-19",
            "bytes 19-10/100",
            "bytes 10-19/19",
            "bytes -19/100",
            "bytes +1-2/3",
            "items 1-2/3",
            "bytes 1-2/0",
            "bytes 0-18446744073709551615/*",
        ] {
            assert_eq!(ContentRange::parse(text), None, "{text}");
        }
    }
}
