//! Looks at the files while the process runs, and tells how the certificate is.
//!
//! What is in the files is compared, not their times: so it does not matter how they are replaced, in place, by a rename, or by
//! the change of a symbolic link that Kubernetes makes.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::global;
use x509_cert::der::DateTime;

use super::files::{Files, Material, TlsError};
use super::{Inner, Tls};
use crate::health::{Certificate, Health, Part};
use crate::lifecycle::Lifecycle;

/// The part in health.
pub(super) const PART: &str = "server.tls";

/// What a look at the files has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    /// The same as before.
    Same,
    /// Others, which new handshakes use.
    New,
    /// Others that cannot be used, or none.
    Refused,
}

impl Tls {
    /// Looks at the files every [`super::TlsConfig::reload_interval_ms`] until `life` drains, and keeps the part `server.tls` of its
    /// health; and has the seconds until the certificate ends as a metric.
    pub fn follow(&self, life: &Lifecycle) {
        measure(&self.0);
        let (tls, health) = (self.clone(), life.health().clone());
        tls.tell(&health);
        life.spawn_until_drained(async move {
            loop {
                tokio::time::sleep(tls.0.config.reload_interval()).await;
                let looking = tls.clone();
                if tokio::task::spawn_blocking(move || looking.look()).await.is_err() {
                    tracing::error!("the certificate files could not be looked at");
                }
                tls.tell(&health);
            }
        });
    }

    fn tell(&self, health: &Health) {
        health.report(PART, self.part());
        let state = self.state();
        let (not_before, not_after) = (state.used.not_before, state.used.not_after);
        health.certificate(PART, Certificate { not_before, not_after, root: None });
    }

    /// Reads the files and uses what is new and good.
    pub(super) fn look(&self) -> Looked {
        let before = self.state().seen.clone();
        // Once more if they do not fit together: they may be just being replaced.
        match self.try_new(&before).or_else(|_| self.try_new(&before)) {
            Ok(None) => Looked::Same,
            Ok(Some((seen, material))) => {
                tracing::info!(until = %date(material.not_after), "new certificate files are used from now on");
                self.0.metrics.reloaded(true);
                let mut state = self.state();
                (state.used, state.seen, state.problem) = (Arc::new(material), seen, None);
                Looked::New
            }
            Err(error) => {
                let problem = error.to_string();
                let mut state = self.state();
                if state.problem.as_ref() != Some(&problem) {
                    tracing::warn!(error = problem, "the certificate files cannot be used; those before are used on");
                    self.0.metrics.reloaded(false);
                    state.problem = Some(problem);
                }
                Looked::Refused
            }
        }
    }

    fn try_new(&self, before: &Files) -> Result<Option<(Files, Material)>, TlsError> {
        let Inner { config, domain, own, clock, .. } = &*self.0;
        let files = Files::read(config)?;
        // Files that are as they were before a problem are good again.
        if files == *before && self.state().problem.is_none() {
            return Ok(None);
        }
        let material = Material::from(&files, config, domain, *own, clock)?;
        Ok(Some((files, material)))
    }

    /// How it is, for health.
    pub(super) fn part(&self) -> Part {
        let state = self.state();
        let (from, until) = (state.used.not_before, state.used.not_after);
        let now = self.0.clock.now();
        let left = until.duration_since(now).unwrap_or_default();
        let whole = until.duration_since(from).unwrap_or_default();
        let mut meanings = Vec::new();
        if left.is_zero() {
            meanings.push(format!("the certificate has expired at {}: other services refuse it", date(until)));
        } else if now < from {
            meanings.push(format!("the certificate is valid only from {}: other services refuse it", date(from)));
        } else if left < self.0.config.warning() && left < whole / 4 {
            meanings.push(format!("the certificate expires at {}: put a new one in its place", date(until)));
        }
        if let Some(problem) = &state.problem {
            meanings.push(format!("new certificate files are refused, those before are used on: {problem}"));
        }
        if meanings.is_empty() { Part::Up } else { Part::Degraded(meanings.join("; ")) }
    }
}

impl Inner {
    /// Seconds until the certificate in use ends; negative when it has.
    fn seconds_left(&self) -> i64 {
        let until = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).used.not_after;
        let now = self.clock.now();
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        until.duration_since(now).map_or_else(|past| -seconds(past.duration()), seconds)
    }
}

fn measure(inner: &Arc<Inner>) {
    let inner: Weak<Inner> = Arc::downgrade(inner);
    let meter = global::meter("causeway.tls");
    let _lives_with_the_meter = meter
        .i64_observable_gauge("causeway.tls.certificate.remaining")
        .with_unit("s")
        .with_description("Until this process's certificate ends; negative when it has")
        .with_callback(move |observer| {
            if let Some(inner) = inner.upgrade() {
                observer.observe(inner.seconds_left(), &[]);
            }
        })
        .build();
}

fn date(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    DateTime::from_unix_duration(since).map_or_else(|_| "an unknown time".to_owned(), |date| date.to_string())
}
