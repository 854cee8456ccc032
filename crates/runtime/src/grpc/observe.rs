//! What is known of each call that a server answers: how long it took, by its name and status, and its place in a trace.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::telemetry::instruments;
use crate::telemetry::trace::{Hop, Step, TRACEPARENT, TraceContext};
use crate::tls;

/// Puts [`Observed`] around a server's services.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observe;

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner }
    }
}

/// Services whose calls are counted, and traced where their callers are.
#[derive(Debug, Clone)]
pub struct Observed<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let parent = request.headers().get(TRACEPARENT).and_then(|value| TraceContext::read(value.to_str().ok()?));
        let step = Step::under(Hop::serving(&method), parent);
        let answering = self.inner.call(request);
        Box::pin(async move {
            let since = Instant::now();
            let answer = match &step {
                Some(step) => answering.instrument(step.span().clone()).await,
                None => answering.await,
            };
            let code = answer.as_ref().map_or(Code::Internal, |answer| code(answer.headers()));
            if let Some(step) = step {
                step.outcome(name(code));
            }
            // Whoever calls what does not exist makes up no labels.
            let method = if tls::is_call(&method) { method } else { "_OTHER".to_owned() };
            instruments::call_served(method, name(code), since.elapsed());
            answer
        })
    }
}

/// A call that fails says so in its head; one that has a body has succeeded, as far as a handler is concerned.
fn code(headers: &HeaderMap) -> Code {
    Status::from_header_map(headers).map_or(Code::Ok, |status| status.code())
}

/// As the semantic conventions write it.
const fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
