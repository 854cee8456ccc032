//! What a process says of itself at `/health`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::chat::clean;

/// Parts, tables and certificates that one process has; more are left out.
const MAX_ENTRIES: usize = 64;
/// Longest text of it, in characters.
const MAX_TEXT: usize = 300;

/// As it was told, with all text cleaned. What an earlier program does not tell is empty.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Health {
    /// `starting`, `ready`, `degraded`, `draining`.
    pub(crate) status: String,
    /// `causeway-edge` and the like.
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) build: String,
    /// Milliseconds since the Unix epoch, as all times here.
    pub(crate) started_at: Option<u64>,
    pub(crate) time: Option<u64>,
    pub(crate) parts: BTreeMap<String, Part>,
    pub(crate) tables: BTreeMap<String, Tables>,
    pub(crate) certificates: BTreeMap<String, Certificate>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Part {
    pub(crate) state: String,
    pub(crate) meaning: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Tables {
    pub(crate) store: String,
    pub(crate) version: u32,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Certificate {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    pub(crate) root: Option<String>,
}

impl Health {
    /// Reads an answer; the error says what is wrong, after the name of a process.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let wrong = || "answers, but not with its health: is it server.health_listen?".to_owned();
        let told: Self = serde_json::from_slice(body).map_err(|_| wrong())?;
        if told.status.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            status: text(&told.status),
            service: text(&told.service),
            version: text(&told.version),
            build: text(&told.build),
            parts: entries(told.parts, |part| Part { state: text(&part.state), meaning: text(&part.meaning) }),
            tables: entries(told.tables, |tables| Tables { store: text(&tables.store), version: tables.version }),
            certificates: entries(told.certificates, |certificate| {
                let root = certificate.root.as_deref().map(text);
                Certificate { root, ..certificate }
            }),
            ..told
        })
    }

    /// `edge`, `all`, ...; `?` if it does not say.
    pub(crate) fn short_service(&self) -> &str {
        match self.service.as_str() {
            "" => "?",
            "causeway" => "all",
            service => service.strip_prefix("causeway-").unwrap_or(service),
        }
    }

    /// The version and what tells builds of it apart.
    pub(crate) fn program(&self) -> String {
        match (self.version.as_str(), self.build.as_str()) {
            ("", _) => "unknown".to_owned(),
            (version, "") => version.to_owned(),
            (version, build) => format!("{version} ({build})"),
        }
    }

    /// Parts that do not work, with what that means.
    pub(crate) fn degraded(&self) -> impl Iterator<Item = (&str, &str)> {
        let degraded = self.parts.iter().filter(|(_, part)| part.state != "up");
        degraded.map(|(name, part)| (name.as_str(), part.meaning.as_str()))
    }
}

fn text(told: &str) -> String {
    clean(told).chars().take(MAX_TEXT).collect()
}

fn entries<T>(told: BTreeMap<String, T>, each: impl Fn(T) -> T) -> BTreeMap<String, T> {
    told.into_iter().take(MAX_ENTRIES).map(|(name, value)| (text(&name), each(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_and_later_programs_say_is_read_and_cleaned() {
        let earlier = Health::read(br#"{"status":"ready","parts":{}}"#).unwrap();
        assert_eq!((earlier.short_service(), earlier.program()), ("?", "unknown".to_owned()));
        let later = br#"{"status":"degraded","service":"causeway-edge","version":"2","build":"b\u001b[2J","news":[1],
            "parts":{"a":{"state":"up"},"b":{"state":"degraded","meaning":"no\nthing"}},
            "certificates":{"c":{"not_after":7}},"tables":{"t":{"store":"sqlite","version":3}}}"#;
        let later = Health::read(later).unwrap();
        assert_eq!((later.short_service(), later.program()), ("edge", "2 (b\u{fffd}[2J)".to_owned()));
        assert_eq!(later.degraded().collect::<Vec<_>>(), [("b", "no thing")]);
        assert_eq!((later.certificates["c"].not_after, later.tables["t"].version), (7, 3));
    }

    #[test]
    fn nonsense_is_no_health() {
        let deep = "[".repeat(100_000);
        for body in ["", "{}", "[]", "null", "{\"status\":7}", "{\"status\":\"\"}", "<html>", deep.as_str()] {
            assert!(Health::read(body.as_bytes()).unwrap_err().contains("not with its health"), "{body:.20}");
        }
        let many: BTreeMap<_, _> = (0..10_000).map(|n| (n.to_string(), Part::default())).collect();
        let health = Health { status: "x".repeat(100_000), parts: many, ..Health::default() };
        let read = Health::read(&serde_json::to_vec(&health).unwrap()).unwrap();
        assert_eq!((read.parts.len(), read.status.len()), (MAX_ENTRIES, MAX_TEXT));
    }
}
