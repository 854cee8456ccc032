//! Every statement of the backend. A test holds them against the tables: each but those of `GLOBAL` finds its rows by
//! the account, and all but those of `REGISTRIES` name no other table than those of accounts.
//!
//! Lists of values come as arrays, so that a batch of any size is one statement, prepared once.

use causeway_postgres::Migration;

/// Of the component `mailbox`.
pub(super) const MIGRATIONS: &[Migration] =
    &[Migration::new(1, "entries, owners, replicas", include_str!("schema.sql"))];

/// What sessions are told: all statements look single rows up by their keys. A plan that was made while the tables were
/// small or unknown must not be another one.
pub(super) const SETTINGS: &[(&str, &str)] = &[
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// Which of these pairs (account, replica) are in force, and stay so until the transaction ends.
pub(super) const FENCE: &str = "\
SELECT o.account_id, o.replica_id
FROM unnest($1::uuid[], $2::uuid[]) AS w (account_id, replica_id)
JOIN mailbox_owners o ON o.account_id = w.account_id AND o.replica_id = w.replica_id
ORDER BY o.account_id
FOR SHARE OF o";

/// Which of these messages are there already, and under which number.
pub(super) const REPEATS: &str = "\
SELECT w.n, e.seq
FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::uuid[], $5::integer[], $6::bigint[]) WITH ORDINALITY
    AS w (account_id, sender_account, sender_device, message_id, device_id, registration_id, n)
JOIN mailbox_entries e ON e.account_id = w.account_id AND e.sender_account = w.sender_account
    AND e.sender_device = w.sender_device AND e.message_id = w.message_id AND e.device_id = w.device_id
    AND e.registration_id = w.registration_id";

/// What waits for these devices.
pub(super) const DEVICE_USAGE: &str = "\
SELECT u.account_id, u.device_id, u.messages, u.bytes
FROM unnest($1::uuid[], $2::integer[]) AS w (account_id, device_id)
JOIN mailbox_usage u ON u.account_id = w.account_id AND u.device_id = w.device_id";

pub(super) const INSERT: &str = "\
INSERT INTO mailbox_entries (account_id, device_id, seq, registration_id, sender_account, sender_device, message_id,
    sender_address, class, ts_ms, expires_ms, origin_provider, origin_kind, inbox, enc_type, weight, ciphertext)
SELECT * FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::bigint[], $5::uuid[], $6::integer[], $7::uuid[],
    $8::text[], $9::smallint[], $10::bigint[], $11::bigint[], $12::text[], $13::smallint[], $14::smallint[],
    $15::smallint[], $16::bigint[], $17::bytea[])";

pub(super) const ADD_USAGE: &str = "\
INSERT INTO mailbox_usage AS u (account_id, device_id, messages, bytes)
SELECT * FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::bigint[]) AS w (account_id, device_id, messages, bytes)
ORDER BY account_id, device_id
ON CONFLICT (account_id, device_id)
DO UPDATE SET messages = u.messages + excluded.messages, bytes = u.bytes + excluded.bytes";

/// Erases prefixes of devices' queues; each device at most once.
pub(super) const FORGET: &str = "\
WITH gone AS (
    DELETE FROM mailbox_entries e
    USING unnest($1::uuid[], $2::integer[], $3::bigint[]) AS w (account_id, device_id, upto)
    WHERE e.account_id = w.account_id AND e.device_id = w.device_id AND e.seq <= w.upto
    RETURNING e.account_id, e.device_id, e.weight
), sums AS (
    SELECT account_id, device_id, count(*) AS messages, sum(weight)::bigint AS bytes
    FROM gone GROUP BY account_id, device_id ORDER BY account_id, device_id
), less AS (
    UPDATE mailbox_usage u SET messages = u.messages - s.messages, bytes = u.bytes - s.bytes
    FROM sums s WHERE u.account_id = s.account_id AND u.device_id = s.device_id
)
SELECT account_id, device_id, messages, bytes FROM sums";

/// Erases a device's entries but those for one registration, or all.
pub(super) const DROP_DEVICE: &str = "\
WITH gone AS (
    DELETE FROM mailbox_entries
    WHERE account_id = $1 AND device_id = $2 AND ($3::bigint IS NULL OR registration_id <> $3)
    RETURNING weight
), sums AS (
    SELECT count(*) AS messages, coalesce(sum(weight), 0)::bigint AS bytes FROM gone
), less AS (
    UPDATE mailbox_usage u SET messages = u.messages - s.messages, bytes = u.bytes - s.bytes
    FROM sums s WHERE u.account_id = $1 AND u.device_id = $2
)
SELECT messages, bytes FROM sums";

