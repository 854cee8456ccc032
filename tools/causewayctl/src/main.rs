//! `causewayctl`: what operators and providers' engineers do from a shell. `provider` talks to the operator API of
//! key-directory, `keys` makes the deployment's keys offline, `chat` is a plain client on the SDK; `status`, `top` and
//! `doctor` look at the processes of a deployment.
//!
//! Every failure is one sentence on standard error that names what is wrong and how to mend it, and an exit code:
//! 1 for a refused or failed action, 2 for wrong arguments.

mod chat;
mod doctor;
mod fleet;
mod keys;
mod operator;
mod provider;
mod screen;
mod status;
mod top;
mod trace;
mod view;

use std::io::Write as _;
use std::process::ExitCode;

use causeway_runtime::sentence;
use clap::{Parser, Subcommand};

/// Onboarding, operations and chat for Causeway.
#[derive(Debug, Parser)]
#[command(name = "causewayctl", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Register, change, list, suspend and resume providers.
    Provider(provider::ProviderArguments),
    /// Make and sign the deployment's keys, offline.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Chat as a user of a provider: type lines, name files, see what arrives.
    Chat(chat::ChatArguments),
    /// Show how the processes of a deployment are: states, sessions, rates, queues, providers.
    Status(status::StatusArguments),
    /// The same, again and again.
    Top(top::TopArguments),
    /// Show by which checkpoints messages went, without their content: what became of them.
    Trace(trace::TraceArguments),
    /// Check a deployment and say what to do about what is wrong; exit code 1 if anything is.
    Doctor(doctor::DoctorArguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Provider(provider) => provider::run(provider).await,
        Command::Keys(keys) => keys::run(keys),
        Command::Chat(chat) => chat::run(chat).await,
        Command::Status(status) => Box::pin(status::run(status)).await,
        Command::Top(top) => Box::pin(top::run(top)).await,
        Command::Trace(trace) => trace::run(trace).await,
        Command::Doctor(doctor) => Box::pin(doctor::run(doctor)).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "causewayctl: {}", sentence::of(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
