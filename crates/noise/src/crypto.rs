//! The one place that names snow: building and stepping its handshake with our key agreement and our randomness.

use std::sync::Arc;

use bytes::BytesMut;
use rand::CryptoRng;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState, StatelessTransportState};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::frame::{self, MAX_MESSAGE};
use crate::key::{PublicKey, StaticKey};
use crate::preamble::{Pattern, Suite, noise_name};

/// Why a Noise message could not be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoiseError {
    /// Authentication failed: tampered with, or made for other keys.
    Decrypt,
    /// A shared secret is all zero: the peer sent a point of low order.
    LowOrder,
    /// Too short to be the message that is due.
    Malformed,
    /// The payload does not fit into a Noise message.
    PayloadTooLong,
    /// 2^64-1 messages have passed.
    Exhausted,
    /// The library was used out of order; cannot be reached from outside.
    Internal,
}

/// The keys of an established session, shared by its two directions.
pub(crate) type TransportKeys = Arc<StatelessTransportState>;

/// The private half of a handshake's ephemeral key: drawn once, used once.
pub(crate) struct Ephemeral(Zeroizing<[u8; 32]>);

impl Ephemeral {
    pub(crate) fn draw(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut private = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *private);
        Self(private)
    }
}

/// A handshake under way.
pub(crate) struct Noise(Box<HandshakeState>);

/// What both sides of a handshake agree on beforehand.
pub(crate) struct Agreed<'a> {
    pub(crate) pattern: Pattern,
    pub(crate) suite: Suite,
    pub(crate) prologue: &'a [u8],
}

impl Noise {
    pub(crate) fn initiator(
        agreed: &Agreed<'_>,
        key: &StaticKey,
        server_key: Option<&PublicKey>,
        ephemeral: Ephemeral,
    ) -> Result<Self, NoiseError> {
        let mut builder = builder(agreed, key, ephemeral)?;
        if let Some(server_key) = server_key {
            builder = builder.remote_public_key(server_key).map_err(|_| NoiseError::Internal)?;
        }
        builder.build_initiator().map(|state| Self(Box::new(state))).map_err(|_| NoiseError::Internal)
    }

    pub(crate) fn responder(agreed: &Agreed<'_>, key: &StaticKey, ephemeral: Ephemeral) -> Result<Self, NoiseError> {
        let state = builder(agreed, key, ephemeral)?.build_responder().map_err(|_| NoiseError::Internal)?;
        Ok(Self(Box::new(state)))
    }

    /// The payload of the peer's next handshake message.
    pub(crate) fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let mut payload = vec![0; message.len()];
        let len = self.0.read_message(message, &mut payload).map_err(NoiseError::from)?;
        payload.truncate(len);
        Ok(payload)
    }

    /// Appends our next handshake message to `out` as a frame.
    pub(crate) fn write(&mut self, payload: &[u8], out: &mut BytesMut) -> Result<(), NoiseError> {
        if payload.len() > MAX_HANDSHAKE_PAYLOAD {
            return Err(NoiseError::PayloadTooLong);
        }
        let mut message = vec![0; payload.len() + HANDSHAKE_OVERHEAD];
        let len = self.0.write_message(payload, &mut message).map_err(NoiseError::from)?;
        frame::write(out, &message[..len]).map_err(|_| NoiseError::Internal)
    }

    /// The peer's static key, once a message has told it.
    pub(crate) fn remote_static(&self) -> Result<PublicKey, NoiseError> {
        self.0.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(NoiseError::Internal)
    }

    /// The session's keys, after the last message.
    pub(crate) fn into_keys(self) -> Result<TransportKeys, NoiseError> {
        self.0.into_stateless_transport_mode().map(Arc::new).map_err(|_| NoiseError::Internal)
    }
}

