//! The HTTP side. Every answer of its own is JSON; errors are `{"error": "<sentence>"}`.

mod media;
mod oidc;
mod token;
mod webhooks;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, HOST, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use crate::provider::Provider;

/// Largest body of a request to anything but the media host.
const MAX_BODY_BYTES: usize = 64 * 1024;

pub(crate) fn router(provider: Provider) -> Router {
    let media_host = provider.0.host.router();
    Router::new()
        .route("/.well-known/openid-configuration", get(oidc::discovery))
        .route("/jwks.json", get(oidc::jwks))
        .route("/keys/rotate", post(oidc::rotate))
        .route("/token", post(token::issue))
        .route("/webhooks/push", post(webhooks::push))
        .route("/webhooks/received", get(webhooks::received))
        .route("/media/tickets", post(media::ticket))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(provider.clone())
        .fallback_service(media_host)
        .layer(middleware::from_fn_with_state(provider, own_host_only))
}

/// Refuses requests that were meant for another host: a page in somebody's browser that lets its own name resolve to
/// loopback must not get tokens here.
async fn own_host_only(State(provider): State<Provider>, request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let authority = provider.0.authority.as_str();
    let port = authority.rsplit(':').next().unwrap_or_default();
    let own = host.is_some_and(|host| host == authority || host.strip_prefix("localhost:") == Some(port));
    if !own {
        return refuse(StatusCode::MISDIRECTED_REQUEST, "this is not the host that you asked for");
    }
    next.run(request).await
}

fn refuse(status: StatusCode, error: &(impl ToString + ?Sized)) -> Response {
    let mut answer = (status, Json(json!({ "error": error.to_string() }))).into_response();
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
