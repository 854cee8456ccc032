//! Who a process is, by its certificate: a role in a trust domain, as the one URI `spiffe://<trust domain>/<role>`.

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// What a process is among the processes of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Serves clients.
    Edge,
    /// Decides who gets what.
    Routing,
    /// Knows who is who.
    KeyDirectory,
    /// Serves media.
    MediaRelay,
    /// An operator's tool.
    OperatorTool,
    /// A proxy of the operator that lets providers ask for delivery traces of their own users.
    ProviderGateway,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 6] =
        [Self::Edge, Self::Routing, Self::KeyDirectory, Self::MediaRelay, Self::OperatorTool, Self::ProviderGateway];

    /// As in certificates: `edge`, `routing`, `key-directory`, `media-relay`, `operator-tool`,
    /// `provider-gateway`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Routing => "routing",
            Self::KeyDirectory => "key-directory",
            Self::MediaRelay => "media-relay",
            Self::OperatorTool => "operator-tool",
            Self::ProviderGateway => "provider-gateway",
        }
    }

    /// The role with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who a certificate says that its holder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) domain: String,
    pub(super) role: Role,
}

/// Why a certificate that its authority vouches for is still not that of a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum IdentityError {
    #[error("the certificate cannot be read")]
    Unreadable,
    #[error("the certificate must have exactly one URI name, spiffe://<trust domain>/<role>, and has {0}")]
    NotOne(usize),
    #[error(
        "the certificate's URI name {0} is not spiffe://<trust domain>/<role> with one of the roles edge, routing, \
         key-directory, media-relay, operator-tool and provider-gateway"
    )]
    NoRole(String),
    #[error("the certificate is one of the trust domain {found}, and this deployment is {wanted}")]
    Domain { found: String, wanted: String },
    #[error("the certificate has the role {found}, and {wanted} is needed here")]
    Role { found: Role, wanted: Role },
}

/// Longest URI that SPIFFE allows.
const MAX_URI_BYTES: usize = 2_048;
const SCHEME: &str = "spiffe://";

impl Identity {
    /// Reads it from an end entity's certificate; whether that is to be trusted is another question.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let certificate = Certificate::from_der(certificate).map_err(|_| IdentityError::Unreadable)?;
        let names = certificate.tbs_certificate.get::<SubjectAltName>().map_err(|_| IdentityError::Unreadable)?;
        let names = names.map(|(_critical, names)| names.0).unwrap_or_default();
        let uris: Vec<&str> = names
            .iter()
            .filter_map(|name| match name {
                GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
                _ => None,
            })
            .collect();
        match uris[..] {
            [uri] => Self::from_uri(uri),
            _ => Err(IdentityError::NotOne(uris.len())),
        }
    }

    fn from_uri(uri: &str) -> Result<Self, IdentityError> {
        let (domain, role) = uri
            .strip_prefix(SCHEME)
            .filter(|_| uri.len() <= MAX_URI_BYTES)
            .and_then(|rest| rest.split_once('/'))
            .and_then(|(domain, role)| Some((domain, Role::named(role)?)))
            .filter(|(domain, _)| is_trust_domain(domain))
            // What is shown to people is bounded.
            .ok_or_else(|| IdentityError::NoRole(uri.chars().take(100).collect()))?;
        Ok(Self { domain: domain.to_owned(), role })
    }

    /// Checks that it is of this trust domain.
    pub(super) fn within(self, domain: &str) -> Result<Self, IdentityError> {
        if self.domain == domain {
            Ok(self)
        } else {
            Err(IdentityError::Domain { found: self.domain, wanted: domain.to_owned() })
        }
    }

    /// Checks that it has this role.
    pub(super) fn with_role(self, wanted: Role) -> Result<Self, IdentityError> {
        if self.role == wanted { Ok(self) } else { Err(IdentityError::Role { found: self.role, wanted }) }
    }
}

/// Whether SPIFFE allows this as the name of a trust domain: 1 to 255 of `a-z`, `0-9`, `.`, `-`, `_`.
pub fn is_trust_domain(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    (1..=255).contains(&name.len()) && name.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_a_domain_and_a_role() {
        for role in Role::ALL {
            let found = Identity::from_uri(&format!("spiffe://causeway.example/{role}")).unwrap();
            assert_eq!(found, Identity { domain: "causeway.example".to_owned(), role });
        }
        let no_end = format!("spiffe://{}/edge", "a".repeat(256));
        for wrong in [
            "",
            "https://causeway.example/edge",
            "spiffe://causeway.example",
            "spiffe://causeway.example/",
            "spiffe://causeway.example/Edge",
            "spiffe://causeway.example/edge/",
            "spiffe://causeway.example/x/edge",
            "spiffe://causeway.example/edge?x",
            "spiffe:///edge",
            "spiffe://user@causeway.example/edge",
            "spiffe://causeway.example:1/edge",
            &no_end,
        ] {
            assert!(matches!(Identity::from_uri(wrong), Err(IdentityError::NoRole(_))), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_nobody() {
        for bytes in [&b""[..], b"x", &[0x30, 0x82, 0xff, 0xff], &[0x30; 4_000]] {
            assert_eq!(Identity::of(&CertificateDer::from(bytes)), Err(IdentityError::Unreadable));
        }
    }
}
