//! `make demo`: starts Causeway and two providers as real processes, lets two people on two messengers talk, breaks things on
//! purpose, and tells what happened. Leaves with 1 if anything is not as it must be.
//!
//! `make run` is the same start without the story: everything stays up, and two profiles for `causewayctl chat` are written.

mod burst;
mod conversation;
mod device;
mod process;
mod stay;
mod story;
mod world;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use crate::story::Story;
use crate::world::{HOME, Ports, THIRD, World};

/// Two people on two messengers.
#[derive(Debug, Parser)]
#[command(name = "causeway-demo")]
struct Arguments {
    /// Leave everything running and print how to chat with it.
    #[arg(long)]
    stay: bool,
    /// Keep data and logs here instead of in a folder that goes away (with --stay: .causeway/run).
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if arguments.stay {
        stay::run(&arguments.folder.unwrap_or_else(|| PathBuf::from(".causeway/run"))).await
    } else {
        tell(arguments.folder).await
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "\ndemo: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn tell(folder: Option<PathBuf>) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir().context("make a temporary folder")?;
    let kept = folder.is_some();
    let folder = folder.unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let told = story(&folder).await;
    if told.is_err() && !kept {
        // What a failed run left behind is what explains it.
        let kept = temporary.keep();
        let _closed = writeln!(std::io::stderr(), "\ndata and logs are kept in {}", kept.display());
    }
    told
}

async fn story(folder: &std::path::Path) -> anyhow::Result<()> {
    let mut story = Story::begin("Causeway: a first conversation between two messengers");

    story.step("Start the servers, each a process of its own");
    let mut world = World::start(folder, Ports::default()).await?;
    story.tell(&format!("causeway all    edge on {}", world.causeway().said("edge")?));
    for domain in [HOME, THIRD] {
        story.tell(&format!("sandbox         {domain} on {}", world.provider(domain).said("issuer")?));
    }

    story.step("The operator registers both providers (causewayctl provider register)");
    for domain in [HOME, THIRD] {
        story.tell(world.register(domain).await?.trim_end());
    }

    let mut people = conversation::People::enlist(&world, &mut story).await?;
    people.refuse_before_consent(&mut story).await?;
    people.opt_in(&mut story).await?;
    people.talk(&mut story).await?;
    people.send_picture(&world, &mut story, folder).await?;
    people.fetch_later(&world, &mut story).await?;
    people.refuse_strangers(&world, &mut story).await?;
    burst::survive_a_kill(&people, &mut world, &mut story).await?;

    story.step("Stop everything with SIGTERM");
    people.leave().await;
    world.stop().await?;
    story.tell("all processes left with status 0");
    story.end();
    Ok(())
}
