//! `causewayctl keys`: the deployment's keys. The root's secret half is made and used on a machine that is offline; only
//! its public half and the certificates that it signs go to the servers and clients.

mod tls;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use causeway_identity::{NoiseKey, RootKey, ServerCertificate, Validity};
use causeway_noise::StaticKey;
use causeway_runtime::clock::{Clock as _, SystemClock};
use causeway_runtime::secret_file;
use clap::Subcommand;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A certificate begins this much in the past, for clients whose clocks are slow.
const SLACK: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a root key: FILE keeps the secret half, FILE.pub the half that clients pin.
    NewRoot {
        /// Where the secret half goes; must not exist.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Make an edge's Noise static key: FILE keeps it, FILE.pub its public half, which is printed too.
    NewNoise {
        /// Where the key goes; must not exist.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Sign a server certificate with the root key.
    Certify {
        /// Secret half of the root.
        #[arg(long, value_name = "FILE")]
        root_key_file: PathBuf,
        /// Name of the deployment, which is also the audience of tokens.
        #[arg(long, value_name = "NAME")]
        deployment: String,
        /// Public half of the edge's Noise key, 64 hex digits, as new-noise printed it.
        #[arg(long, value_name = "HEX")]
        noise_public: String,
        /// For how long it is valid.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=825))]
        days: u32,
        /// Where the certificate goes.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make an authority for the certificates of the services (`server.tls`), where there is no other.
    NewTlsCa(tls::NewAuthority),
    /// Make a certificate for a service, or for this tool, with such an authority.
    NewTlsCertificate(tls::NewCertificate),
}

/// Carries the command out.
pub(crate) fn run(command: KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::NewRoot { file } => new_root(&file),
        KeysCommand::NewNoise { file } => new_noise(&file),
        KeysCommand::Certify { root_key_file, deployment, noise_public, days, out } => {
            certify(&root_key_file, &deployment, &noise_public, days, &out)
        }
        KeysCommand::NewTlsCa(arguments) => tls::new_authority(arguments),
        KeysCommand::NewTlsCertificate(arguments) => tls::new_certificate(&arguments),
    }
}

fn new_root(file: &Path) -> anyhow::Result<()> {
    refuse_existing(file)?;
    let mut seed = Zeroizing::new([0; 32]);
    OsRng.try_fill_bytes(seed.as_mut()).context("the system's random generator failed")?;
    let root = RootKey::from_seed(*seed);
    secret_file::create(file, root.to_text().as_bytes())?;
    let public = root.public().to_string();
    write_public(file, &public)?;
    say(&public)
}

/// Beside the secret half, so that it can be looked up again.
fn write_public(file: &Path, public: &str) -> anyhow::Result<()> {
    let mut public_file = file.as_os_str().to_owned();
    public_file.push(".pub");
    let public_file = PathBuf::from(public_file);
    std::fs::write(&public_file, format!("{public}\n"))
        .with_context(|| format!("{} cannot be written", public_file.display()))
}

fn new_noise(file: &Path) -> anyhow::Result<()> {
    refuse_existing(file)?;
    let key = StaticKey::generate(&mut OsRng.unwrap_err());
    let text = Zeroizing::new(format!("{}\n", hex::encode(*key.to_bytes())));
    secret_file::create(file, text.as_bytes())?;
    let public = hex::encode(key.public());
    write_public(file, &public)?;
    say(&public)
}

fn certify(root: &Path, deployment: &str, noise_public: &str, days: u32, out: &Path) -> anyhow::Result<()> {
    let text = secret_file::read(root)?;
    let text = std::str::from_utf8(&text).map_err(|_| anyhow!("{} is no root key file", root.display()))?;
    let root = RootKey::from_text(text).with_context(|| format!("{} is no root key file", root.display()))?;
    let bytes = hex::decode(noise_public).map_err(|_| anyhow!("--noise-public must be 64 hex digits"))?;
    let key = NoiseKey::try_from(bytes.as_slice()).context("--noise-public is no usable key")?;
    let now = SystemClock.now();
    let validity = Validity { not_before: now - SLACK, not_after: now + DAY * days };
    let certificate =
        ServerCertificate::issue(&root, deployment, &key, validity).context("--deployment must be 1 to 255 bytes")?;
    std::fs::write(out, certificate.to_bytes()).with_context(|| format!("{} cannot be written", out.display()))
}

fn refuse_existing(file: &Path) -> anyhow::Result<()> {
    if file.exists() {
        bail!("{} exists already: a key is never overwritten, move it away first", file.display());
    }
    Ok(())
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("write to standard output")
}
