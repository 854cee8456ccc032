//! AES-256-GCM and ChaCha20-Poly1305 on aws-lc-rs: as snow wants them for the handshake, and for what comes after it.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::{BufMut as _, BytesMut};
use snow::params::CipherChoice;
use snow::types::Cipher;
use zeroize::{Zeroize, Zeroizing};

use super::{NoiseError, TAG};
use crate::preamble::Suite;

/// The key of one direction of a session. Its schedule, about 600 bytes, is made when it is used, and is there until
/// [`Key::rest`]: most sessions are idle. Both are on the heap, and are wiped when they go.
pub(crate) struct Key {
    kind: Kind,
    bytes: Box<Zeroizing<[u8; 32]>>,
    schedule: Option<Box<LessSafeKey>>,
}

impl Key {
    pub(super) fn new(suite: Suite, bytes: Zeroizing<[u8; 32]>) -> Self {
        let kind = match suite {
            Suite::AesGcm => Kind::AesGcm,
            Suite::ChaChaPoly => Kind::ChaChaPoly,
        };
        Self { kind, bytes: Box::new(bytes), schedule: None }
    }

    /// Encrypts all of `message` behind its first `from` bytes where it lies, and appends the tag. The number is never one
    /// that was used before: its caller counts.
    ///
    /// # Errors
    /// [`NoiseError::Exhausted`] for the last number, which the Noise specification reserves; nothing has changed then.
    pub(crate) fn seal(&mut self, number: u64, message: &mut BytesMut, from: usize) -> Result<(), NoiseError> {
        let (nonce, key) = self.used(number)?;
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::empty(), &mut message[from..])
            .expect("a Noise message is far below the limits of both ciphers");
        message.put_slice(tag.as_ref());
        Ok(())
    }

    /// Appends the plaintext of a message to `out`.
    ///
    /// # Errors
    /// [`NoiseError::Decrypt`] or [`NoiseError::Exhausted`]; then `out` is as it was.
    pub(crate) fn open(&mut self, number: u64, message: &[u8], out: &mut BytesMut) -> Result<(), NoiseError> {
        let len = message.len().checked_sub(TAG).ok_or(NoiseError::Malformed)?;
        let (nonce, key) = self.used(number)?;
        let (ciphertext, tag) = message.split_at(len);
        let start = out.len();
        out.resize(start + len, 0);
        let opened = key.open_separate_gather(nonce, Aad::empty(), ciphertext, tag, &mut out[start..]);
        if opened.is_err() {
            out[start..].zeroize(); // what was not authenticated is nobody's business
            out.truncate(start);
        }
        opened.map_err(|_| NoiseError::Decrypt)
    }

    /// Lets go of the schedule until the key is used again.
    pub(crate) fn rest(&mut self) {
        self.schedule = None;
    }

    fn used(&mut self, number: u64) -> Result<(Nonce, &LessSafeKey), NoiseError> {
        if number == u64::MAX {
            return Err(NoiseError::Exhausted);
        }
        let schedule = self.schedule.get_or_insert_with(|| Box::new(self.kind.schedule(&self.bytes)));
        Ok((self.kind.nonce(number), schedule))
    }
}

/// A cipher with its key schedule, which is made once for a key and not for each message. It is about 600 bytes, on the
/// heap, and wiped there when it is dropped or another key is set. No nonce is reused: snow counts them, or its caller.
pub(super) struct Aead {
    kind: Kind,
    key: Option<LessSafeKey>,
}

#[derive(Clone, Copy)]
enum Kind {
    AesGcm,
    ChaChaPoly,
}

impl Aead {
    /// The cipher of this name without a key; `None` for one that no suite has.
    pub(super) fn new(choice: &CipherChoice) -> Option<Self> {
        let kind = match choice {
            CipherChoice::AESGCM => Kind::AesGcm,
            CipherChoice::ChaChaPoly => Kind::ChaChaPoly,
            #[expect(unreachable_patterns, reason = "snow has more ciphers with more features")]
            _ => return None,
        };
        Some(Self { kind, key: None })
    }
}

impl Kind {
    fn schedule(self, key: &[u8; 32]) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(self.algorithm(), key).expect("both ciphers have keys of 32 bytes"))
    }

    const fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::AesGcm => &aead::AES_256_GCM,
            Self::ChaChaPoly => &aead::CHACHA20_POLY1305,
        }
    }

    /// The Noise specification, section 12: four bytes of zero, then the number, whose order is the cipher's own.
    fn nonce(self, number: u64) -> Nonce {
        let mut bytes = [0; 12];
        bytes[4..].copy_from_slice(&match self {
            Self::AesGcm => number.to_be_bytes(),
            Self::ChaChaPoly => number.to_le_bytes(),
        });
        Nonce::assume_unique_for_key(bytes)
    }
}

