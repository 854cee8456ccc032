//! Whether the database was made from a dump.
//!
//! PostgreSQL numbers clusters, databases and tables; none of these numbers is in a dump. So the tables say in a row where
//! they were when they were made. A cluster that was recovered to an earlier time, or from a copy of its files, has the same
//! numbers: that is found by the number of the epoch, which rises all the time, and which a witness elsewhere has seen
//! higher (`witness`). What is seen elsewhere is of an incarnation, by a random name; with another, all that was seen is void.

use causeway_postgres::{Connection, Postgres, PostgresError, Row};

use crate::store::Epoch;

/// Where the tables are at home.
pub(super) const SCHEMA: &str = "
CREATE TABLE directory_home (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    place    text NOT NULL,
    epoch    bigint NOT NULL DEFAULT 0
);
";

/// A random name that is renewed when the tables get a new home.
pub(super) const INCARNATION: &str = "
ALTER TABLE directory_home ADD COLUMN incarnation text NOT NULL DEFAULT gen_random_uuid()::text;
";

/// Some services let nobody see the cluster's number.
const MAY_SEE_CLUSTER: &str = "SELECT has_function_privilege('pg_control_system()', 'EXECUTE')";

const HERE: &str = "SELECT concat_ws('/', system_identifier, d.oid, 'one_time_prekeys'::regclass::oid::text)
    FROM pg_control_system(), pg_database d WHERE d.datname = current_database()";

const HERE_IN_CLUSTER: &str = "SELECT concat_ws('/', '', d.oid, 'one_time_prekeys'::regclass::oid::text)
    FROM pg_database d WHERE d.datname = current_database()";

const SETTLE: &str = "INSERT INTO directory_home (place) VALUES ($1) ON CONFLICT DO NOTHING";

const HOME: &str = "SELECT place FROM directory_home";

const HAS_DEVICES: &str = "SELECT EXISTS (SELECT FROM devices)";

/// Milliseconds since 1970 are higher than any number that was reached before, of which none is.
const MOVE: &str = "UPDATE directory_home SET place = $1, incarnation = gen_random_uuid()::text,
    epoch = greatest(epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)";

/// Of several that come at once, one does it.
const MOVE_ONCE: &str = "UPDATE directory_home SET place = $1, incarnation = gen_random_uuid()::text,
    epoch = greatest(epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) WHERE place <> $1";

const EPOCH: &str = "SELECT incarnation, epoch FROM directory_home";

/// No place at all. A new home has a higher number than any that was reached before.
const CONDEMN: &str = "UPDATE directory_home SET place = 'put back' WHERE epoch < $1";

const TURN: &str = "UPDATE directory_home SET epoch = epoch + 1 RETURNING incarnation, epoch";

/// Keys that are given up in one transaction.
const FORGET: &str = "UPDATE one_time_prekeys SET public_key = NULL, signature = NULL WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM one_time_prekeys WHERE public_key IS NOT NULL LIMIT 5000))";

/// Whether the tables are where they were made. Tables that have not said so before are at home now, and so are those
/// without devices, which have nothing that could be given twice.
pub(super) async fn is_home(postgres: &Postgres) -> Result<bool, PostgresError> {
    let connection = postgres.connection().await?;
    let here = here(&connection).await?;
    connection.execute(SETTLE, &[&here]).await?;
    if one::<String>(&connection, HOME).await? == here {
        return Ok(true);
    }
    if one::<bool>(&connection, HAS_DEVICES).await? {
        return Ok(false);
    }
    connection.execute(MOVE_ONCE, &[&here]).await?;
    Ok(true)
}

/// Whether the tables are still where they were made, for a process that uses them. Changes nothing: tables that are just
/// being made from a dump may be empty for now, and nothing may be in the way of what comes into them.
pub(super) async fn is_still_home(postgres: &Postgres) -> Result<bool, PostgresError> {
    let connection = postgres.connection().await?;
    let here = here(&connection).await?;
    Ok(one::<String>(&connection, HOME).await? == here)
}

/// Whoever looks finds that the tables are not at home, if their epoch is lower than this.
pub(super) async fn condemn(postgres: &Postgres, highest: u64) -> Result<(), PostgresError> {
    let highest = i64::try_from(highest).unwrap_or(i64::MAX);
    postgres.connection().await?.execute(CONDEMN, &[&highest]).await?;
    Ok(())
}

/// The tables are at home here from now on, as another incarnation.
pub(super) async fn settle(postgres: &Postgres) -> Result<(), PostgresError> {
    let connection = postgres.connection().await?;
    let here = here(&connection).await?;
    connection.execute(SETTLE, &[&here]).await?;
    connection.execute(MOVE, &[&here]).await?;
    Ok(())
}

/// The incarnation, and the number of its epoch, as they are seen now. They need not last.
pub(super) async fn epoch(postgres: &Postgres) -> Result<Epoch, PostgresError> {
    read(&postgres.connection().await?.query_one(EPOCH, &[]).await?)
}

/// The next epoch, which lasts. To turn it twice after an unclear answer is as good.
pub(super) async fn turn(postgres: &Postgres) -> Result<Epoch, PostgresError> {
    read(&postgres.connection().await?.query_one(TURN, &[]).await?)
}

fn read(row: &Row) -> Result<Epoch, PostgresError> {
    let value = |error: &dyn std::fmt::Display| PostgresError::Value(error.to_string());
    let number: i64 = row.try_get(1).map_err(|error| value(&error))?;
    Ok(Epoch {
        incarnation: row.try_get(0).map_err(|error| value(&error))?,
        number: u64::try_from(number).map_err(|error| value(&error))?,
    })
}

/// Treats all one-time keys as handed out, and gives their number. Done again, it goes on where it has stopped.
pub(super) async fn give_up_prekeys(postgres: &Postgres) -> Result<u64, PostgresError> {
    let mut all = 0;
    loop {
        let given_up = postgres.connection().await?.execute(FORGET, &[]).await?;
        if given_up == 0 {
            return Ok(all);
        }
        all += given_up;
    }
}

async fn here(connection: &Connection) -> Result<String, PostgresError> {
    let sql = if one::<bool>(connection, MAY_SEE_CLUSTER).await? { HERE } else { HERE_IN_CLUSTER };
    one(connection, sql).await
}

async fn one<T>(connection: &Connection, sql: &'static str) -> Result<T, PostgresError>
where
    T: for<'a> causeway_postgres::FromSql<'a>,
{
    let row = connection.query_one(sql, &[]).await?;
    row.try_get(0).map_err(|error| PostgresError::Value(error.to_string()))
}
