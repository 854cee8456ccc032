//! Whether the server keeps what it confirms.

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::error::PostgresError;

/// Looked at on each new connection, since after a fail-over it is another server.
const SETTINGS: &str = "SELECT current_setting('fsync'), current_setting('full_page_writes'), \
    current_setting('synchronous_commit'), current_setting('synchronous_standby_names'), \
    current_setting('server_version_num')";

/// Oldest server with everything that connections ask for.
const OLDEST: u32 = 140_000;

/// Refuses a server that may forget what it has confirmed, unless `allow_unsafe`.
pub(crate) async fn check(client: &Client, allow_unsafe: bool) -> Result<(), PostgresError> {
    let answer = client.simple_query(SETTINGS).await.map_err(|error| PostgresError::from_connect(&error))?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let setting = |column: usize| row.and_then(|row| row.get(column)).unwrap_or_default();
    if setting(4).parse::<u32>().is_ok_and(|version| version < OLDEST) {
        return Err(PostgresError::Refused("the server is older than PostgreSQL 14".to_owned()));
    }
    if allow_unsafe {
        return Ok(());
    }
    let commit = setting(2);
    let problem = if setting(0) != "on" {
        "fsync is off"
    } else if setting(1) != "on" {
        "full_page_writes is off"
    } else if !["on", "remote_apply", "remote_write", "local"].contains(&commit) {
        "synchronous_commit is off"
    } else if !setting(3).is_empty() && !["on", "remote_apply"].contains(&commit) {
        "synchronous_commit does not wait until the standby has written to disk"
    } else {
        return Ok(());
    };
    let fix = "the server may forget what it has confirmed: correct it, or in tests set allow_unsafe_durability";
    Err(PostgresError::Refused(format!("{problem}, so {fix}")))
}
