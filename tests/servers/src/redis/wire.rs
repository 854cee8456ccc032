//! As much of Redis' protocol (RESP 2) as it takes to send a command and read the answer.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::ServerError;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A string of either kind.
    Text(String),
    /// A number.
    Integer(i64),
    /// Nothing.
    Nil,
    /// Several.
    List(Vec<Reply>),
}

impl Reply {
    /// The string that it is, or nothing.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }
}

/// Sends one command over a connection of its own.
pub(crate) fn call(port: u16, words: &[&str], patience: Duration) -> Result<Reply, ServerError> {
    let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).map_err(failed)?;
    stream.set_read_timeout(Some(patience)).map_err(failed)?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    (&stream).write_all(request.as_bytes()).map_err(failed)?;
    read(&mut BufReader::new(stream), 0)
}

fn read(from: &mut BufReader<TcpStream>, depth: u8) -> Result<Reply, ServerError> {
    let mut line = String::new();
    from.read_line(&mut line).map_err(failed)?;
    let line = line.trim_end();
    let unexpected = || ServerError::Answer(format!("of Redis: {line:?}"));
    if depth > MAX_DEPTH || line.is_empty() {
        return Err(unexpected());
    }
    let (kind, rest) = line.split_at_checked(1).ok_or_else(unexpected)?;
    let number = || rest.parse::<i64>().map_err(|_| unexpected());
    match kind {
        "+" => Ok(Reply::Text(rest.to_owned())),
        "-" => Err(ServerError::Refused(rest.to_owned())),
        ":" => Ok(Reply::Integer(number()?)),
        "$" => {
            let Ok(size) = usize::try_from(number()?) else { return Ok(Reply::Nil) };
            let mut bytes = Vec::new();
            from.take(size as u64 + 2).read_to_end(&mut bytes).map_err(failed)?;
            bytes.truncate(size);
            Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
        }
        "*" => {
            let Ok(size) = usize::try_from(number()?) else { return Ok(Reply::Nil) };
            (0..size).map(|_| read(from, depth + 1)).collect::<Result<_, _>>().map(Reply::List)
        }
        _ => Err(unexpected()),
    }
}

fn failed(source: io::Error) -> ServerError {
    ServerError::Io { what: "Redis".to_owned(), source }
}

const MAX_DEPTH: u8 = 8;