/// Appends one transport message with this plaintext to `out` as a frame.
pub(crate) fn seal(
    keys: &StatelessTransportState,
    nonce: u64,
    plaintext: &[u8],
    out: &mut BytesMut,
) -> Result<(), NoiseError> {
    let message_len = plaintext.len() + TAG;
    let header = frame::header(message_len).ok_or(NoiseError::PayloadTooLong)?;
    let start = out.len();
    out.extend_from_slice(&header);
    out.resize(start + header.len() + message_len, 0);
    let sealed = keys.write_message(nonce, plaintext, &mut out[start + header.len()..]).map_err(NoiseError::from);
    if sealed.is_err() {
        out.truncate(start);
    }
    sealed.map(|_| ())
}

/// Appends the plaintext of one transport message to `out`; on failure `out` is as it was.
pub(crate) fn open(
    keys: &StatelessTransportState,
    nonce: u64,
    message: &[u8],
    out: &mut BytesMut,
) -> Result<(), NoiseError> {
    let plaintext_len = message.len().checked_sub(TAG).ok_or(NoiseError::Malformed)?;
    let start = out.len();
    out.resize(start + plaintext_len, 0);
    let opened = keys.read_message(nonce, message, &mut out[start..]).map_err(NoiseError::from);
    if opened.is_err() {
        out.truncate(start);
    }
    opened.map(|_| ())
}

/// The X25519 public key of a private one.
pub(crate) fn public_key(private: &[u8; 32]) -> PublicKey {
    let mut dh = CheckedDh::new();
    dh.set(private);
    let mut public = [0; 32];
    public.copy_from_slice(dh.pubkey());
    public
}

/// Bytes that authentication adds to a Noise message.
pub(crate) const TAG: usize = 16;

/// What a handshake message adds to its payload at most: an ephemeral key, an encrypted static key, a tag.
const HANDSHAKE_OVERHEAD: usize = 32 + 32 + TAG + TAG;

/// Largest payload that fits into any of the handshake messages.
pub(crate) const MAX_HANDSHAKE_PAYLOAD: usize = MAX_MESSAGE - HANDSHAKE_OVERHEAD;

fn builder<'a>(agreed: &Agreed<'a>, key: &'a StaticKey, ephemeral: Ephemeral) -> Result<Builder<'a>, NoiseError> {
    let params = noise_name(agreed.pattern, agreed.suite).parse().map_err(|_| NoiseError::Internal)?;
    Builder::with_resolver(params, Box::new(Resolver { ephemeral }))
        .local_private_key(key.private())
        .and_then(|builder| builder.prologue(agreed.prologue))
        .map_err(|_| NoiseError::Internal)
}

impl From<snow::Error> for NoiseError {
    fn from(error: snow::Error) -> Self {
        match error {
            snow::Error::Decrypt => Self::Decrypt,
            snow::Error::Dh => Self::LowOrder,
            snow::Error::Input => Self::Malformed,
            snow::Error::State(snow::error::StateProblem::Exhausted) => Self::Exhausted,
            _ => Self::Internal,
        }
    }
}

/// Gives snow its own primitives, except that key agreement is checked and randomness was drawn by the caller.
struct Resolver {
    ephemeral: Ephemeral,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Drawn(Some(self.ephemeral.0.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(CheckedDh::new())),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        let inner = DefaultResolver.resolve_cipher(choice)?;
        Some(Box::new(WipedCipher(inner)))
    }
}

/// 32 bytes of randomness that can be had once: a handshake makes one ephemeral key.
struct Drawn(Option<Zeroizing<[u8; 32]>>);

impl Random for Drawn {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let drawn = self.0.take().ok_or(snow::Error::Rng)?;
        if dest.len() != drawn.len() {
            return Err(snow::Error::Rng);
        }
        dest.copy_from_slice(&*drawn);
        Ok(())
    }
}

/// snow's X25519, which accepts points of low order, with the check that the shared secret is not zero (RFC 7748,
/// section 6.1), and with private keys overwritten when dropped.
struct CheckedDh(Box<dyn Dh>);

