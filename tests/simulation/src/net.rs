//! gRPC over the simulated network.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use causeway_runtime::grpc::Channel;
use causeway_runtime::grpc::Router;
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

/// A simulated connection, as tonic wants it.
#[derive(Debug)]
pub(crate) struct Wire(TcpStream);

impl Connected for Wire {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A channel to a host.
pub(crate) fn channel(host: &str, port: u16) -> Channel {
    let host = host.to_owned();
    causeway_runtime::grpc::connect_with(move || {
        let host = host.clone();
        async move { TcpStream::connect((host, port)).await.map(Wire) }
    })
}

/// Connections to this host, with who connects.
pub(crate) async fn accepted(port: u16) -> io::Result<impl Stream<Item = io::Result<(Wire, SocketAddr)>>> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    Ok(futures::stream::unfold(listener, async |listener| {
        let accepted = listener.accept().await.map(|(stream, from)| (Wire(stream), from));
        Some((accepted, listener))
    }))
}

/// Serves gRPC on this host until the host is stopped.
pub(crate) async fn serve(router: Router, port: u16) -> anyhow::Result<()> {
    let connections = accepted(port).await?.map(|accepted| accepted.map(|(stream, _)| stream));
    router.serve_with_incoming(connections).await?;
    Ok(())
}
