//! `make demo`: starts Causeway and two providers as real processes, lets two people on two messengers talk, breaks things on
//! purpose, and tells what happened. Leaves with 1 if anything is not as it must be.
//!
//! `make run` is the same start without the story: everything stays up, and two profiles for `causewayctl chat` are written.

mod against;
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
use clap::{Parser, Subcommand};

use crate::against::Against;
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
    #[command(subcommand)]
    against: Option<Existing>,
}

#[derive(Debug, Subcommand)]
enum Existing {
    /// Start nothing: tell the story on a deployment that runs already.
    Against(Against),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if arguments.stay {
        stay::run(&arguments.folder.unwrap_or_else(|| PathBuf::from(".causeway/run"))).await
    } else {
        tell(arguments.folder, arguments.against).await
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "\ndemo: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn tell(folder: Option<PathBuf>, existing: Option<Existing>) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir().context("make a temporary folder")?;
    let kept = folder.is_some();
    let folder = folder.unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let told = story(&folder, existing.map(|Existing::Against(running)| running)).await;
    if told.is_err() && !kept {
        // What a failed run left behind is what explains it.
        let kept = temporary.keep();
        let _closed = writeln!(std::io::stderr(), "\ndata and logs are kept in {}", kept.display());
    }
    told
}

async fn story(folder: &std::path::Path, running: Option<Against>) -> anyhow::Result<()> {
    let mut story = Story::begin("Causeway: a first conversation between two messengers");

    let mut world = match &running {
        None => {
            story.step("Start the servers, each a process of its own");
            World::start(folder, Ports::default()).await?
        }
        Some(running) => {
            story.step("A deployment of many processes, which runs already");
            running.is_there().await?;
            World::against(folder, running)?
        }
    };
    let [third_edge, home_edge] = world.edges();
    if world.is_own() {
        story.tell(&format!("causeway all    edge on {home_edge}"));
    } else {
        story.tell(&format!("causeway edge   {third_edge}, for {THIRD}'s users"));
        story.tell(&format!("causeway edge   {home_edge}, for {HOME}'s users"));
    }
    for domain in [HOME, THIRD] {
        story.tell(&format!("sandbox         {domain} on {}", world.provider(domain).said("issuer")?));
    }

    story.step("The operator registers both providers (causewayctl provider register)");
    for domain in [HOME, THIRD] {
        match world.register(domain).await {
            Ok(registered) => story.tell(registered.trim_end()),
            // The story was told on this deployment before.
            Err(refused) if !world.is_own() && format!("{refused:#}").contains("already") => {
                story.tell(&format!("{domain} is registered already"));
            }
            Err(refused) => return Err(refused),
        }
    }

    let mut people = conversation::People::enlist(&world, &mut story).await?;
    people.refuse_before_consent(&mut story).await?;
    people.opt_in(&mut story).await?;
    people.talk(&mut story).await?;
    people.send_picture(&world, &mut story, folder).await?;
    people.send_picture_back(&mut story, folder).await?;
    people.fetch_later(&world, &mut story).await?;
    people.refuse_strangers(&world, &mut story).await?;
    burst::survive_a_kill(&people, &mut world, &mut story).await?;

    if world.is_own() {
        story.step("Stop everything with SIGTERM");
        people.leave().await;
        world.stop().await?;
        story.tell("all processes left with status 0");
    } else {
        people.leave().await;
    }
    story.end();
    Ok(())
}
