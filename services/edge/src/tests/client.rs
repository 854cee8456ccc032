//! A client of the protocol over a real socket, made of the Noise crate's machines, so that a test can hold every byte
//! in its hands.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use causeway_identity::DeviceId;
use causeway_noise::{Alert, Frame, FrameReader, Limits, Received, StaticKey, Suite, client};
use causeway_proto::wire::v1 as pb;
use causeway_stanza::{Encoding, FailureReason, FromClient, FromServer, Success, decode_server, encode_client};
use prost::Message as _;
use rand::TryRngCore as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rig::{Rig, soon, token};

/// How a client logs in.
#[derive(Clone)]
pub(super) struct Opening {
    pub(super) ik: bool,
    pub(super) suite: Suite,
    pub(super) hello: pb::ClientHello,
}

impl Opening {
    pub(super) fn new(token: String, device_id: u32) -> Self {
        let hello = pb::ClientHello {
            token,
            device_id,
            encoding: pb::Encoding::Binary.into(),
            agent: "test/1".to_owned(),
            forwarded: None,
        };
        Self { ik: false, suite: Suite::AesGcm, hello }
    }

    pub(super) fn ik(mut self) -> Self {
        self.ik = true;
        self
    }
}

/// A key of a client.
pub(super) fn key(seed: u8) -> StaticKey {
    StaticKey::from_bytes([seed; 32])
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A client after its handshake.
pub(super) struct Client {
    pub(super) io: Box<dyn Stream>,
    pub(super) session: causeway_noise::Session,
    pub(super) encoding: Encoding,
}

/// What the server's first record says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum First {
    Success(Success),
    Failure(FailureReason),
}

impl Client {
    /// Device 1 of ada, logged in.
    pub(super) async fn ada(rig: &Rig) -> Self {
        let key = key(5);
        rig.directory.script().devices.insert(1, *key.public());
        Self::logged_in(rig, &key, &Opening::new(token(&key), 1)).await
    }

    pub(super) async fn logged_in(rig: &Rig, key: &StaticKey, opening: &Opening) -> Self {
        let mut client = Self::shake(rig, key, opening).await;
        match client.first().await {
            First::Success(_) => client,
            First::Failure(reason) => panic!("{reason}"),
        }
    }

    /// Tries until the edge has heard of what lets the client in.
    pub(super) async fn eventually(rig: &Rig, key: &StaticKey, opening: &Opening) -> Self {
        for _ in 0..1_000 {
            let mut client = Box::pin(Self::shake(rig, key, opening)).await;
            if let First::Success(_) = client.first().await {
                return client;
            }
        }
        panic!("never let in");
    }

    /// Through the handshake and no further.
    pub(super) async fn shake(rig: &Rig, key: &StaticKey, opening: &Opening) -> Self {
        let io = soon(TcpStream::connect(rig.addr)).await.unwrap();
        io.set_nodelay(true).unwrap();
        Self::shake_over(Box::new(io), rig, key, opening).await
    }

    pub(super) async fn shake_over(io: Box<dyn Stream>, rig: &Rig, key: &StaticKey, opening: &Opening) -> Self {
        match Self::try_shake(io, &rig.server_key, key, opening).await {
            Ok(client) => client,
            Err(error) => panic!("{error}"),
        }
    }

    pub(super) async fn try_shake(
        mut io: Box<dyn Stream>,
        server_key: &[u8; 32],
        key: &StaticKey,
        opening: &Opening,
    ) -> Result<Self, client::ClientError> {
        let (mut rng, mut out) = (rand::rngs::OsRng.unwrap_err(), BytesMut::new());
        let hello = opening.hello.encode_to_vec();
        // A client that does not keep to the server's limit.
        let limits = Limits { send_record: 1024 * 1024, ..Limits::client() };
        let session = if opening.ik {
            let mut waiting = client::ik(key, server_key, opening.suite, &hello, limits, &mut rng, &mut out).unwrap();
            io.write_all_buf(&mut out).await.unwrap();
            loop {
                waiting = match waiting.feed(&some(&mut io).await?) {
                    client::Step::Waiting(waiting) => waiting,
                    client::Step::Answered(hello) => break hello.finish(&mut out).unwrap(),
                    client::Step::Failed(error) => return Err(error),
                };
            }
        } else {
            let mut waiting = client::xx(key, opening.suite, limits, &mut rng, &mut out).unwrap();
            io.write_all_buf(&mut out).await.unwrap();
            loop {
                waiting = match waiting.feed(&some(&mut io).await?) {
                    client::Step::Waiting(waiting) => waiting,
                    client::Step::Answered(answer) => break answer.finish(&hello, &mut out).unwrap(),
                    client::Step::Failed(error) => return Err(error),
                };
            }
        };
        io.write_all_buf(&mut out).await.unwrap();
        let encoding = Encoding::try_from(opening.hello.encoding).unwrap_or(Encoding::Binary);
        Ok(Self { io, session, encoding })
    }

