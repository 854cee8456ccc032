//! Server certificates: what ties an edge's Noise static key to a deployment (docs/protocol.md, section 3).
//!
//! An offline [`RootKey`] signs; clients pin one or several [`RootPublicKey`]s and verify.

mod root;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use causeway_proto::wire::v1 as pb;
use prost::Message as _;

pub use self::root::{RootKey, RootKeyError, RootPublicKey};
use crate::noise_key::NoiseKey;

/// What the signature is over, before the body: a signature of the root for anything else never fits here.
const CONTEXT: &[u8] = b"causeway server certificate v1\0";
/// Largest serialised body in bytes.
const MAX_BODY_BYTES: usize = 1024;
/// Longest name of a deployment in bytes.
const MAX_DEPLOYMENT_BYTES: usize = 255;

/// Which check of a server certificate failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CertificateError {
    /// Not a certificate: parts missing, of the wrong length, or a window that is empty.
    #[error("the server certificate is malformed")]
    Malformed,
    /// Signed by none of the roots that are pinned.
    #[error("the server certificate is signed by an unknown root")]
    UnknownRoot,
    /// The signature does not verify under the pinned root that it names.
    #[error("the server certificate's signature does not verify")]
    Signature,
    /// For another deployment.
    #[error("the server certificate is for another deployment")]
    Deployment,
    /// For another static key than the handshake's.
    #[error("the server certificate is for another static key")]
    StaticKey,
    /// Its window has not begun. Also what a client sees whose clock is slow.
    #[error("the server certificate is not yet valid")]
    NotYetValid,
    /// Its window is over. Also what a client sees whose clock is fast.
    #[error("the server certificate has expired")]
    Expired,
}

/// From when (inclusive) to when (exclusive) a certificate holds, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: SystemTime,
    /// First second after.
    pub not_after: SystemTime,
}

/// A server certificate, signed; nothing in it is believed before [`ServerCertificate::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCertificate {
    body: Vec<u8>,
    root_id: [u8; 8],
    signature: [u8; 64],
}

impl ServerCertificate {
    /// Signs a certificate for the edge with this static key.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`] if `deployment` is not 1 to 255 bytes or the window is empty or before 1970.
    pub fn issue(
        root: &RootKey,
        deployment: &str,
        static_key: &NoiseKey,
        validity: Validity,
    ) -> Result<Self, CertificateError> {
        let seconds = |time: SystemTime| {
            time.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).map_err(|_| CertificateError::Malformed)
        };
        let body = pb::CertificateBody {
            deployment: deployment.to_owned(),
            static_key: static_key.as_bytes().to_vec().into(),
            not_before_s: seconds(validity.not_before)?,
            not_after_s: seconds(validity.not_after)?,
        };
        Body::read(&body)?;
        let body = body.encode_to_vec();
        let signature = root.sign(&signed(&body));
        Ok(Self { body, root_id: root.public().id(), signature })
    }

    /// Checks that one of `roots` signed this certificate for `deployment` and `static_key`, and that it holds at
    /// `now`, in the order of [`CertificateError`].
    ///
    /// # Errors
    /// [`CertificateError`], the first that applies.
    pub fn verify(
        &self,
        roots: &[RootPublicKey],
        deployment: &str,
        static_key: &NoiseKey,
        now: SystemTime,
    ) -> Result<Validity, CertificateError> {
        let mut named = roots.iter().filter(|root| root.id() == self.root_id).peekable();
        if named.peek().is_none() {
            return Err(CertificateError::UnknownRoot);
        }
        let message = signed(&self.body);
        if !named.any(|root| root.verifies(&message, &self.signature)) {
            return Err(CertificateError::Signature);
        }
        let decoded = pb::CertificateBody::decode(self.body.as_slice()).map_err(|_| CertificateError::Malformed)?;
        let body = Body::read(&decoded)?;
        if body.deployment != deployment {
            return Err(CertificateError::Deployment);
        }
        if body.static_key != *static_key {
            return Err(CertificateError::StaticKey);
        }
        if now < body.validity.not_before {
            return Err(CertificateError::NotYetValid);
        }
        if now >= body.validity.not_after {
            return Err(CertificateError::Expired);
        }
        Ok(body.validity)
    }

    /// As it stands in `ServerHello`.
    pub fn to_proto(&self) -> pb::ServerCertificate {
        pb::ServerCertificate {
            body: self.body.clone().into(),
            root_id: self.root_id.to_vec().into(),
            signature: self.signature.to_vec().into(),
        }
    }

    /// Serialised, as the edge's certificate file holds it.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    /// Reads what [`ServerCertificate::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CertificateError> {
        pb::ServerCertificate::decode(bytes).map_err(|_| CertificateError::Malformed)?.try_into()
    }
}

impl TryFrom<pb::ServerCertificate> for ServerCertificate {
    type Error = CertificateError;

    fn try_from(message: pb::ServerCertificate) -> Result<Self, CertificateError> {
        if message.body.is_empty() || message.body.len() > MAX_BODY_BYTES {
            return Err(CertificateError::Malformed);
        }
        Ok(Self {
            body: message.body.into(),
            root_id: message.root_id.as_ref().try_into().map_err(|_| CertificateError::Malformed)?,
            signature: message.signature.as_ref().try_into().map_err(|_| CertificateError::Malformed)?,
        })
    }
}

struct Body<'b> {
    deployment: &'b str,
    static_key: NoiseKey,
    validity: Validity,
}

