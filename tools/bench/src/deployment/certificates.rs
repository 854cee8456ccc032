//! Certificates of the services, as `causewayctl keys new-tls-certificate` makes them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use causeway_runtime::clock::{Clock as _, SystemClock};
use causeway_runtime::secret_file;
use causeway_runtime::tls::Role;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;

/// An authority, and for each role a folder with `tls.crt`, `tls.key` and `ca.crt`; gives where these folders are.
pub(super) fn make(folder: &Path, deployment: &str) -> anyhow::Result<PathBuf> {
    let authority_key = KeyPair::generate()?;
    let mut params = named("bench");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = params.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(params, authority_key);
    for role in Role::ALL {
        let own = folder.join(role.name());
        std::fs::create_dir_all(&own).with_context(|| own.display().to_string())?;
        let mut params = named(role.name());
        let uri = format!("spiffe://{deployment}/{}", role.name());
        params.subject_alt_names =
            vec![SanType::DnsName("localhost".try_into()?), SanType::URI(uri.as_str().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?.pem();
        std::fs::write(own.join("tls.crt"), certificate)?;
        std::fs::write(own.join("ca.crt"), &authority)?;
        secret_file::create(&own.join("tls.key"), key.serialize_pem().as_bytes())?;
    }
    Ok(folder.to_owned())
}

/// A certificate for a server of this name that signs itself, and its key, in one file; gives the certificate.
pub(crate) fn make_alone(file: &Path, name: &str) -> anyhow::Result<CertificateDer<'static>> {
    let mut params = named(name);
    params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    secret_file::create(file, (certificate.pem() + &key.serialize_pem()).as_bytes())?;
    Ok(certificate.der().clone())
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemClock.now();
    params.not_before = (now - Duration::from_secs(3_600)).into();
    params.not_after = (now + Duration::from_secs(2 * 86_400)).into();
    params
}