impl Cipher for Aead {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::AesGcm => "AESGCM",
            Kind::ChaChaPoly => "ChaChaPoly",
        }
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.key = Some(self.kind.schedule(key));
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let key = self.key.as_ref().expect("snow sets a key before it encrypts");
        let (ciphertext, tag) = out[..plaintext.len() + TAG].split_at_mut(plaintext.len());
        key.seal_out_of_place_scatter(self.kind.nonce(nonce), Aad::from(authtext), plaintext, ciphertext, &[], tag)
            .expect("a Noise message is far below the limits of both ciphers");
        plaintext.len() + TAG
    }

    fn decrypt(&self, nonce: u64, authtext: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, snow::Error> {
        let key = self.key.as_ref().ok_or(snow::Error::Decrypt)?;
        let len = ciphertext.len().checked_sub(TAG).ok_or(snow::Error::Decrypt)?;
        let (ciphertext, tag) = ciphertext.split_at(len);
        let plaintext = out.get_mut(..len).ok_or(snow::Error::Decrypt)?;
        key.open_separate_gather(self.kind.nonce(nonce), Aad::from(authtext), ciphertext, tag, plaintext).map_err(
            |_| {
                plaintext.zeroize(); // what was not authenticated is nobody's business
                snow::Error::Decrypt
            },
        )?;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use snow::resolvers::{CryptoResolver, DefaultResolver};

    use super::*;

    const CIPHERS: [CipherChoice; 2] = [CipherChoice::AESGCM, CipherChoice::ChaChaPoly];

    fn both(choice: &CipherChoice, key: &[u8; 32]) -> [Box<dyn Cipher>; 2] {
        let mut ciphers: [Box<dyn Cipher>; 2] =
            [Box::new(Aead::new(choice).unwrap()), DefaultResolver.resolve_cipher(choice).unwrap()];
        ciphers.iter_mut().for_each(|cipher| cipher.set(key));
        ciphers
    }

    fn encrypt(cipher: &dyn Cipher, nonce: u64, authtext: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut out = vec![0xee; plaintext.len() + TAG + 3];
        assert_eq!(cipher.encrypt(nonce, authtext, plaintext, &mut out), plaintext.len() + TAG);
        assert_eq!(out[plaintext.len() + TAG..], [0xee; 3], "nothing behind the message is touched");
        out.truncate(plaintext.len() + TAG);
        out
    }

    proptest! {
        #[test]
        fn messages_are_those_of_snows_own_ciphers(
            key: [u8; 32],
            nonce: u64,
            authtext in prop::collection::vec(any::<u8>(), 0..70),
            plaintext in prop::collection::vec(any::<u8>(), 0..1_000),
            flipped: prop::sample::Index,
        ) {
            for choice in &CIPHERS {
                let [ours, reference] = both(choice, &key);
                let mut message = encrypt(&*ours, nonce, &authtext, &plaintext);
                prop_assert_eq!(&message, &encrypt(&*reference, nonce, &authtext, &plaintext));
                let mut opened = vec![0; plaintext.len()];
                prop_assert_eq!(ours.decrypt(nonce, &authtext, &message, &mut opened), Ok(plaintext.len()));
                prop_assert_eq!(&opened, &plaintext);

                prop_assert!(ours.decrypt(nonce ^ 1, &authtext, &message, &mut opened).is_err());
                prop_assert!(opened.iter().all(|byte| *byte == 0), "what does not authenticate is not handed out");
                let at = flipped.index(message.len());
                message[at] ^= 1;
                prop_assert!(ours.decrypt(nonce, &authtext, &message, &mut opened).is_err());
                prop_assert!(ours.decrypt(nonce, &authtext, &message[..at.min(TAG - 1)], &mut opened).is_err());
            }
        }
    }

    #[test]
    fn the_next_key_is_that_of_snows_own_ciphers() {
        for choice in &CIPHERS {
            let [mut ours, mut reference] = both(choice, &[9; 32]);
            for nonce in 0..3 {
                assert_eq!(encrypt(&*ours, nonce, b"", b"hello"), encrypt(&*reference, nonce, b"", b"hello"));
                ours.rekey();
                reference.rekey();
            }
        }
    }

    #[test]
    fn a_sessions_key_says_what_snows_own_cipher_says() {
        let suites = [Suite::AesGcm, Suite::ChaChaPoly];
        for (suite, choice) in suites.into_iter().zip(&CIPHERS) {
            let [_, reference] = both(choice, &[9; 32]);
            let mut key = Key::new(suite, Zeroizing::new([9; 32]));
            for number in [0, 1, u64::MAX - 1] {
                let mut message = BytesMut::from(&b"::hello"[..]);
                key.seal(number, &mut message, 2).unwrap();
                assert_eq!(message[..2], b"::"[..]);
                assert_eq!(message[2..], encrypt(&*reference, number, b"", b"hello")[..]);
                key.rest();
                let mut opened = BytesMut::from(&b"before "[..]);
                key.open(number, &message[2..], &mut opened).unwrap();
                assert_eq!(opened, b"before hello"[..]);
                message[3] ^= 1;
                assert_eq!(key.open(number, &message[2..], &mut opened), Err(NoiseError::Decrypt));
                assert_eq!(key.open(number, &message[..TAG - 1], &mut opened), Err(NoiseError::Malformed));
                assert_eq!(opened, b"before hello"[..]);
            }
            let mut message = BytesMut::from(&b"hello"[..]);
            assert_eq!(key.seal(u64::MAX, &mut message, 0), Err(NoiseError::Exhausted));
            assert_eq!(message, b"hello"[..]);
            assert_eq!(key.open(u64::MAX, &[0; 20], &mut message), Err(NoiseError::Exhausted));
        }
    }

    #[test]
    fn without_a_key_nothing_opens() {
        let cipher = Aead::new(&CipherChoice::AESGCM).unwrap();
        assert_eq!(cipher.decrypt(0, b"", &[0; 20], &mut [0; 4]), Err(snow::Error::Decrypt));
    }
}
