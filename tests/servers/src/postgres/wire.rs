//! As much of PostgreSQL's protocol as it takes to send a statement and read text.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::ServerError;

/// A row of text; `None` is NULL.
pub type Row = Vec<Option<String>>;

/// A connection to a database. Blocking, without time-outs for answers: a `LOCK TABLE` may wait.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
}

impl Session {
    pub(crate) fn open(port: u16, database: &str, patience: Option<Duration>) -> Result<Self, ServerError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_read_timeout(patience).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        for word in ["user", USER, "database", database, "application_name", "causeway-test-servers", ""] {
            body.extend_from_slice(word.as_bytes());
            body.push(0);
        }
        let mut startup = length(&body).to_be_bytes().to_vec();
        startup.extend_from_slice(&body);
        stream.write_all(&startup).map_err(failed)?;
        let mut session = Self { stream };
        session.answer()?;
        Ok(session)
    }

    /// Runs statements; gives the rows of all of them.
    ///
    /// # Errors
    /// The server refuses, or is gone.
    pub fn execute(&mut self, sql: &str) -> Result<Vec<Row>, ServerError> {
        let mut body = sql.as_bytes().to_vec();
        body.push(0);
        let mut message = vec![b'Q'];
        message.extend_from_slice(&length(&body).to_be_bytes());
        message.extend_from_slice(&body);
        self.stream.write_all(&message).map_err(failed)?;
        self.answer()
    }

    /// Reads until the server is ready for the next.
    fn answer(&mut self) -> Result<Vec<Row>, ServerError> {
        let mut rows = Vec::new();
        let mut error = None;
        loop {
            let (kind, body) = self.message().map_err(failed)?;
            match kind {
                b'D' => rows.push(row(&body).ok_or_else(|| ServerError::Answer("row".to_owned()))?),
                b'E' => {
                    let text = refusal(&body);
                    // At the start, an error is the last word.
                    if text.starts_with("FATAL") {
                        return Err(ServerError::Refused(text));
                    }
                    error = Some(text);
                }
                b'R' if body[..] != [0, 0, 0, 0] => {
                    return Err(ServerError::Answer("it wants a password".to_owned()));
                }
                b'Z' => break,
                _ => {}
            }
        }
        error.map_or(Ok(rows), |text| Err(ServerError::Refused(text)))
    }

    fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let [kind, size @ ..] = head;
        let size = u32::from_be_bytes(size) as usize;
        if !(4..=MAX_MESSAGE).contains(&size) {
            return Err(io::Error::other("a message of an impossible size"));
        }
        let mut body = vec![0; size - 4];
        self.stream.read_exact(&mut body)?;
        Ok((kind, body))
    }
}

fn failed(source: io::Error) -> ServerError {
    ServerError::Io { what: "PostgreSQL".to_owned(), source }
}

/// Of a message, with the four bytes of the length itself.
fn length(body: &[u8]) -> u32 {
    u32::try_from(body.len() + 4).unwrap_or(u32::MAX)
}

fn row(mut body: &[u8]) -> Option<Row> {
    let (count, rest) = body.split_first_chunk()?;
    body = rest;
    let mut row = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (size, rest) = body.split_first_chunk()?;
        body = rest;
        row.push(match usize::try_from(i32::from_be_bytes(*size)) {
            Err(_) => None,
            Ok(size) => {
                let (text, rest) = body.split_at_checked(size)?;
                body = rest;
                Some(String::from_utf8_lossy(text).into_owned())
            }
        });
    }
    Some(row)
}

/// "SEVERITY CODE message" of an error's fields.
fn refusal(body: &[u8]) -> String {
    let field = |kind| {
        let field = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&kind));
        field.map(|field| String::from_utf8_lossy(&field[1..]).into_owned()).unwrap_or_default()
    };
    format!("{} {} {}", field(b'S'), field(b'C'), field(b'M'))
}

pub(crate) const USER: &str = "causeway";
const PROTOCOL: u32 = 196_608;
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
