//! From an address to an authenticated connection: TCP or WebSocket, Noise, the server's certificate (docs/protocol.md,
//! sections 2 and 3).

use std::sync::Arc;

use causeway_identity::{NoiseKey, ServerCertificate};
use causeway_noise::transport::{self, ConnectError, Connection};
use causeway_noise::{Alert, Limits, StaticKey, client, websocket};
use causeway_stanza::hello::{ClientHello, ServerHello};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::Over;
use crate::clock::{self, Clock};
use crate::config::{ClientConfig, ServerAddress};
use crate::event::DisconnectReason;
use crate::random::Random;

/// A byte stream of either kind.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to a server that is who it must be.
pub(super) struct Dialled {
    pub(super) connection: Connection<Box<dyn Io>>,
    pub(super) server_key: NoiseKey,
    pub(super) resumed: bool,
    pub(super) clock_ahead_ms: i64,
    pub(super) max_record: usize,
    pub(super) ping_interval: Duration,
}

/// Why there is none.
pub(super) enum DialError {
    /// Try XX at once: the server's key may have changed.
    UseXx,
    Over(Over),
}

impl From<DisconnectReason> for DialError {
    fn from(reason: DisconnectReason) -> Self {
        Self::Over(Over::again(reason))
    }
}

pub(super) struct Dial<'a> {
    pub(super) config: &'a ClientConfig,
    pub(super) key: &'a StaticKey,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) random: &'a mut Random,
    /// Is told what the server's clock says, verified or not.
    pub(super) clock_ahead_ms: &'a mut Option<i64>,
}

impl Dial<'_> {
    /// First contact: the certificate is verified before the token leaves.
    pub(super) async fn xx(&mut self, hello: &ClientHello) -> Result<Dialled, DialError> {
        let io = self.open().await?;
        let limits = Limits::client();
        let xx = transport::connect_xx(io, self.key, self.config.suite, limits, self.random.as_mut()).await;
        let xx = xx.map_err(|error| failed(&error))?;
        let server = self.verify(xx.server_key(), xx.server_hello())?;
        let connection = xx.finish(&hello.clone().encode()).await.map_err(|error| failed(&error))?;
        Ok(server.with(connection, false))
    }

    /// The server's key is known: the token leaves with the first message, which only that key can open.
    pub(super) async fn ik(&mut self, known: &NoiseKey, hello: &ClientHello) -> Result<Dialled, DialError> {
        let io = self.open().await?;
        let (limits, payload) = (Limits::client(), hello.clone().encode());
        let suite = self.config.suite;
        let ik = transport::connect_ik(io, self.key, known.as_bytes(), suite, &payload, limits, self.random.as_mut());
        let ik = match ik.await {
            Ok(ik) => ik,
            Err(error) if error.use_xx() => return Err(DialError::UseXx),
            Err(ConnectError::Handshake(client::ClientError::Decrypt)) => return Err(DialError::UseXx),
            Err(error) => return Err(failed(&error)),
        };
        let server = self.verify(ik.server_key(), ik.server_hello())?;
        let connection = ik.finish().await.map_err(|error| failed(&error))?;
        Ok(server.with(connection, true))
    }

    async fn open(&self) -> Result<Box<dyn Io>, DialError> {
        let network = |error: std::io::Error| DisconnectReason::Network(error.to_string());
        match &self.config.server {
            ServerAddress::Tcp { host, port } => Ok(Box::new(tcp(host, *port).await.map_err(network)?)),
            ServerAddress::WebSocket(url) => {
                let host = url.host_str().unwrap_or_default();
                let port = url.port_or_known_default().unwrap_or(80);
                let plain = host.trim_start_matches('[').trim_end_matches(']');
                let tcp = tcp(plain, port).await.map_err(network)?;
                let io = websocket::connect(tcp, &format!("{host}:{port}")).await;
                Ok(Box::new(io.map_err(|error| DisconnectReason::Network(error.to_string()))?))
            }
        }
    }

    fn verify(&mut self, server_key: &[u8; 32], payload: &[u8]) -> Result<Verified, DialError> {
        let malformed = || DisconnectReason::Certificate(causeway_identity::CertificateError::Malformed);
        let hello = ServerHello::decode(payload).map_err(|_| malformed())?;
        let server_key = NoiseKey::new(*server_key).map_err(|_| malformed())?;
        let now = self.clock.now();
        let ahead = i128::from(clock::ms(now)) - i128::from(hello.server_time_ms);
        let clock_ahead_ms = i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX });
        *self.clock_ahead_ms = Some(clock_ahead_ms);
        let certificate = ServerCertificate::try_from(hello.certificate).map_err(DisconnectReason::Certificate)?;
        certificate
            .verify(&self.config.roots, &self.config.deployment, &server_key, now)
            .map_err(DisconnectReason::Certificate)?;
        Ok(Verified {
            server_key,
            clock_ahead_ms,
            max_record: usize::try_from(hello.limits.max_stanza_bytes).unwrap_or(usize::MAX),
            ping_interval: Duration::from_millis(u64::from(hello.limits.ping_interval_ms.max(1000))),
        })
    }
}

struct Verified {
    server_key: NoiseKey,
    clock_ahead_ms: i64,
    max_record: usize,
    ping_interval: Duration,
}

impl Verified {
    fn with(self, mut connection: Connection<Box<dyn Io>>, resumed: bool) -> Dialled {
        connection.writer.limit_records(self.max_record);
        Dialled {
            connection,
            server_key: self.server_key,
            resumed,
            clock_ahead_ms: self.clock_ahead_ms,
            max_record: self.max_record,
            ping_interval: self.ping_interval,
        }
    }
}

async fn tcp(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let tcp = TcpStream::connect((host, port)).await?;
    // Stanzas are small and each matters now.
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

fn failed(error: &ConnectError) -> DialError {
    DialError::Over(match error {
        ConnectError::Io(error) => Over::again(DisconnectReason::Network(error.to_string())),
        ConnectError::Closed => Over::again(DisconnectReason::Network("closed by the server".to_owned())),
        ConnectError::Handshake(client::ClientError::Alert(Alert::Overloaded { retry_after_s })) => Over::Again {
            reason: DisconnectReason::Overloaded,
            pause: Some(Duration::from_secs(u64::from(*retry_after_s))),
        },
        // The alert is not authenticated, so it must not stop the client for good.
        ConnectError::Handshake(error) => Over::again(DisconnectReason::Handshake(error.to_string())),
    })
}
