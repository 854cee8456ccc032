//! From a socket address to a session: TCP, Noise, the server's certificate, login.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use causeway_identity::{DeviceId, NoiseKey, RootPublicKey, ServerCertificate};
use causeway_noise::transport::{self, Connection};
use causeway_noise::{Limits, Received, StaticKey, Suite};
use causeway_runtime::clock::{Clock as _, SystemClock};
use causeway_stanza::hello::{ClientHello, ServerHello};
use causeway_stanza::{
    Encoding, End, FailureReason, FromClient, FromServer, Success, Text, Token, decode_server, encode_client,
};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use tokio::net::TcpStream;

/// A login takes at most this long.
const PATIENCE: Duration = Duration::from_secs(5);

/// The deployment, as its clients know it.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Where its edges listen.
    pub edges: Vec<SocketAddr>,
    /// Its name.
    pub name: String,
    /// The root that clients pin.
    pub root: RootPublicKey,
}

/// What a device needs to log in.
pub struct Login<'l> {
    /// Its Noise key.
    pub key: &'l Arc<StaticKey>,
    /// Its id; `None`: it is to enlist.
    pub device: Option<DeviceId>,
    /// A token for this key.
    pub token: String,
    /// The server's key, if a session was open before.
    pub known: Option<NoiseKey>,
}

/// An open session.
pub struct Session {
    /// Both ways.
    pub connection: Connection<TcpStream>,
    /// How the login was answered.
    pub success: Success,
    /// The server's key, for the next login.
    pub server_key: NoiseKey,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The server refuses.
    #[error("login refused: {0:?}")]
    Refused(FailureReason),
    /// The server ends what has hardly begun.
    #[error("ended: {0:?}")]
    Ended(End),
    /// Anything else, to be tried again.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Opens a session at this edge.
///
/// # Errors
/// [`DialError`].
pub async fn dial(net: &Deployment, edge: SocketAddr, login: Login<'_>) -> Result<Session, DialError> {
    match tokio::time::timeout(PATIENCE, attempt(net, edge, login)).await {
        Ok(done) => done,
        Err(_) => Err(anyhow::anyhow!("no login within {} s", PATIENCE.as_secs()).into()),
    }
}

async fn attempt(net: &Deployment, edge: SocketAddr, login: Login<'_>) -> Result<Session, DialError> {
    let hello = ClientHello {
        token: Token::try_from(login.token).ok().context("a token")?,
        device: login.device,
        encoding: Encoding::Binary,
        agent: Text::lossy("causeway-faults"),
        forwarded: None,
    };
    let hello = hello.encode();
    let (mut connection, server_key) = match login.known {
        Some(known) => match ik(net, edge, login.key, &known, &hello).await {
            Ok(connected) => connected,
            Err(error) if error.downcast_ref::<transport::ConnectError>().is_some_and(|error| error.use_xx()) => {
                xx(net, edge, login.key, &hello).await?
            }
            Err(error) => return Err(error.into()),
        },
        None => xx(net, edge, login.key, &hello).await?,
    };
    loop {
        let received = connection.reader.read().await.context("read the answer to the login")?;
        let Some(received) = received else { return Err(anyhow::anyhow!("closed at the login").into()) };
        let Received::Record(record) = received else { continue };
        let stanza = decode_server(Encoding::Binary, &record).map_err(|error| anyhow::anyhow!("{error}"))?;
        return match stanza {
            FromServer::Success(success) => Ok(Session { connection, success, server_key }),
            FromServer::Failure(reason) => Err(DialError::Refused(reason)),
            FromServer::End(end) => Err(DialError::Ended(end)),
            other => Err(anyhow::anyhow!("{} before the login was answered", other.name()).into()),
        };
    }
}

async fn tcp(edge: SocketAddr) -> anyhow::Result<TcpStream> {
    let tcp = TcpStream::connect(edge).await.context("connect")?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

async fn xx(
    net: &Deployment,
    edge: SocketAddr,
    key: &StaticKey,
    hello: &[u8],
) -> anyhow::Result<(Connection<TcpStream>, NoiseKey)> {
    let tcp = tcp(edge).await?;
    let waiting = transport::connect_xx(tcp, key, Suite::default(), Limits::client(), &mut OsRng.unwrap_err()).await?;
    let server_key = verify(net, waiting.server_key(), waiting.server_hello())?;
    Ok((waiting.finish(hello).await?, server_key))
}

async fn ik(
    net: &Deployment,
    edge: SocketAddr,
    key: &StaticKey,
    known: &NoiseKey,
    hello: &[u8],
) -> anyhow::Result<(Connection<TcpStream>, NoiseKey)> {
    let tcp = tcp(edge).await?;
    let mut rng = OsRng.unwrap_err();
    let (suite, limits) = (Suite::default(), Limits::client());
    let waiting = transport::connect_ik(tcp, key, known.as_bytes(), suite, hello, limits, &mut rng).await?;
    let server_key = verify(net, waiting.server_key(), waiting.server_hello())?;
    Ok((waiting.finish().await?, server_key))
}

fn verify(net: &Deployment, server_key: &[u8; 32], server_hello: &[u8]) -> anyhow::Result<NoiseKey> {
    let hello = ServerHello::decode(server_hello).map_err(|error| anyhow::anyhow!("server hello: {error}"))?;
    let certificate = ServerCertificate::try_from(hello.certificate).context("the certificate")?;
    let server_key = NoiseKey::new(*server_key)?;
    if let Err(error) = certificate.verify(&[net.root], &net.name, &server_key, SystemClock.now()) {
        bail!("the certificate: {error}");
    }
    Ok(server_key)
}

/// A stanza as a record.
pub fn record(stanza: FromClient) -> Vec<u8> {
    encode_client(Encoding::Binary, stanza)
}
