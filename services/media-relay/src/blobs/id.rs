//! Names of blobs.

use std::fmt;
use std::str::FromStr;

use rand::CryptoRng;

/// 16 random bytes, written as 32 lower-case hex digits: who knows the name may read the ciphertext.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlobId([u8; 16]);

/// Text that is no blob id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a blob id is 32 lower-case hex digits")]
pub struct BlobIdError;

impl BlobId {
    /// A new one.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// Parses the one spelling of an id; nothing that a path could mean something by gets through.
impl FromStr for BlobId {
    type Err = BlobIdError;

    fn from_str(text: &str) -> Result<Self, BlobIdError> {
        let canonical = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut bytes = [0; 16];
        if !canonical || hex::decode_to_slice(text, &mut bytes).is_err() {
            return Err(BlobIdError);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Hides the name, which is the right to read.
impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<blob>")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_have_one_spelling() {
        let id = BlobId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "..", "../../../../etc/passwd", "/etc/passwd", &"AB".repeat(16), &"ab".repeat(17), "ab\0"] {
            assert_eq!(wrong.parse::<BlobId>(), Err(BlobIdError), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_the_same(text in "\\PC{0,40}|[0-9a-f]{32}") {
            if let Ok(id) = text.parse::<BlobId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
