//! Brings tables to what a service knows, while other replicas, also older and newer ones, start and run.

use std::time::Duration;

use tokio::time::Instant;

use crate::connection::Transaction;
use crate::error::{Class, PostgresError};
use crate::pool::Postgres;

/// One step of a component's tables. Steps are never changed once they are released, only followed by others.
///
/// A step must leave the tables usable for programs that know only the steps before it (expand), unless it says
/// [`needs`](Self::needs): then they refuse to start (contract).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// From 1, without gaps.
    pub version: i32,
    /// A few words for who reads the table of steps.
    pub name: &'static str,
    /// Statements without values.
    pub sql: &'static str,
    /// Programs that do not know this version or a later one cannot use the tables any more.
    pub needs: i32,
}

impl Migration {
    /// A step behind which programs that do not know it can go on.
    pub const fn new(version: i32, name: &'static str, sql: &'static str) -> Self {
        Self { version, name, sql, needs: 0 }
    }

    /// Programs must know at least `version` to go on behind this step.
    #[must_use]
    pub const fn needs(self, version: i32) -> Self {
        Self { needs: version, ..self }
    }
}

/// Of the whole database: one replica at a time makes steps, of whatever component.
const LOCK: &str = "SELECT pg_advisory_xact_lock(4851862934820134982)";

const TABLE: &str = "CREATE TABLE IF NOT EXISTS causeway_migrations (
    component text NOT NULL,
    version integer NOT NULL,
    name text NOT NULL,
    checksum bytea NOT NULL,
    needs integer NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (component, version)
)";

const APPLIED: &str = "SELECT version, checksum, needs FROM causeway_migrations WHERE component = $1 ORDER BY version";

const CHECKSUM: &str = "SELECT sha256(convert_to($1, 'UTF8'))";

const RECORD: &str = "INSERT INTO causeway_migrations (component, version, name, checksum, needs)
    VALUES ($1, $2, $3, sha256(convert_to($4, 'UTF8')), $5)";

/// Pause before the next attempt when the server is away.
const PAUSE: Duration = Duration::from_millis(100);

impl Postgres {
    /// Makes the steps of `component` that have not been made yet, all or none. Any number of replicas may call it at a
    /// time; each waits for the others, for at most the configured time.
    ///
    /// # Errors
    /// [`PostgresError::Migration`] if a step that was made is not the one that is known here, if the tables are of a
    /// newer program and not usable for this one, or if the steps are not numbered 1, 2, ...; else what PostgreSQL said.
    pub async fn migrate(&self, component: &str, migrations: &[Migration]) -> Result<(), PostgresError> {
        if !migrations.iter().zip(1..).all(|(step, version)| step.version == version) {
            return Err(PostgresError::Migration(format!("the steps of {component} are not numbered 1, 2, ...")));
        }
        let end = Instant::now() + self.migration_timeout();
        loop {
            // All steps are in one transaction with their record, so a repeat finds all or nothing.
            match self.migrate_once(component, migrations, end).await {
                Err(error) if error.class() != Class::Failed && Instant::now() + PAUSE < end => {
                    tokio::time::sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    }

    async fn migrate_once(&self, component: &str, migrations: &[Migration], end: Instant) -> Result<(), PostgresError> {
        let mut connection = self.connection().await?;
        let mut transaction = connection.begin().await?;
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let milliseconds = left.as_millis();
        transaction.patient(left);
        transaction
            .batch(&format!("SET LOCAL statement_timeout = {milliseconds}; SET LOCAL lock_timeout = {milliseconds}"))
            .await?;
        transaction.batch(LOCK).await?;
        transaction.batch(TABLE).await?;
        let pending = pending(&transaction, component, migrations).await?;
        for step in pending {
            transaction.batch(step.sql).await?;
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
                [&component, &step.version, &step.name, &step.sql, &step.needs];
            transaction.execute(RECORD, &values).await?;
        }
        transaction.commit().await
    }
}

/// The steps that are still to be made.
async fn pending<'m>(
    transaction: &Transaction<'_>,
    component: &str,
    migrations: &'m [Migration],
) -> Result<&'m [Migration], PostgresError> {
    let broken = |reason: String| PostgresError::Migration(format!("{component}: {reason}"));
    let value = |error: tokio_postgres::Error| PostgresError::Value(error.to_string());
    let known = migrations.last().map_or(0, |step| step.version);
    let mut applied = 0;
    for row in transaction.query(APPLIED, &[&component]).await? {
        let version: i32 = row.try_get(0).map_err(value)?;
        let checksum: Vec<u8> = row.try_get(1).map_err(value)?;
        let needs: i32 = row.try_get(2).map_err(value)?;
        if version != applied + 1 {
            return Err(broken(format!("step {} is missing in the database: restore it from a backup", applied + 1)));
        }
        applied = version;
        if needs > known {
            return Err(broken(format!(
                "the database is at version {version}, which programs that know only {known} cannot use: \
                 start a newer program"
            )));
        }
        let Some(step) = usize::try_from(version - 1).ok().and_then(|index| migrations.get(index)) else { continue };
        let own: Vec<u8> = transaction.query_one(CHECKSUM, &[&step.sql]).await?.try_get(0).map_err(value)?;
        if own != checksum {
            return Err(broken(format!("step {version} was made by a program with other statements in it")));
        }
    }
    let made = usize::try_from(applied).unwrap_or_default().min(migrations.len());
    Ok(migrations.get(made..).unwrap_or_default())
}
