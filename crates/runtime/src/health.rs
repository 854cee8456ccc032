//! What of a process works: starting, ready, draining, and which parts are degraded. For probes and for people.

mod facts;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde::Serialize;

pub use self::facts::{About, Certificate, Tables};
use self::facts::{Facts, FactsReport};
use crate::clock::SharedClock;

/// A part that has not worked yet is missed in the log after this: connections need a moment at a start.
const MISSED_AFTER: Duration = Duration::from_secs(10);

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
    parts: BTreeMap<&'static str, Seen>,
    facts: Facts,
}

#[derive(Debug)]
struct Seen {
    state: Part,
    /// It has worked, or the log says that it has not: from now on each change is logged.
    known: bool,
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

    /// Tells the state of a part, which is called `<section of the configuration>.<what>`; a change is logged once. A part that
    /// does not work yet is logged only when it stays so, and while the process stops nothing is: parts go then.
    pub fn report(&self, part: &'static str, state: Part) {
        let mut all = self.known();
        let before = all.parts.get(part);
        if before.is_some_and(|seen| seen.state == state) {
            return;
        }
        let first = before.is_none();
        let known = before.is_some_and(|seen| seen.known);
        let known = match &state {
            _ if all.draining => known,
            Part::Up => {
                if known {
                    tracing::info!(part, "works again");
                }
                true
            }
            Part::Degraded(meaning) if known => {
                tracing::warn!(part, meaning, "is degraded");
                true
            }
            Part::Degraded(_) => {
                if first {
                    self.miss(part);
                }
                false
            }
        };
        all.parts.insert(part, Seen { state, known });
    }

    /// Logs in a while that a part is not there, if it has not worked until then.
    fn miss(&self, part: &'static str) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let known = Arc::downgrade(&self.0);
        runtime.spawn(async move {
            tokio::time::sleep(MISSED_AFTER).await;
            let Some(known) = Weak::upgrade(&known) else { return };
            let mut all = known.lock().unwrap_or_else(PoisonError::into_inner);
            let draining = all.draining;
            let Some(seen) = all.parts.get_mut(part).filter(|seen| !seen.known && !draining) else { return };
            if let Part::Degraded(meaning) = &seen.state {
                tracing::warn!(part, meaning, "is degraded since the start");
                seen.known = true;
            }
        });
    }

    /// Says who the process is, which starts now, and by which clock it goes.
    pub fn identify(&self, about: About, clock: SharedClock) {
        self.known().facts.identify(about, clock);
    }

    /// Says which tables the process uses; `name` is as that of a part.
    pub fn tables(&self, name: &'static str, tables: Tables) {
        self.known().facts.tables(name, tables);
    }

    /// Says which certificate the process shows now; `name` is as that of a part.
    pub fn certificate(&self, name: &'static str, certificate: Certificate) {
        self.known().facts.certificate(name, certificate);
    }

    /// The parts and their states.
    pub fn parts(&self) -> BTreeMap<&'static str, Part> {
        self.known().parts.iter().map(|(name, seen)| (*name, seen.state.clone())).collect()
    }

    /// `starting`, `ready`, `degraded` (it serves, but not all of it) or `draining`.
    pub fn status(&self) -> &'static str {
        let state = self.known();
        if state.draining {
            "draining"
        } else if !state.ready {
            "starting"
        } else if state.parts.values().all(|seen| seen.state == Part::Up) {
            "ready"
        } else {
            "degraded"
        }
    }

    /// The endpoints for probes, over HTTP: `GET /live` (200 as long as the process answers), `GET /ready` (200 when ready or
    /// degraded, else 503), `GET /health` (always 200). The body is JSON:
    /// `{"status": ..., "parts": {"name": {"state": "up"|"degraded", "meaning": ...}}}`, and where they are known `service`,
    /// `version`, `build`, `started_at`, `time`, `tables` (`{"name": {"store": ..., "version": ...}}`) and `certificates`
    /// (`{"name": {"not_before": ..., "not_after": ..., "root": ...}}`), with times in milliseconds since the Unix epoch.
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
        Report { status: self.status(), parts: parts.collect(), facts: self.known().facts.report() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Serialize)]
struct Report {
    status: &'static str,
    parts: BTreeMap<&'static str, PartReport>,
    #[serde(flatten)]
    facts: FactsReport,
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
    use std::time::UNIX_EPOCH;

    use tower::ServiceExt as _;

    use super::*;
    use crate::clock::ManualClock;

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

    #[tokio::test]
    async fn who_it_is_and_what_it_uses_is_told_when_it_is_known() {
        let (health, clock) = (Health::default(), ManualClock::at_ms(5_000));
        health.identify(About { service: "causeway-edge", version: "1.2.3", build: "abc" }, clock.clone());
        health.tables("routing.mailbox", Tables { store: "postgres", version: 4 });
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let certificate = Certificate { not_before: at(1), not_after: at(9), root: Some("00ff".to_owned()) };
        health.certificate("edge.certificate", certificate);
        clock.advance(Duration::from_secs(1));
        let (_, body) = get(&health, "/health").await;
        let told = r#","service":"causeway-edge","version":"1.2.3","build":"abc","started_at":5000,"time":6000"#;
        let tables = r#","tables":{"routing.mailbox":{"store":"postgres","version":4}}"#;
        let shown = r#","certificates":{"edge.certificate":{"not_before":1000,"not_after":9000,"root":"00ff"}}}"#;
        assert_eq!(body, format!(r#"{{"status":"starting","parts":{{}}{told}{tables}{shown}"#));
    }

    fn is_known(health: &Health, part: &str) -> bool {
        health.known().parts[part].known
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_is_not_there_yet_is_missed_only_when_it_stays_away() {
        let health = Health::default();
        let away = || Part::Degraded("nothing".to_owned());
        for part in ["edge.redis", "routing.redis"] {
            health.report(part, away());
            assert!(!is_known(&health, part), "a start is no fault");
        }
        assert_eq!(health.parts().get("edge.redis"), Some(&away()), "whoever asks is told");
        health.report("edge.redis", Part::Up);
        assert!(is_known(&health, "edge.redis"));
        tokio::time::sleep(MISSED_AFTER * 2).await;
        assert!(is_known(&health, "routing.redis"));

        // What goes while the process stops is missed by nobody.
        health.draining();
        health.report("edge.routing", away());
        tokio::time::sleep(MISSED_AFTER * 2).await;
        assert!(!is_known(&health, "edge.routing"));
    }
}
