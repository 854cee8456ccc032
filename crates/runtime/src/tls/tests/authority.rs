//! Certificates for tests: real ones, of authorities that live as long as the test.

use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use tempfile::TempDir;

use super::super::{Role, Tls, TlsConfig, TlsError};
use crate::clock::{SharedClock, SystemClock};

pub(super) const DOMAIN: &str = "causeway.example";

/// Who signs certificates.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both as PEM.
#[derive(Clone)]
pub(super) struct Issued {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// What a certificate says.
#[derive(Clone)]
pub(super) struct Says {
    pub(super) uris: Vec<String>,
    pub(super) names: Vec<&'static str>,
    /// First and last year.
    pub(super) years: (i32, i32),
    pub(super) purposes: Vec<ExtendedKeyUsagePurpose>,
}

impl Says {
    /// What the certificate of a process with this role says.
    pub(super) fn role(role: Role) -> Self {
        Self {
            uris: vec![format!("spiffe://{DOMAIN}/{role}")],
            names: vec!["localhost"],
            years: (2000, 2100),
            purposes: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        }
    }
}

impl Authority {
    /// All have the same name, as successive ones of one deployment may have.
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Causeway services");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(super) fn issue(&self, says: &Says) -> Issued {
        let mut params = CertificateParams::new(says.names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let params = params.as_mut().unwrap();
        for uri in &says.uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().unwrap()));
        }
        params.not_before = date_time_ymd(says.years.0, 1, 1);
        params.not_after = date_time_ymd(says.years.1, 1, 1);
        params.extended_key_usages.clone_from(&says.purposes);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &*self.0).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub(super) fn of_role(&self, role: Role) -> Issued {
        self.issue(&Says::role(role))
    }
}

/// The files of a process, as Kubernetes mounts a secret: links through `..data`, which is replaced at once.
pub(super) struct Mount {
    folder: TempDir,
    versions: std::cell::Cell<u32>,
}

impl Mount {
    pub(super) fn new(issued: &Issued, authorities: &[&Authority]) -> Self {
        let mount = Self { folder: tempfile::tempdir().unwrap(), versions: std::cell::Cell::new(0) };
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(Path::new("..data").join(name), mount.path(name)).unwrap();
        }
        mount.put(issued, authorities);
        mount
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces all three files in one step.
    pub(super) fn put(&self, issued: &Issued, authorities: &[&Authority]) {
        let authorities: String = authorities.iter().map(|authority| authority.pem()).collect();
        self.put_bytes(&issued.certificate, &issued.key, &authorities, 0o440);
    }

    pub(super) fn put_bytes(&self, certificate: &str, key: &str, authorities: &str, mode: u32) {
        self.versions.set(self.versions.get() + 1);
        let version = format!("..version-{}", self.versions.get());
        std::fs::create_dir(self.path(&version)).unwrap();
        for (name, text, mode) in
            [("tls.crt", certificate, 0o644), ("tls.key", key, mode), ("ca.crt", authorities, 0o644)]
        {
            let mut open = std::fs::OpenOptions::new();
            let mut file = open.write(true).create_new(true).mode(mode).open(self.path(&version).join(name)).unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        }
        let draft = self.path("..data_tmp");
        symlink(&version, &draft).unwrap();
        std::fs::rename(draft, self.path("..data")).unwrap();
    }

    pub(super) fn config(&self) -> TlsConfig {
        TlsConfig {
            certificate_file: self.path("tls.crt"),
            key_file: self.path("tls.key"),
            ca_file: self.path("ca.crt"),
            ..TlsConfig::default()
        }
    }

    pub(super) fn load(&self, role: Role) -> Result<Tls, TlsError> {
        self.load_at(role, Arc::new(SystemClock))
    }

    pub(super) fn load_at(&self, role: Role, clock: SharedClock) -> Result<Tls, TlsError> {
        Tls::load(self.config(), DOMAIN, role, clock)
    }
}

/// A process with a certificate of this authority.
pub(super) fn process(authority: &Authority, role: Role) -> Tls {
    Mount::new(&authority.of_role(role), &[authority]).load(role).unwrap()
}
