//! `sandbox`: a stand-in provider as a process of its own, for demonstrations and tests on one machine.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use causeway_identity::Domain;
use causeway_identity::token::Algorithm;
use causeway_runtime::clock::SystemClock;
use causeway_runtime::lifecycle::{Ended, Lifecycle, stop_signal};
use causeway_runtime::sentence;
use causeway_runtime::telemetry::{self, LogFormat};
use causeway_sandbox::{Provider, Sandbox, SandboxConfig};
use clap::{Parser, ValueEnum};
use url::Url;

const GRACE: Duration = Duration::from_secs(5);

/// A stand-in for a messaging provider: OpenID Connect discovery and keys, tokens, push webhooks, media host.
/// It asks nobody for a password and is for one machine only.
#[derive(Parser)]
#[command(name = "sandbox", version)]
struct Arguments {
    /// Folder for keys, the webhook secret and media; made if it is absent
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Domain that the users' addresses end with, for example birdy.example
    #[arg(long)]
    domain: Domain,
    /// Loopback address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Its https URL, if a TLS proxy is before it in a network for demonstrations; it may listen anywhere then
    #[arg(long, value_name = "URL")]
    public_url: Option<Url>,
    /// Algorithm of new signing keys
    #[arg(long, value_enum, default_value_t = Alg::EdDsa)]
    alg: Alg,
    /// Name of the deployment that the tokens are for
    #[arg(long, default_value = "causeway.local", value_name = "NAME")]
    audience: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Alg {
    #[value(name = "EdDSA")]
    EdDsa,
    #[value(name = "ES256")]
    Es256,
    #[value(name = "RS256")]
    Rs256,
}

#[tokio::main]
async fn main() -> ExitCode {
    telemetry::init("info", LogFormat::Text);
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _nowhere_else_to_say = writeln!(std::io::stderr(), "sandbox: {}", sentence::of(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { data, domain, listen, public_url, alg, audience } = arguments;
    if !(1..=255).contains(&audience.len()) {
        bail!("--audience must be 1 to 255 bytes: give the name of the deployment");
    }
    let alg = match alg {
        Alg::EdDsa => Algorithm::EdDsa,
        Alg::Es256 => Algorithm::Es256,
        Alg::Rs256 => Algorithm::Rs256,
    };
    let config = SandboxConfig { data_dir: data, domain, listen, public_base: public_url, audience, alg };
    let sandbox = Sandbox::build(config, Arc::new(SystemClock)).await?;
    // From before the ready line on: whoever reads it may send a signal at once.
    let stop = stop_signal();
    writeln!(std::io::stdout(), "{}", ready(&sandbox.provider())).context("standard output is closed")?;

    let life = Lifecycle::new();
    let served = life.clone();
    life.spawn_vital("http", async move {
        sandbox.serve(served).await;
        Ok::<(), std::convert::Infallible>(())
    });
    let signal = async {
        if let Err(error) = stop.await {
            tracing::error!(%error, "cannot listen for stop signals; leaving");
        }
    };
    match life.run(signal, GRACE).await {
        Ended::Clean | Ended::Overdue => Ok(()),
        Ended::Failed => bail!("a part of the sandbox failed; the log above says which"),
    }
}

/// One line that scripts can take apart: words of the form name=value.
fn ready(provider: &Provider) -> String {
    format!(
        "ready domain={} issuer={} host={} token_url={} upload_url={} media_prefix={} webhook_url={} webhook_secret_file={}",
        provider.domain(),
        provider.issuer(),
        provider.hosts().join(","),
        provider.token_url(),
        provider.upload_url(),
        provider.media_prefix(),
        provider.webhook_url(),
        provider.webhook_secret_file().display(),
    )
}
