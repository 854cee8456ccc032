//! X25519 public keys that name somebody.

use std::fmt;

/// Why 32 bytes do not name anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoiseKeyError {
    /// X25519 public keys are 32 bytes.
    #[error("an X25519 public key must be 32 bytes, got {0}")]
    Length(usize),
    /// The u-coordinate is not reduced modulo 2^255-19, or its top bit is set: another spelling of some other key.
    #[error("the X25519 public key is not in canonical form")]
    NotCanonical,
    /// The point is of low order: every shared secret with it is zero.
    #[error("the X25519 public key is of low order")]
    LowOrder,
}

/// An X25519 public key that is fit to be somebody's name: canonical and not of low order (docs/protocol.md, section 3).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NoiseKey([u8; 32]);

/// 2^255-19, little-endian.
const P: [u8; 32] = {
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    p
};

/// Canonical u-coordinates of the points of low order on the curve and its twist (RFC 7748, section 7, and
/// Bernstein's list on the Curve25519 page): 0, 1, the two of order 8, and p-1.
const LOW_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
        0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
        0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    {
        let mut minus_one = P;
        minus_one[0] = 0xec;
        minus_one
    },
];

impl NoiseKey {
    /// The key with these bytes.
    ///
    /// # Errors
    /// [`NoiseKeyError::NotCanonical`] and [`NoiseKeyError::LowOrder`].
    pub fn new(bytes: [u8; 32]) -> Result<Self, NoiseKeyError> {
        // Little-endian: the most significant byte is the last one.
        if bytes.iter().rev().ge(P.iter().rev()) {
            return Err(NoiseKeyError::NotCanonical);
        }
        if LOW_ORDER.contains(&bytes) {
            return Err(NoiseKeyError::LowOrder);
        }
        Ok(Self(bytes))
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&[u8]> for NoiseKey {
    type Error = NoiseKeyError;

    fn try_from(bytes: &[u8]) -> Result<Self, NoiseKeyError> {
        Self::new(bytes.try_into().map_err(|_| NoiseKeyError::Length(bytes.len()))?)
    }
}

impl fmt::Debug for NoiseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoiseKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_order_and_non_canonical_points_are_refused() {
        for low in LOW_ORDER {
            assert_eq!(NoiseKey::new(low), Err(NoiseKeyError::LowOrder));
            let mut high_bit = low;
            high_bit[31] |= 0x80;
            assert_eq!(NoiseKey::new(high_bit), Err(NoiseKeyError::NotCanonical));
        }
        for offset in 0..19 {
            let mut at_least_p = P;
            at_least_p[0] += offset;
            assert_eq!(NoiseKey::new(at_least_p), Err(NoiseKeyError::NotCanonical), "p+{offset}");
        }
        let mut base = [0; 32];
        base[0] = 9;
        assert_eq!(NoiseKey::new(base).unwrap().as_bytes(), &base);
        assert_eq!(NoiseKey::try_from(&base[..31]), Err(NoiseKeyError::Length(31)));
    }
}
