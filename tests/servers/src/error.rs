//! Why a server is not there.

use std::path::Path;

/// Why a server is not there, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A program is not installed.
    #[error("`{program}` is missing: install the Debian package {package} (tools/setup.sh test does)")]
    Missing {
        /// Its name.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A server ended, or did nothing for too long.
    #[error("{what}; its log ends with:\n{log}")]
    Server {
        /// What happened.
        what: String,
        /// The last lines that it logged.
        log: String,
    },
    /// A server answered with an error.
    #[error("the server refuses: {0}")]
    Refused(String),
    /// A server answered with something that is not its protocol.
    #[error("unexpected answer: {0}")]
    Answer(String),
}

impl ServerError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn server(what: impl Into<String>, log: &Path) -> Self {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        Self::Server { what: what.into(), log: lines[lines.len().saturating_sub(LOG_LINES)..].join("\n") }
    }
}

const LOG_LINES: usize = 30;
