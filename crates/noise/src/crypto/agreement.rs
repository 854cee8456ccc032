//! X25519 on aws-lc-rs, as snow wants it.

use std::sync::Arc;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use snow::types::{Dh, Random};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::key::PublicKey;

/// An X25519 key pair, made ready for agreements. aws-lc-rs wipes its copy of the private key when this is dropped.
pub(crate) struct KeyPair {
    private: Zeroizing<[u8; LEN]>,
    public: PublicKey,
    ready: PrivateKey,
}

impl KeyPair {
    /// The pair of a private key. This costs a multiplication, so a static key is made ready once and shared.
    pub(crate) fn new(private: Zeroizing<[u8; LEN]>) -> Self {
        let ready = PrivateKey::from_private_key(&X25519, &*private).expect("any 32 bytes are an X25519 private key");
        let computed = ready.compute_public_key().expect("an X25519 private key has a public one");
        let mut public = [0; LEN];
        public.copy_from_slice(computed.as_ref());
        Self { private, public, ready }
    }

    pub(crate) fn private(&self) -> &Zeroizing<[u8; LEN]> {
        &self.private
    }

    pub(crate) const fn public(&self) -> &PublicKey {
        &self.public
    }
}

/// snow's key agreement: a static or an ephemeral key and what it makes of the peer's.
///
/// snow itself keeps the secrets that come out, and what it derives from them, on its stack without wiping them.
pub(super) struct Agreement {
    /// The static key, which snow sets by its bytes in each handshake: it is recognised and not computed again.
    known: Arc<KeyPair>,
    pair: Option<Arc<KeyPair>>,
}

impl Agreement {
    pub(super) const fn new(known: Arc<KeyPair>) -> Self {
        Self { known, pair: None }
    }
}

impl Dh for Agreement {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        LEN
    }

    fn priv_len(&self) -> usize {
        LEN
    }

    fn set(&mut self, privkey: &[u8]) {
        self.pair = if bool::from(privkey.ct_eq(&self.known.private[..])) {
            Some(Arc::clone(&self.known))
        } else {
            // A key of another length is none: agreements with it fail.
            privkey.try_into().ok().map(|private| Arc::new(KeyPair::new(Zeroizing::new(private))))
        };
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut private = Zeroizing::new([0; LEN]);
        rng.try_fill_bytes(&mut *private)?;
        self.pair = Some(Arc::new(KeyPair::new(private)));
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.pair.as_ref().map_or(&[0; LEN][..], |pair| &pair.public[..])
    }

    fn privkey(&self) -> &[u8] {
        self.pair.as_ref().map_or(&[0; LEN][..], |pair| &pair.private[..])
    }

    /// Refuses a secret that is zero (RFC 7748, section 6.1). The library does so too; the protocol shall not rest on it.
    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let pair = self.pair.as_ref().ok_or(snow::Error::Dh)?;
        let peer = UnparsedPublicKey::new(&X25519, pubkey.get(..LEN).ok_or(snow::Error::Dh)?);
        let out = out.get_mut(..LEN).ok_or(snow::Error::Dh)?;
        agree(&pair.ready, peer, snow::Error::Dh, |secret| {
            if secret.len() != LEN || bool::from(secret.ct_eq(&[0; LEN])) {
                return Err(snow::Error::Dh);
            }
            out.copy_from_slice(secret);
            Ok(())
        })
    }
}

/// Bytes of a private key, a public key and a secret.
const LEN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn agreement(private: &[u8; LEN]) -> Agreement {
        let mut agreement = Agreement::new(Arc::new(KeyPair::new(Zeroizing::new([1; LEN]))));
        agreement.set(private);
        agreement
    }

    /// RFC 7748, section 6.1.
    #[test]
    fn the_agreement_is_that_of_the_rfc() {
        let alice = agreement(&hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
        let bob = agreement(&hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
        assert_eq!(alice.pubkey(), hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
        let mut secret = [0; LEN];
        alice.dh(bob.pubkey(), &mut secret).unwrap();
        assert_eq!(secret, hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"));
    }

    /// All of Wycheproof's cases: each secret as expected, and those refused that are zero.
    #[test]
    fn the_agreement_is_wycheproofs_without_zero_secrets() {
        let file: serde_json::Value = serde_json::from_str(include_str!("../../wycheproof/x25519_test.json")).unwrap();
        let (mut agreed, mut refused) = (0, 0);
        for case in file["testGroups"].as_array().unwrap().iter().flat_map(|group| group["tests"].as_array().unwrap()) {
            let bytes = |name: &str| hex(case[name].as_str().unwrap());
            let mut secret = [0; LEN];
            match agreement(&bytes("private")).dh(&bytes("public"), &mut secret) {
                Ok(()) => {
                    assert_eq!(secret, bytes("shared"), "{}", case["tcId"]);
                    agreed += 1;
                }
                Err(_) => {
                    assert_eq!(bytes("shared"), [0; LEN], "{}", case["tcId"]);
                    assert_ne!(case["result"], "valid", "{}", case["tcId"]);
                    refused += 1;
                }
            }
        }
        assert_eq!((agreed, refused), (487, 31));
    }

    #[test]
    fn without_a_key_or_room_there_is_no_agreement() {
        let mut secret = [7; LEN];
        let (key, peer) = (agreement(&[2; LEN]), *agreement(&[3; LEN]).known.public());
        assert!(key.dh(&peer[..31], &mut secret).is_err());
        assert!(key.dh(&peer, &mut secret[..31]).is_err());
        let mut unset = agreement(&[2; LEN]);
        unset.set(&[2; 31]);
        assert!(unset.dh(&peer, &mut secret).is_err());
        assert_eq!(secret, [7; LEN], "nothing was written");
    }

    #[test]
    fn the_static_key_is_not_computed_again() {
        let known = Arc::new(KeyPair::new(Zeroizing::new([4; LEN])));
        let mut agreement = Agreement::new(Arc::clone(&known));
        agreement.set(&[4; LEN]);
        assert!(Arc::ptr_eq(agreement.pair.as_ref().unwrap(), &known));
        agreement.set(&[5; LEN]);
        assert_ne!(agreement.pubkey(), known.public());
    }

    fn hex(text: &str) -> [u8; LEN] {
        hex::decode(text).unwrap().try_into().unwrap()
    }
}
