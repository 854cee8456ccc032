//! Which Ed25519 public keys may stand for somebody.

/// Encodings of y, sign bit cleared, of the points of low order (RFC 8032's curve): 0, 1, -1 and the two of order 8.
/// Under such a key a signature can be made that holds for any message.
const LOW_ORDER_Y: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = P;
        minus_one[0] = 0xec;
        minus_one
    },
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// 2^255-19, little-endian.
const P: [u8; 32] = {
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    p
};

/// True if `public` is in canonical form and not of low order. Half of all such strings are no points of the curve;
/// no signature verifies under one of these, so they harm nobody.
pub(crate) fn is_fit(public: &[u8; 32]) -> bool {
    let mut y = *public;
    y[31] &= 0x7f;
    // Little-endian: the most significant byte is the last one.
    let canonical = y.iter().rev().lt(P.iter().rev());
    canonical && !LOW_ORDER_Y.contains(&y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_order_and_non_canonical_keys_are_not_fit() {
        for low in LOW_ORDER_Y {
            assert!(!is_fit(&low));
            let mut other_sign = low;
            other_sign[31] |= 0x80;
            assert!(!is_fit(&other_sign));
        }
        for offset in 0..19 {
            let mut at_least_p = P;
            at_least_p[0] += offset;
            assert!(!is_fit(&at_least_p), "p+{offset}");
        }
        let mut base = [0x66; 32];
        base[0] = 0x58;
        assert!(is_fit(&base));
    }
}