impl<'b> Body<'b> {
    fn read(body: &'b pb::CertificateBody) -> Result<Self, CertificateError> {
        let time = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(CertificateError::Malformed);
        let named = (1..=MAX_DEPLOYMENT_BYTES).contains(&body.deployment.len());
        if !named || body.not_before_s >= body.not_after_s {
            return Err(CertificateError::Malformed);
        }
        Ok(Self {
            deployment: &body.deployment,
            static_key: body.static_key.as_ref().try_into().map_err(|_| CertificateError::Malformed)?,
            validity: Validity { not_before: time(body.not_before_s)?, not_after: time(body.not_after_s)? },
        })
    }
}

fn signed(body: &[u8]) -> Vec<u8> {
    [CONTEXT, body].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEPLOYMENT: &str = "home.example";

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn key(first: u8) -> NoiseKey {
        let mut bytes = [0; 32];
        bytes[0] = first;
        NoiseKey::new(bytes).unwrap()
    }

    fn issue(root: &RootKey) -> ServerCertificate {
        let validity = Validity { not_before: at(1000), not_after: at(2000) };
        ServerCertificate::issue(root, DEPLOYMENT, &key(9), validity).unwrap()
    }

    #[test]
    fn a_certificate_holds_for_its_key_deployment_and_window_under_any_pinned_root() {
        let (old, new) = (RootKey::from_seed([1; 32]), RootKey::from_seed([2; 32]));
        let pinned = [old.public(), new.public()];
        for root in [&old, &new] {
            let certificate = ServerCertificate::from_bytes(&issue(root).to_bytes()).unwrap();
            for now in [1000, 1999] {
                let validity = certificate.verify(&pinned, DEPLOYMENT, &key(9), at(now)).unwrap();
                assert_eq!(validity, Validity { not_before: at(1000), not_after: at(2000) });
            }
        }
    }

    #[test]
    fn each_failed_check_has_its_name() {
        let root = RootKey::from_seed([1; 32]);
        let pinned = [root.public()];
        let certificate = issue(&root);
        let verify = |roots: &[RootPublicKey], deployment: &str, first: u8, now: u64| {
            certificate.verify(roots, deployment, &key(first), at(now)).unwrap_err()
        };
        let stranger = RootKey::from_seed([3; 32]).public();
        assert_eq!(verify(&[], DEPLOYMENT, 9, 1500), CertificateError::UnknownRoot);
        assert_eq!(verify(&[stranger], DEPLOYMENT, 9, 1500), CertificateError::UnknownRoot);
        assert_eq!(verify(&pinned, "other.example", 9, 1500), CertificateError::Deployment);
        assert_eq!(verify(&pinned, DEPLOYMENT, 10, 1500), CertificateError::StaticKey);
        assert_eq!(verify(&pinned, DEPLOYMENT, 9, 999), CertificateError::NotYetValid);
        assert_eq!(verify(&pinned, DEPLOYMENT, 9, 2000), CertificateError::Expired);

        let mut renamed = certificate.to_proto();
        renamed.root_id = stranger.id().to_vec().into();
        let renamed = ServerCertificate::try_from(renamed).unwrap();
        let error = renamed.verify(&[root.public(), stranger], DEPLOYMENT, &key(9), at(1500)).unwrap_err();
        assert_eq!(error, CertificateError::Signature);
    }

    #[test]
    fn a_signed_body_that_is_no_body_is_malformed() {
        let root = RootKey::from_seed([1; 32]);
        let good = pb::CertificateBody {
            deployment: DEPLOYMENT.to_owned(),
            static_key: key(9).as_bytes().to_vec().into(),
            not_before_s: 1000,
            not_after_s: 2000,
        };
        let bodies = [
            vec![0xff],
            pb::CertificateBody { static_key: vec![9; 31].into(), ..good.clone() }.encode_to_vec(),
            pb::CertificateBody { static_key: vec![0; 32].into(), ..good.clone() }.encode_to_vec(),
            pb::CertificateBody { not_after_s: 1000, ..good.clone() }.encode_to_vec(),
            pb::CertificateBody { not_after_s: u64::MAX, ..good.clone() }.encode_to_vec(),
            pb::CertificateBody { deployment: String::new(), ..good }.encode_to_vec(),
        ];
        for body in bodies {
            let signature = root.sign(&signed(&body));
            let certificate = ServerCertificate { body, root_id: root.public().id(), signature };
            let error = certificate.verify(&[root.public()], DEPLOYMENT, &key(9), at(1500)).unwrap_err();
            assert_eq!(error, CertificateError::Malformed);
        }
        let window = Validity { not_before: at(5), not_after: at(5) };
        assert_eq!(
            ServerCertificate::issue(&root, DEPLOYMENT, &key(9), window).unwrap_err(),
            CertificateError::Malformed
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _any = ServerCertificate::from_bytes(&bytes);
        }

        #[test]
        fn one_changed_bit_never_verifies(position in 0_usize..10_000, bit in 0_u8..8) {
            let root = RootKey::from_seed([1; 32]);
            let original = issue(&root);
            let mut bytes = original.to_bytes();
            let position = position % bytes.len();
            bytes[position] ^= 1_u8 << bit;
            if let Ok(changed) = ServerCertificate::from_bytes(&bytes) {
                // A bit of the protobuf framing may leave the certificate itself as it was.
                let verified = changed.verify(&[root.public()], DEPLOYMENT, &key(9), at(1500));
                prop_assert!(verified.is_err() || changed == original);
            }
        }
    }
}
