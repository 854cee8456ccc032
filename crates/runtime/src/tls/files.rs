//! The three files, from bytes on disk to what handshakes use.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore, ServerConfig};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use zeroize::Zeroizing;

use super::config::TlsConfig;
use super::identity::{Identity, Role};
use super::verify;
use crate::clock::SharedClock;
use crate::secret_file::{self, SecretFileError};

/// Certificates in one file; an authority's bundle has a handful.
const MAX_CERTIFICATES: usize = 64;
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Why certificates cannot be used; names the file and the fix.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not there or not readable.
    #[error("{path} cannot be read ({source}): make it, or correct the path")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key cannot be read, or others could.
    #[error(transparent)]
    Key(#[from] SecretFileError),
    /// What is in a file cannot be used.
    #[error("{path} cannot be used: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// The files as they are on disk.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Files {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    authorities: Vec<u8>,
}

impl Files {
    /// Reads all three. They may be replaced meanwhile: what does not fit together then does at the next look.
    pub(super) fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(&config.certificate_file)?,
            key: secret_file::read(&config.key_file)?,
            authorities: read(&config.ca_file)?,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(wrong(path, "it is too large for certificates: correct the path"));
    }
    Ok(bytes)
}

fn wrong(path: &Path, problem: impl Into<String>) -> TlsError {
    TlsError::Content { path: path.to_owned(), problem: problem.into() }
}

/// What handshakes use, all of it of one version of the files.
pub(super) struct Material {
    /// For connections that come in, from whatever role.
    pub(super) server: Arc<ServerConfig>,
    /// For connections to a process of each role.
    pub(super) clients: BTreeMap<Role, Arc<ClientConfig>>,
    /// When this process's certificate begins to be valid.
    pub(super) not_before: SystemTime,
    /// When it ends.
    pub(super) not_after: SystemTime,
}

impl Material {
    /// Checks that the files fit together, and are those of a process of this role in this trust domain.
    pub(super) fn from(
        files: &Files,
        config: &TlsConfig,
        domain: &str,
        own: Role,
        clock: &SharedClock,
    ) -> Result<Self, TlsError> {
        let roots = authorities(&files.authorities, &config.ca_file)?;
        let chain = certificates(&files.certificate, &config.certificate_file)?;
        let this = &chain[0];
        Identity::of(this)
            .and_then(|identity| identity.within(domain))
            .and_then(|identity| identity.with_role(own))
            .map_err(|error| wrong(&config.certificate_file, error.to_string()))?;
        let (not_before, not_after) = validity(this).ok_or_else(|| {
            wrong(&config.certificate_file, "its first certificate cannot be read: put this process's own first")
        })?;
        let key = PrivateKeyDer::from_pem_slice(&files.key)
            .map_err(|_| wrong(&config.key_file, "there is no private key in PEM form in it"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = CertifiedKey::from_der(chain.clone(), key, &provider).map_err(|error| match error {
            Error::InconsistentKeys(_) => wrong(&config.key_file, "it is not the key of the certificate"),
            error => wrong(&config.key_file, error.to_string()),
        })?;
        let roots = Arc::new(roots);
        vouched_for(&chain, &roots, &provider, clock).map_err(|problem| {
            let problem = format!("no authority of {} vouches for it ({problem})", config.ca_file.display());
            wrong(&config.certificate_file, problem)
        })?;
        let made = verify::Parts { roots, provider, key: Arc::new(key), domain: domain.to_owned(), clock };
        let unusable = |error: Error| wrong(&config.certificate_file, error.to_string());
        let server = made.server().map_err(unusable)?;
        let clients = Role::ALL.into_iter().map(|role| Ok((role, made.client(role)?)));
        let clients = clients.collect::<Result<_, _>>().map_err(unusable)?;
        Ok(Self { server, clients, not_before, not_after })
    }
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(MAX_CERTIFICATES + 1).collect();
    let found = found.map_err(|error| wrong(path, format!("it is no PEM file ({error})")))?;
    match found.len() {
        0 => Err(wrong(path, "there is no certificate in PEM form in it")),
        1..=MAX_CERTIFICATES => Ok(found),
        _ => Err(wrong(path, format!("there are more than {MAX_CERTIFICATES} certificates in it"))),
    }
}

fn authorities(pem: &[u8], path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, path)? {
        let refused = |error: Error| wrong(path, format!("a certificate in it is not that of an authority ({error})"));
        roots.add(certificate).map_err(refused)?;
    }
    Ok(roots)
}

/// From when to when a certificate is good.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let validity = Certificate::from_der(certificate).ok()?.tbs_certificate.validity;
    let at = |since: Duration| UNIX_EPOCH.checked_add(since);
    Some((at(validity.not_before.to_unix_duration())?, at(validity.not_after.to_unix_duration())?))
}

/// Whether others with the same authorities would take this certificate. One out of its time is for health to tell of: to refuse
/// it here would keep a process from starting that gets another one while it runs.
fn vouched_for(
    chain: &[CertificateDer<'static>],
    roots: &Arc<RootCertStore>,
    provider: &Arc<rustls::crypto::CryptoProvider>,
    clock: &SharedClock,
) -> Result<(), String> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let now = clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match verifier.verify_client_cert(&chain[0], &chain[1..], UnixTime::since_unix_epoch(now)) {
        Ok(_) => Ok(()),
        Err(Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
