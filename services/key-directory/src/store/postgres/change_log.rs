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

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::changes::payload;
use crate::store::Change;

/// Tables of the log and of those who read it.
///
/// `tag` tells an entry from another one that has got the same number, after a fail-over to a server that had not heard
/// of the first. `payload` is NULL when the entry is old and only its place is still of interest. `lease_until` is for
/// people who look: what counts is whether `renewals` still rises (see `changes::peers`).
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
pub(crate) async fn append(transaction: &Transaction<'_>, changes: &[Change]) -> Result<u64, tokio_postgres::Error> {
    if changes.is_empty() {
        return Ok(0);
    }
    let payloads: Vec<String> = changes.iter().map(payload::encode).collect();
    let rows = transaction.query_typed(APPEND, &[(&payloads, Type::TEXT_ARRAY)]).await?;
    let number: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
    Ok(number.unsigned_abs())
}
