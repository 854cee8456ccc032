//! The log of changes: what followers of records must be told, committed together with what changed.
//!
//! Numbers are dense and rise in the order of commits, because each writer takes them from one counter row, which stays
//! locked until its transaction ends. A sequence would be cheaper and is not enough: its numbers are handed out before
//! the commit, so a reader could see 8, go on, and never learn of 7, which commits later. So a reader that has read
//! everything up to a number has everything up to it, for ever.
//!
//! What it costs: changes commit one after the other, and the disk is synced once for each of them (or once for all that
//! one transaction holds), which is some hundreds a second on one disk. Changes are what users and operators set:
//! consent, devices, push tokens, providers. Messages, logins and most claims of prekeys take no number.

use std::time::Duration;

use async_trait::async_trait;
use causeway_postgres::{Postgres, PostgresError, Row, Transaction};

use crate::changes::payload;
use crate::peers::{Entry, Log, LogError, Peer, Place, Read, ReplicaId};
use crate::store::Change;

/// Tables of the log and of those who read it.
///
/// `tag` tells an entry from another one that has got the same number, after a fail-over to a server that had not heard
/// of the first. `payload` is NULL when the entry is old and only its place is still of interest. `lease_until` is for
/// people who look: what counts is whether `renewals` goes on rising (see `peers`).
pub(crate) const SCHEMA: &str = "
CREATE TABLE change_log_head (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    number   bigint NOT NULL
);
INSERT INTO change_log_head (number) VALUES (0);

CREATE TABLE change_log (
    number     bigint PRIMARY KEY,
    tag        bigint NOT NULL DEFAULT floor(random() * 9007199254740992)::bigint,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    payload    text
);

CREATE TABLE directory_replicas (
    replica_id  bytea PRIMARY KEY,
    lease_until timestamptz NOT NULL,
    lease_ms    bigint NOT NULL,
    renewals    bigint NOT NULL DEFAULT 0,
    confirmed   bigint NOT NULL
) WITH (fillfactor = 50);
";

const APPEND: &str = "
WITH head AS (
    UPDATE change_log_head SET number = number + cardinality($1::text[]) RETURNING number
), added AS (
    INSERT INTO change_log (number, payload)
    SELECT head.number - cardinality($1::text[]) + new.place, new.payload
    FROM head, unnest($1::text[]) WITH ORDINALITY AS new (payload, place)
)
SELECT number FROM head";

/// Adds changes to the log and gives the number of the last one; 0 if there are none. To be called last in a
/// transaction, because nobody else can change anything from here to its end; the transaction must be READ COMMITTED,
/// as a stricter one would fail whenever another change was committed since it began.
///
/// # Errors
/// Those of the server; the transaction is to be rolled back.
pub(crate) async fn append(transaction: &Transaction<'_>, changes: &[Change]) -> Result<u64, PostgresError> {
    if changes.is_empty() {
        return Ok(0);
    }
    let payloads: Vec<String> = changes.iter().map(payload::encode).collect();
    let row = transaction.query_one(APPEND, &[&payloads]).await?;
    number(&row, 0)
}

const REGISTER: &str = "
WITH head AS (
    SELECT h.number, coalesce(l.tag, 0) AS tag FROM change_log_head h LEFT JOIN change_log l ON l.number = h.number
), added AS (
    INSERT INTO directory_replicas (replica_id, lease_until, lease_ms, confirmed)
    SELECT $1::bytea, clock_timestamp() + $2::bigint * interval '1 millisecond', $2::bigint, number FROM head
)
SELECT number, tag FROM head";

const READ: &str = "SELECT number, tag, payload FROM change_log WHERE number >= $1 ORDER BY number LIMIT $2";

/// Synced to disk like any change: if the server forgot a renewal in a crash, the row would look as if nobody had renewed
/// it since it was seen before.
const RENEW: &str = "
UPDATE directory_replicas SET lease_until = clock_timestamp() + $2::bigint * interval '1 millisecond',
    renewals = renewals + 1, confirmed = greatest(confirmed, $3)
WHERE replica_id = $1";

const PEERS: &str = "SELECT replica_id, renewals, lease_ms, confirmed FROM directory_replicas";

/// Waits for a renewal that is under way, and then finds that there is one.
const END: &str = "DELETE FROM directory_replicas WHERE replica_id = $1 AND renewals = $2";

const LEAVE: &str = "
UPDATE directory_replicas SET lease_until = clock_timestamp() + $2::bigint * interval '1 millisecond',
    renewals = renewals + 1, lease_ms = $2::bigint
WHERE replica_id = $1";

const REMOVE: &str = "DELETE FROM directory_replicas WHERE replica_id = $1";

