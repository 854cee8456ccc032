//! Who is taken, on both sides.

use std::sync::Arc;

use rcgen::ExtendedKeyUsagePurpose;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::authority::{Authority, DOMAIN, Issued, Says, process};
use super::{knock, serve, stranger};
use crate::lifecycle::Lifecycle;
use crate::tls::Role;

/// Certificates that are wrong in one way each, those of a process with this role otherwise.
fn wrong(authority: &Authority, role: Role) -> Vec<(&'static str, Issued)> {
    let right = Says::role(role);
    let uris = |uris: &[&str]| Says { uris: uris.iter().map(|uri| (*uri).to_owned()).collect(), ..right.clone() };
    let own = format!("spiffe://{DOMAIN}/{role}");
    vec![
        ("of another authority", Authority::new().issue(&right)),
        ("expired", authority.issue(&Says { years: (2000, 2001), ..right.clone() })),
        ("not yet valid", authority.issue(&Says { years: (2099, 2100), ..right.clone() })),
        ("of a foreign trust domain", authority.issue(&uris(&[&format!("spiffe://other.example/{role}")]))),
        ("without a role", authority.issue(&uris(&[]))),
        ("with an unknown role", authority.issue(&uris(&[&format!("spiffe://{DOMAIN}/admin")]))),
        ("with two roles", authority.issue(&uris(&[&own, &format!("spiffe://{DOMAIN}/operator-tool")]))),
        ("for another purpose", {
            authority.issue(&Says { purposes: vec![ExtendedKeyUsagePurpose::CodeSigning], ..right.clone() })
        }),
    ]
}

#[tokio::test]
async fn a_server_takes_only_peers_of_its_deployment() {
    let (authority, life) = (Authority::new(), Lifecycle::new());
    let address = serve(&process(&authority, Role::Routing), &life).await;
    let right = stranger(&[&authority], Some(&authority.of_role(Role::Edge)));
    knock(address, &Arc::new(right)).await.expect("a right one is taken");
    for (how, issued) in wrong(&authority, Role::Edge) {
        let taken = knock(address, &Arc::new(stranger(&[&authority], Some(&issued)))).await;
        assert!(taken.is_err(), "a certificate {how} is taken");
    }
    let taken = knock(address, &Arc::new(stranger(&[&authority], None))).await;
    assert!(taken.is_err(), "a client without a certificate is taken");
    life.drain();
}

#[tokio::test]
async fn every_connection_is_verified_anew() {
    let (authority, life) = (Authority::new(), Lifecycle::new());
    let address = serve(&process(&authority, Role::Routing), &life).await;
    let client = Arc::new(stranger(&[&authority], Some(&authority.of_role(Role::Edge))));
    for _ in 0..2 {
        let stream = knock(address, &client).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full), "no session is resumed");
        assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    }
    life.drain();
}

/// What a client of ours says of a server with this certificate that asks nothing of it.
async fn dialled(authority: &Authority, shows: &Issued, name: &str) -> Result<(), String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::from_pem_slice(shows.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(shows.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        drop(TlsAcceptor::from(Arc::new(config)).accept(stream).await);
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let secured = process(authority, Role::Edge).secure(stream, name, Role::Routing).await;
    let said = secured.map(drop).map_err(|error| error.to_string());
    server.await.unwrap();
    said
}

#[tokio::test]
async fn a_client_takes_only_the_role_that_it_dials() {
    let authority = Authority::new();
    dialled(&authority, &authority.of_role(Role::Routing), "localhost").await.expect("a right one is taken");
    for (how, issued) in wrong(&authority, Role::Routing) {
        assert!(dialled(&authority, &issued, "localhost").await.is_err(), "a certificate {how} is taken");
    }
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Routing) {
        let said = dialled(&authority, &authority.of_role(role), "localhost").await.unwrap_err();
        assert!(said.contains(role.name()) && said.contains("routing"), "{said}");
    }
    let said = dialled(&authority, &authority.of_role(Role::Routing), "routing.example").await.unwrap_err();
    assert!(said.contains("NotValidForName") || said.contains("not valid for name"), "{said}");
    let many = Says { names: vec!["*.routing.example"], ..Says::role(Role::Routing) };
    dialled(&authority, &authority.issue(&many), "routing-1.routing.example").await.expect("one of many replicas");
    assert!(dialled(&authority, &authority.of_role(Role::Routing), "no name").await.is_err());
}
