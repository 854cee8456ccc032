//! The service over real sockets: a relay, a provider's host beside it, and hosts that misbehave.

mod bucket;
mod crowds;
mod downloads;
mod grpc;
mod hostile_hosts;
mod replicas;
mod uploads;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use causeway_fetch::FetchConfig;
use causeway_identity::AccountId;
use causeway_runtime::clock::{Clock as _, ManualClock, SystemClock};
use causeway_runtime::lifecycle::Lifecycle;
use reqwest::header::AUTHORIZATION;
use reqwest::{Client, Method, RequestBuilder};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::host::{Host, UploadTicket};
use crate::relay::Relay;
use crate::{MediaConfig, MediaRelay};

const ADA: AccountId = AccountId::from_bytes([0xad; 16]);

/// A running service on a free port.
struct Running {
    address: SocketAddr,
    host: Host,
    relay: Relay,
    clock: Arc<ManualClock>,
    life: Lifecycle,
    http: Client,
    folder: Arc<TempDir>,
    redis_health: Option<tokio::sync::watch::Receiver<causeway_redis::Health>>,
}

impl Running {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut MediaConfig)) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), change).await
    }

    /// On a folder that other replicas may use too.
    async fn start_in(folder: Arc<TempDir>, change: impl FnOnce(&mut MediaConfig)) -> Self {
        let mut config = MediaConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            data_dir: folder.path().join("media"),
            fetch: FetchConfig { allow_loopback_http: true, ..FetchConfig::default() },
            ..MediaConfig::default()
        };
        change(&mut config);
        let clock = ManualClock::at_ms(SystemClock.now_ms());
        let media = MediaRelay::build(config, clock.clone()).await.unwrap();
        let (address, (host, relay), life) = (media.local_addr(), media.roles(), Lifecycle::new());
        let redis_health = media.redis_health();
        life.spawn_vital("media", media.serve(life.clone()));
        Self { address, host, relay, clock, life, http: Client::new(), folder, redis_health }
    }

    fn upload_ticket(&self, bytes: &[u8]) -> UploadTicket {
        self.host.upload_ticket(ADA, bytes.len() as u64, sha256(bytes)).unwrap()
    }

    async fn upload(&self, bytes: Vec<u8>) -> UploadTicket {
        let ticket = self.upload_ticket(&bytes);
        let answer = self.put(&ticket).body(bytes).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        ticket
    }

    fn put(&self, ticket: &UploadTicket) -> RequestBuilder {
        self.http.put(&ticket.url).header(AUTHORIZATION, format!("Causeway {}", ticket.ticket))
    }

    fn get(&self, ticket: &str) -> RequestBuilder {
        self.relay_request(Method::GET, ticket)
    }

    fn relay_request(&self, method: Method, ticket: &str) -> RequestBuilder {
        self.http.request(method, self.relay.url()).header(AUTHORIZATION, format!("Causeway {ticket}"))
    }

    fn download_ticket(&self, url: &str, bytes: &[u8]) -> String {
        self.relay.download_ticket(ADA, url, bytes.len() as u64, sha256(bytes)).unwrap().ticket
    }

    /// Files of this service's blobs, unfinished ones included.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = vec![self.folder.path().join("media/blobs")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    files.push(entry.file_name().into_string().unwrap());
                }
            }
        }
        files
    }
}

/// A provider's media host that says exactly `answer` to each request, then what `then` does with the connection.
async fn raw_host<F>(answer: Vec<u8>, then: fn(TcpStream) -> F) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                read_head(&mut stream).await;
                let _gone = stream.write_all(&answer).await;
                then(stream).await;
            });
        }
    });
    address
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// What a raw client gets for `request`: everything until the other side closes.
async fn raw_request(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _cut = tokio::time::timeout(Duration::from_secs(20), read).await.expect("the server closes");
    String::from_utf8_lossy(&answer).into_owned()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().unwrap()
}

/// Bytes that differ from place to place.
fn ciphertext(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect()
}
