//! The protocol without the SDK: for what the SDK would never do.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use causeway_identity::{NoiseKey, ServerCertificate};
use causeway_noise::transport::{self, Connection};
use causeway_noise::{Limits, Received, StaticKey, Suite};
use causeway_proto::wire::v1 as pb;
use causeway_runtime::clock::{Clock as _, SystemClock};
use prost::Message as _;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;

use crate::{Deployment, within};

/// A Noise session over which anything can be sent.
pub struct Session {
    reader: transport::Reader<ReadHalf<TcpStream>>,
    writer: transport::Writer<WriteHalf<TcpStream>>,
}

/// A new X25519 key.
pub fn new_key() -> Arc<StaticKey> {
    Arc::new(StaticKey::generate(&mut OsRng.unwrap_err()))
}

impl Session {
    /// XX with this key and hello.
    ///
    /// # Errors
    /// No handshake, or a certificate that does not verify.
    pub async fn open(net: &Deployment, key: &Arc<StaticKey>, hello: &pb::ClientHello) -> anyhow::Result<Self> {
        Self::open_at(net, net.ready().edge, key, hello).await
    }

    /// The same at this edge of several.
    ///
    /// # Errors
    /// No handshake, or a certificate that does not verify.
    pub async fn open_at(
        net: &Deployment,
        edge: SocketAddr,
        key: &Arc<StaticKey>,
        hello: &pb::ClientHello,
    ) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(edge).await.context("connect to the edge")?;
        let mut rng = OsRng.unwrap_err();
        let handshake = async {
            let waiting = transport::connect_xx(tcp, key, Suite::default(), Limits::client(), &mut rng).await?;
            let server_hello = pb::ServerHello::decode(&*waiting.server_hello().to_vec())?;
            let certificate = ServerCertificate::try_from(server_hello.certificate.context("a certificate")?)?;
            let server_key = NoiseKey::new(*waiting.server_key())?;
            let ready = net.ready();
            certificate.verify(&[ready.root], &ready.deployment, &server_key, SystemClock.now())?;
            Ok(waiting.finish(&hello.encode_to_vec()).await?)
        };
        let Connection { reader, writer } = within("a Noise handshake", handshake).await?;
        Ok(Self { reader, writer })
    }

    /// Sends one record as it is.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, record: &[u8]) -> anyhow::Result<()> {
        Ok(self.writer.send(record).await?)
    }

    /// Sends a stanza in the BINARY encoding.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send_stanza(&mut self, kind: pb::client_stanza::Kind) -> anyhow::Result<()> {
        self.send(&pb::ClientStanza { kind: Some(kind) }.encode_to_vec()).await
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// Nothing comes.
    pub async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        within("a record", async {
            loop {
                match self.reader.read().await {
                    Ok(Some(Received::Record(record))) => return Ok(Some(record)),
                    Ok(Some(Received::KeepAlive)) => {}
                    Ok(None) => return Ok(None),
                    // A server that closes while bytes are on their way may reset the connection.
                    Err(_) => return Ok(None),
                }
            }
        })
        .await
    }

    /// The next stanza in the BINARY encoding; `None` at the end.
    ///
    /// # Errors
    /// Nothing comes, or no stanza.
    pub async fn next_stanza(&mut self) -> anyhow::Result<Option<pb::server_stanza::Kind>> {
        let Some(record) = self.next().await? else { return Ok(None) };
        Ok(Some(pb::ServerStanza::decode(record)?.kind.context("a known stanza")?))
    }

    /// The reason of the failure that answers a login.
    ///
    /// # Errors
    /// It was accepted.
    pub async fn failure(&mut self) -> anyhow::Result<pb::FailureReason> {
        match self.next_stanza().await? {
            Some(pb::server_stanza::Kind::Failure(failure)) => Ok(failure.reason()),
            other => bail!("expected a failure, got {other:?}"),
        }
    }
}

/// Opens a TCP connection, writes `bytes`, and reads until the other side closes or has said `enough` bytes.
///
/// # Errors
/// No connection, or the other side neither closes nor says enough.
pub async fn say(address: SocketAddr, bytes: &[u8], enough: usize) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await.context("connect")?;
    let mut heard = Vec::new();
    // The other side may turn away at any byte.
    let _refused = stream.write_all(bytes).await;
    let _half = stream.shutdown().await;
    within("the other side closes", async {
        let mut piece = [0; 4_096];
        while heard.len() < enough {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(count) => heard.extend_from_slice(&piece[..count]),
            }
        }
        Ok(())
    })
    .await?;
    Ok(heard)
}
