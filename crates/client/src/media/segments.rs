//! The encryption of media: the STREAM construction over AES-256-GCM (Hoang, Reyhanitabar, Rogaway and Vizár, "Online
//! Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", CRYPTO 2015, section 7).
//!
//! The plaintext is cut into segments of 65 536 bytes; the last one has what is left, and is empty only when all of the
//! plaintext is. Segment `i`, counted from 0, becomes its AES-256-GCM ciphertext followed by the 16-byte tag, with no
//! associated data and the nonce
//!
//! ```text
//! 7 bytes 00 | i as u32 big-endian | 01 for the last segment, else 00
//! ```
//!
//! and the ciphertext is the segments in order. The seven bytes are STREAM's nonce: they can be constant because the key
//! is 32 fresh random bytes for each file. A counter and a last-segment mark in each nonce make a cut, extended or
//! reordered ciphertext fail to open, and any segment can be opened on its own, which is what range requests need.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Plaintext bytes of every segment but the last.
pub(super) const SEGMENT: usize = 64 * 1024;
/// Authentication tag of each segment in bytes.
pub(super) const TAG: usize = 16;
/// Ciphertext bytes of every segment but the last.
pub(super) const SEALED: usize = SEGMENT + TAG;

/// A segment did not open: not made with this key, or not for this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forged;

/// How a plaintext of a given size is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    size: u64,
    segments: u32,
}

impl Layout {
    /// For `size` bytes of plaintext; `None` beyond 2^32 segments, where the counter ends.
    pub(super) fn of(size: u64) -> Option<Self> {
        let segments = u32::try_from(size.div_ceil(SEGMENT as u64).max(1)).ok()?;
        Some(Self { size, segments })
    }

    /// How many segments there are.
    pub(super) fn segments(self) -> u32 {
        self.segments
    }

    /// Bytes of the whole ciphertext.
    pub(super) fn sealed_size(self) -> u64 {
        self.size + u64::from(self.segments) * TAG as u64
    }

    /// Where segment `index` begins in the ciphertext.
    pub(super) fn offset(self, index: u32) -> u64 {
        u64::from(index) * SEALED as u64
    }

    /// Ciphertext bytes of segment `index`.
    pub(super) fn sealed_len(self, index: u32) -> usize {
        let left = self.sealed_size().saturating_sub(self.offset(index));
        usize::try_from(left).unwrap_or(usize::MAX).min(SEALED)
    }

    fn is_last(self, index: u32) -> bool {
        index + 1 == self.segments
    }
}

/// A file's key.
pub(super) struct FileKey(LessSafeKey);

impl FileKey {
    /// With these 32 bytes, which must never have been used for another file.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("an AES-256 key has 32 bytes")))
    }

    /// Replaces the plaintext of segment `index` by its ciphertext.
    pub(super) fn seal(&self, index: u32, last: bool, segment: &mut Vec<u8>) {
        self.0
            .seal_in_place_append_tag(nonce(index, last), Aad::empty(), segment)
            .expect("a segment is far below AES-GCM's limit of 64 GiB");
    }

    /// The plaintext of segment `index` of a file with this layout, made in place.
    pub(super) fn open<'s>(&self, layout: Layout, index: u32, segment: &'s mut [u8]) -> Result<&'s [u8], Forged> {
        let nonce = nonce(index, layout.is_last(index));
        match self.0.open_in_place(nonce, Aad::empty(), segment) {
            Ok(plaintext) => Ok(plaintext),
            Err(_) => Err(Forged),
        }
    }
}

fn nonce(index: u32, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[7..11].copy_from_slice(&index.to_be_bytes());
    bytes[11] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_no_empty_segment_but_that_of_an_empty_file() {
        for (size, segments, sealed, last) in [
            (0, 1, 16, 16),
            (1, 1, 17, 17),
            (65_536, 1, 65_552, 65_552),
            (65_537, 2, 65_569, 17),
            (131_072, 2, 131_104, 65_552),
        ] {
            let layout = Layout::of(size).unwrap();
            assert_eq!((layout.segments(), layout.sealed_size()), (segments, sealed));
            assert_eq!(layout.sealed_len(segments - 1), last);
        }
        assert!(Layout::of(u64::MAX).is_none());
        assert!(Layout::of(SEGMENT as u64 * (1 << 32)).is_none());
    }

    #[test]
    fn a_segment_opens_only_in_its_place() {
        let (key, layout) = (FileKey::new(&[1; 32]), Layout::of(SEGMENT as u64 + 2).unwrap());
        let mut sealed = vec![7; SEGMENT];
        key.seal(0, false, &mut sealed);
        assert_eq!(key.open(layout, 0, &mut sealed.clone()), Ok(&[7; SEGMENT][..]));
        assert_eq!(key.open(layout, 1, &mut sealed.clone()), Err(Forged), "as the last");
        assert_eq!(key.open(Layout::of(1).unwrap(), 0, &mut sealed.clone()), Err(Forged), "as the only");
        assert_eq!(FileKey::new(&[2; 32]).open(layout, 0, &mut sealed.clone()), Err(Forged));
        sealed[9] ^= 1;
        assert_eq!(key.open(layout, 0, &mut sealed), Err(Forged));
        assert_eq!(key.open(layout, 0, &mut [0; 15]), Err(Forged), "shorter than a tag");
    }
}