impl CheckedDh {
    fn new() -> Self {
        let inner = DefaultResolver.resolve_dh(&DHChoice::Curve25519);
        Self(inner.expect("snow is built with its feature use-curve25519"))
    }
}

impl Dh for CheckedDh {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn pub_len(&self) -> usize {
        self.0.pub_len()
    }

    fn priv_len(&self) -> usize {
        self.0.priv_len()
    }

    fn set(&mut self, privkey: &[u8]) {
        self.0.set(privkey);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        self.0.generate(rng)
    }

    fn pubkey(&self) -> &[u8] {
        self.0.pubkey()
    }

    fn privkey(&self) -> &[u8] {
        self.0.privkey()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        self.0.dh(pubkey, out)?;
        let secret = out.get(..self.pub_len()).ok_or(snow::Error::Dh)?;
        if bool::from(secret.ct_eq(&[0; 32])) {
            return Err(snow::Error::Dh);
        }
        Ok(())
    }
}

impl Drop for CheckedDh {
    fn drop(&mut self) {
        self.0.set(&[0; 32]);
    }
}

/// A cipher of snow's whose key is overwritten when dropped.
struct WipedCipher(Box<dyn Cipher>);

impl Cipher for WipedCipher {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0.set(key);
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        self.0.encrypt(nonce, authtext, plaintext, out)
    }

    fn decrypt(&self, nonce: u64, authtext: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, snow::Error> {
        let opened = self.0.decrypt(nonce, authtext, ciphertext, out);
        if opened.is_err() {
            out.zeroize(); // what was not authenticated is nobody's business
        }
        opened
    }
}

impl Drop for WipedCipher {
    fn drop(&mut self) {
        self.0.set(&[0; 32]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn randomness_is_given_once_and_only_whole() {
        let mut drawn = Drawn(Some(Zeroizing::new([7; 32])));
        let mut bytes = [0; 32];
        drawn.try_fill_bytes(&mut bytes).unwrap();
        assert_eq!(bytes, [7; 32]);
        assert!(drawn.try_fill_bytes(&mut bytes).is_err());
        assert!(Drawn(Some(Zeroizing::new([7; 32]))).try_fill_bytes(&mut [0; 31]).is_err());
    }

    /// RFC 7748, section 6.1.
    #[test]
    fn the_agreement_is_that_of_the_rfc() {
        let alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        assert_eq!(public_key(&alice), hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
        let mut dh = CheckedDh::new();
        dh.set(&alice);
        let mut secret = [0; 32];
        dh.dh(&public_key(&bob), &mut secret).unwrap();
        assert_eq!(secret, hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"));
    }

    /// All of Wycheproof's cases: each secret as expected, and those refused that are zero.
    #[test]
    fn the_agreement_is_wycheproofs_without_zero_secrets() {
        let file: serde_json::Value = serde_json::from_str(include_str!("../wycheproof/x25519_test.json")).unwrap();
        let (mut agreed, mut refused) = (0, 0);
        for case in file["testGroups"].as_array().unwrap().iter().flat_map(|group| group["tests"].as_array().unwrap()) {
            let bytes = |name: &str| hex(case[name].as_str().unwrap());
            let mut dh = CheckedDh::new();
            dh.set(&bytes("private"));
            let mut secret = [0; 32];
            match dh.dh(&bytes("public"), &mut secret) {
                Ok(()) => {
                    assert_eq!(secret, bytes("shared"), "{}", case["tcId"]);
                    agreed += 1;
                }
                Err(_) => {
                    assert_eq!(bytes("shared"), [0; 32], "{}", case["tcId"]);
                    assert_ne!(case["result"], "valid", "{}", case["tcId"]);
                    refused += 1;
                }
            }
        }
        assert_eq!((agreed, refused), (487, 31));
    }

    fn hex(text: &str) -> [u8; 32] {
        hex::decode(text).unwrap().try_into().unwrap()
    }
}
