//! What of a process works: starting, ready, draining, and which parts are degraded. For probes and for people.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde::Serialize;

/// The state of a part that a service can do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// It works.
    Up,
    /// It does not; the text says what that means for users, without secrets.
    Degraded(String),
}

/// The health of a process. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    ready: bool,
    draining: bool,
    parts: BTreeMap<&'static str, Part>,
}

impl Health {
    /// Everything that must be there for the service is there.
    pub fn ready(&self) {
        self.known().ready = true;
    }

    /// The process has been told to stop.
    pub fn draining(&self) {
        self.known().draining = true;
    }

    /// Tells the state of a part; a change is logged once.
    pub fn report(&self, part: &'static str, state: Part) {
        let mut all = self.known();
        if all.parts.get(part) == Some(&state) {
            return;
        }
        match &state {
            Part::Up if all.parts.contains_key(part) => tracing::info!(part, "works again"),
            Part::Up => {}
            Part::Degraded(meaning) => tracing::warn!(part, meaning, "is degraded"),
        }
        all.parts.insert(part, state);
    }

    /// The parts and their states.
    pub fn parts(&self) -> BTreeMap<&'static str, Part> {
        self.known().parts.clone()
    }

    /// `starting`, `ready`, `degraded` (it serves, but not all of it) or `draining`.
    pub fn status(&self) -> &'static str {
        let state = self.known();
        if state.draining {
            "draining"
        } else if !state.ready {
            "starting"
        } else if state.parts.values().all(|part| *part == Part::Up) {
            "ready"
        } else {
            "degraded"
        }
    }

    /// The endpoints for probes, over HTTP: `GET /live` (200 as long as the process answers), `GET /ready` (200 when ready or
    /// degraded, else 503), `GET /health` (always 200). The body is JSON:
    /// `{"status": ..., "parts": {"name": {"state": "up"|"degraded", "meaning": ...}}}`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/live", get(told))
            .route("/health", get(told))
            .route("/ready", get(asked_whether_ready))
            .with_state(self.clone())
    }

    fn report_now(&self) -> Report {
        let parts = self.parts().into_iter().map(|(name, part)| {
            let (state, meaning) = match part {
                Part::Up => ("up", String::new()),
                Part::Degraded(meaning) => ("degraded", meaning),
            };
            (name, PartReport { state, meaning })
        });
        Report { status: self.status(), parts: parts.collect() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Serialize)]
struct Report {
    status: &'static str,
    parts: BTreeMap<&'static str, PartReport>,
}

#[derive(Serialize)]
struct PartReport {
    state: &'static str,
    meaning: String,
}

async fn told(State(health): State<Health>) -> Json<Report> {
    Json(health.report_now())
}

async fn asked_whether_ready(State(health): State<Health>) -> (StatusCode, Json<Report>) {
    let report = health.report_now();
    let serves = matches!(report.status, "ready" | "degraded");
    (if serves { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(report))
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt as _;

    use super::*;

    async fn get(health: &Health, path: &str) -> (StatusCode, String) {
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let answer = health.router().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn probes_tell_starting_ready_degraded_and_draining_apart() {
        let health = Health::default();
        assert_eq!(get(&health, "/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get(&health, "/live").await.0, StatusCode::OK);
        health.ready();
        assert_eq!(get(&health, "/ready").await, (StatusCode::OK, r#"{"status":"ready","parts":{}}"#.to_owned()));
        health.report("edge.redis", Part::Degraded("new logins wait".to_owned()));
        let (status, body) = get(&health, "/ready").await;
        assert_eq!(status, StatusCode::OK, "it serves on");
        assert!(body.contains(r#""edge.redis":{"state":"degraded","meaning":"new logins wait"}"#), "{body}");
        health.report("edge.redis", Part::Up);
        assert_eq!(health.status(), "ready");
        health.draining();
        let (status, body) = get(&health, "/ready").await;
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && body.contains("draining"), "{body}");
        assert_eq!(get(&health, "/health").await.0, StatusCode::OK);
    }
}
