//! Everything that is put in: what was measured, what users are assumed to do, what a cloud asks for. Each figure has its
//! source beside it; change it here, and run `causeway-scale --document docs/scale.md`.

/// A struct of numbers, and a table of them with their sources.
macro_rules! figures {
    ($(#[$doc:meta])* $name:ident: $($field:ident = $value:expr, $what:literal, $source:literal;)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct $name {
            $(#[doc = $what] pub(crate) $field: f64,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $value,)* }
            }
        }

        impl $name {
            /// What it is, how much, and by whom.
            pub(crate) fn rows(&self) -> Vec<Vec<String>> {
                vec![$(vec![$what.to_owned(), crate::table::number(self.$field), $source.to_owned()],)*]
            }
        }
    };
}

figures! {
    /// What it costs.
    Costs:
    edge_us = 7.99, "edge: CPU a message, both ends of it, us", "performance.md, pairs, separate processes, 22 Nov 2026";
    routing_us = 6.93, "routing: CPU a message, us", "the same";
    directory_us = 0.01, "key-directory: CPU a message, us", "the same";
    login_us = 290.0, "CPU a login, all processes, us", "performance.md, login-xx; counted as the edge's";
    claim_us = 85.0, "key-directory: CPU a prekey claim, us", "performance.md, claim";
    session_kib = 10.9, "memory an idle session, all processes, KiB", "performance.md, idle; counted as the edge's";
    idle_us = 1.4, "CPU a second of an idle session (pings), us", "performance.md, idle: 0.70 % of a processor for 5,000";
    store_us = 14.9, "PostgreSQL: CPU a stored message, us", "performance.md, store, separate processes";
    store_sqlite_us = 21.2, "SQLite: CPU a stored message, the whole process, us", "performance.md, store; not reckoned with, since SQLite is for one routing";
    store_per_s = 56_800.0, "messages stored a second by one PostgreSQL, at least", "the same: 2 processors, which the clients and services share";
    claims_per_s = 8_200.0, "prekey claims a second by one PostgreSQL", "performance.md, claims of prekeys on PostgreSQL";
    changes_per_s = 300.0, "changes of accounts a second by one directory", "replicas.md: some hundreds, one after the other; not measured";
    owner_claims_per_s = 20_000.0, "claims of ownership a second by one PostgreSQL", "not measured in earnest: rows of a batch, as stored messages are";
    recipient_kib = 2.3, "routing: memory a recipient, KiB", "not measured alone: the sum of its parts' sizes";
    in_bytes = 560.0, "bytes of a message from its sender, all headers", "reckoned: 344 of body, 100 of stanza and record, 2 packets";
    out_bytes = 600.0, "bytes of a message to a device, all headers", "reckoned: the same with address, time and tag";
    login_bytes = 6_000.0, "bytes out of a login, all headers", "reckoned: handshake with certificate, 8 packets";
    ping_bytes = 240.0, "bytes out of a ping and its answer, all headers", "reckoned: 2 packets out, each 30 s";
    row_bytes = 900.0, "PostgreSQL: bytes of a waiting message with its indexes", "reckoned from schema.sql: 344 and 180 of row, 3 indexes, a fifth of free space";
    wal_bytes = 2_500.0, "PostgreSQL: log of a message that is stored and erased, bytes", "reckoned: the row, its indexes twice, some whole pages";
    device_bytes = 220_000.0, "PostgreSQL: bytes of a device in the directory", "reckoned: 100 EC and 100 Kyber one-time keys of 1.6 KB with signatures and indexes";
    rendezvous_ns = 250.0, "edge: to weigh one replica for an address, ns", "reckoned: SHA-256 of two blocks";
}

