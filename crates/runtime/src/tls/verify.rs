//! What a handshake demands: TLS 1.3, a certificate from both sides, of this trust domain, and of the right role.

use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    ServerConfig, SignatureScheme,
};

use super::identity::{Identity, IdentityError, Role};
use crate::clock::SharedClock;

/// HTTP/2, which gRPC is.
const ALPN: &[u8] = b"h2";

/// What both sides of a handshake are made of.
pub(super) struct Parts<'a> {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) key: Arc<CertifiedKey>,
    pub(super) domain: String,
    pub(super) clock: &'a SharedClock,
}

impl Parts<'_> {
    /// For connections that come in: whoever is of the trust domain and has a role. What that role may do is decided for each
    /// call.
    pub(super) fn server(&self) -> Result<Arc<ServerConfig>, Error> {
        let inner =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(&self.provider)).build();
        let inner = inner.map_err(|error| Error::General(error.to_string()))?;
        let verifier = Arc::new(AnyRole { inner, domain: self.domain.clone() });
        let mut config = ServerConfig::builder_with_details(Arc::clone(&self.provider), self.time())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(self.resolver());
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A session that is resumed is not verified anew: each handshake is to be a whole one.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// For connections to a process of this role.
    pub(super) fn client(&self, role: Role) -> Result<Arc<ClientConfig>, Error> {
        let inner =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(&self.provider)).build();
        let inner = inner.map_err(|error| Error::General(error.to_string()))?;
        let verifier = Arc::new(OneRole { inner, domain: self.domain.clone(), role });
        let mut config = ClientConfig::builder_with_details(Arc::clone(&self.provider), self.time())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(self.resolver());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.key)))
    }

    fn time(&self) -> Arc<Time> {
        Arc::new(Time(Arc::clone(self.clock)))
    }
}

/// The process's clock, as handshakes ask for it.
struct Time(SharedClock);

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.now().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

fn not_a_peer(error: IdentityError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// A failed handshake in words: what this module finds wrong with a certificate is hidden in a debug form otherwise.
pub(super) fn readable(error: std::io::Error) -> std::io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(own)))) => {
            std::io::Error::new(error.kind(), own.to_string())
        }
        _ => error,
    }
}

/// Verifies a server: chain, time and DNS name as everywhere, then trust domain and role.
#[derive(Debug)]
struct OneRole {
    inner: Arc<WebPkiServerVerifier>,
    domain: String,
    role: Role,
}

impl ServerCertVerifier for OneRole {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        Identity::of(end_entity)
            .and_then(|identity| identity.within(&self.domain))
            .and_then(|identity| identity.with_role(self.role))
            .map_err(not_a_peer)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Verifies a client: chain and time as everywhere, then trust domain and that there is a role.
#[derive(Debug)]
struct AnyRole {
    inner: Arc<dyn ClientCertVerifier>,
    domain: String,
}

impl ClientCertVerifier for AnyRole {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        Identity::of(end_entity).and_then(|identity| identity.within(&self.domain)).map_err(not_a_peer)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
