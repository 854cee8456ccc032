//! The edge's static key and its certificate, from files. The key is replaced by starting the edge with new files:
//! clients that know the old key get alert 4 and come back with XX, where the new certificate convinces them.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use causeway_identity::NoiseKey;
use causeway_identity::certificate::{CertificateError, ServerCertificate};
use causeway_noise::StaticKey;
use causeway_proto::wire::v1 as pb;
use causeway_runtime::secret_file;
use prost::Message as _;
use zeroize::Zeroizing;

use crate::config::EdgeConfig;
use crate::error::EdgeError;

/// Far more than a certificate needs.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// What the edge proves itself with.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) static_key: Arc<StaticKey>,
    certificate: pb::ServerCertificate,
    limits: pb::Limits,
}

impl Keys {
    /// Reads both files and checks that they fit each other, the deployment and the time. The root's signature is for
    /// clients to check: the edge does not hold the root.
    pub(crate) fn load(config: &EdgeConfig, now: SystemTime) -> Result<Self, EdgeError> {
        let (key_path, certificate_path) = (&config.noise_key_file, &config.certificate_file);
        let text = secret_file::read(key_path)?;
        let private = private_key(&text).ok_or_else(|| EdgeError::KeyForm { path: key_path.clone() })?;
        let static_key = StaticKey::from_bytes(private);
        let public = NoiseKey::new(*static_key.public())
            .map_err(|source| EdgeError::KeyUnfit { path: key_path.clone(), source })?;
        let bytes = read(certificate_path)
            .map_err(|source| EdgeError::Unreadable { path: certificate_path.clone(), source })?;
        let certificate = fitting(&bytes, &config.deployment, public, now)
            .map_err(|source| EdgeError::Certificate { path: certificate_path.clone(), source })?;
        let limits = pb::Limits {
            max_stanza_bytes: config.max_stanza_bytes,
            ping_interval_ms: u32::try_from(config.ping_interval_ms).unwrap_or(u32::MAX),
        };
        Ok(Self { static_key: Arc::new(static_key), certificate, limits })
    }

    #[cfg(test)]
    pub(crate) fn for_tests(static_key: StaticKey) -> Self {
        let limits = pb::Limits { max_stanza_bytes: 1, ping_interval_ms: 1 };
        Self { static_key: Arc::new(static_key), certificate: pb::ServerCertificate::default(), limits }
    }

    /// The payload of a server's handshake message at this time, in Unix milliseconds.
    pub(crate) fn server_hello(&self, now_ms: u64) -> Vec<u8> {
        let hello = pb::ServerHello {
            certificate: Some(self.certificate.clone()),
            server_time_ms: now_ms,
            limits: Some(self.limits),
        };
        hello.encode_to_vec()
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
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

fn fitting(
    bytes: &[u8],
    deployment: &str,
    key: NoiseKey,
    now: SystemTime,
) -> Result<pb::ServerCertificate, CertificateError> {
    let certificate = ServerCertificate::from_bytes(bytes)?.to_proto();
    let body = pb::CertificateBody::decode(&certificate.body[..]).map_err(|_| CertificateError::Malformed)?;
    if body.deployment != deployment {
        return Err(CertificateError::Deployment);
    }
    if body.static_key != key.as_bytes()[..] {
        return Err(CertificateError::StaticKey);
    }
    let now_s = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    if now_s < body.not_before_s {
        return Err(CertificateError::NotYetValid);
    }
    if now_s >= body.not_after_s {
        return Err(CertificateError::Expired);
    }
    Ok(certificate)
}
