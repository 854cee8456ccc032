//! A way to the server that cuts connections around a commit.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What happens to the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// It does not arrive.
    BeforeCommit,
    /// It arrives, its answer does not.
    AfterCommit,
    /// The client is cut off; it arrives when the test says so.
    Late,
}

/// Passes everything on, until it is armed.
pub(super) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    armed: Mutex<Option<Cut>>,
    cuts: AtomicU32,
    arrive: Notify,
}

impl Proxy {
    pub(super) async fn start(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&accepting);
                tokio::spawn(async move { pass(client, to, &shared).await });
            }
        });
        Self { port, shared }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn arm(&self, cut: Cut) {
        *self.shared.armed.lock().unwrap() = Some(cut);
    }

    pub(super) fn cuts(&self) -> u32 {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    pub(super) fn let_it_arrive(&self) {
        self.shared.arrive.notify_one();
    }
}

/// A simple query with this text.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

async fn pass(mut client: TcpStream, to: u16, shared: &Shared) {
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else { return };
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let message = &asked[..length];
                let commits = message.windows(COMMIT.len()).any(|window| window == COMMIT);
                let cut = if commits { shared.armed.lock().unwrap().take() } else { None };
                if let Some(cut) = cut {
                    shared.cuts.fetch_add(1, Ordering::SeqCst);
                    match cut {
                        Cut::BeforeCommit => {}
                        Cut::AfterCommit => {
                            server.write_all(message).await.unwrap();
                            let _answer = server.read(&mut answered).await;
                        }
                        Cut::Late => {
                            drop(client);
                            shared.arrive.notified().await;
                            server.write_all(message).await.unwrap();
                            let _answer = server.read(&mut answered).await;
                        }
                    }
                    return;
                }
                if server.write_all(message).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answered[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
