//! What a process says of itself beside its state: who it is, the tables and certificates that it uses, and its time.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::clock::SharedClock;

/// Who a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct About {
    /// `causeway-edge` and the like; `causeway` is all in one.
    pub service: &'static str,
    /// Of the program.
    pub version: &'static str,
    /// Which build of that version it is, such as a commit; empty if nobody said so when it was built.
    pub build: &'static str,
}

/// When a certificate that the process shows to others is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// From.
    pub not_before: SystemTime,
    /// The first moment after.
    pub not_after: SystemTime,
    /// Id of the root that signed it, in hex digits, where clients pin one.
    pub root: Option<String>,
}

/// The tables that a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tables {
    /// `sqlite`, `postgres`.
    pub store: &'static str,
    /// The version that the program knows, to which it has brought them.
    pub version: u32,
}

/// All of it.
#[derive(Default)]
pub(super) struct Facts {
    about: Option<(About, SystemTime, SharedClock)>,
    tables: BTreeMap<&'static str, Tables>,
    certificates: BTreeMap<&'static str, Certificate>,
}

impl Facts {
    pub(super) fn identify(&mut self, about: About, clock: SharedClock) {
        self.about = Some((about, clock.now(), clock));
    }

    pub(super) fn tables(&mut self, name: &'static str, tables: Tables) {
        self.tables.insert(name, tables);
    }

    pub(super) fn certificate(&mut self, name: &'static str, certificate: Certificate) {
        self.certificates.insert(name, certificate);
    }

    pub(super) fn report(&self) -> FactsReport {
        let certificates = self.certificates.iter().map(|(name, known)| {
            let Certificate { not_before, not_after, root } = known;
            let validity =
                CertificateReport { not_before: ms(*not_before), not_after: ms(*not_after), root: root.clone() };
            (*name, validity)
        });
        let about = self.about.as_ref();
        FactsReport {
            about: about.map(|(about, ..)| *about),
            started_at: about.map(|(_, since, _)| ms(*since)),
            time: about.map(|(.., clock)| ms(clock.now())),
            tables: self.tables.clone(),
            certificates: certificates.collect(),
        }
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = self.about.as_ref().map(|(about, ..)| about);
        f.debug_struct("Facts").field("about", &about).field("tables", &self.tables).finish_non_exhaustive()
    }
}

/// As `/health` has it; what is not known is left out. Times are in milliseconds since the Unix epoch.
#[derive(Serialize)]
pub(super) struct FactsReport {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    about: Option<About>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tables: BTreeMap<&'static str, Tables>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    certificates: BTreeMap<&'static str, CertificateReport>,
}

#[derive(Serialize)]
struct CertificateReport {
    not_before: u64,
    not_after: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
}

fn ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
