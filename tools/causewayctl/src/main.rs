//! `causewayctl`: what operators and providers' engineers do from a shell. `provider` talks to the operator API of
//! key-directory, `keys` makes the deployment's keys offline, `chat` is a plain client on the SDK.
//!
//! Every failure is one sentence on standard error that names what is wrong and how to mend it, and an exit code:
//! 1 for a refused or failed action, 2 for wrong arguments.

mod chat;
mod keys;
mod operator;
mod provider;

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
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Provider(provider) => provider::run(provider).await,
        Command::Keys(keys) => keys::run(keys),
        Command::Chat(chat) => chat::run(chat).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "causewayctl: {}", sentence::of(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
