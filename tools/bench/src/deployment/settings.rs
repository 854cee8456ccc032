//! Settings of the servers that are measured: all at their defaults but for the limits of what one account, one provider and
//! one network may do, since this machine plays all of them.

use std::collections::BTreeMap;

/// `section.field` and a TOML value.
pub(crate) type Settings = BTreeMap<String, String>;

/// What the report says of it.
pub(crate) const NOTE: &str = "All settings are the defaults but for the limits of what one account, one provider and one \
    network may do, which are raised, since one machine plays all of them (`tools/bench/src/deployment/settings.rs`).";

/// Limits that are raised, and plain http to this machine's own providers.
const COMMON: &[(&str, &str)] = &[
    ("directory.fetch.allow_loopback_http", "true"),
    ("media.fetch.allow_loopback_http", "true"),
    ("routing.fetch.allow_loopback_http", "true"),
    ("edge.max_connections", "200000"),
    ("edge.max_connections_per_network", "200000"),
    ("edge.max_half_open_per_network", "4096"),
    ("edge.max_newcomers_per_user", "64"),
    ("edge.max_newcomers_per_provider", "4096"),
    ("edge.handshakes_per_s", "100000"),
    ("edge.handshake_burst", "100000"),
    ("edge.handshakes_per_s_per_network", "100000"),
    ("edge.stanzas_per_s", "1000000"),
    ("edge.stanza_burst", "1000000"),
    ("edge.bytes_per_s", "1073741824"),
    ("edge.bytes_burst", "1073741824"),
    ("routing.account_per_s", "1000000"),
    ("routing.account_burst", "1000000"),
    ("routing.provider_per_s", "10000000"),
    ("routing.provider_burst", "10000000"),
    ("routing.mailbox_messages", "100000"),
    ("directory.enlist_burst", "10000"),
    ("directory.enlist_interval_ms", "1"),
    ("directory.enlist_provider_burst", "1000000"),
    ("directory.enlist_provider_interval_ms", "1"),
    ("directory.settings_burst", "10000"),
    ("directory.settings_interval_ms", "1"),
    ("directory.settings_provider_burst", "1000000"),
    ("directory.settings_provider_interval_ms", "1"),
    ("directory.claim_burst", "10000"),
    ("directory.claim_interval_ms", "1"),
    ("directory.claim_provider_burst", "100000"),
    ("directory.claim_provider_interval_ms", "1"),
    ("directory.claim_target_burst", "100000"),
    ("directory.claim_target_interval_ms", "1"),
    ("directory.limiter_states", "10000000"),
];

/// PostgreSQL as one would set it in earnest on such a machine.
pub(crate) const POSTGRES_SERVER: [(&str, &str); 3] =
    [("shared_buffers", "256MB"), ("max_wal_size", "2GB"), ("min_wal_size", "256MB")];

/// Settings of all deployments.
pub(crate) fn common() -> Settings {
    COMMON.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect()
}

/// Settings that put what is kept into this database.
pub(crate) fn postgres(url: &str) -> Settings {
    ["routing", "directory"]
        .into_iter()
        .flat_map(|section| {
            [
                (format!("{section}.store"), "\"postgres\"".to_owned()),
                (format!("{section}.postgres.url"), format!("{url:?}")),
            ]
        })
        .collect()
}

/// Of a reconnect storm: the brake on handshakes is what is to be seen, so it is as it is by default; only that of one network is
/// as wide as that of all.
pub(crate) fn storm() -> Settings {
    [("edge.handshakes_per_s", "2000"), ("edge.handshake_burst", "1000"), ("edge.handshakes_per_s_per_network", "2000")]
        .into_iter()
        .map(|(field, value)| (field.to_owned(), value.to_owned()))
        .collect()
}