const TRIM: &str = "
DELETE FROM change_log USING change_log_head AS head
WHERE change_log.number < head.number
    AND (change_log.number <= head.number - $1::bigint
        OR written_at < clock_timestamp() - $2::bigint * interval '1 millisecond')";

const BLANK: &str = "
UPDATE change_log SET payload = NULL
WHERE payload IS NOT NULL AND written_at < clock_timestamp() - $1::bigint * interval '1 millisecond'";

/// The log and the register of directories in PostgreSQL.
pub(crate) struct PostgresLog {
    postgres: Postgres,
}

impl PostgresLog {
    /// Over connections that nobody else uses, so that a busy store does not keep a directory from renewing its lease.
    pub(crate) const fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }
}

#[async_trait]
impl Log for PostgresLog {
    async fn register(&self, id: ReplicaId, lasts: Duration) -> Result<Place, LogError> {
        let connection = self.postgres.connection().await?;
        let row = connection.query_one(REGISTER, &[&&id.0[..], &millis(lasts)]).await?;
        Ok(place(&row)?)
    }

    async fn read(&self, after: Place, limit: usize) -> Result<Read, LogError> {
        let connection = self.postgres.connection().await?;
        // The place itself is read, too, to see whether it is there still.
        let known = usize::from(after.number > 0);
        let most = i64::try_from(limit.saturating_add(known)).unwrap_or(i64::MAX);
        let rows = connection.query(READ, &[&signed(after.number), &most]).await?;
        let mut entries = Vec::with_capacity(rows.len());
        let mut before = after.number.saturating_sub(1);
        for row in &rows {
            let place = place(row)?;
            if place.number != before + 1 {
                return Ok(Read::Gap);
            }
            before = place.number;
            let payload: Option<&str> = row.try_get(2).map_err(|_| malformed())?;
            entries.push(Entry { place, change: payload.and_then(payload::decode) });
        }
        if known == 1 {
            if entries.first().is_none_or(|entry| entry.place != after) {
                return Ok(Read::Gap);
            }
            entries.remove(0);
        }
        Ok(Read::Entries(entries))
    }

    async fn renew(&self, id: ReplicaId, lasts: Duration, confirmed: u64) -> Result<bool, LogError> {
        let connection = self.postgres.connection().await?;
        let renewed = connection.execute(RENEW, &[&&id.0[..], &millis(lasts), &signed(confirmed)]).await?;
        Ok(renewed == 1)
    }

    async fn peers(&self) -> Result<Vec<Peer>, LogError> {
        let connection = self.postgres.connection().await?;
        let rows = connection.query(PEERS, &[]).await?;
        rows.iter().map(|row| Ok(peer(row)?)).collect()
    }

    async fn end(&self, peer: &Peer) -> Result<bool, LogError> {
        let connection = self.postgres.connection().await?;
        Ok(connection.execute(END, &[&&peer.id.0[..], &signed(peer.renewals)]).await? == 1)
    }

    async fn leave(&self, id: ReplicaId, lasts: Duration) -> Result<(), LogError> {
        let connection = self.postgres.connection().await?;
        if lasts.is_zero() {
            connection.execute(REMOVE, &[&&id.0[..]]).await?;
        } else {
            connection.execute(LEAVE, &[&&id.0[..], &millis(lasts)]).await?;
        }
        Ok(())
    }

    async fn trim(&self, age: Duration, most: u64) -> Result<(), LogError> {
        let connection = self.postgres.connection().await?;
        connection.execute(TRIM, &[&signed(most), &millis(age)]).await?;
        connection.execute(BLANK, &[&millis(age)]).await?;
        Ok(())
    }
}

impl From<PostgresError> for LogError {
    fn from(error: PostgresError) -> Self {
        Self(error.to_string())
    }
}

fn place(row: &Row) -> Result<Place, PostgresError> {
    Ok(Place { number: number(row, 0)?, tag: row.try_get(1).map_err(|_| malformed())? })
}

fn peer(row: &Row) -> Result<Peer, PostgresError> {
    let id: &[u8] = row.try_get(0).map_err(|_| malformed())?;
    Ok(Peer {
        id: ReplicaId(id.try_into().map_err(|_| malformed())?),
        renewals: number(row, 1)?,
        lasts: Duration::from_millis(number(row, 2)?),
        confirmed: number(row, 3)?,
    })
}

fn number(row: &Row, column: usize) -> Result<u64, PostgresError> {
    let number: i64 = row.try_get(column).map_err(|_| malformed())?;
    u64::try_from(number).map_err(|_| malformed())
}

fn malformed() -> PostgresError {
    PostgresError::Value("the log of changes or its register is malformed".to_owned())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Rounded up: others wait for no less than what the directory counts on.
fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_micros().div_ceil(1_000)).unwrap_or(i64::MAX)
}
