//! Padding, so that the size of a ciphertext tells little: one byte 0x80, then zeros up to the next multiple of 160 bytes
//! (ISO/IEC 7816-4). The multiple is Signal's, so that both have the same length profile on the wire.

/// Plaintexts are multiples of this many bytes.
const BLOCK: usize = 160;
/// Ends the content proper.
const BOUNDARY: u8 = 0x80;

/// Padded `content`; always at least one byte longer.
pub(crate) fn pad(mut content: Vec<u8>) -> Vec<u8> {
    content.push(BOUNDARY);
    content.resize(content.len().next_multiple_of(BLOCK), 0);
    content
}

/// The content of `padded`; `None` when it was not padded by these rules.
pub(crate) fn unpad(padded: &[u8]) -> Option<&[u8]> {
    if padded.is_empty() || !padded.len().is_multiple_of(BLOCK) {
        return None;
    }
    let boundary = padded.iter().rposition(|&byte| byte != 0)?;
    let zeros = padded.len() - boundary - 1;
    (padded[boundary] == BOUNDARY && zeros < BLOCK).then(|| &padded[..boundary])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_multiples_and_never_the_next_but_one() {
        for (content, padded) in [(0, 160), (159, 160), (160, 320), (319, 320)] {
            assert_eq!(pad(vec![7; content]).len(), padded);
        }
    }

    #[test]
    fn other_paddings_are_refused() {
        let mut no_boundary = vec![0; 160];
        assert_eq!(unpad(&no_boundary), None);
        no_boundary[3] = 0x81;
        assert_eq!(unpad(&no_boundary), None);
        assert_eq!(unpad(&[]), None);
        assert_eq!(unpad(&[0x80; 159]), None);
        let mut a_block_too_much = pad(vec![1]);
        a_block_too_much.resize(320, 0);
        assert_eq!(unpad(&a_block_too_much), None);
    }

    proptest! {
        #[test]
        fn what_was_padded_comes_back(content in proptest::collection::vec(any::<u8>(), 0..1000)) {
            let padded = pad(content.clone());
            prop_assert_eq!(unpad(&padded), Some(&content[..]));
        }
    }
}
