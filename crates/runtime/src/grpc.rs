//! gRPC between services. In one process the same clients call the same services as functions, so that there is one interface.

mod channel;
mod ear;
mod endpoints;
mod guard;
mod observe;
mod router;
mod transport;

use std::net::SocketAddr;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tonic::transport::{Endpoint, Uri};

pub use self::channel::{Channel, Here};
pub use self::ear::Ear;
pub use self::endpoints::{Endpoints, check_addresses, connect_any};
pub use self::guard::{Guard, Guarded};
pub use self::observe::{Observe, Observed};
pub use self::router::Router;
pub use self::transport::{Transport, check_scheme};
use crate::lifecycle::Lifecycle;
use crate::telemetry::trace::{TRACEPARENT, TraceContext};

/// Largest gRPC message; a batch of stanzas stays well below it.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// A unary call that takes longer is given up.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls that may be open at a time, on a connection or within a process.
const MAX_CALLS: usize = 4_096;
/// A peer that stops answering is noticed after this and [`PATIENCE`]: it may be stopped, or cut off, with its connection open.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// Long enough for a busy machine, short enough for those who wait.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// A connection of this age takes no new calls; its peer opens another one, and what is open goes on. Before the age at which one
/// with a certificate is cut (`tls/accept.rs`), so that few calls are.
const GRACEFUL_AGE: Duration = Duration::from_secs(18 * 3_600);

/// A server without services yet, with the bounds that all of Causeway's gRPC servers have.
pub fn server() -> Router {
    Router::default()
}

/// Why a peer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// Not a URI.
    #[error(
        "{0} is no gRPC address: write it as http://host:port, or dns+http://name:port for all addresses of a name; with \
         server.tls, with https instead of http"
    )]
    Address(String),
    /// Plain text where services speak over TLS.
    #[error("{0} is plain text, and there is server.tls: write it as https://host:port or dns+https://name:port")]
    Unencrypted(String),
    /// TLS where services speak in plain text.
    #[error("{0} is TLS, and there is no server.tls: set it, or write the address as http:// or dns+http://")]
    NoTls(String),
    /// Nobody, or not the right one, answers.
    #[error("{address} cannot be connected to: {source}")]
    Unreachable {
        /// The address.
        address: String,
        /// What the system or the handshake said.
        source: std::io::Error,
    },
    /// A service without addresses.
    #[error("no address is given: write one as http://host:port")]
    NoAddress,
    /// The server could not serve.
    #[error("gRPC server: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// A channel to another process; connects when first used and again whenever it must.
///
/// # Errors
/// [`GrpcError::Address`].
pub fn connect(address: &str) -> Result<Channel, GrpcError> {
    check_scheme(false, address)?;
    Ok(tune(endpoint(address)?).connect_lazy().into())
}

fn endpoint(address: &str) -> Result<Endpoint, GrpcError> {
    let wrong = || GrpcError::Address(address.to_owned());
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_| wrong())?;
    let known = matches!(endpoint.uri().scheme_str(), Some("http" | "https"));
    let whole = known && endpoint.uri().host().is_some();
    if whole { Ok(endpoint) } else { Err(wrong()) }
}

