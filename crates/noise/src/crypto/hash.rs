//! SHA-256 and the HMAC and HKDF over it on aws-lc-rs, as snow wants them.

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use snow::types::Hash;
use zeroize::Zeroizing;

/// SHA-256. The states inside are wiped when dropped. What snow hashes with it is public; secrets pass through the two
/// functions on top, whose outputs are snow's, which does not wipe them.
#[derive(Default)]
pub(super) struct Sha256(Option<Context>);

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        BLOCK
    }

    fn hash_len(&self) -> usize {
        LEN
    }

    fn reset(&mut self) {
        self.0 = None;
    }

    fn input(&mut self, data: &[u8]) {
        self.0.get_or_insert_with(|| Context::new(&SHA256)).update(data);
    }

    /// The hash of what was put in since the last result.
    fn result(&mut self, out: &mut [u8]) {
        let context = self.0.take().unwrap_or_else(|| Context::new(&SHA256));
        out[..LEN].copy_from_slice(context.finish().as_ref());
    }

    fn hmac(&mut self, key: &[u8], data: &[u8], out: &mut [u8]) {
        sign(&Key::new(HMAC_SHA256, key), data, out);
    }

    /// The Noise specification, section 4.3: HKDF (RFC 5869) without info. A key is prepared once for its two or three
    /// outputs.
    fn hkdf(
        &mut self,
        chaining_key: &[u8],
        input_key_material: &[u8],
        outputs: usize,
        out1: &mut [u8],
        out2: &mut [u8],
        out3: &mut [u8],
    ) {
        let mut extracted = Zeroizing::new([0; LEN]);
        self.hmac(chaining_key, input_key_material, &mut *extracted);
        let key = Key::new(HMAC_SHA256, &*extracted);
        sign(&key, &[1], out1);
        let mut before = Zeroizing::new([0; LEN + 1]);
        if outputs >= 2 {
            before[..LEN].copy_from_slice(&out1[..LEN]);
            before[LEN] = 2;
            sign(&key, &*before, out2);
        }
        if outputs >= 3 {
            before[..LEN].copy_from_slice(&out2[..LEN]);
            before[LEN] = 3;
            sign(&key, &*before, out3);
        }
    }
}

fn sign(key: &Key, data: &[u8], out: &mut [u8]) {
    hmac::sign_to_buffer(key, data, &mut out[..LEN]).expect("a tag of SHA-256 has 32 bytes");
}

const BLOCK: usize = 64;
const LEN: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use snow::params::HashChoice;
    use snow::resolvers::{CryptoResolver, DefaultResolver};

    use super::*;

    proptest! {
        #[test]
        fn hashes_are_those_of_snows_own(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..150), 0..4),
            key in prop::collection::vec(any::<u8>(), 0..=BLOCK),
            chaining_key: [u8; LEN],
        ) {
            let mut hashes: [Box<dyn Hash>; 2] =
                [Box::new(Sha256::default()), DefaultResolver.resolve_hash(&HashChoice::SHA256).unwrap()];
            let outputs = hashes.each_mut().map(|hash| {
                let (mut out, mut mac) = ([0xee; 64], [0xee; 64]);
                hash.reset();
                parts.iter().for_each(|part| hash.input(part));
                hash.result(&mut out);
                hash.hmac(&key, &parts.concat(), &mut mac);
                let derived = [1, 2, 3].map(|outputs| {
                    let mut derived = [[0xee; 64]; 3];
                    let [first, second, third] = &mut derived;
                    hash.hkdf(&chaining_key, &key, outputs, first, second, third);
                    derived
                });
                (out, mac, derived)
            });
            prop_assert_eq!(&outputs[0], &outputs[1]);
        }
    }
}