figures! {
    /// What users do.
    Users:
    devices = 1.3, "devices a user", "assumed";
    online = 0.25, "share of devices that are connected at the peak", "assumed: phones connect while in use, and when a push wakes them";
    written = 20.0, "messages that a user writes a day", "assumed: with fan-out, some 45 a day are received, near the 100 billion a day of 2 billion users that WhatsApp told in 2020";
    fan_out = 2.2, "recipients of a message (groups are sent to each member)", "assumed";
    receipts = 1.0, "receipts and other small content for each message received", "assumed: delivered and read, in part together";
    copies = 0.3, "copies of a written message to own devices", "assumed, as devices a user";
    peak = 3.0, "busiest second by the mean of the day", "assumed";
    live = 0.35, "share of messages whose addressed devices are all connected", "assumed";
    in_window = 0.25, "share of these that are acknowledged within 25 ms (`routing.ack_window_ms`)", "assumed: most mobile round trips take longer";
    logins = 15.0, "logins of a device a day", "assumed";
    claims = 0.5, "prekey claims of a user a day", "assumed: new conversations, new devices";
    changes = 0.1, "changes of an account a day (devices, consent)", "assumed";
    in_memory = 0.5, "share of accounts that routing has in memory at the peak", "assumed: connected, or written to within ten minutes";
    token_hours = 1.0, "hours that a token lives", "assumed";
    media = 0.1, "share of written messages with media", "assumed";
    media_bytes = 300_000.0, "bytes of it", "assumed";
    media_days = 30.0, "days that it is kept", "assumed: as messages";
    downloads = 2.0, "downloads of it", "assumed";
}

figures! {
    /// How it is built.
    Plan:
    load = 0.5, "share of the measured rate that is planned with", "headroom for bursts, for what is not measured, and for a storm of logins";
    zones = 3.0, "zones, of which one may fail", "machines: half as many again";
    node_cpus = 4.0, "processors of a machine for a service", "m7g.xlarge";
    node_gib = 16.0, "its memory, GiB", "m7g.xlarge";
    node_memory = 0.6, "share of its memory that is planned with", "the rest is for the kernel's sockets and buffers";
    edge_sessions = 500_000.0, "sessions an edge at most", "so that a failure sends no more of them elsewhere at once";
    routing_accounts = 1_000_000.0, "recipients a routing at most", "`routing.max_recipients`, set up from 200,000";
    store_bytes = 4e12, "bytes a PostgreSQL at most", "what can be restored and vacuumed in some hours";
    store_scale = 2.0, "times the measured rate that a PostgreSQL of 16 processors carries", "not measured; raw rows: 45 to 106 thousand a second on 2 processors";
    cell_routings = 64.0, "routings of one deployment at most", "each edge has a stream to each, each follows all changes";
    edge_logins_s = 2_000.0, "logins a second that an edge lets in at most", "`edge.handshakes_per_s`";
    login_commands = 4.0, "commands to Redis for a login", "docs/redis.md: a token, a number, presence twice; those of one edge share the number's";
    redis_ops_per_s = 50_000.0, "commands a second of a Redis at most", "half of what one commonly carries; not measured";
    redis_bytes = 8e9, "bytes of it at most", "half of its machine";
    relay_bytes_per_s = 3e8, "media bytes a second of a media-relay, in and out", "not measured: a quarter of 10 Gbit/s";
}

figures! {
    /// AWS, us-east-1 (N. Virginia), on demand, in US dollars.
    Prices:
    node_hour = 0.1632, "m7g.xlarge, 4 processors, 16 GiB, an hour; larger ones in proportion", "two times m7g.large at 0.0816: factualminds.com, EC2 on-demand pricing, 17 June 2026";
    egress_first = 0.09, "a GB to the internet, up to 10 TB a month", "usage.ai, data transfer costs, 2 June 2026";
    egress_second = 0.085, "up to 50 TB", "the same";
    egress_third = 0.07, "up to 150 TB", "the same";
    egress_rest = 0.05, "beyond", "the same";
    zone_gb = 0.02, "a GB from zone to zone, both sides", "the same";
    balancer_unit_hour = 0.006, "load balancer: unit of 100,000 connections, 800 new ones a second or 1 GB an hour", "awsnegotiations.com, load balancer cost, May 2026";
    volume_gb = 0.08, "a GB of volume (gp3) a month", "list price since December 2020";
    blob_gb = 0.023, "a GB of blobs (S3 standard) a month, first 50 TB; more costs less", "devnotes.tech, S3 pricing, no date";
    blob_put = 5e-6, "an upload", "the same";
    blob_get = 4e-7, "a download", "the same";
}
