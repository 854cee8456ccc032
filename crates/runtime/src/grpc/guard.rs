//! Decides for each call whether its caller may make it. Where services speak in plain text, or in one process, there is nobody to
//! tell apart, and every call passes.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio_util::either::Either;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tower::{Layer, Service};

use crate::tls::{self, Caller};

/// Puts [`Guarded`] around a server's services.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guard;

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner }
    }
}

/// Services that answer only calls which their caller may make (`tls/permissions.rs`); others get `PERMISSION_DENIED`.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match refusal(&request) {
            None => Either::Left(self.inner.call(request)),
            Some(refused) => Either::Right(ready(Ok(refused.into_http()))),
        }
    }
}

fn refusal(request: &Request<Body>) -> Option<Status> {
    let Some(caller) = request.extensions().get::<Caller>() else { return unknown(request) };
    let path = request.uri().path();
    if tls::allows(caller.role, path) {
        return None;
    }
    caller.metrics.denied(caller.role);
    let call: String = path.trim_start_matches('/').chars().take(MAX_CALL_CHARS).collect();
    tracing::warn!(role = %caller.role, call, "a peer is refused a call that its role may not make");
    Some(Status::permission_denied(format!("the role {} may not call {call}", caller.role)))
}

/// Nobody is told apart over TCP in plain text and in one process, and such a connection says so itself. A call that comes in any
/// other way without its caller is refused: a way around the certificates is not to become a way in.
fn unknown(request: &Request<Body>) -> Option<Status> {
    let extensions = request.extensions();
    if extensions.get::<TcpConnectInfo>().is_some() || extensions.get::<()>().is_some() {
        return None;
    }
    tracing::error!("a call is refused: its connection says nothing of its caller");
    Some(Status::permission_denied("nothing is known of the caller"))
}

/// Of the name of a call in messages; all that there are, are shorter.
const MAX_CALL_CHARS: usize = 100;

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_call_of_which_nothing_is_known_is_refused() {
        let mut request = Request::new(Body::empty());
        assert_eq!(refusal(&request).map(|refused| refused.code()), Some(Code::PermissionDenied));
        request.extensions_mut().insert(());
        assert!(refusal(&request).is_none());
    }
}
