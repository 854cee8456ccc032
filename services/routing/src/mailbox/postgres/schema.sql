-- Messages that wait. The account leads every key, so that the tables distribute by it.
CREATE TABLE mailbox_entries (
    account_id uuid NOT NULL,
    device_id integer NOT NULL,
    seq bigint NOT NULL,
    registration_id bigint NOT NULL,
    sender_account uuid NOT NULL,
    sender_device integer NOT NULL,
    message_id uuid NOT NULL,
    sender_address text NOT NULL,
    class smallint NOT NULL,
    ts_ms bigint NOT NULL,
    expires_ms bigint NOT NULL,
    origin_provider text NOT NULL,
    origin_kind smallint NOT NULL,
    inbox smallint NOT NULL,
    enc_type smallint NOT NULL,
    weight bigint NOT NULL,
    ciphertext bytea NOT NULL,
    PRIMARY KEY (account_id, device_id, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);

-- Ciphertext does not get smaller.
ALTER TABLE mailbox_entries ALTER COLUMN ciphertext SET STORAGE EXTERNAL;

-- A repeat is one entry. What was kept for an earlier registration of the device is no repeat.
CREATE UNIQUE INDEX mailbox_entries_repeat ON mailbox_entries
    (account_id, sender_account, sender_device, message_id, device_id, registration_id);

-- For the sweep alone, which looks at all accounts.
CREATE INDEX mailbox_entries_expiry ON mailbox_entries (expires_ms);

-- What waits for each device, so that bounds cost one look-up; changed in the same transaction. A row with nothing in
-- it may stay until the account goes.
CREATE TABLE mailbox_usage (
    account_id uuid NOT NULL,
    device_id integer NOT NULL,
    messages bigint NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (account_id, device_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);

-- Which replica writes an account's mailbox.
CREATE TABLE mailbox_owners (
    account_id uuid PRIMARY KEY,
    replica_id uuid NOT NULL
) WITH (fillfactor = 70);

-- Routing processes. A row whose lease has ended stays for a day, so that it is not begun anew.
CREATE TABLE mailbox_replicas (
    replica_id uuid PRIMARY KEY,
    url text NOT NULL,
    lease_until timestamptz NOT NULL,
    ended boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- The last batch that each writer has committed, so that a commit without an answer is not a riddle.
CREATE TABLE mailbox_writers (
    writer_id uuid PRIMARY KEY,
    batch bigint NOT NULL,
    used_at timestamptz NOT NULL
) WITH (fillfactor = 50);
