//! Files that change while processes run.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_prost::ProstCodec;

use super::super::reload::{Looked, PART};
use super::authority::{Authority, Mount, Says, process};
use super::{LINK, RELEASE, call, knock, serve, stranger, url};
use crate::clock::ManualClock;
use crate::grpc::Transport;
use crate::health::Part;
use crate::lifecycle::Lifecycle;
use crate::tls::Role;

#[tokio::test]
async fn new_connections_use_the_new_certificate_and_open_streams_stay() {
    let (authority, life) = (Authority::new(), Lifecycle::new());
    let mount = Mount::new(&authority.of_role(Role::Routing), &[&authority]);
    let tls = mount.load(Role::Routing).unwrap();
    let address = serve(&tls, &life).await;
    let edge = Transport::Mutual(process(&authority, Role::Edge));
    let mut client = tonic::client::Grpc::new(edge.connect(Role::Routing, &url(address)).unwrap());
    client.ready().await.unwrap();
    let (said, outgoing) = mpsc::channel(1);
    let path = http::uri::PathAndQuery::from_static(LINK);
    let outgoing = tonic::Request::new(ReceiverStream::new(outgoing));
    let answer = client.streaming(outgoing, path, ProstCodec::<String, String>::default()).await.unwrap();
    let mut heard = answer.into_inner();
    said.send("before".to_owned()).await.unwrap();
    assert_eq!(heard.message().await.unwrap().as_deref(), Some("before"));

    let shown = Arc::new(stranger(&[&authority], Some(&authority.of_role(Role::Edge))));
    let serves = async || {
        let stream = knock(address, &shown).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = serves().await;
    assert_eq!(tls.look(), Looked::Same);
    mount.put(&authority.of_role(Role::Routing), &[&authority]);
    assert_eq!(tls.look(), Looked::New);
    let second = serves().await;
    assert_ne!(first, second);

    said.send("after".to_owned()).await.unwrap();
    assert_eq!(heard.message().await.unwrap().as_deref(), Some("after"));
    life.drain();
}

#[tokio::test]
async fn a_connection_ends_with_its_peers_certificate() {
    let (authority, life) = (Authority::new(), Lifecycle::new());
    let mount = Mount::new(&authority.of_role(Role::Routing), &[&authority]);
    // A second and a half before 2100, when certificates end here.
    let tls = mount.load_at(Role::Routing, ManualClock::at_ms(4_102_444_798_500)).unwrap();
    let address = serve(&tls, &life).await;
    let edge = Transport::Mutual(process(&authority, Role::Edge));
    let mut client = tonic::client::Grpc::new(edge.connect(Role::Routing, &url(address)).unwrap());
    client.ready().await.unwrap();
    let (said, outgoing) = mpsc::channel(1);
    let path = http::uri::PathAndQuery::from_static(LINK);
    let outgoing = tonic::Request::new(ReceiverStream::new(outgoing));
    let answer = client.streaming(outgoing, path, ProstCodec::<String, String>::default()).await.unwrap();
    let mut heard = answer.into_inner();
    said.send("before".to_owned()).await.unwrap();
    assert_eq!(heard.message().await.unwrap().as_deref(), Some("before"));
    assert!(heard.message().await.is_err(), "it is cut");
    life.drain();
}

#[tokio::test]
async fn an_authority_is_replaced_without_a_gap() {
    let (old, new, life) = (Authority::new(), Authority::new(), Lifecycle::new());
    let of_server = Mount::new(&old.of_role(Role::Routing), &[&old]);
    let of_client = Mount::new(&old.of_role(Role::Routing), &[&old]);
    let before = old.of_role(Role::Routing);
    let (server, client) = (of_server.load(Role::Routing).unwrap(), of_client.load(Role::Routing).unwrap());
    let address = serve(&server, &life).await;
    let transport = Transport::Mutual(client.clone());
    // Each call over a new connection.
    let meet = async || call(&transport.connect(Role::Routing, &url(address)).unwrap(), RELEASE).await.code();
    assert_eq!(meet().await, Code::Unimplemented);
    type Step<'a> = (&'a Mount, &'a super::Tls, &'a Authority, Vec<&'a Authority>);
    let steps: [Step<'_>; 6] = [
        (&of_client, &client, &old, vec![&old, &new]),
        (&of_server, &server, &old, vec![&new, &old]),
        (&of_server, &server, &new, vec![&new, &old]),
        (&of_client, &client, &new, vec![&old, &new]),
        (&of_client, &client, &new, vec![&new]),
        (&of_server, &server, &new, vec![&new]),
    ];
    for (step, (mount, tls, signs, trusts)) in steps.into_iter().enumerate() {
        mount.put(&signs.of_role(Role::Routing), &trusts);
        assert_eq!(tls.look(), Looked::New, "step {step}");
        assert_eq!(meet().await, Code::Unimplemented, "step {step}");
    }
    let left = Arc::new(stranger(&[&new], Some(&before)));
    assert!(knock(address, &left).await.is_err(), "the old authority is trusted no more");
    life.drain();
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_those_before_in_use() {
    let (authority, life) = (Authority::new(), Lifecycle::new());
    let good = authority.of_role(Role::Routing);
    let mount = Mount::new(&good, &[&authority]);
    let tls = mount.load(Role::Routing).unwrap();
    let address = serve(&tls, &life).await;
    let peer = Transport::Mutual(process(&authority, Role::Routing));
    let other = authority.of_role(Role::Routing);
    let (ca, edge, foreign) = (authority.pem(), authority.of_role(Role::Edge), Authority::new());
    let strange = foreign.of_role(Role::Routing);
    for (what, file, certificate, key, authorities, mode) in [
        ("no PEM", "tls.crt", "-----BEGIN CERTIFICATE-----\nx", &other.key[..], &ca[..], 0o400),
        ("half of a file", "tls.crt", &other.certificate[..200], &other.key, &ca, 0o400),
        ("empty", "tls.crt", "", &other.key, &ca, 0o400),
        ("no certificate in the PEM", "tls.crt", &other.key, &other.key, &ca, 0o400),
        ("no key", "tls.key", &other.certificate, "", &ca, 0o400),
        ("the key of another", "tls.key", &other.certificate, &good.key, &ca, 0o400),
        ("a key that all can read", "tls.key", &other.certificate, &other.key, &ca, 0o444),
        ("no authority", "ca.crt", &other.certificate, &other.key, "", 0o400),
        ("another role", "tls.crt", &edge.certificate, &edge.key, &ca, 0o400),
        ("another authority's certificate", "tls.crt", &strange.certificate, &strange.key, &ca, 0o400),
    ] {
        mount.put_bytes(certificate, key, authorities, mode);
        assert_eq!(tls.look(), Looked::Refused, "{what}");
        let Part::Degraded(meaning) = tls.part() else { panic!("{what}: {:?}", tls.part()) };
        assert!(meaning.contains(file), "{what}: {meaning}");
        let channel = peer.connect(Role::Routing, &url(address)).unwrap();
        assert_eq!(call(&channel, RELEASE).await.code(), Code::Unimplemented, "{what}");
    }
    std::fs::remove_file(mount.path("..data")).unwrap();
    assert_eq!(tls.look(), Looked::Refused);
    // The ones that were there at first are as good as new ones.
    mount.put(&good, &[&authority]);
    assert_eq!((tls.look(), tls.part()), (Looked::New, Part::Up));
    life.drain();
}

#[test]
fn a_process_does_not_start_with_files_that_cannot_be_used() {
    let authority = Authority::new();
    let mount = Mount::new(&authority.of_role(Role::Edge), &[&authority]);
    mount.load(Role::Edge).unwrap();
    let told = mount.load(Role::Routing).unwrap_err().to_string();
    assert!(told.contains("tls.crt") && told.contains("role edge") && told.contains("routing"), "{told}");
    let config = crate::tls::TlsConfig { trust_domain: Some("other.example".to_owned()), ..mount.config() };
    let clock = Arc::new(crate::clock::SystemClock);
    let told = crate::tls::Tls::load(config, super::authority::DOMAIN, Role::Edge, clock).unwrap_err().to_string();
    assert!(told.contains("other.example"), "{told}");
    std::fs::set_permissions(mount.path("tls.key"), std::fs::Permissions::from_mode(0o604)).unwrap();
    let told = mount.load(Role::Edge).unwrap_err().to_string();
    assert!(told.contains("tls.key") && told.contains("chmod 600"), "{told}");
    std::fs::remove_file(mount.path("ca.crt")).unwrap();
    std::fs::set_permissions(mount.path("tls.key"), std::fs::Permissions::from_mode(0o440)).unwrap();
    let told = mount.load(Role::Edge).unwrap_err().to_string();
    assert!(told.contains("ca.crt"), "{told}");
}

#[test]
fn health_tells_when_the_certificate_ends() {
    let day = Duration::from_secs(86_400);
    let authority = Authority::new();
    // From 2030-01-01 to 2031-01-01.
    let issued = authority.issue(&Says { years: (2030, 2031), ..Says::role(Role::Edge) });
    let clock = ManualClock::at_ms(1_893_456_000_000 - 1_000);
    let tls = Mount::new(&issued, &[&authority]).load_at(Role::Edge, clock.clone()).unwrap();
    let says = |part: Part, what: &str| {
        assert!(matches!(&part, Part::Degraded(meaning) if meaning.contains(what)), "{part:?}");
    };
    says(tls.part(), "valid only from 2030-01-01T00:00:00Z");
    clock.advance(day);
    assert_eq!(tls.part(), Part::Up);
    clock.advance(day * 349);
    assert_eq!(tls.part(), Part::Up, "15 days are left");
    clock.advance(day * 2);
    says(tls.part(), "expires at 2031-01-01T00:00:00Z");
    clock.advance(day * 14);
    says(tls.part(), "has expired at 2031-01-01T00:00:00Z");
}

#[tokio::test(start_paused = true)]
async fn the_files_are_looked_at_while_the_process_runs() {
    let (authority, life) = (Authority::new(), Lifecycle::new());
    let mount = Mount::new(&authority.of_role(Role::Edge), &[&authority]);
    let tls = mount.load(Role::Edge).unwrap();
    tls.follow(&life);
    assert_eq!(life.health().parts().get(PART), Some(&Part::Up));
    let becomes = async |good: bool| {
        while (life.health().parts()[PART] == Part::Up) != good {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    mount.put_bytes("", "", "", 0o400);
    becomes(false).await;
    mount.put(&authority.of_role(Role::Edge), &[&authority]);
    becomes(true).await;
    assert_eq!(life.finish(Duration::from_secs(5)).await, crate::lifecycle::Ended::Clean);
}
