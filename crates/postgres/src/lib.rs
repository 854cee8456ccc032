//! How services use PostgreSQL: configuration, connections, migrations, what may be repeated.
//!
//! Called by `causeway-routing` (mailbox) and `causeway-key-directory` (store); calls nothing of the other services.
//!
//! ```text
//! config.check()?;
//! let postgres = Postgres::open(&config, "causeway-routing", &[]).await?;
//! postgres.migrate("mailbox", MIGRATIONS).await?;
//! let count = postgres.transact(deadline, Repeat::Always, |tx| Box::pin(async move {
//!     tx.execute("UPDATE ... WHERE account_id = $1", &[&account]).await.map_err(Abort::from)
//! })).await?;
//! ```
//!
//! Everything that waits has a bound: for a free connection, for a new one, for the answer to a statement, for a lock.
//! What has failed says by [`PostgresError::class`] whether it can have happened. Errors and logs never hold a password
//! or a value of a row.

mod config;
mod connection;
mod durability;
mod error;
mod manager;
mod metrics;
mod migrate;
mod pool;
mod tls;
mod transact;

pub use config::PostgresConfig;
pub use connection::{Connection, Transaction};
pub use error::{Class, DatabaseError, PostgresError};
pub use migrate::Migration;
pub use pool::{PoolStatus, Postgres};
pub use transact::{Abort, Repeat};

pub use tokio_postgres::Row;
pub use tokio_postgres::error::SqlState;
pub use tokio_postgres::types::{self, FromSql, ToSql};

#[cfg(test)]
mod tests;
