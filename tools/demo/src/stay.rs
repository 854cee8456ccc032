//! `make run`: everything stays up, with fixed ports and two profiles to chat with.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use causeway_runtime::lifecycle::stop_signal;

use crate::world::{HOME, Ports, THIRD, World};

/// Runs until Ctrl-C.
pub(crate) async fn run(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let mut world = World::start(folder, Ports::FIXED).await?;
    for domain in [HOME, THIRD] {
        // From the second start on they are there already.
        if let Err(refused) = world.register(domain).await {
            let known = format!("{refused:#}").contains("already");
            if !known {
                return Err(refused);
            }
        }
    }
    let ada = profile(folder, &world, "ada", THIRD)?;
    let bo = profile(folder, &world, "bo", HOME)?;
    let text = format!(
        "Causeway is running, with the providers {HOME} (the operator's own) and {THIRD} (a third party).\n\n\
         Chat from two terminals:\n\n  \
           target/debug/causewayctl chat --profile {ada} --opt-in --downloads {folder}/ada-files --to bo@{HOME}\n  \
           target/debug/causewayctl chat --profile {bo} --opt-in --downloads {folder}/bo-files --to ada@{THIRD}\n\n\
         Run the SDK's example as another user:\n\n  \
           cargo run -p causeway-client --example first_message -- {server} {deployment} {root} {token_url} \
           eve@{THIRD} bo@{HOME} {folder}/eve.db \"hello from eve\"\n\n\
         Look at the providers:\n\n  \
           target/debug/causewayctl provider --operator-token-file {token} list\n\n\
         Data and logs: {folder}. Ctrl-C stops everything.",
        server = world.deployment.server,
        deployment = world.deployment.name,
        root = world.deployment.root,
        token_url = world.provider(THIRD).said("token_url")?,
        token = folder.join("server/keys/operator.token").display(),
        folder = folder.display(),
    );
    let stop = stop_signal();
    writeln!(std::io::stdout(), "{text}").context("write to standard output")?;
    tokio::select! {
        ended = world.watch() => return ended,
        signal = stop => signal.context("wait for Ctrl-C")?,
    }
    world.stop().await
}

fn profile(folder: &Path, world: &World, user: &str, domain: &str) -> anyhow::Result<String> {
    let provider = world.provider(domain);
    let path = folder.join(format!("{user}.toml"));
    let upload = match domain {
        HOME => String::new(),
        _ => format!("upload_url = \"{}\"\n", provider.said("upload_url")?),
    };
    let text = format!(
        "address = \"{user}@{domain}\"\nserver = \"{}\"\ndeployment = \"{}\"\nroots = [\"{}\"]\n\
         token_url = \"{}\"\n{upload}state = \"{user}-chat.db\"\n",
        world.deployment.server,
        world.deployment.name,
        world.deployment.root,
        provider.said("token_url")?,
    );
    std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(path.display().to_string())
}
