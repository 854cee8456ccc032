//! The edge's static key and its certificate, from files. The key is replaced by starting the edge with new files:
//! clients that know the old key get alert 4 and come back with XX, where the new certificate convinces them. The
//! certificate of the same key is renewed while the edge runs.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use causeway_identity::NoiseKey;
use causeway_noise::StaticKey;
use causeway_proto::wire::v1 as pb;
use causeway_runtime::secret_file;
use prost::Message as _;
use zeroize::Zeroizing;

use crate::certificate::{CertificateFile, Served};
use crate::config::EdgeConfig;
use crate::error::EdgeError;

/// What the edge proves itself with.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) static_key: Arc<StaticKey>,
    pub(crate) certificate_file: CertificateFile,
    served: RwLock<Arc<Served>>,
    limits: pb::Limits,
}

impl Keys {
    /// Reads both files and checks that they fit each other, the deployment and the time.
    pub(crate) fn load(config: &EdgeConfig, now: SystemTime) -> Result<Self, EdgeError> {
        let key_path = &config.noise_key_file;
        let text = secret_file::read(key_path)?;
        let private = private_key(&text).ok_or_else(|| EdgeError::KeyForm { path: key_path.clone() })?;
        let static_key = StaticKey::from_bytes(private);
        let public = NoiseKey::new(*static_key.public())
            .map_err(|source| EdgeError::KeyUnfit { path: key_path.clone(), source })?;
        let certificate_file = CertificateFile::new(config, public);
        let served = RwLock::new(Arc::new(certificate_file.load(now)?));
        let limits = pb::Limits {
            max_stanza_bytes: config.max_stanza_bytes,
            ping_interval_ms: u32::try_from(config.ping_interval_ms).unwrap_or(u32::MAX),
        };
        Ok(Self { static_key: Arc::new(static_key), certificate_file, served, limits })
    }

    #[cfg(test)]
    pub(crate) fn for_tests(static_key: StaticKey) -> Self {
        let limits = pb::Limits { max_stanza_bytes: 1, ping_interval_ms: 1 };
        let public = NoiseKey::new(*static_key.public()).unwrap();
        let certificate_file = CertificateFile::new(&EdgeConfig::default(), public);
        Self { static_key: Arc::new(static_key), certificate_file, served: RwLock::default(), limits }
    }

    /// The certificate that clients are given.
    pub(crate) fn served(&self) -> Arc<Served> {
        Arc::clone(&self.served.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives clients this one from now on.
    pub(crate) fn serve(&self, renewed: Served) {
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
    }

    /// The payload of a server's handshake message at this time, in Unix milliseconds.
    pub(crate) fn server_hello(&self, now_ms: u64) -> Vec<u8> {
        let hello = pb::ServerHello {
            certificate: Some(self.served().certificate.clone()),
            server_time_ms: now_ms,
            limits: Some(self.limits),
        };
        hello.encode_to_vec()
    }
}

fn private_key(text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let digits = text.trim_ascii_end();
    if digits.len() != 64 || digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, &mut *key).ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use causeway_identity::certificate::CertificateError;
    use causeway_identity::{RootKey, ServerCertificate, Validity};
    use causeway_runtime::secret_file;

    use super::*;

    const DEPLOYMENT: &str = "net.example";

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    /// Loads a key and a certificate of the key with this seed, for this deployment, from two hours before to two hours
    /// after `at`.
    fn load(key: &str, seed: u8, deployment: &str, at: SystemTime) -> Result<Keys, EdgeError> {
        let folder = tempfile::tempdir().unwrap();
        let config = EdgeConfig {
            noise_key_file: folder.path().join("noise.key"),
            certificate_file: folder.path().join("certificate"),
            deployment: DEPLOYMENT.to_owned(),
            ..EdgeConfig::default()
        };
        secret_file::create(&config.noise_key_file, key.as_bytes()).unwrap();
        let public = NoiseKey::new(*StaticKey::from_bytes([seed; 32]).public()).unwrap();
        let two_hours = Duration::from_secs(7_200);
        let validity = Validity { not_before: at - two_hours, not_after: at + two_hours };
        let certificate =
            ServerCertificate::issue(&RootKey::from_seed([3; 32]), deployment, &public, validity).unwrap();
        std::fs::write(&config.certificate_file, certificate.to_bytes()).unwrap();
        Keys::load(&config, now())
    }

    #[test]
    fn key_and_certificate_must_fit_each_other_the_deployment_and_the_time() {
        let key = "01".repeat(32);
        let keys = load(&format!("{key}\n"), 1, DEPLOYMENT, now()).unwrap();
        let hello = pb::ServerHello::decode(&keys.server_hello(5)[..]).unwrap();
        assert_eq!((hello.server_time_ms, hello.limits.unwrap().max_stanza_bytes), (5, 262_144));

        for form in ["", "01", &"0g".repeat(32), &"AB".repeat(32), &"01".repeat(33)] {
            assert!(matches!(load(form, 1, DEPLOYMENT, now()), Err(EdgeError::KeyForm { .. })), "{form}");
        }
        let day = Duration::from_secs(86_400);
        for (seed, deployment, at, expected) in [
            (2, DEPLOYMENT, now(), CertificateError::StaticKey),
            (1, "other.example", now(), CertificateError::Deployment),
            (1, DEPLOYMENT, now() - day, CertificateError::Expired),
            (1, DEPLOYMENT, now() + day, CertificateError::NotYetValid),
        ] {
            match load(&key, seed, deployment, at) {
                Err(EdgeError::Certificate { source, .. }) => assert_eq!(source, expected),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let config = EdgeConfig { noise_key_file: "/nonexistent/noise.key".into(), ..EdgeConfig::default() };
        let error = Keys::load(&config, now()).unwrap_err().to_string();
        assert!(error.contains("edge.noise_key_file") && error.contains("/nonexistent/noise.key"), "{error}");
    }
}
