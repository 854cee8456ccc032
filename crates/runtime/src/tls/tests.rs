//! With real certificates, over TCP: who gets through, who does not, and what happens when files change.

mod authority;
mod handshakes;
mod reloading;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use axum::routing::post;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use self::authority::{Authority, Issued};
use super::{Role, Tls};
use crate::grpc::{self, Channel, Router, Transport};
use crate::lifecycle::Lifecycle;

const LINK: &str = "/causeway.routing.v1.Routing/Link";
const RELEASE: &str = "/causeway.routing.v1.Peers/Release";

/// Serves `Link`, which sends back what it gets, until `life` drains; other calls are unimplemented.
async fn serve(tls: &Tls, life: &Lifecycle) -> SocketAddr {
    let echo = |request: Request| async move {
        Response::builder().header("content-type", "application/grpc").body(request.into_body()).unwrap()
    };
    let router = Router::from(Routes::from(axum::Router::new().route(LINK, post(echo))));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (transport, of_server) = (Transport::Mutual(tls.clone()), life.clone());
    tokio::spawn(async move { transport.serve(router, listener, &of_server).await.unwrap() });
    address
}

fn url(address: SocketAddr) -> String {
    format!("https://localhost:{}", address.port())
}

/// The outcome of a unary call; what gets through to the server is unimplemented.
async fn call(channel: &Channel, path: &'static str) -> Status {
    let mut client = tonic::client::Grpc::new(channel.clone());
    if let Err(error) = client.ready().await {
        return Status::unavailable(error.to_string());
    }
    let path = http::uri::PathAndQuery::from_static(path);
    let answer = client.unary(grpc::call(()), path, ProstCodec::<(), ()>::default()).await;
    answer.map_or_else(|status| status, |_| Status::ok(""))
}

/// A client as somebody else would write it: it takes any server of these authorities, and shows this certificate.
fn stranger(authorities: &[&Authority], shows: Option<&Issued>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match shows {
        Some(issued) => {
            let chain = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![chain], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Connects, begins HTTP/2, and waits for the server's first byte; so it is taken.
async fn knock(address: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    stream.read_u8().await?;
    Ok(stream)
}

#[tokio::test]
async fn each_call_is_answered_only_if_the_callers_role_may_make_it() {
    let (authority, life) = (Authority::new(), Lifecycle::new());
    let address = serve(&authority::process(&authority, Role::Routing), &life).await;
    for (role, path, may) in [
        (Role::Edge, LINK, true),
        (Role::Edge, RELEASE, false),
        (Role::Routing, RELEASE, true),
        (Role::Routing, LINK, false),
        (Role::MediaRelay, "/causeway.directory.v1.Prekeys/Claim", false),
        (Role::KeyDirectory, "/causeway.Nothing/Nothing", false),
        (Role::OperatorTool, "/", false),
    ] {
        let transport = Transport::Mutual(authority::process(&authority, role));
        let channel = transport.connect(Role::Routing, &url(address)).unwrap();
        let status = call(&channel, path).await;
        let denied = status.code() == Code::PermissionDenied;
        assert_ne!(denied, may, "{role} {path}: {status:?}");
        if denied {
            let says = format!("the role {role} may not call {}", path.trim_start_matches('/'));
            assert_eq!(status.message(), says);
        } else {
            assert_ne!(status.code(), Code::Unavailable, "{role} {path}: {status:?}");
        }
    }
    life.drain();
}

#[tokio::test]
async fn replicas_are_found_and_chosen_as_in_plain_text() {
    let (authority, life) = (Authority::new(), Lifecycle::new());
    let address = serve(&authority::process(&authority, Role::Routing), &life).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let transport = Transport::Mutual(authority::process(&authority, Role::Routing));
    let addresses = [url(nobody), format!("dns+{}", url(address))];
    let channel = transport.connect_any(Role::Routing, &addresses).unwrap();
    assert_eq!(call(&channel, RELEASE).await.code(), Code::Unimplemented);

    let mut found = transport.discover(Role::Routing, &addresses[1..], &life).unwrap();
    found.changed().await;
    // The certificate has the name that was looked up, not the address that was found.
    let channel = found.current()[&format!("https://{address}")].clone();
    assert_eq!(call(&channel, RELEASE).await.code(), Code::Unimplemented);
    life.drain();
}

#[tokio::test]
async fn plain_text_and_tls_do_not_meet() {
    let (authority, life) = (Authority::new(), Lifecycle::new());
    let tls = authority::process(&authority, Role::Routing);
    let address = serve(&tls, &life).await;
    let plain = grpc::connect(&format!("http://{address}")).unwrap();
    assert_ne!(call(&plain, RELEASE).await.code(), Code::Unimplemented);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (router, of_server) = (Router::from(Routes::default()), life.clone());
    let in_plain_text = listener.local_addr().unwrap();
    tokio::spawn(async move { grpc::serve(router, listener, &of_server).await.unwrap() });
    let mutual = Transport::Mutual(tls);
    let channel = mutual.connect(Role::Routing, &url(in_plain_text)).unwrap();
    assert_ne!(call(&channel, RELEASE).await.code(), Code::Unimplemented);

    let told = mutual.connect(Role::Routing, &format!("http://{address}")).unwrap_err().to_string();
    assert!(told.contains("https://host:port"), "{told}");
    let named = [format!("dns+http://{address}")];
    assert!(mutual.connect_any(Role::Routing, &named).is_err());
    assert!(mutual.discover(Role::Routing, &named, &life).is_err());
    let told = grpc::connect(&url(address)).unwrap_err().to_string();
    assert!(told.contains("server.tls"), "{told}");
    life.drain();
}
