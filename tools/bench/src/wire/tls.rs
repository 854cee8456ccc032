//! The wires of servers to compare with: a protocol inside TLS.

use std::convert::Infallible;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::{BufMut as _, BytesMut};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::mark::Mark;
use crate::engine::{Ended, Pattern, Seen, Wire};

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// It talks with somebody who is there: what comes is answered to its sender, and that answer is the outcome.
    Talks,
    /// It sends to somebody who is away: that the server answers for a message is the outcome.
    Leaves,
    /// It takes what waited for it, and answers nothing.
    Takes,
}

/// What a client logs in with.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    /// Where the server listens.
    pub(crate) server: SocketAddr,
    /// Its name.
    pub(crate) user: Arc<str>,
    /// What it is for.
    pub(crate) part: Part,
}

/// The password of all.
pub(crate) const PASSWORD: &str = "secret of the bench";
/// The server's name in its certificate.
pub(crate) const SERVER: &str = "localhost";

/// What comes and what goes in plain text.
#[derive(Default)]
pub(crate) struct Text {
    /// What has come and was not looked at.
    pub(crate) came: BytesMut,
    /// What is to go.
    pub(crate) goes: Vec<u8>,
}

/// A protocol as its client speaks it.
pub(crate) trait Codec: Sized + 'static {
    /// A message that is encoded once.
    type Message: Clone + Send + 'static;

    /// A message to a user.
    fn message(to: &str, body: usize) -> anyhow::Result<Self::Message>;

    /// Begins a session.
    fn begin(login: &Login, goes: &mut Vec<u8>) -> Self;

    /// The next of what came that says something, answered if it is to be; `None` until more comes.
    fn next(&mut self, text: &mut Text) -> Result<Option<Seen<Infallible>>, Ended>;

    /// Queues a message; false if the session is not open.
    fn submit(&mut self, goes: &mut Vec<u8>, message: &mut Self::Message, mark: Mark) -> bool;

    /// Queues a goodbye.
    fn leave(&mut self, goes: &mut Vec<u8>);
}

/// A client's side of a connection.
pub(crate) struct Tls<C> {
    connection: ClientConnection,
    codec: C,
    text: Text,
    out: BytesMut,
}

/// What clients verify the server with. Each connection is made anew, as with Causeway's first pattern.
pub(crate) fn config(certificate: CertificateDer<'static>) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).context("the server's certificate")?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Plain text that may wait: what does not fit is taken later.
const MOST: usize = 256 * 1024;

impl<C: Codec> Wire for Tls<C> {
    type Net = Arc<ClientConfig>;
    type Login = Login;
    type Message = C::Message;
    type Other = Infallible;

    fn server(login: &Login) -> SocketAddr {
        login.server
    }

    fn begin(net: &Self::Net, login: &Login, _pattern: Pattern) -> Result<Self, Ended> {
        let name = ServerName::try_from(SERVER).map_err(Ended::broken)?;
        let mut connection = ClientConnection::new(Arc::clone(net), name).map_err(Ended::broken)?;
        // What waits is bounded here: see `submit`.
        connection.set_buffer_limit(None);
        let mut text = Text::default();
        let codec = C::begin(login, &mut text.goes);
        Ok(Self { connection, codec, text, out: BytesMut::new() })
    }

    fn feed(&mut self, _net: &mut Self::Net, _login: &Login, mut bytes: &[u8]) -> Result<(), Ended> {
        while !bytes.is_empty() {
            self.connection.read_tls(&mut bytes).map_err(Ended::broken)?;
            let state = self.connection.process_new_packets().map_err(Ended::broken)?;
            let from = self.text.came.len();
            self.text.came.resize(from + state.plaintext_bytes_to_read(), 0);
            match self.connection.reader().read_exact(&mut self.text.came[from..]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.text.came.truncate(from),
                Err(error) => return Err(Ended::broken(error)),
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Seen<Infallible>>, Ended> {
        self.codec.next(&mut self.text)
    }

    fn submit(&mut self, message: &mut C::Message, mark: Mark) -> Result<bool, Ended> {
        Ok(self.text.goes.len() < MOST && self.codec.submit(&mut self.text.goes, message, mark))
    }

    fn acknowledge(&mut self) -> Result<(), Ended> {
        // Both protocols acknowledge each message, as it is seen.
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Ended> {
        self.codec.leave(&mut self.text.goes);
        Ok(())
    }

    fn waiting(&mut self) -> Result<&mut BytesMut, Ended> {
        if self.out.is_empty() {
            if !self.text.goes.is_empty() && !self.connection.is_handshaking() {
                self.connection.writer().write_all(&self.text.goes).map_err(Ended::broken)?;
                self.text.goes.clear();
            }
            while self.connection.wants_write() {
                self.connection.write_tls(&mut (&mut self.out).writer()).map_err(Ended::broken)?;
            }
        }
        Ok(&mut self.out)
    }
}
