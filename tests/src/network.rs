//! A network between devices and the edge that breaks connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Passes bytes on between a port of its own and the edge, and cuts each connection after some number of bytes, in
/// either direction, wherever that falls.
pub struct CuttingNetwork {
    address: SocketAddr,
    cuts: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl CuttingNetwork {
    /// In front of `edge`. A connection lives for `least` to `most` bytes, drawn from `seed`.
    ///
    /// # Errors
    /// No free port.
    pub async fn start(edge: SocketAddr, least: u64, most: u64, seed: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for the network")?;
        let address = listener.local_addr()?;
        let cuts = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&cuts);
        let accepting = tokio::spawn(async move {
            let mut chance = StdRng::seed_from_u64(seed);
            while let Ok((near, _)) = listener.accept().await {
                let life = chance.random_range(least..=most);
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    if let Ok(far) = TcpStream::connect(edge).await
                        && pass(near, far, life).await
                    {
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        Ok(Self { address, cuts, accepting })
    }

    /// Where devices connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that were cut so far.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for CuttingNetwork {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// True if the connection was cut, false if one side closed it before.
async fn pass(mut near: TcpStream, mut far: TcpStream, mut life: u64) -> bool {
    let (mut up, mut down) = ([0; 1_024], [0; 1_024]);
    loop {
        let (bytes, to) = tokio::select! {
            read = near.read(&mut up) => (read.map(|count| &up[..count]), &mut far),
            read = far.read(&mut down) => (read.map(|count| &down[..count]), &mut near),
        };
        let Ok(bytes) = bytes else { return false };
        if bytes.is_empty() {
            return false;
        }
        let passed = usize::try_from(life).unwrap_or(usize::MAX).min(bytes.len());
        if to.write_all(&bytes[..passed]).await.is_err() {
            return false;
        }
        life -= passed as u64;
        if life == 0 {
            return true;
        }
    }
}

/// Passes bytes on unchanged and keeps what devices sent, connection by connection.
pub struct RecordingNetwork {
    address: SocketAddr,
    recorded: Arc<Mutex<Vec<Vec<u8>>>>,
    accepting: JoinHandle<()>,
}

impl RecordingNetwork {
    /// In front of `edge`.
    ///
    /// # Errors
    /// No free port.
    pub async fn start(edge: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for the network")?;
        let address = listener.local_addr()?;
        let recorded = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));
        let shared = Arc::clone(&recorded);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(edge).await else { return };
                let (mut from_device, mut to_device) = near.into_split();
                let (mut from_edge, mut to_edge) = far.into_split();
                let (index, shared) = (lock(&shared).len(), Arc::clone(&shared));
                lock(&shared).push(Vec::new());
                tokio::spawn(async move { tokio::io::copy(&mut from_edge, &mut to_device).await });
                tokio::spawn(async move {
                    let mut bytes = [0; 4_096];
                    while let Ok(count @ 1..) = from_device.read(&mut bytes).await {
                        lock(&shared)[index].extend_from_slice(&bytes[..count]);
                        if to_edge.write_all(&bytes[..count]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Ok(Self { address, recorded, accepting })
    }

    /// Where devices connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What devices have sent, a connection each.
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        lock(&self.recorded).clone()
    }
}

impl Drop for RecordingNetwork {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(recorded: &Mutex<Vec<Vec<u8>>>) -> MutexGuard<'_, Vec<Vec<u8>>> {
    recorded.lock().unwrap_or_else(PoisonError::into_inner)
}
