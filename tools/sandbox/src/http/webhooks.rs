//! Where the operator's routing says that a device should be woken.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::refuse;
use crate::provider::Provider;
use crate::pushes::ReceivedPush;

pub(super) async fn push(State(provider): State<Provider>, headers: HeaderMap, body: Bytes) -> Response {
    let to_refuse = &provider.0.pushes_to_refuse;
    let refused = to_refuse.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    if refused.is_ok() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "refused, as was asked for");
    }
    match provider.0.pushes.take(&headers, &body, provider.0.clock.now_ms() / 1000) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refuse(StatusCode::UNAUTHORIZED, &error),
    }
}

pub(super) async fn received(State(provider): State<Provider>) -> Json<Vec<ReceivedPush>> {
    Json(provider.received())
}
