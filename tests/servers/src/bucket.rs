//! A server of S3's protocol.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::wait_for;
use crate::{Folder, Port, Process, ServerError};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(20);

/// moto, which speaks S3 and keeps everything in memory, on 127.0.0.1, with one bucket. Any access key will do.
#[derive(Debug)]
pub struct Bucket {
    // Dropped in this order.
    _process: Process,
    port: Port,
    _folder: Folder,
}

impl Bucket {
    /// The bucket's name.
    pub const NAME: &str = "blobs";

    /// Starts a server and makes the bucket.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start() -> Result<Self, ServerError> {
        let (port, folder) = (Port::claim()?, Folder::create()?);
        let log = folder.path().join("log");
        let mut command = crate::command(&program(), None);
        command.args(["--host", "127.0.0.1", "--port", &port.number().to_string()]);
        let mut process = Process::start(command, &log)?;
        let mut ended = None;
        let made = wait_for(PATIENCE, || {
            ended = process.ended();
            ended.is_some()
                || request(&port, "PUT", &format!("/{}", Self::NAME)).is_some_and(|said| said.contains(" 200 "))
        });
        match ended {
            Some(status) => Err(ServerError::server(
                format!("moto_server ended with {status} (tools/setup.sh test installs it)"),
                &log,
            )),
            None if !made => Err(ServerError::server("moto_server does not answer", &log)),
            None => Ok(Self { _process: process, port, _folder: folder }),
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// What the server says to `GET` of a path below the bucket, headers included; for listings.
    pub fn get(&self, path_and_query: &str) -> Option<String> {
        request(&self.port, "GET", &format!("/{}{path_and_query}", Self::NAME))
    }
}

fn request(port: &Port, method: &str, target: &str) -> Option<String> {
    let mut stream = TcpStream::connect(port.address()).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    // As the S3 clients of its tests do it: the header says which service is meant.
    let credential =
        "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {}\r\nAuthorization: {credential}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        port.address()
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    Some(said)
}

/// Where tools/setup.sh puts it.
fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/python/bin/moto_server")
}
