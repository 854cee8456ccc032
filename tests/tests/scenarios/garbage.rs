//! Garbage at every boundary: the server says what is wrong or closes, and serves on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use causeway_proto::wire::v1 as pb;
use causeway_tests::raw::{Session, new_key, say};
use causeway_tests::{Device, Kind, Provider, World};
use rand::rngs::OsRng;
use rand::{RngCore as _, TryRngCore as _};

/// Bytes of no protocol.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    OsRng.unwrap_err().fill_bytes(&mut bytes);
    bytes
}

/// Two users still talk, so the server still serves.
async fn still_serves(world: &mut World, ada: &Device, bo: &mut Device, after: &str) -> anyhow::Result<()> {
    world.net.assert_alive()?;
    assert!(ada.send(bo.address(), after).await?.is_accepted());
    assert_eq!(bo.next_text().await?, after);
    assert!(!world.net.log().contains("panicked"), "{}", world.net.log());
    Ok(())
}

#[tokio::test]
async fn on_the_edges_sockets() -> anyhow::Result<()> {
    let mut world = World::start_with(&[("edge.handshake_timeout_ms", "1000")]).await?;
    let (ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    let (edge, websocket) = (world.net.ready().edge, world.net.ready().websocket);
    let hello = |pattern, suite| vec![b'C', b'W', b'A', b'Y', 1, pattern, suite, 0];
    let frame = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()[..], bytes].concat();
    let mut openings = vec![
        Vec::new(),
        noise(1),
        noise(7),
        noise(8),
        noise(100_000),
        vec![0; 100_000],
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        [hello(0, 0), frame(&[])].concat(),
        [hello(0, 0), frame(&noise(31))].concat(),
        [hello(0, 0), frame(&noise(32))].concat(),
        [hello(0, 0), frame(&[0; 32])].concat(),
        [hello(0, 0), frame(&noise(65_535))].concat(),
        [hello(0, 0), frame(&noise(32)), frame(&noise(64))].concat(),
        [hello(1, 0), frame(&noise(96))].concat(),
        [hello(1, 1), frame(&noise(65_535))].concat(),
        [hello(0, 0), vec![0xff; 3]].concat(),
    ];
    for at in 0..8 {
        for bit in 0..8 {
            let mut opening = [hello(0, 0), frame(&noise(32))].concat();
            opening[at] ^= 1 << bit;
            openings.push(opening);
        }
    }
    for opening in &openings {
        let heard = say(edge, opening, 4_096).await?;
        assert!(
            heard.len() <= 4_096,
            "an edge says no more than a handshake message to {:?}",
            &opening[..opening.len().min(16)]
        );
    }
    still_serves(&mut world, &ada, &mut bo, "after garbage over TCP").await?;

    let upgrade = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .into_bytes()
    };
    let masked = |opcode: u8, bytes: &[u8]| {
        let mut message = vec![0x80 | opcode, 0x80 | u8::try_from(bytes.len()).unwrap_or(125), 0, 0, 0, 0];
        message.extend_from_slice(bytes);
        message
    };
    for opening in [
        noise(1_000),
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        upgrade("/"),
        upgrade("/v1/noise/../x"),
        format!("GET /v1/noise HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000)).into_bytes(),
        [upgrade("/v1/noise"), noise(1_000)].concat(),
        [upgrade("/v1/noise"), masked(1, b"text")].concat(),
        [upgrade("/v1/noise"), masked(2, &noise(100))].concat(),
        [upgrade("/v1/noise"), masked(2, &hello(0, 9))].concat(),
        [upgrade("/v1/noise"), masked(9, &noise(125)), masked(2, &hello(0, 0)), masked(2, &frame(&noise(40)))].concat(),
        [upgrade("/v1/noise"), vec![0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]].concat(),
    ] {
        let heard = say(websocket, &opening, 4_096).await?;
        assert!(heard.len() <= 4_096);
    }
    still_serves(&mut world, &ada, &mut bo, "after garbage over WebSocket").await
}

#[tokio::test]
async fn inside_a_session() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let (ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    let xml: &[&[u8]] = &[
        b"<",
        b"<message",
        b"<?xml version='1.0'?><ping xmlns='urn:causeway:1' n='1'/>",
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><ping xmlns='urn:causeway:1' n='1'/>",
        b"<ping xmlns='urn:causeway:2' n='1'/>",
        b"<ping xmlns='urn:causeway:1' n='\xff'/>",
        b"<success xmlns='urn:causeway:1'/>",
        b"\0\0\0\0",
        &b"<a>".repeat(30_000),
    ];
    let binary: &[&[u8]] =
        &[b"\xff\xff\xff\xff", b"\x0a", b"\x0a\xff\xff\xff\x7f", &[0x0b; 1_000], b"\x12\x00\x12\x00", b"<ping/>"];
    for (encoding, records) in [(pb::Encoding::Xml, xml), (pb::Encoding::Binary, binary)] {
        for record in records.iter().copied().chain([&noise(1_000)[..], &noise(200_000)[..]]) {
            let key = new_key();
            let token = world.birdy.sandbox().issue_token("eve", key.public(), Duration::from_secs(600)).await?;
            let hello = pb::ClientHello { token, encoding: encoding.into(), ..pb::ClientHello::default() };
            let mut session = Session::open(&world.net, &key, &hello).await?;
            assert!(session.next().await?.is_some(), "success");
            session.send(record).await?;
            let end = session.next().await?;
            let end = end.ok_or_else(|| anyhow::anyhow!("a reason, for {:?}", &record[..record.len().min(20)]))?;
            match encoding {
                pb::Encoding::Xml => {
                    let end = String::from_utf8_lossy(&end);
                    assert!(end.contains("<end") && end.contains("bad-stanza"), "{end}");
                }
                _ => {
                    let end = <pb::ServerStanza as prost::Message>::decode(end)?;
                    let reason = match end.kind {
                        Some(pb::server_stanza::Kind::End(end)) => end.reason(),
                        other => anyhow::bail!("expected an end, got {other:?}"),
                    };
                    assert_eq!(reason, pb::EndReason::BadStanza);
                }
            }
            assert_eq!(session.next().await?, None);
        }
    }
    still_serves(&mut world, &ada, &mut bo, "after garbage in sessions").await
}