pub(super) const DROP_ACCOUNT: &str = "\
WITH gone AS (DELETE FROM mailbox_entries WHERE account_id = $1)
DELETE FROM mailbox_usage WHERE account_id = $1";

/// What waits for each device of these accounts.
pub(super) const USAGE: &str = "\
SELECT u.account_id, u.device_id, u.messages, u.bytes,
    (SELECT max(e.seq) FROM mailbox_entries e WHERE e.account_id = u.account_id AND e.device_id = u.device_id)
FROM unnest($1::uuid[]) AS w (account_id)
JOIN mailbox_usage u ON u.account_id = w.account_id
WHERE u.messages > 0
ORDER BY u.account_id, u.device_id";

pub(super) const HOLDS: &str = "\
SELECT EXISTS (SELECT 1 FROM mailbox_entries
    WHERE account_id = $1 AND sender_account = $2 AND sender_device = $3 AND message_id = $4)";

/// A part of a device's queue: at most $6 entries, up to the one with which the weight reaches $7; and how many there
/// would have been, up to one more than $6.
pub(super) const PAGE: &str = "\
SELECT seq, sender_account, sender_device, message_id, sender_address, class, ts_ms, expires_ms, origin_provider,
    origin_kind, inbox, enc_type, ciphertext, found
FROM (
    SELECT *, count(*) OVER () AS found, row_number() OVER (ORDER BY seq) AS place,
        sum(weight) OVER (ORDER BY seq) - weight AS before
    FROM (
        SELECT * FROM mailbox_entries
        WHERE account_id = $1 AND device_id = $2 AND seq > $3 AND registration_id = $4 AND expires_ms > $5
        ORDER BY seq LIMIT $6::bigint + 1
    ) AS next
) AS weighed
WHERE place = 1 OR (place <= $6::bigint AND before < $7::bigint)
ORDER BY seq";

/// What waits for all devices, and when the oldest chat message was accepted: they all live equally long.
pub(super) const DEPTH: &str = "\
SELECT coalesce(sum(messages), 0)::bigint, coalesce(sum(bytes), 0)::bigint,
    (SELECT ts_ms FROM mailbox_entries WHERE class = 1 ORDER BY expires_ms LIMIT 1)
FROM mailbox_usage";

/// Erases entries of any accounts. Leaves out what somebody else is erasing, so as to wait for nobody with locks held.
pub(super) const EXPIRE: &str = "\
WITH due AS (
    SELECT account_id, device_id, seq FROM mailbox_entries
    WHERE expires_ms <= $1 ORDER BY expires_ms LIMIT $2 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM mailbox_entries e USING due d
    WHERE e.account_id = d.account_id AND e.device_id = d.device_id AND e.seq = d.seq
    RETURNING e.account_id, e.device_id, e.weight
), sums AS (
    SELECT account_id, device_id, count(*) AS messages, sum(weight)::bigint AS bytes
    FROM gone GROUP BY account_id, device_id ORDER BY account_id, device_id
), less AS (
    UPDATE mailbox_usage u SET messages = u.messages - s.messages, bytes = u.bytes - s.bytes
    FROM sums s WHERE u.account_id = s.account_id AND u.device_id = s.device_id
)
SELECT count(*) FROM gone";

/// Which of these accounts another replica has whose lease holds. Takes no lock: the answer may be old, never wrong for
/// its time.
pub(super) const HELD: &str = "\
SELECT o.account_id, r.replica_id, r.url
FROM unnest($1::uuid[], $2::uuid[]) AS w (account_id, replica_id)
JOIN mailbox_owners o ON o.account_id = w.account_id
JOIN mailbox_replicas r ON r.replica_id = o.replica_id
WHERE o.replica_id <> w.replica_id AND NOT r.ended AND r.lease_until > clock_timestamp()";

/// Makes owners of accounts that nobody has.
pub(super) const CLAIM_FREE: &str = "\
INSERT INTO mailbox_owners (account_id, replica_id)
SELECT * FROM unnest($1::uuid[], $2::uuid[]) AS w (account_id, replica_id) ORDER BY account_id
ON CONFLICT (account_id) DO NOTHING
RETURNING account_id";

/// Who has these accounts; waits for all who write to them, and stops further ones, until the transaction ends.
pub(super) const LOCK_OWNERS: &str = "\
SELECT o.account_id, o.replica_id
FROM unnest($1::uuid[]) AS w (account_id)
JOIN mailbox_owners o ON o.account_id = w.account_id
ORDER BY o.account_id
FOR UPDATE OF o";

