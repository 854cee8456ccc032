//! Certificates of the services, for deployments without another authority: one machine, tests, a trial.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use causeway_runtime::clock::{Clock as _, SystemClock};
use causeway_runtime::secret_file;
use causeway_runtime::tls::{Role, Tls, TlsConfig, is_trust_domain};
use clap::Args;
use clap::builder::PossibleValuesParser;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use zeroize::Zeroizing;

use super::{DAY, SLACK, refuse_existing};

/// Names of files in a folder, as cert-manager calls them too.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITY: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";

/// What `keys new-tls-ca` takes.
#[derive(Debug, Args)]
pub(crate) struct NewAuthority {
    /// Folder for ca.crt and ca.key; made if it is absent.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The services' trust domain (`server.tls.trust_domain`), by default the deployment's name.
    #[arg(long, value_name = "NAME")]
    trust_domain: String,
    /// For how long it is valid.
    #[arg(long, default_value_t = 3_650, value_parser = clap::value_parser!(u32).range(1..=7_300))]
    days: u32,
}

/// What `keys new-tls-certificate` takes.
#[derive(Debug, Args)]
pub(crate) struct NewCertificate {
    /// Folder that new-tls-ca made.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// The trust domain that new-tls-ca was given.
    #[arg(long, value_name = "NAME")]
    trust_domain: String,
    /// What the process is.
    #[arg(long, value_parser = PossibleValuesParser::new(Role::ALL.map(Role::name)))]
    role: String,
    /// A DNS name or IP address by which other services reach the process; may be given several times.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// For how long it is valid.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=825))]
    days: u32,
    /// Folder for tls.crt, tls.key and ca.crt; made if it is absent.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(crate) fn new_authority(arguments: NewAuthority) -> anyhow::Result<()> {
    let NewAuthority { folder, trust_domain, days } = arguments;
    let (certificate_file, key_file) = (folder.join(AUTHORITY), folder.join(AUTHORITY_KEY));
    refuse_existing(&key_file)?;
    let key = KeyPair::generate().context("a key cannot be made")?;
    let mut params = authority(&trust_domain)?;
    valid_for(&mut params, days);
    let certificate = params.self_signed(&key).context("the certificate cannot be made")?;
    write_secret(&key_file, &key)?;
    write(&certificate_file, &certificate.pem())
}

pub(crate) fn new_certificate(arguments: &NewCertificate) -> anyhow::Result<()> {
    let NewCertificate { ca, trust_domain, role, names, days, folder } = arguments;
    let own = Role::named(role).ok_or_else(|| anyhow!("--role {role} is unknown"))?;
    let key_file = folder.join(KEY);
    refuse_existing(&key_file)?;
    let authority_file = ca.join(AUTHORITY);
    let authorities = std::fs::read_to_string(&authority_file).with_context(|| {
        format!("{} cannot be read: give the folder that new-tls-ca made", authority_file.display())
    })?;
    let authority_key = secret_file::read(&ca.join(AUTHORITY_KEY))?;
    let authority_key = std::str::from_utf8(&authority_key).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
    let authority_key =
        authority_key.ok_or_else(|| anyhow!("{} holds no key in PEM form", ca.join(AUTHORITY_KEY).display()))?;
    let issuer = Issuer::new(authority(trust_domain)?, authority_key);

    let mut params = CertificateParams::new(names.clone()).context("--name must be a DNS name or an IP address")?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, role.as_str());
    let uri = format!("spiffe://{trust_domain}/{role}");
    params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().context("--trust-domain")?));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, *days);
    let key = KeyPair::generate().context("a key cannot be made")?;
    let certificate = params.signed_by(&key, &issuer).context("the certificate cannot be made")?;
    write_secret(&key_file, &key)?;
    let config = TlsConfig {
        certificate_file: folder.join(CERTIFICATE),
        key_file,
        ca_file: folder.join(AUTHORITY),
        ..TlsConfig::default()
    };
    write(&config.certificate_file, &certificate.pem())?;
    write(&config.ca_file, &authorities)?;
    // As the service will read them; fails for instance when the authority is that of another trust domain.
    Tls::load(config, trust_domain, own, Arc::new(SystemClock)).map(drop).context("what was made cannot be used")
}

/// What an authority says of itself; with its key, all that is needed to sign.
fn authority(trust_domain: &str) -> anyhow::Result<CertificateParams> {
    if !is_trust_domain(trust_domain) {
        bail!("--trust-domain {trust_domain} is none: give 1 to 255 of a-z, 0-9, '.', '-', '_'");
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Causeway services of {trust_domain}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn valid_for(params: &mut CertificateParams, days: u32) {
    let now = SystemClock.now();
    params.not_before = (now - SLACK).into();
    params.not_after = (now + Duration::from_secs(DAY.as_secs() * u64::from(days))).into();
}

fn write_secret(file: &Path, key: &KeyPair) -> anyhow::Result<()> {
    let pem = Zeroizing::new(key.serialize_pem());
    Ok(secret_file::create(file, pem.as_bytes())?)
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}