    /// The bytes of a stanza on the wire.
    pub(super) fn seal(&mut self, stanza: FromClient) -> Bytes {
        self.seal_record(&encode_client(self.encoding, stanza))
    }

    pub(super) fn seal_record(&mut self, record: &[u8]) -> Bytes {
        self.session.sender.queue(record).unwrap();
        self.session.sender.seal().unwrap();
        self.session.sender.sealed().split().freeze()
    }

    pub(super) async fn send(&mut self, stanza: FromClient) {
        let bytes = self.seal(stanza);
        self.io.write_all(&bytes).await.unwrap();
    }

    /// The next stanza; `None` when the server has closed.
    pub(super) async fn next(&mut self) -> Option<FromServer> {
        soon(async {
            loop {
                match self.session.receiver.next().unwrap() {
                    Some(Received::Record(record)) => return Some(decode_server(self.encoding, &record).unwrap()),
                    Some(Received::KeepAlive) => {}
                    None => {
                        let mut buffer = [0; 4096];
                        match self.io.read(&mut buffer).await {
                            Ok(0) | Err(_) => return None,
                            Ok(read) => self.session.receiver.feed(&buffer[..read]),
                        }
                    }
                }
            }
        })
        .await
    }

    pub(super) async fn first(&mut self) -> First {
        match self.next().await {
            Some(FromServer::Success(success)) => First::Success(success),
            Some(FromServer::Failure(reason)) => First::Failure(reason),
            other => panic!("{other:?}"),
        }
    }

    /// The `end` that must come before anything but pings, and the close after it.
    pub(super) async fn ended(&mut self) -> causeway_stanza::End {
        loop {
            match self.next().await {
                Some(FromServer::End(end)) => {
                    assert_eq!(self.next().await, None);
                    return end;
                }
                Some(FromServer::Ping(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn some(io: &mut Box<dyn Stream>) -> Result<Bytes, client::ClientError> {
    let mut buffer = [0; 4096];
    match soon(io.read(&mut buffer)).await {
        Ok(read) if read > 0 => Ok(Bytes::copy_from_slice(&buffer[..read])),
        // Closed in the handshake without a word, which only an edge that is overrun does.
        _ => Err(client::ClientError::Alert(Alert::Overloaded { retry_after_s: 0 })),
    }
}

/// Sends these bytes on a connection of their own, and gives everything that comes back until the server closes.
pub(super) async fn shout(rig: &Rig, bytes: &[u8]) -> Vec<u8> {
    let mut io = soon(TcpStream::connect(rig.addr)).await.unwrap();
    // The server may close before it has read everything.
    let _closed = io.write_all(bytes).await;
    let mut answer = Vec::new();
    let _reset = soon(io.read_to_end(&mut answer)).await;
    answer
}

/// The one alert that these bytes are.
pub(super) fn alert(bytes: &[u8]) -> Option<Alert> {
    let mut frames = FrameReader::default();
    frames.feed(bytes);
    match (frames.next(), frames.next()) {
        (Some(Frame::Alert(alert)), None) => Some(alert),
        _ => None,
    }
}

pub(super) fn device(number: u32) -> DeviceId {
    DeviceId::new(number).unwrap()
}

/// Nothing comes for this long.
pub(super) async fn stays_silent(client: &mut Client, time: Duration) {
    let mut buffer = [0; 64];
    assert!(tokio::time::timeout(time, client.io.read(&mut buffer)).await.is_err());
}
