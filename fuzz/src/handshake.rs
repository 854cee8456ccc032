//! Handshakes with fixed keys and randomness, so that an input means the same each time.

use std::sync::Arc;

use bytes::BytesMut;
use causeway_noise::{Limits, StaticKey, Suite, client};
use rand::SeedableRng;
use rand::rngs::StdRng;

pub const CLIENT_HELLO: &[u8] = b"client hello";
pub const SERVER_HELLO: &[u8] = b"server hello";

pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

pub fn server_key() -> Arc<StaticKey> {
    Arc::new(StaticKey::from_bytes([1; 32]))
}

pub fn client_key() -> StaticKey {
    StaticKey::from_bytes([2; 32])
}

/// What a client opens with.
pub enum Opening {
    Xx(client::XxWaiting),
    Ik(client::IkWaiting),
}

impl Opening {
    /// Bit 0 of `choice` is the pattern, bit 1 the suite; the bytes are appended to `out`.
    pub fn new(choice: u8, out: &mut BytesMut) -> Self {
        let suite = if choice & 2 == 0 { Suite::AesGcm } else { Suite::ChaChaPoly };
        let (key, limits, mut rng) = (client_key(), Limits::client(), rng(4));
        if choice & 1 == 0 {
            Self::Xx(client::xx(&key, suite, limits, &mut rng, out).expect("nothing of it comes from outside"))
        } else {
            let server_key = server_key();
            let ik = client::ik(&key, server_key.public(), suite, CLIENT_HELLO, limits, &mut rng, out);
            Self::Ik(ik.expect("nothing of it comes from outside"))
        }
    }
}

/// Changes to honest bytes: position (big-endian u16), then what to XOR there.
pub struct Edits<'d>(pub &'d [u8]);

impl Edits<'_> {
    /// Applies all of them; true if anything is different now.
    pub fn apply(&self, bytes: &mut [u8]) -> bool {
        let before = bytes.to_vec();
        for edit in self.0.chunks_exact(3) {
            let at = usize::from(u16::from_be_bytes([edit[0], edit[1]]));
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= edit[2];
            }
        }
        bytes != before
    }
}
