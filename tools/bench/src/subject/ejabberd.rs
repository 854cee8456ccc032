//! ejabberd from its Debian package, with the modules that this package switches on and talking has to do with; what slows one
//! client down and how many messages may wait for one are raised, as they are for Causeway.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::peer::{Kind, Peer, Place};
use crate::deployment::Store;
use crate::wire::tls::{PASSWORD, SERVER};
use crate::wire::xmpp::Xmpp;

const ERLANG: &str = "/usr/bin/erl";
const SCHEMA: &str = "/usr/share/ejabberd/sql/pg.sql";
/// What the started system says when its users are there.
const READY: &str = "causeway-bench: ready\n";

/// Starts one with these many users. What waits for those who are away is in Mnesia, its default, or in PostgreSQL.
pub(crate) fn start(users: usize, store: Store) -> anyhow::Result<Peer<Xmpp>> {
    let libraries = libraries().filter(|_| Path::new(ERLANG).is_file());
    let (libraries, version) = libraries.context("ejabberd is not installed: run `tools/setup.sh peers`")?;
    let kept = if store == Store::Postgres { "PostgreSQL" } else { "Mnesia" };
    let kind = Kind {
        name: format!("ejabberd {version}, {kept}"),
        role: "ejabberd",
        ready: READY,
        store,
        command: Box::new(move |place| command(place, &libraries)),
    };
    Peer::start(kind, users)
}

fn command(place: &Place<'_>, libraries: &Path) -> anyhow::Result<Command> {
    let folder = place.folder;
    let (config, spool) = (folder.join("ejabberd.yml"), folder.join("spool"));
    if place.first {
        if let Some((server, database)) = place.postgres {
            let schema = std::fs::read_to_string(SCHEMA).with_context(|| format!("read {SCHEMA}"))?;
            server.execute(database, &schema).context("make ejabberd's tables")?;
        }
        std::fs::create_dir_all(&spool).context("a folder for Mnesia")?;
        std::fs::write(&config, settings(place)).context("write the configuration")?;
    }
    // What is written of the users is on the disk before anybody is killed.
    let users = format!(
        "[ok = ejabberd_auth:try_register(<<\"u\", (integer_to_binary(N))/binary>>, <<\"{SERVER}\">>, <<\"{PASSWORD}\">>) \
         || N <- lists:seq(0, {})], mnesia:dump_log(), dets:sync(passwd), ",
        place.users.saturating_sub(1)
    );
    let ready = format!("{}io:format(\"{}~n\").", if place.first { &users } else { "" }, READY.trim_end());
    // As `ejabberdctl foreground` does it, but as this user, and without a name in a network.
    let mut command = causeway_test_servers::command(Path::new(ERLANG), None);
    command.current_dir(folder);
    for (name, value) in [
        ("HOME", folder),
        ("ERL_LIBS", libraries),
        ("EJABBERD_CONFIG_PATH", &config),
        ("EJABBERD_LOG_PATH", &folder.join("ejabberd.log")),
        ("ERL_CRASH_DUMP", &folder.join("crash")),
    ] {
        command.env(name, value);
    }
    command.env("ERL_MAX_PORTS", "200000").env("ERL_MAX_ETS_TABLES", "1400").env("ERL_CRASH_DUMP_BYTES", "0");
    command.args(["+K", "true", "+P", "250000", "-noinput", "-mnesia", "dir"]).arg(format!("{spool:?}"));
    command.args(["-s", "ejabberd", "-eval", &ready]);
    Ok(command)
}

/// Its configuration: Debian's but for listeners nobody connects to, a certificate, and limits.
fn settings(place: &Place<'_>) -> String {
    let (ip, port, folder) = (place.address.ip(), place.address.port(), place.folder.display());
    let (offline, database) = match place.postgres {
        None => ("", String::new()),
        Some((server, database)) => (
            "    db_type: sql\n",
            format!(
                "sql_type: pgsql\nsql_server: 127.0.0.1\nsql_port: {}\nsql_database: {database}\n\
                 sql_username: causeway\nsql_password: none\n",
                server.port()
            ),
        ),
    };
    format!(
        "loglevel: info
log_rotate_count: 0
hosts:
  - {SERVER}
certfiles:
  - \"{folder}/tls.pem\"
define_macro:
  TLS_CIPHERS: \"HIGH:!aNULL:!eNULL:!3DES:@STRENGTH\"
  TLS_OPTIONS: [no_sslv3, no_tlsv1, no_tlsv1_1, cipher_server_preference, no_compression]
c2s_ciphers: TLS_CIPHERS
c2s_protocol_options: TLS_OPTIONS
listen:
  -
    port: {port}
    ip: \"{ip}\"
    module: ejabberd_c2s
    backlog: 1000
    max_stanza_size: 262144
    tls: true
    protocol_options: TLS_OPTIONS
auth_password_format: plain
shaper_rules:
  max_user_sessions: 10
  max_user_offline_messages: 100000
{database}modules:
  mod_adhoc: {{}}
  mod_avatar: {{}}
  mod_blocking: {{}}
  mod_caps: {{}}
  mod_carboncopy: {{}}
  mod_client_state: {{}}
  mod_configure: {{}}
  mod_disco: {{}}
  mod_fail2ban: {{}}
  mod_last: {{}}
  mod_muc: {{}}
  mod_offline:
    access_max_user_messages: max_user_offline_messages
{offline}  mod_ping: {{}}
  mod_pres_counter:
    count: 5
    interval: 60
  mod_privacy: {{}}
  mod_private: {{}}
  mod_pubsub:
    plugins: [flat, pep]
  mod_push: {{}}
  mod_push_keepalive: {{}}
  mod_roster:
    versioning: true
  mod_shared_roster: {{}}
  mod_stream_mgmt:
    resend_on_timeout: if_offline
  mod_vcard:
    search: false
  mod_vcard_xupdate: {{}}
  mod_version: {{}}
"
    )
}

/// Where the package's Erlang libraries are, and its version.
fn libraries() -> Option<(PathBuf, String)> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    folders.filter(|folder| folder.is_dir()).find_map(|folder| {
        let names = std::fs::read_dir(&folder).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let version = names.filter_map(|name| Some(name.strip_prefix("ejabberd-")?.to_owned())).max()?;
        Some((folder, version))
    })
}
