//! What clients call through: connections to another process, or the services themselves in this one.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::either::Either;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::channel::ResponseFuture;
use tower::Service;

use super::{Guarded, MAX_CALLS, Observed};

const GRPC_TIMEOUT_HEADER: &str = "grpc-timeout";

/// The way to a service, for its generated clients. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Channel {
    /// In another process.
    Remote(tonic::transport::Channel),
    /// In this one.
    Here(Here),
}

impl From<tonic::transport::Channel> for Channel {
    fn from(channel: tonic::transport::Channel) -> Self {
        Self::Remote(channel)
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Either<ResponseFuture, Answering>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match self {
            Self::Remote(channel) => channel.poll_ready(cx),
            Self::Here(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self {
            Self::Remote(channel) => Either::Left(channel.call(request)),
            Self::Here(here) => Either::Right(here.clone().call(request)),
        }
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, tonic::transport::Error>> + Send>>;

/// Services of this process, called as functions: there is no connection, and nothing to encrypt, to flow or to keep alive.
/// Bodies are those of gRPC, so that messages have the same bounds as between processes.
#[derive(Clone)]
pub struct Here {
    services: Observed<Guarded<Routes>>,
    /// One permit for each call that may be open, from its beginning until its answer has been read or dropped.
    calls: Arc<Semaphore>,
    drain: CancellationToken,
}

impl fmt::Debug for Here {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Here")
    }
}

impl Here {
    /// Calls are refused from `drain` on; those that are open go on.
    pub(super) fn new(services: Observed<Guarded<Routes>>, drain: CancellationToken) -> Self {
        Self { services, calls: Arc::new(Semaphore::new(MAX_CALLS)), drain }
    }

    /// Resolves when no call is open, after the drain has begun.
    pub(super) async fn idle(&self) {
        self.drain.cancelled().await;
        let all = u32::try_from(MAX_CALLS).unwrap_or(u32::MAX);
        // Never closed.
        let _idle = self.calls.acquire_many(all).await;
    }

    fn call(self, request: Request<Body>) -> Answering {
        let deadline = deadline(request.headers());
        Box::pin(async move {
            let answer = match deadline {
                None => self.answer(request).await,
                Some(deadline) => {
                    let late = |_| Err(Status::deadline_exceeded("no answer in time"));
                    tokio::time::timeout(deadline, self.answer(request)).await.unwrap_or_else(late)
                }
            };
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }

    async fn answer(mut self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let stopping = || Status::unavailable("the service stops");
        if self.drain.is_cancelled() {
            return Err(stopping());
        }
        let place = Arc::clone(&self.calls).acquire_owned().await.map_err(|_closed| stopping())?;
        if self.drain.is_cancelled() {
            return Err(stopping());
        }
        let over = CancellationToken::new();
        let call = Call { _over: over.clone().drop_guard(), _place: place };
        let mut request = request.map(|body| Body::new(Asked { body, over: Box::pin(over.cancelled_owned()) }));
        // Like a connection on which nobody is told apart (`guard`).
        request.extensions_mut().insert(());
        // In a task of its own: what a handler holds is not to wait for a caller who does other things before it asks for the
        // answer. It ends with the caller.
        let handler = AbortOnDropHandle::new(tokio::spawn(self.services.call(request)));
        let answered = handler.await.map_err(|failed| {
            tracing::error!(panicked = failed.is_panic(), "a call within the process has failed");
            Status::internal("the handler failed")
        })?;
        let response = answered.unwrap_or_else(|never: Infallible| match never {});
        Ok(response.map(|body| Body::new(Answered { body, _call: call })))
    }
}

/// What is open until the caller has the answer, or wants it no more.
struct Call {
    _over: DropGuard,
    _place: OwnedSemaphorePermit,
}

/// What the caller says, until the call is over.
struct Asked {
    body: Body,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl HttpBody for Asked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => {}
            ready @ Poll::Ready(_) => return ready,
        }
        self.over.as_mut().poll(cx).map(|()| Some(Err(Status::cancelled("the caller has left"))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What the caller is told.
struct Answered {
    body: Body,
    _call: Call,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long the caller waits: up to eight digits and a unit.
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT_HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount = digits.parse::<u32>().ok().filter(|_| digits.len() <= 8)?;
    let amount = u64::from(amount);
    Some(match unit {
        "H" => Duration::from_secs(amount * 3_600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_those_that_clients_write() {
        for set in [Duration::from_micros(1_500), super::super::CALL_TIMEOUT, Duration::from_secs(7 * 3_600)] {
            let mut request = tonic::Request::new(());
            request.set_timeout(set);
            assert_eq!(deadline(&request.metadata().clone().into_headers()), Some(set));
        }
        for bad in ["", "u", "1", "1x", "123456789u", "-1S", "+é"] {
            let Ok(value) = http::HeaderValue::from_str(bad) else { continue };
            let headers = HeaderMap::from_iter([(http::HeaderName::from_static(GRPC_TIMEOUT_HEADER), value)]);
            assert_eq!(deadline(&headers), None, "{bad}");
        }
    }
}
