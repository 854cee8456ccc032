//! The token endpoint. A real provider would have asked for a password, a passkey or a session before this; here the
//! name is enough.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::json;

use super::refuse;
use crate::error::SandboxError;
use crate::provider::Provider;
use crate::tokens::Minted;

const DEFAULT_TTL_S: u64 = 3_600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    user: String,
    noise_key: String,
    ttl_s: Option<u64>,
}

pub(super) async fn issue(State(provider): State<Provider>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(asked) = read(&headers, &body) else {
        let form = "send user, noise_key and, if you like, ttl_s, as JSON or as a form";
        return refuse(StatusCode::BAD_REQUEST, form);
    };
    match mint(&provider, &asked).await {
        Ok(Minted { token, expires_s }) => {
            let no_store = (CACHE_CONTROL, HeaderValue::from_static("no-store"));
            ([no_store], Json(json!({ "token": token, "expires_s": expires_s }))).into_response()
        }
        Err(error @ (SandboxError::User | SandboxError::NoiseKey | SandboxError::Lifetime)) => {
            refuse(StatusCode::BAD_REQUEST, &error)
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

async fn mint(provider: &Provider, asked: &Asked) -> Result<Minted, SandboxError> {
    let bytes = URL_SAFE_NO_PAD.decode(&asked.noise_key).map_err(|_| SandboxError::NoiseKey)?;
    let noise_key = bytes.try_into().map_err(|_| SandboxError::NoiseKey)?;
    provider.mint(&asked.user, &noise_key, Duration::from_secs(asked.ttl_s.unwrap_or(DEFAULT_TTL_S))).await
}

fn read(headers: &HeaderMap, body: &[u8]) -> Option<Asked> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    match kind.split(';').next()?.trim() {
        "application/json" => serde_json::from_slice(body).ok(),
        "application/x-www-form-urlencoded" => read_form(body),
        _ => None,
    }
}

fn read_form(body: &[u8]) -> Option<Asked> {
    let (mut user, mut noise_key, mut ttl_s) = (None, None, None);
    for (name, value) in url::form_urlencoded::parse(body) {
        let field = match &*name {
            "user" => &mut user,
            "noise_key" => &mut noise_key,
            "ttl_s" => &mut ttl_s,
            _ => return None,
        };
        if field.replace(value.into_owned()).is_some() {
            return None;
        }
    }
    let ttl_s = ttl_s.map(|text| text.parse()).transpose().ok()?;
    Some(Asked { user: user?, noise_key: noise_key?, ttl_s })
}
