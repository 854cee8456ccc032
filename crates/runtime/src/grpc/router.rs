//! The services of one gRPC server, and the bounds and layers that all of Causeway's servers have.

use std::convert::Infallible;

use axum::response::IntoResponse;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tower::{Layer as _, Service};

use super::{GRACEFUL_AGE, Guard, Guarded, KEEPALIVE, MAX_CALLS, Observe, Observed, PATIENCE};

/// The services of one gRPC server. Streams live as long as their connection; unary handlers have the deadline that their
/// callers set ([`super::CALL_TIMEOUT`]).
#[derive(Debug, Clone, Default)]
pub struct Router {
    routes: Routes,
}

impl From<Routes> for Router {
    fn from(routes: Routes) -> Self {
        Self { routes }
    }
}

impl Router {
    /// With one service more.
    #[must_use]
    pub fn add_service<S>(self, service: S) -> Self
    where
        S: Service<Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        Self { routes: self.routes.add_service(service) }
    }

    /// Serves connections that were accepted elsewhere, for ever.
    ///
    /// # Errors
    /// The server cannot serve.
    pub async fn serve_with_incoming<I, T, E>(self, incoming: I) -> Result<(), tonic::transport::Error>
    where
        I: Stream<Item = Result<T, E>>,
        T: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.serve_with_incoming_shutdown(incoming, std::future::pending()).await
    }

    /// The same until `drain`, and what is open then to its end.
    ///
    /// # Errors
    /// The server cannot serve.
    pub async fn serve_with_incoming_shutdown<I, T, E>(
        self,
        incoming: I,
        drain: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error>
    where
        I: Stream<Item = Result<T, E>>,
        T: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(PATIENCE))
            .http2_max_pending_accept_reset_streams(Some(64))
            .max_concurrent_streams(u32::try_from(MAX_CALLS).ok())
            .max_connection_age(GRACEFUL_AGE)
            .initial_stream_window_size(Some(1024 * 1024))
            .initial_connection_window_size(Some(8 * 1024 * 1024));
        server.serve_with_incoming_shutdown(self.layered(), incoming, drain).await
    }

    /// The services with what is around those of every server.
    pub(super) fn layered(self) -> Observed<Guarded<Routes>> {
        Observe.layer(Guard.layer(self.routes.prepare()))
    }
}
