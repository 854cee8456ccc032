//! One address in front of several replicas, as a load balancer has it.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Gives each connection to the next replica that takes it.
pub(crate) struct Front {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Front {
    pub(crate) async fn start(replicas: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port in front of replicas")?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            let mut turn = 0;
            while let Ok((near, _)) = listener.accept().await {
                let mut order = replicas.clone();
                order.rotate_left(turn % replicas.len().max(1));
                turn += 1;
                tokio::spawn(pass(near, order));
            }
        });
        Ok(Self { address, accepting })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(mut near: TcpStream, order: Vec<SocketAddr>) {
    for replica in order {
        if let Ok(mut far) = TcpStream::connect(replica).await {
            let _broken = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            return;
        }
    }
}
