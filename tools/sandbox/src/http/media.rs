//! Upload tickets for our own users.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use causeway_identity::Verified;
use causeway_media_relay::RequestError;
use serde::Deserialize;
use serde_json::json;

use super::refuse;
use crate::provider::Provider;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    size: u64,
    sha256: String,
}

pub(super) async fn ticket(
    State(provider): State<Provider>,
    headers: HeaderMap,
    asked: Result<Json<Asked>, JsonRejection>,
) -> Response {
    let Some(user) = bearer(&provider, &headers).await else {
        return refuse(StatusCode::UNAUTHORIZED, "send Authorization: Bearer and a token of this provider");
    };
    let form = "send JSON like {\"size\":1000,\"sha256\":\"<64 hex digits>\"}";
    let Ok(Json(Asked { size, sha256 })) = asked else {
        return refuse(StatusCode::BAD_REQUEST, form);
    };
    let mut digest = [0; 32];
    if hex::decode_to_slice(&sha256, &mut digest).is_err() {
        return refuse(StatusCode::BAD_REQUEST, form);
    }
    match provider.upload_ticket(&user, size, digest) {
        Ok(ticket) => Json(json!({
            "url": ticket.url,
            "ticket": ticket.ticket,
            "public_url": ticket.public_url,
            "expires_ms": ticket.expires_ms,
        }))
        .into_response(),
        Err(error @ RequestError::Field { .. }) => refuse(StatusCode::BAD_REQUEST, &error),
        Err(error @ RequestError::TooLarge { .. }) => refuse(StatusCode::PAYLOAD_TOO_LARGE, &error),
        Err(ref error @ RequestError::Quota { retry_after }) => {
            let mut answer = refuse(StatusCode::TOO_MANY_REQUESTS, error);
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1)));
            answer
        }
    }
}

async fn bearer(provider: &Provider, headers: &HeaderMap) -> Option<Verified> {
    let token = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    provider.check_own(token).await
}
