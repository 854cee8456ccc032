//! Discovery, key set, and rotation of the keys.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::Value;

use super::refuse;
use crate::provider::Provider;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotate {
    keep_old: bool,
}

pub(super) async fn discovery(State(provider): State<Provider>) -> Json<Value> {
    Json(provider.discovery())
}

pub(super) async fn jwks(State(provider): State<Provider>) -> Json<Value> {
    provider.0.jwks_fetches.fetch_add(1, Ordering::Relaxed);
    Json(provider.jwks().await)
}

pub(super) async fn rotate(State(provider): State<Provider>, asked: Result<Json<Rotate>, JsonRejection>) -> Response {
    let Ok(Json(Rotate { keep_old })) = asked else {
        return refuse(StatusCode::BAD_REQUEST, "send JSON like {\"keep_old\":true}");
    };
    match provider.rotate_keys(keep_old).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}