#[tokio::test]
async fn on_the_media_and_operator_ports() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let (ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    let media: SocketAddr = world.net.ready().media.trim_start_matches("http://").parse()?;
    let operator: SocketAddr = world.net.ready().operator.trim_start_matches("http://").parse()?;
    let h2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for opening in [
        Vec::new(),
        noise(10),
        noise(100_000),
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"GET /v1/relay HTTP/1.1\r\nhost: x\r\nauthorization: Causeway \xff\r\n\r\n".to_vec(),
        b"PUT /v1/blobs/00000000000000000000000000000000 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n".to_vec(),
        b"PUT /v1/blobs/00000000000000000000000000000000 HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n".to_vec(),
        h2.clone(),
        [h2.clone(), noise(10_000)].concat(),
        [h2.clone(), vec![0, 0, 0, 4, 0, 0, 0, 0, 0], vec![0xff; 200]].concat(),
        [h2, vec![0xff, 0xff, 0xff, 1, 0xff, 0x7f, 0xff, 0xff, 0xff]].concat(),
    ] {
        for port in [media, operator] {
            // A server that says something friendly before it closes is fine too.
            let _heard = say(port, &opening, 65_536).await?;
        }
    }
    still_serves(&mut world, &ada, &mut bo, "after garbage on other ports").await
}

/// What a provider says at a path.
type Answer = Arc<dyn Fn(&str) -> (StatusCode, Vec<u8>) + Send + Sync>;

/// Serves `answer` at every path.
async fn hostile_provider(answer: Answer) -> anyhow::Result<SocketAddr> {
    async fn serve(State(answer): State<Answer>, request: Request) -> (StatusCode, Vec<u8>) {
        answer(request.uri().path())
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = Router::new().fallback(serve).with_state(answer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

#[tokio::test]
async fn in_providers_documents() -> anyhow::Result<()> {
    let mut world = World::start_with(&[("directory.keys_refresh_ms", "200")]).await?;
    let (ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let documents: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"null".to_vec(),
        b"{}".to_vec(),
        b"[]".to_vec(),
        noise(1_000),
        noise(3_000_000),
        deep.into_bytes(),
        b"{\"issuer\":1,\"jwks_uri\":[]}".to_vec(),
        b"{\"issuer\":\"http://127.0.0.1:1\",\"jwks_uri\":\"http://169.254.169.254/\"}".to_vec(),
        b"{\"keys\":[{},{\"kty\":\"EC\"},{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"\"}]}".to_vec(),
        format!("{{\"keys\":[{}]}}", vec!["{}"; 100_000].join(",")).into_bytes(),
    ];
    for (n, document) in documents.into_iter().enumerate() {
        for discovery_is_fine in [false, true] {
            let body = document.clone();
            let address = Arc::new(std::sync::OnceLock::<SocketAddr>::new());
            let known = Arc::clone(&address);
            let answer = move |path: &str| match known.get() {
                Some(own) if discovery_is_fine && path.contains("openid-configuration") => {
                    let fine = format!("{{\"issuer\":\"http://{own}\",\"jwks_uri\":\"http://{own}/jwks.json\"}}");
                    (StatusCode::OK, fine.into_bytes())
                }
                _ => (StatusCode::OK, body.clone()),
            };
            let own = hostile_provider(Arc::new(answer)).await?;
            let _first = address.set(own);
            let domain = format!("evil{n}{discovery_is_fine}.example");
            let template = Provider::unregistered(&world.net, &domain, Kind::ThirdParty).await?.settings(&world.net)?;
            let settings = causeway_proto::directory::v1::ProviderSettings {
                issuer: format!("http://{own}"),
                hosts: vec![own.to_string()],
                media_prefixes: vec![format!("http://{own}/v1/blobs/")],
                webhook_url: format!("http://{own}/webhook"),
                ..template
            };
            // Registered without keys or refused: either way none of its tokens opens a session.
            let registered = world.net.register(settings).await;
            assert!(registered.is_err() || registered.is_ok_and(|provider| provider.key_count == 0), "{n}");
        }
    }
    still_serves(&mut world, &ada, &mut bo, "after garbage in documents").await
}
