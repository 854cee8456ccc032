//! What can go wrong, and whether it can have happened nevertheless.

use tokio_postgres::error::{DbError, Severity, SqlState};

/// What a caller may conclude from an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It did not happen, and may well when it is repeated: the connection was lost before the commit, the server cannot
    /// be reached now, or is no more the one that can be written to; a lock was not free; transactions met.
    Retry,
    /// It may have happened: the connection was lost when the answer was awaited, or the server could not tell.
    Unknown,
    /// It did not happen, and would not the next time.
    Failed,
}

/// Why PostgreSQL did not do what it was asked for. Holds no secret and no value of a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostgresError {
    /// The settings are wrong, or what they name cannot be used.
    #[error("PostgreSQL settings: {0}")]
    Setup(String),
    /// No connection became free in time.
    #[error("all connections to PostgreSQL are in use")]
    Busy,
    /// The handle has been closed.
    #[error("the connections to PostgreSQL have been closed")]
    Closed,
    /// There is no server that can be used now.
    #[error("PostgreSQL cannot be reached: {0}")]
    Unreachable(String),
    /// A server that is there will not serve us, or must not.
    #[error("PostgreSQL cannot be used: {0}")]
    Refused(String),
    /// The connection was lost before the commit was asked for: nothing happened.
    #[error("the connection to PostgreSQL was lost: {0}")]
    Lost(String),
    /// The connection was lost, or the server gave up, when it may have happened already.
    #[error("it is not known whether PostgreSQL did it: {0}")]
    Unknown(String),
    /// The server refused a statement or a commit: nothing happened.
    #[error("PostgreSQL: {0}")]
    Database(DatabaseError),
    /// A row does not hold what it must, or a value cannot be sent.
    #[error("a value does not fit PostgreSQL: {0}")]
    Value(String),
    /// The tables cannot be made ready.
    #[error("PostgreSQL tables: {0}")]
    Migration(String),
}

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseError {
    /// SQLSTATE.
    pub code: SqlState,
    /// The constraint that was violated.
    pub constraint: Option<String>,
    /// The server's words where they hold no values; else empty.
    pub message: String,
}

impl std::fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SQLSTATE {}", self.code.code())?;
        if let Some(constraint) = &self.constraint {
            write!(f, ", constraint {constraint}")?;
        }
        if !self.message.is_empty() {
            write!(f, ", {}", self.message)?;
        }
        Ok(())
    }
}

/// What was under way when an error came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No statement that could be lasting: connecting, or in a transaction before its commit.
    Before,
    /// A commit, or a statement outside a transaction, which is its own commit.
    Commit,
}

impl Phase {
    /// For metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Before => "statement",
            Self::Commit => "commit",
        }
    }
}

impl PostgresError {
    /// What a caller may conclude.
    pub fn class(&self) -> Class {
        match self {
            Self::Busy | Self::Unreachable(_) | Self::Lost(_) => Class::Retry,
            Self::Unknown(_) => Class::Unknown,
            Self::Database(error) if is_passing(&error.code) => Class::Retry,
            Self::Setup(_)
            | Self::Closed
            | Self::Refused(_)
            | Self::Database(_)
            | Self::Value(_)
            | Self::Migration(_) => Class::Failed,
        }
    }

    /// The SQLSTATE, if the server said one.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Database(error) => Some(&error.code),
            _ => None,
        }
    }

    /// True when a row with this key is there already.
    pub fn is_unique_violation(&self) -> bool {
        self.code() == Some(&SqlState::UNIQUE_VIOLATION)
    }

    pub(crate) fn from_statement(error: &tokio_postgres::Error, phase: Phase) -> Self {
        let lost = |reason: String| match phase {
            Phase::Before => Self::Lost(reason),
            Phase::Commit => Self::Unknown(reason),
        };
        let Some(answer) = error.as_db_error() else {
            // Errors of one value come before anything is sent, or after an answer was read; all others end the connection.
            return if is_about_a_value(error) { Self::Value(error.to_string()) } else { lost(error.to_string()) };
        };
        if answer.code() == &SqlState::TRANSACTION_RESOLUTION_UNKNOWN
            || answer.code() == &SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
        {
            return Self::Unknown(describe(answer).to_string());
        }
        // What was prepared on this connection is no more, or not what the tables are like now: nothing was done.
        let stale_plan = answer.code() == &SqlState::FEATURE_NOT_SUPPORTED && answer.message().contains("cached plan");
        if stale_plan || answer.code() == &SqlState::INVALID_SQL_STATEMENT_NAME {
            return Self::Lost(describe(answer).to_string());
        }
        if ends_connection(answer) { lost(describe(answer).to_string()) } else { Self::Database(describe(answer)) }
    }

    pub(crate) fn from_connect(error: &tokio_postgres::Error) -> Self {
        let Some(answer) = error.as_db_error() else {
            let text = error.to_string();
            let cause = std::error::Error::source(error).map(|cause| format!(" ({cause})")).unwrap_or_default();
            // A certificate that is not good stays so; what else goes wrong in TLS and below may pass.
            let refused =
                text.contains("TLS") && cause.contains("certificate") || text.contains("invalid configuration");
            let reason = format!("{text}{cause}");
            return if refused { Self::Refused(reason) } else { Self::Unreachable(reason) };
        };
        let reason = describe(answer).to_string();
        // 28: wrong user or password. 3D: no such database. 42: no right to it, or no such setting.
        let refused = ["28", "3D", "42", "22"].iter().any(|class| answer.code().code().starts_with(class));
        if refused { Self::Refused(reason) } else { Self::Unreachable(reason) }
    }

    /// True when the connection that it came from is of no use any more.
    pub(crate) fn spoils_connection(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Unknown(_) => true,
            Self::Database(error) => is_read_only(&error.code),
            _ => false,
        }
    }

    /// True when the server cannot be written to any more, so that no connection to it is of use.
    pub(crate) fn tells_of_failover(&self) -> bool {
        self.code().is_some_and(is_read_only)
    }
}

fn is_read_only(code: &SqlState) -> bool {
    *code == SqlState::READ_ONLY_SQL_TRANSACTION
}

/// Errors that say that nothing happened, and that may be over the next time.
fn is_passing(code: &SqlState) -> bool {
    [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::TOO_MANY_CONNECTIONS,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
    ]
    .contains(code)
}

/// Whether the server has closed the connection behind this answer.
fn ends_connection(answer: &DbError) -> bool {
    let fatal = matches!(answer.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
    fatal || answer.code().code().starts_with("08") || answer.code().code().starts_with("57P0")
}

/// The words are left out where PostgreSQL puts values into them: data errors (22), constraints (23) and what functions
/// raise (P0, 44). Details and hints are always left out.
fn describe(answer: &DbError) -> DatabaseError {
    let class = answer.code().code().get(..2).unwrap_or_default();
    let safe = !["22", "23", "44", "P0"].contains(&class);
    DatabaseError {
        code: answer.code().clone(),
        constraint: answer.constraint().map(str::to_owned),
        message: if safe { answer.message().chars().take(200).collect() } else { String::new() },
    }
}

fn is_about_a_value(error: &tokio_postgres::Error) -> bool {
    // The library's kinds are not public; its texts are.
    let text = error.to_string();
    ["error serializing parameter", "error deserializing column", "invalid column", "expected ", "query returned"]
        .iter()
        .any(|start| text.starts_with(start))
}
