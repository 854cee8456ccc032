//! mosquitto from its Debian package, with that package's settings: what is kept is written every half hour and when it stops.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::peer::{Kind, Peer, Place};
use super::user;
use crate::deployment::Store;
use crate::wire::mqtt::Mqtt;
use crate::wire::tls::PASSWORD;

const SERVER: &str = "/usr/sbin/mosquitto";
const PASSWORDS: &str = "/usr/bin/mosquitto_passwd";

/// Starts one with these many users.
pub(crate) fn start(users: usize) -> anyhow::Result<Peer<Mqtt>> {
    ensure!(
        Path::new(SERVER).is_file() && Path::new(PASSWORDS).is_file(),
        "mosquitto is not installed: run `tools/setup.sh peers`"
    );
    let kind = Kind {
        name: format!("mosquitto {}", version().unwrap_or_default()).trim().to_owned(),
        role: "mosquitto",
        ready: " running\n",
        store: Store::Sqlite,
        command: Box::new(command),
    };
    Peer::start(kind, users)
}

fn command(place: &Place<'_>) -> anyhow::Result<Command> {
    let folder = place.folder;
    let (config, passwords) = (folder.join("mosquitto.conf"), folder.join("passwords"));
    if place.first {
        let mut lines = String::new();
        for number in 0..place.users {
            let user = user(number);
            writeln!(lines, "{user}:{PASSWORD}")?;
        }
        std::fs::write(&passwords, lines).context("write the users")?;
        // In place of each password, what mosquitto makes of one by default.
        let made = Command::new(PASSWORDS).arg("-U").arg(&passwords).output().context("mosquitto_passwd")?;
        ensure!(made.status.success(), "mosquitto_passwd: {}", String::from_utf8_lossy(&made.stderr).trim());
        let [shown, listener] = [folder.display().to_string(), place.address.port().to_string()];
        // As whom it is started, and so that it is not slowed down by waiting for more to send: both in its favour.
        let text = format!(
            "user root\npersistence true\npersistence_location {shown}/\nlog_dest stderr\nset_tcp_nodelay true\n\
             listener {listener} {}\ncertfile {shown}/tls.pem\nkeyfile {shown}/tls.pem\n\
             allow_anonymous false\npassword_file {shown}/passwords\n",
            place.address.ip()
        );
        std::fs::write(&config, text).context("write the configuration")?;
    }
    let mut command = causeway_test_servers::command(Path::new(SERVER), None);
    command.current_dir(folder).arg("-c").arg(config);
    Ok(command)
}

/// What it says of its version.
fn version() -> Option<String> {
    // It has no way to say only that, and ends with an error when it is asked for help.
    let said = Command::new(SERVER).arg("-h").output().ok()?.stdout;
    let said = String::from_utf8_lossy(&said);
    let mut words = said.split_ascii_whitespace().skip_while(|word| *word != "version");
    words.nth(1).map(ToOwned::to_owned)
}
