//! The client against real servers on loopback, good and bad, and against URLs that must not cause a packet.

mod answers;
mod guard;

use std::io::ErrorKind;
use std::net::TcpListener as StdListener;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn local() -> Fetcher {
    Fetcher::new(FetchConfig { allow_loopback_http: true, ..FetchConfig::default() }).unwrap()
}

fn impatient() -> Fetcher {
    let config = FetchConfig {
        allow_loopback_http: true,
        connect_timeout_ms: 500,
        idle_timeout_ms: 300,
        total_timeout_ms: 900,
        stream_timeout_ms: 1_000,
        max_stream_bytes: 100_000,
        ..FetchConfig::default()
    };
    Fetcher::new(config).unwrap()
}

fn only(host: &str) -> HostSet {
    HostSet::parse([host]).unwrap()
}

/// A listener that nothing may connect to.
struct Trap(StdListener);

impl Trap {
    fn set() -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    fn assert_untouched(&self) {
        assert_eq!(self.0.accept().map(|_| ()).unwrap_err().kind(), ErrorKind::WouldBlock, "somebody connected");
    }
}

/// Serves `handler` for every request until the test ends; gives the host.
async fn serve(handler: fn(Request) -> Response) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let app = Router::new().fallback(async move |request: Request| handler(request));
    tokio::spawn(async move { axum::serve(listener, app).await });
    host
}

/// Answers every connection with these bytes after one read, and closes it, or holds it open.
async fn serve_raw(answer: &'static [u8], hold: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _read = stream.read(&mut head).await;
                let _written = stream.write_all(answer).await;
                if hold {
                    let _until_the_peer_gives_up = stream.read(&mut head).await;
                }
            });
        }
    });
    host
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body.into()).unwrap()
}
