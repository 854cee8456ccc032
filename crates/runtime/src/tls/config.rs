//! `[server.tls]`: the certificates of a process.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::identity::is_trust_domain;
use crate::config::{Check, ConfigError, ensure, within};

/// Mutual TLS between the services: where this process's certificate and key are, and whom it trusts. The files are read again
/// while the process runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// PEM file with this process's certificate, and those between it and the authority after it. Its names are the DNS names by
    /// which others reach the process, and the URI `spiffe://<trust domain>/<role>`. No default.
    pub certificate_file: PathBuf,
    /// PEM file with the certificate's key, readable by its owner and group only. No default.
    pub key_file: PathBuf,
    /// PEM file with the certificates of the authorities whose certificates are trusted: several while one replaces another.
    /// No default.
    pub ca_file: PathBuf,
    /// The trust domain in all certificates of the deployment: 1 to 255 of a-z, 0-9, `.`, `-`, `_`. Default the deployment's name.
    pub trust_domain: Option<String>,
    /// How often the files are looked at, in milliseconds (100 to 3 600 000). Default 10 000.
    pub reload_interval_ms: u64,
    /// A certificate with fewer days left than this, and less than a quarter of its time, shows as degraded in health (0 to 365).
    /// Default 14.
    pub expiry_warning_days: u32,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            certificate_file: PathBuf::new(),
            key_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            trust_domain: None,
            reload_interval_ms: 10_000,
            expiry_warning_days: 14,
        }
    }
}

impl TlsConfig {
    pub(super) fn reload_interval(&self) -> Duration {
        Duration::from_millis(self.reload_interval_ms)
    }

    pub(super) fn warning(&self) -> Duration {
        Duration::from_secs(u64::from(self.expiry_warning_days) * 86_400)
    }
}

impl Check for TlsConfig {
    fn check(&self) -> Result<(), ConfigError> {
        for (field, file) in [
            ("server.tls.certificate_file", &self.certificate_file),
            ("server.tls.key_file", &self.key_file),
            ("server.tls.ca_file", &self.ca_file),
        ] {
            ensure(field, !file.as_os_str().is_empty(), "not set", "give the path of a PEM file")?;
        }
        if let Some(domain) = &self.trust_domain {
            let fix = "give 1 to 255 of a-z, 0-9, '.', '-', '_', as in the certificates' spiffe:// names";
            ensure("server.tls.trust_domain", is_trust_domain(domain), domain, fix)?;
        }
        within("server.tls.reload_interval_ms", self.reload_interval_ms, 100..=3_600_000)?;
        within("server.tls.expiry_warning_days", self.expiry_warning_days, 0..=365)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_checked() {
        let whole = TlsConfig {
            certificate_file: "a".into(),
            key_file: "b".into(),
            ca_file: "c".into(),
            trust_domain: Some("causeway.example".to_owned()),
            ..TlsConfig::default()
        };
        whole.check().unwrap();
        for (field, wrong) in [
            ("server.tls.certificate_file", TlsConfig { certificate_file: PathBuf::new(), ..whole.clone() }),
            ("server.tls.key_file", TlsConfig { key_file: PathBuf::new(), ..whole.clone() }),
            ("server.tls.ca_file", TlsConfig { ca_file: PathBuf::new(), ..whole.clone() }),
            ("server.tls.trust_domain", TlsConfig { trust_domain: Some("a/b".to_owned()), ..whole.clone() }),
            ("server.tls.reload_interval_ms", TlsConfig { reload_interval_ms: 99, ..whole.clone() }),
            ("server.tls.expiry_warning_days", TlsConfig { expiry_warning_days: 366, ..whole }),
        ] {
            let error = wrong.check().unwrap_err().to_string();
            assert!(error.contains(field), "{field}: {error}");
        }
    }
}
