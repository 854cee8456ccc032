//! The `Range` header (RFC 9110, section 14): one range of bytes, or none.

use std::ops::Range;

use axum::http::HeaderMap;
use axum::http::header::RANGE;

/// Which bytes a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The whole blob.
    All,
    /// This part, which is not empty and lies inside the blob.
    Part(Range<u64>),
}

/// More than one range, one outside the blob, or another unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadRange;

/// Longest header value that can be one range.
const MAX_BYTES: usize = 64;

impl Wanted {
    /// What `headers` ask of a blob of `size` bytes. Stricter than the RFC demands: what is not one plain range of bytes
    /// is an error rather than ignored.
    pub(crate) fn of(headers: &HeaderMap, size: u64) -> Result<Self, BadRange> {
        let mut values = headers.get_all(RANGE).iter();
        let Some(value) = values.next() else {
            return Ok(Self::All);
        };
        if values.next().is_some() || value.len() > MAX_BYTES {
            return Err(BadRange);
        }
        let ends = value.to_str().ok().and_then(|text| text.strip_prefix("bytes=")).ok_or(BadRange)?;
        let (first, last) = ends.split_once('-').ok_or(BadRange)?;
        let part = match (first, last) {
            ("", suffix) => size.saturating_sub(number(suffix)?)..size,
            (first, "") => number(first)?..size,
            (first, last) => number(first)?..number(last)?.saturating_add(1).min(size),
        };
        if part.is_empty() { Err(BadRange) } else { Ok(Self::Part(part)) }
    }

    /// True for a part, even if it is the whole.
    pub(crate) fn is_partial(&self) -> bool {
        matches!(self, Self::Part(_))
    }

    /// How many bytes of a blob of `size`.
    pub(crate) fn len(&self, size: u64) -> u64 {
        match self {
            Self::All => size,
            Self::Part(part) => part.end - part.start,
        }
    }

    /// The part, if it is one.
    pub(crate) fn part(&self) -> Option<Range<u64>> {
        match self {
            Self::All => None,
            Self::Part(part) => Some(part.clone()),
        }
    }
}

fn number(digits: &str) -> Result<u64, BadRange> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadRange);
    }
    digits.parse().map_err(|_| BadRange)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn wanted(text: &str, size: u64) -> Result<Wanted, BadRange> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_str(text).unwrap());
        Wanted::of(&headers, size)
    }

    #[test]
    fn one_range_is_understood() {
        assert_eq!(Wanted::of(&HeaderMap::new(), 10), Ok(Wanted::All));
        assert_eq!(wanted("bytes=0-0", 10), Ok(Wanted::Part(0..1)));
        assert_eq!(wanted("bytes=3-", 10), Ok(Wanted::Part(3..10)));
        assert_eq!(wanted("bytes=-3", 10), Ok(Wanted::Part(7..10)));
        assert_eq!(wanted("bytes=-30", 10), Ok(Wanted::Part(0..10)));
        assert_eq!(wanted("bytes=9-18446744073709551615", 10), Ok(Wanted::Part(9..10)));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "bytes=",
            "bytes=-",
            "bytes=-0",
            "bytes=10-",
            "bytes=5-4",
            "bytes=0-1,3-4",
            "bytes= 0-1",
            "bytes=+1-2",
            "bytes=0-18446744073709551616",
            "items=0-1",
            "Bytes=0-1",
            "0-1",
            "bytes=1--2",
            "bytes=a-b",
        ] {
            assert_eq!(wanted(text, 10), Err(BadRange), "{text}");
        }
        assert_eq!(wanted(&format!("bytes={}", "0-0,".repeat(1_000)), 10), Err(BadRange));
        assert_eq!(wanted("bytes=-1", 0), Err(BadRange));
        let mut twice = HeaderMap::new();
        twice.append(RANGE, HeaderValue::from_static("bytes=0-1"));
        twice.append(RANGE, HeaderValue::from_static("bytes=0-1"));
        assert_eq!(Wanted::of(&twice, 10), Err(BadRange));
    }

    proptest! {
        #[test]
        fn a_part_lies_inside_and_is_not_empty(text in "bytes=[0-9]{0,20}-[0-9]{0,20}", size in 0_u64..1_000) {
            if let Ok(Wanted::Part(part)) = wanted(&text, size) {
                prop_assert!(part.start < part.end && part.end <= size);
            }
        }
    }
}
