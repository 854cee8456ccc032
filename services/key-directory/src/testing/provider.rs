//! A provider's OIDC endpoints on a loopback socket, with the faults that a test wants.

use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use causeway_identity::token::ed25519_jwk;
use causeway_proto::directory::v1 as pb;
use causeway_proto::wire::v1 as wire;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How the provider answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    Down,
    OtherIssuer,
    ForeignKeysUri(String),
    Redirects,
    HugeKeySet,
    NotJson,
    NoKeys,
}

#[derive(Clone)]
pub(crate) struct TestProvider {
    pub(crate) domain: String,
    pub(crate) host: String,
    shared: Arc<Shared>,
}

struct Shared {
    host: String,
    state: Mutex<(Mood, Vec<serde_json::Value>)>,
    fetches: watch::Sender<u64>,
    /// Key sets are held back while this is false.
    open: watch::Sender<bool>,
}

impl TestProvider {
    /// Serves until the test ends; publishes key `k1`.
    pub(crate) async fn start(domain: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            host: host.clone(),
            state: Mutex::new((Mood::Well, vec![jwk("k1")])),
            fetches: watch::Sender::new(0),
            open: watch::Sender::new(true),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { domain: domain.to_owned(), host, shared }
    }

    pub(crate) fn issuer(&self) -> String {
        format!("http://{}", self.host)
    }

    pub(crate) fn settings(&self, kind: wire::ProviderKind) -> pb::ProviderSettings {
        pb::ProviderSettings {
            domain: self.domain.clone(),
            display_name: "A provider".to_owned(),
            kind: kind.into(),
            issuer: self.issuer(),
            hosts: vec![self.host.clone()],
            media_prefixes: vec![format!("http://{}/v1/blobs/", self.host)],
            webhook_url: format!("http://{}/push", self.host),
            webhook_secret: "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz".to_owned(),
        }
    }

    pub(crate) fn be(&self, mood: Mood) {
        self.shared.state().0 = mood;
    }

    /// Publishes exactly these keys from now on.
    pub(crate) fn publish_keys(&self, kids: &[&str]) {
        self.shared.state().1 = kids.iter().map(|kid| jwk(kid)).collect();
    }

    /// Publishes the public half of this key alone, as `kid`.
    pub(crate) fn publish_pair(&self, kid: &str, pair: &Ed25519KeyPair) {
        self.shared.state().1 = vec![ed25519_jwk(kid, pair.public_key().as_ref().try_into().unwrap())];
    }

    /// Fetches of the key set so far.
    pub(crate) fn fetches(&self) -> u64 {
        *self.shared.fetches.borrow()
    }

    /// Waits until the key set was fetched this often.
    pub(crate) async fn fetched(&self, times: u64) {
        self.shared.fetches.subscribe().wait_for(|seen| *seen >= times).await.unwrap();
    }

    /// Holds key sets back until told otherwise.
    pub(crate) fn hold(&self, held: bool) {
        self.shared.open.send_replace(!held);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, (Mood, Vec<serde_json::Value>)> {
        self.state.lock().unwrap()
    }
}

async fn discovery(State(shared): State<Arc<Shared>>) -> Response {
    let mood = shared.state().0.clone();
    let issuer = format!("http://{}", shared.host);
    let keys_uri = format!("{issuer}/keys");
    let (issuer, keys_uri) = match mood {
        Mood::Down => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Mood::NotJson => return "<html>".into_response(),
        Mood::OtherIssuer => (format!("{issuer}/other"), keys_uri),
        Mood::ForeignKeysUri(uri) => (issuer, uri),
        _ => (issuer, keys_uri),
    };
    axum::Json(serde_json::json!({ "issuer": issuer, "jwks_uri": keys_uri, "more": 1 })).into_response()
}

async fn keys(State(shared): State<Arc<Shared>>) -> Response {
    shared.fetches.send_modify(|seen| *seen += 1);
    shared.open.subscribe().wait_for(|open| *open).await.unwrap();
    let (mood, keys) = shared.state().clone();
    match mood {
        Mood::Redirects => Redirect::temporary("/elsewhere").into_response(),
        Mood::HugeKeySet => vec![b' '; 70 * 1024].into_response(),
        Mood::NoKeys => axum::Json(serde_json::json!({ "keys": [] })).into_response(),
        _ => axum::Json(serde_json::json!({ "keys": keys })).into_response(),
    }
}

fn jwk(kid: &str) -> serde_json::Value {
    let pair = Ed25519KeyPair::generate().unwrap();
    ed25519_jwk(kid, pair.public_key().as_ref().try_into().unwrap())
}
