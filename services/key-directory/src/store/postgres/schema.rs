//! The tables. To change them, append a step; steps that were released are never edited. While a new program makes a
//! step, older ones go on using the tables, so a step adds and does not take away.
//!
//! Every table of accounts leads its keys with the account's id. The exceptions, and why:
//! - `providers` are few and belong to the operator; `providers_lock` and `directory_home` are one row;
//! - `addresses` finds the account of an address, so the address leads;
//! - `retired_keys` outlive their account: the digest of the address leads;
//! - the log of changes is in the order of commits, of all accounts.

use causeway_postgres::Migration;

use super::{change_log, home};

/// Of the component `directory`.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration::new(1, "providers, accounts, devices, prekeys, consent", ACCOUNTS),
    Migration::new(2, "the log of changes", change_log::SCHEMA),
    Migration::new(3, "where the tables were made", home::SCHEMA),
    Migration::new(4, "a name for each restore", home::INCARNATION),
];

/// `COLLATE "C"`: by bytes, as everywhere else. `jwks` and `settings` are texts as they were written.
const ACCOUNTS: &str = r#"
CREATE TABLE providers (
    provider_id     bytea PRIMARY KEY,
    domain          text COLLATE "C" NOT NULL UNIQUE,
    issuer          text COLLATE "C" NOT NULL UNIQUE,
    kind            smallint NOT NULL,
    status          smallint NOT NULL,
    revision        bigint NOT NULL,
    registered_ms   bigint NOT NULL,
    settings        text NOT NULL,
    jwks            text NOT NULL,
    jwks_count      integer NOT NULL,
    jwks_fetched_ms bigint NOT NULL
);

CREATE TABLE providers_lock (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one)
);
INSERT INTO providers_lock DEFAULT VALUES;

CREATE TABLE addresses (
    address    text COLLATE "C" PRIMARY KEY,
    account_id bytea NOT NULL
);

CREATE TABLE accounts (
    account_id  bytea PRIMARY KEY,
    address     text COLLATE "C" NOT NULL,
    provider_id bytea NOT NULL,
    created_ms  bigint NOT NULL,
    interop     boolean NOT NULL,
    inbox       smallint NOT NULL,
    reach       smallint NOT NULL
);

CREATE TABLE provider_rules (
    account_id bytea NOT NULL,
    provider   text COLLATE "C" NOT NULL,
    allow      boolean NOT NULL,
    PRIMARY KEY (account_id, provider)
);

CREATE TABLE devices (
    account_id            bytea NOT NULL,
    device_id             integer NOT NULL,
    noise_key             bytea NOT NULL,
    registration_id       integer NOT NULL,
    identity_key          bytea NOT NULL,
    enlisted_ms           bigint NOT NULL,
    push_token            bytea,
    signed_id             integer NOT NULL,
    signed_key            bytea NOT NULL,
    signed_signature      bytea NOT NULL,
    last_resort_id        integer NOT NULL,
    last_resort_key       bytea NOT NULL,
    last_resort_signature bytea NOT NULL,
    PRIMARY KEY (account_id, device_id),
    UNIQUE (account_id, noise_key)
);

-- Device ids that were used and are free again; the lowest place was freed longest ago.
CREATE TABLE freed_devices (
    account_id bytea NOT NULL,
    device_id  integer NOT NULL,
    place      bigint NOT NULL,
    PRIMARY KEY (account_id, device_id)
);

-- One-time keys by their place in the order of upload. One that was handed out keeps its row and digest without the
-- key, so that it is known when it is published again. Keys look random, so trying to compress them is in vain.
CREATE TABLE one_time_prekeys (
    account_id bytea NOT NULL,
    device_id  integer NOT NULL,
    kind       smallint NOT NULL,
    place      bigint NOT NULL,
    key_id     integer NOT NULL,
    digest     bytea NOT NULL,
    public_key bytea,
    signature  bytea,
    PRIMARY KEY (account_id, device_id, kind, place)
);
ALTER TABLE one_time_prekeys ALTER COLUMN public_key SET STORAGE EXTERNAL;
CREATE INDEX one_time_prekeys_in_store ON one_time_prekeys (account_id, device_id, kind, place)
    WHERE public_key IS NOT NULL;
CREATE UNIQUE INDEX one_time_prekeys_by_digest ON one_time_prekeys (account_id, device_id, digest);

CREATE TABLE withdrawn (
    account_id   bytea PRIMARY KEY,
    withdrawn_ms bigint NOT NULL
);

-- Digests; `owner` is that of the address.
CREATE TABLE retired_keys (
    owner     bytea NOT NULL,
    noise_key bytea NOT NULL,
    until_ms  bigint NOT NULL,
    PRIMARY KEY (owner, noise_key)
);
CREATE INDEX retired_keys_by_end ON retired_keys (until_ms);
"#;