fn tune(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(PATIENCE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(Some(1024 * 1024))
        .initial_connection_window_size(Some(8 * 1024 * 1024))
        .tcp_nodelay(true)
}

/// Serves `router` on a bound listener until the lifecycle drains; what is open then can finish until the last call.
///
/// # Errors
/// [`GrpcError::Serve`].
pub async fn serve(router: Router, listener: TcpListener, life: &Lifecycle) -> Result<(), GrpcError> {
    Transport::Plain.serve(router, listener, life).await
}

/// Serves `router` inside this process and gives the channel to it. From the drain on no call is taken; what is open then can
/// finish until the last call.
pub fn in_process(router: Router, life: &Lifecycle) -> Channel {
    let here = Here::new(router.layered(), life.drain_token());
    let (calls, last_call) = (here.clone(), life.last_call());
    life.spawn_vital("in-process gRPC", async move {
        let idle = async {
            calls.idle().await;
            Ok::<_, std::convert::Infallible>(())
        };
        until(last_call, idle).await
    });
    Channel::Here(here)
}

/// Waits for what is open no longer than until the last call. It goes with the process then.
async fn until<E>(last_call: impl Future<Output = ()>, serving: impl Future<Output = Result<(), E>>) -> Result<(), E> {
    tokio::select! {
        served = serving => served,
        () = last_call => {
            tracing::warn!("a peer has not ended its gRPC calls; they are given up");
            Ok(())
        }
    }
}

/// A channel over connections that `open` makes: one at a time, and another one when that has ended.
pub fn connect_with<T, F>(open: impl Fn() -> F + Send + 'static) -> Channel
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Future<Output = std::io::Result<T>> + Send + 'static,
{
    let connector = tower::service_fn(move |_: Uri| {
        let opened = open();
        async move { opened.await.map(TokioIo::new) }
    });
    // The address is never resolved.
    tune(Endpoint::from_static("http://causeway")).connect_with_connector_lazy(connector).into()
}

/// A request with the deadline of unary calls, and the place in a trace that it is made at, if it is in one.
pub fn call<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    if let Some(value) = TraceContext::current().and_then(|context| context.to_string().parse().ok()) {
        request.metadata_mut().insert(TRACEPARENT, value);
    }
    request
}

/// True when `address` can only be reached from this machine: plain text is allowed there without a flag.
pub fn is_local(address: &SocketAddr) -> bool {
    address.ip().is_loopback()
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;

    use axum::routing::post;
    use tokio::sync::Notify;
    use tonic::service::Routes;
    use tonic_prost::ProstCodec;

    use super::*;
    use crate::lifecycle::Ended;

    /// Far longer than anything takes but the fifth of it that is left after the last call.
    const GRACE: Duration = Duration::from_secs(5);

    /// A service with one call, which never ends, and what tells that it has begun.
    fn endless() -> (Router, Arc<Notify>) {
        let begun = Arc::new(Notify::new());
        let told = Arc::clone(&begun);
        let call = move || async move {
            told.notify_one();
            pending::<()>().await;
        };
        (Routes::from(axum::Router::new().route(CALL, post(call))).into(), begun)
    }

    const CALL: &str = "/causeway.Nothing/Nothing";

    async fn call_by(channel: Channel, timeout: Option<Duration>) -> tonic::Code {
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        let mut request = tonic::Request::new(());
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        let path = http::uri::PathAndQuery::from_static(CALL);
        let answer = client.unary(request, path, ProstCodec::<(), ()>::default()).await;
        answer.map_or_else(|status| status.code(), |_| tonic::Code::Ok)
    }

    async fn ends_in_spite_of_a_call(channel: Channel, life: &Lifecycle, begun: &Notify) {
        let calling = tokio::spawn(call_by(channel, None));
        begun.notified().await;
        assert_eq!(life.finish(GRACE).await, Ended::Clean);
        calling.abort();
    }

    #[tokio::test]
    async fn a_call_that_nobody_ends_holds_no_process_up() {
        let (life, (router, begun)) = (Lifecycle::new(), endless());
        let channel = in_process(router, &life);
        ends_in_spite_of_a_call(channel, &life, &begun).await;
    }

    #[tokio::test]
    async fn a_call_over_tcp_that_nobody_ends_holds_no_process_up() {
        let (life, (router, begun)) = (Lifecycle::new(), endless());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channel = connect(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let of_server = life.clone();
        life.spawn_vital("gRPC", async move { serve(router, listener, &of_server).await });
        ends_in_spite_of_a_call(channel, &life, &begun).await;
    }

    /// Tells when it is dropped.
    struct Tells(Option<tokio::sync::oneshot::Sender<()>>);

    impl Drop for Tells {
        fn drop(&mut self) {
            let _nobody = self.0.take().map(|tell| tell.send(()));
        }
    }

    #[tokio::test]
    async fn a_call_in_process_goes_on_by_itself_and_ends_with_its_caller() {
        let (life, begun) = (Lifecycle::new(), Arc::new(Notify::new()));
        let (tell, ended) = tokio::sync::oneshot::channel();
        let (told, tells) = (Arc::clone(&begun), Arc::new(std::sync::Mutex::new(Some(Tells(Some(tell))))));
        let call = move || async move {
            let _held = tells.lock().unwrap().take();
            told.notify_one();
            pending::<()>().await;
        };
        let channel = in_process(Routes::from(axum::Router::new().route(CALL, post(call))).into(), &life);
        let mut calling = Box::pin(call_by(channel, None));
        // Asked once; the handler gets on also while nobody asks.
        assert!(futures_poll_once(calling.as_mut()).await.is_none());
        begun.notified().await;
        drop(calling);
        ended.await.unwrap();
    }

    async fn futures_poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(cx) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn calls_in_process_have_deadlines_and_are_refused_from_the_drain_on() {
        let (life, (router, _begun)) = (Lifecycle::new(), endless());
        let channel = in_process(router, &life);
        let short = Some(Duration::from_millis(1));
        assert_eq!(call_by(channel.clone(), short).await, tonic::Code::DeadlineExceeded);
        life.drain();
        assert_eq!(call_by(channel, None).await, tonic::Code::Unavailable);
        assert_eq!(life.finish(GRACE).await, Ended::Clean);
    }

    #[tokio::test]
    async fn a_handler_that_panics_fails_its_call_alone() {
        let life = Lifecycle::new();
        let call = async || assert!(std::hint::black_box(false), "for the test");
        let channel = in_process(Routes::from(axum::Router::new().route(CALL, post(call))).into(), &life);
        assert_eq!(call_by(channel, None).await, tonic::Code::Internal);
        assert_eq!(life.finish(GRACE).await, Ended::Clean);
    }
}
