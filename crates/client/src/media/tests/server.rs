//! One file over HTTP/1.1: PUT it, GET it or its end; each fault is for one request, in order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// This status and no body.
    Status(u16),
    /// So many bytes of the body, then the end of the connection.
    CutAfter(usize),
    /// The connection ends without an answer.
    Close,
    /// Nothing comes.
    Silent,
    /// Another part than the wanted one.
    WrongRange,
    /// The whole where a part was wanted.
    WholeInstead,
}

#[derive(Debug, Default)]
struct State {
    stored: Vec<u8>,
    faults: VecDeque<Fault>,
    ranges: Vec<Option<String>>,
    tickets: usize,
}

#[derive(Debug)]
pub(super) struct Server {
    base: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { base, state }
    }

    pub(super) fn url(&self, size: u64) -> String {
        format!("{}{size}", self.base)
    }

    /// Faults of the next requests, instead of those that were left.
    pub(super) fn will(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut state = self.state.lock().unwrap();
        state.faults = faults.into_iter().collect();
        state.ranges.clear();
    }

    pub(super) fn replace(&self, stored: Vec<u8>) {
        let mut state = self.state.lock().unwrap();
        state.stored = stored;
        state.faults.clear();
    }

    pub(super) fn stored(&self) -> Vec<u8> {
        self.state.lock().unwrap().stored.clone()
    }

    /// The Range headers of the GETs so far.
    pub(super) fn ranges(&self) -> Vec<Option<String>> {
        self.state.lock().unwrap().ranges.clone()
    }

    pub(super) fn tickets(&self) -> usize {
        self.state.lock().unwrap().tickets
    }

    pub(super) fn ticket(&self) -> String {
        self.state.lock().unwrap().tickets += 1;
        "t".to_owned()
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let head = read_head(&mut stream).await;
    let header = |name: &str| {
        let line =
            head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)));
        line.map(|(_, value)| value.to_owned())
    };
    assert_eq!(header("authorization").as_deref(), Some("Causeway t"));
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    let (fault, whole) = {
        let mut state = state.lock().unwrap();
        let fault = state.faults.pop_front();
        if head.starts_with("PUT") {
            if fault.is_none() {
                state.stored = body;
            }
        } else {
            state.ranges.push(header("range"));
        }
        (fault, state.stored.clone())
    };
    let (mut from, mut cut) = (header("range").map(|range| first_byte(&range)), usize::MAX);
    match fault {
        Some(Fault::Close) => return,
        Some(Fault::Silent) => return std::future::pending().await,
        Some(Fault::Status(status)) => return answer(&mut stream, status, "", &[], 0).await,
        Some(Fault::CutAfter(bytes)) => cut = bytes,
        Some(Fault::WrongRange) => from = from.map(|from| from + 1),
        Some(Fault::WholeInstead) => from = None,
        None if head.starts_with("PUT") => return answer(&mut stream, 201, "", &[], 0).await,
        None => {}
    }
    match from {
        None => answer(&mut stream, 200, "", &whole, cut).await,
        Some(from) => {
            let range = format!("content-range: bytes {from}-{}/{}\r\n", whole.len() - 1, whole.len());
            answer(&mut stream, 206, &range, whole.get(from..).unwrap_or_default(), cut).await;
        }
    }
}

fn first_byte(range: &str) -> usize {
    range.strip_prefix("bytes=").unwrap().split_once('-').unwrap().0.parse().unwrap()
}

async fn answer(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8], cut: usize) {
    let head = format!("HTTP/1.1 {status} X\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    // The client may have turned away.
    let _gone = stream.write_all(head.as_bytes()).await;
    let _gone = stream.write_all(&body[..body.len().min(cut)]).await;
    let _gone = stream.shutdown().await;
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