/// Ends the leases of these accounts' owners that have run out. A renewal that is under way in this moment either comes
/// first, then this finds a lease that holds, or finds the row changed, and with it the lease ended.
pub(super) const END_LEASES: &str = "\
UPDATE mailbox_replicas r SET ended = true
FROM unnest($1::uuid[]) AS w (account_id)
JOIN mailbox_owners o ON o.account_id = w.account_id
WHERE r.replica_id = o.replica_id AND NOT r.ended AND r.lease_until <= clock_timestamp()";

/// The owners of these accounts whose leases nobody has ended; not what the clock says now, since a lease that runs out
/// between two statements could still be renewed.
pub(super) const LIVE_OWNERS: &str = "\
SELECT o.account_id, r.replica_id, r.url
FROM unnest($1::uuid[]) AS w (account_id)
JOIN mailbox_owners o ON o.account_id = w.account_id
JOIN mailbox_replicas r ON r.replica_id = o.replica_id
WHERE NOT r.ended";

/// Makes owners of accounts whose rows are locked.
pub(super) const CLAIM: &str = "\
UPDATE mailbox_owners o SET replica_id = w.replica_id
FROM unnest($1::uuid[], $2::uuid[]) AS w (account_id, replica_id)
WHERE o.account_id = w.account_id";

pub(super) const RELEASE: &str = "\
DELETE FROM mailbox_owners o
USING unnest($1::uuid[], $2::uuid[]) AS w (account_id, replica_id)
WHERE o.account_id = w.account_id AND o.replica_id = w.replica_id";

/// Which of these replicas' leases hold.
pub(super) const ALIVE: &str = "\
SELECT replica_id FROM mailbox_replicas
WHERE replica_id = ANY($1) AND NOT ended AND lease_until > clock_timestamp()";

/// The conflicting row is locked before the condition is looked at, so no lease is begun anew that somebody has seen end.
pub(super) const REGISTER: &str = "\
INSERT INTO mailbox_replicas AS r (replica_id, url, lease_until)
VALUES ($1, $2, clock_timestamp() + $3::bigint * interval '1 millisecond')
ON CONFLICT (replica_id)
DO UPDATE SET url = excluded.url, lease_until = clock_timestamp() + $3::bigint * interval '1 millisecond'
WHERE NOT r.ended AND r.lease_until > clock_timestamp()";

/// As [`REGISTER`] for a replica that must be there: if its row was cleared away, its lease has ended long ago.
pub(super) const RENEW: &str = "\
UPDATE mailbox_replicas
SET url = $2, lease_until = clock_timestamp() + $3::bigint * interval '1 millisecond'
WHERE replica_id = $1 AND NOT ended AND lease_until > clock_timestamp()";

pub(super) const LEAVE: &str = "UPDATE mailbox_replicas SET ended = true WHERE replica_id = $1";

pub(super) const REPLICAS: &str = "\
SELECT replica_id, url FROM mailbox_replicas WHERE NOT ended AND lease_until > clock_timestamp() ORDER BY replica_id";

/// The number of a writer's batch, as part of the batch.
pub(super) const MARK: &str = "\
INSERT INTO mailbox_writers (writer_id, batch, used_at) VALUES ($1, $2, clock_timestamp())
ON CONFLICT (writer_id) DO UPDATE SET batch = excluded.batch, used_at = excluded.used_at";

/// The number of the last batch that was committed. Waits until a transaction that has marked another one has ended, and
/// keeps any other from marking one until this one ends.
pub(super) const LAST_BATCH: &str = "\
INSERT INTO mailbox_writers AS w (writer_id, batch, used_at) VALUES ($1, 0, clock_timestamp())
ON CONFLICT (writer_id) DO UPDATE SET used_at = excluded.used_at
RETURNING w.batch";

pub(super) const CLEAR_REPLICAS: &str =
    "DELETE FROM mailbox_replicas WHERE lease_until < clock_timestamp() - interval '1 day'";

pub(super) const CLEAR_WRITERS: &str =
    "DELETE FROM mailbox_writers WHERE used_at < clock_timestamp() - interval '1 day'";

/// What writers use, prepared before it is needed.
pub(super) const WRITING: &[&str] = &[
    FENCE,
    REPEATS,
    DEVICE_USAGE,
    INSERT,
    ADD_USAGE,
    FORGET,
    DROP_DEVICE,
    DROP_ACCOUNT,
    USAGE,
    HELD,
    CLAIM_FREE,
    LOCK_OWNERS,
    END_LEASES,
    LIVE_OWNERS,
    CLAIM,
    RELEASE,
    ALIVE,
    MARK,
    LAST_BATCH,
];
