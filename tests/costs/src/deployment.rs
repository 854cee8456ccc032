//! A whole deployment in this process: the real directory and routing on real files, and the real edge, with pipes for the
//! network. Two people use it.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use causeway_edge::{EdgeConfig, EdgeDeps, Random, UnboundEdge};
use causeway_identity::token::ed25519_jwk;
use causeway_identity::{
    AccountId, Address, DeviceId, MessageId, NoiseKey, ProviderId, RootKey, ServerCertificate, Validity,
};
use causeway_key_directory::consent::Consent;
use causeway_key_directory::keys::{
    EcPrekey, EcPublicKey, KyberPublicKey, PrekeyId, RegistrationId, Signature, SignedPrekey, VerifiedPrekeys,
};
use causeway_key_directory::providers::{Provider, ProviderKind, ProviderSettings, ProviderStatus, TokenKeySet};
use causeway_key_directory::store::{Enlisted, Enlistment, SqliteStore, Store as _};
use causeway_key_directory::{DirectoryConfig, KeyDirectory};
use causeway_noise::StaticKey;
use causeway_routing::{Routing, RoutingConfig};
use causeway_runtime::clock::{ManualClock, SharedClock};
use causeway_runtime::grpc::{self, Channel, Endpoints};
use causeway_runtime::lifecycle::Lifecycle;
use causeway_runtime::telemetry::{self, Identity, Log, LogFormat, Telemetry, TelemetryConfig};
use causeway_stanza::{Enc, EncList, EncType, MessageClass, RegistrationId as Registration, Submit};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

/// What the deployment's clock shows, Unix milliseconds.
pub(crate) const NOW_MS: u64 = 1_800_000_000_000;
/// Bytes of a message's ciphertext.
pub(crate) const BODY: usize = 344;
/// Bytes that a pipe holds.
const PIPE: usize = 256 * 1024;
/// Under valgrind, on a busy machine, everything is a hundred times slower.
const PATIENCE: Duration = Duration::from_secs(300);
const DEPLOYMENT: &str = "costs.example";

/// Somebody with one device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct People {
    name: &'static str,
    provider: &'static str,
    /// Differs from all others'.
    number: u8,
}

impl People {
    /// At a third party.
    pub(crate) const ADA: Self = Self { name: "ada", provider: "birdy.example", number: 1 };
    /// At the operator's own messenger.
    pub(crate) const BO: Self = Self { name: "bo", provider: "home.example", number: 2 };

    pub(crate) fn address(self) -> anyhow::Result<Address> {
        Ok(format!("{}@{}", self.name, self.provider).parse()?)
    }

    pub(crate) const fn provider(self) -> &'static str {
        self.provider
    }

    pub(crate) const fn account(self) -> AccountId {
        AccountId::from_bytes([self.number; 16])
    }

    pub(crate) fn registration(self) -> u32 {
        100 + u32::from(self.number)
    }

    pub(crate) fn noise_key(self) -> StaticKey {
        StaticKey::from_bytes([self.number + 64; 32])
    }

    /// It lasts for as long as the clock stands.
    pub(crate) fn token(self) -> anyhow::Result<String> {
        let claims = json!({
            "iss": issuer(self.provider),
            "sub": self.name,
            "aud": DEPLOYMENT,
            "iat": NOW_MS / 1_000 - 60,
            "exp": NOW_MS / 1_000 + 3_600,
            "jti": format!("token-{}", self.name),
            "cnf": { "kid": URL_SAFE_NO_PAD.encode(self.noise_key().public()) },
        });
        let header = json!({ "typ": "JWT", "alg": "EdDSA", "kid": "k1" });
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let body = format!("{}.{}", encode(&header), encode(&claims));
        let signature = signer(self.provider)?.sign(body.as_bytes());
        Ok(format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }
}

/// A chat message for somebody's device.
pub(crate) fn submit(number: u32, to: People) -> anyhow::Result<Submit> {
    let enc = Enc {
        device: DeviceId::new(1)?,
        registration: Registration::new(to.registration()).map_err(|problem| anyhow::anyhow!("{problem:?}"))?,
        kind: EncType::Whisper,
        ciphertext: vec![7; BODY].try_into()?,
    };
    let id = MessageId::from_bytes(u128::from(number).to_be_bytes());
    Ok(Submit { id, to: to.address()?, class: MessageClass::Chat, enc: EncList::try_from(vec![enc])? })
}

/// The deployment. Its parts end with the process.
pub(crate) struct Deployment {
    life: Lifecycle,
    clock: SharedClock,
    /// Of the directory, for services.
    pub(crate) directory: Channel,
    /// Of routing, for edges.
    pub(crate) routing: Channel,
    folder: TempDir,
    _telemetry: Telemetry,
}

impl Deployment {
    /// With telemetry at its defaults. Each device has `prekeys` one-time keys of each kind.
    pub(crate) async fn start(prekeys: u32) -> anyhow::Result<Self> {
        let who = Identity { service: "causeway-costs", version: env!("CARGO_PKG_VERSION"), deployment: DEPLOYMENT };
        let log = Log { filter: "error", format: LogFormat::Text };
        let telemetry = telemetry::start(log, &TelemetryConfig::default(), who)?;
        let folder = tempfile::tempdir()?;
        let (clock, life): (SharedClock, _) = (ManualClock::at_ms(NOW_MS), Lifecycle::new());
        fill_directory(&folder.path().join("directory"), prekeys).await?;
        let directory = directory(folder.path(), &clock, &life).await?;
        let config = RoutingConfig {
            data_dir: folder.path().join("mailbox"),
            // Under valgrind everything is slow, and nobody is here.
            ack_window_ms: 10_000,
            account_per_s: 1_000_000,
            account_burst: 1_000_000,
            provider_per_s: 10_000_000,
            provider_burst: 10_000_000,
            ..RoutingConfig::default()
        };
        let routing = Routing::build(config, directory.clone(), Arc::clone(&clock)).await?;
        let channel = grpc::in_process(routing.router(), &life);
        life.spawn_vital("routing", routing.serve(life.clone()));
        Ok(Self { life, clock, directory, routing: channel, folder, _telemetry: telemetry })
    }

    /// An edge: connections that are sent are served.
    pub(crate) async fn edge(&self) -> anyhow::Result<mpsc::Sender<DuplexStream>> {
        write_keys(self.folder.path(), &self.clock)?;
        let config = EdgeConfig {
            noise_key_file: self.folder.path().join("noise.key"),
            certificate_file: self.folder.path().join("certificate"),
            deployment: DEPLOYMENT.to_owned(),
            stanzas_per_s: 1_000_000,
            stanza_burst: 1_000_000,
            bytes_per_s: 1 << 30,
            bytes_burst: 1 << 30,
            ping_interval_ms: 600_000,
            ..EdgeConfig::default()
        };
        let deps = EdgeDeps {
            directory: self.directory.clone(),
            routing: Endpoints::fixed([("http://routing".to_owned(), self.routing.clone())]),
            // Nobody sends media here.
            media: self.directory.clone(),
        };
        let edge = UnboundEdge::build(config, deps, Arc::clone(&self.clock), Random::seeded(1))?;
        let (connect, connections) = mpsc::channel(4);
        let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let accepted = ReceiverStream::new(connections).map(move |pipe| Ok((pipe, from)));
        let ready = edge.ready();
        self.life.spawn_vital("edge", edge.serve_on(self.life.clone(), accepted));
        ready.await;
        Ok(connect)
    }
}

/// Our end of a new connection to an edge.
pub(crate) async fn connect(edge: &mpsc::Sender<DuplexStream>) -> anyhow::Result<DuplexStream> {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    edge.send(theirs).await.context("the edge has gone")?;
    Ok(ours)
}

/// Runs on this thread alone, so that what is counted comes in one order. Time stands still: what happens each second would
/// count more the slower the machine is. So a path must not wait for a timer; of one that does, the process ends.
pub(crate) fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?.block_on(async {
        let (release, held) = std::sync::mpsc::channel::<()>();
        // While there is such a task, the runtime does not move its paused clock on.
        tokio::task::spawn_blocking(move || {
            if held.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _nobody_listens = writeln!(std::io::stderr(), "stuck: does the path wait for a timer now?");
                std::process::exit(2);
            }
        });
        let done = work.await;
        drop(release);
        done
    })
}

async fn directory(folder: &Path, clock: &SharedClock, life: &Lifecycle) -> anyhow::Result<Channel> {
    let config = DirectoryConfig {
        data_dir: folder.join("directory"),
        operator_token_file: folder.join("operator-token"),
        deployment: DEPLOYMENT.to_owned(),
        claim_burst: 10_000,
        claim_provider_burst: 10_000,
        claim_target_burst: 10_000,
        prekeys_low: 1,
        ..DirectoryConfig::default()
    };
    let directory = KeyDirectory::build(config, Arc::clone(clock)).await?;
    let channel = grpc::in_process(directory.internal_router(), life);
    life.spawn_vital("directory", directory.serve(life.clone()));
    Ok(channel)
}

/// Enters both people and their providers.
async fn fill_directory(folder: &Path, one_time: u32) -> anyhow::Result<()> {
    let store = SqliteStore::open(folder)?;
    for person in [People::ADA, People::BO] {
        let provider = Provider {
            id: ProviderId::from_bytes([person.number; 16]),
            settings: ProviderSettings {
                domain: person.provider.parse()?,
                display_name: person.provider.to_owned(),
                kind: if person.number == 2 { ProviderKind::Home } else { ProviderKind::ThirdParty },
                issuer: issuer(person.provider),
                hosts: Vec::new(),
                media_prefixes: Vec::new(),
                webhook: None,
            },
            status: ProviderStatus::Live,
            registered_ms: NOW_MS,
            revision: 0,
        };
        let public: [u8; 32] = signer(person.provider)?.public_key().as_ref().try_into()?;
        let jwks = json!({ "keys": [ed25519_jwk("k1", &public)] }).to_string();
        let keys = TokenKeySet { jwks, count: 1, fetched_ms: NOW_MS };
        let _registered = store.register_provider(&provider, &keys, 10).await?;
        let enlistment = Enlistment {
            address: person.address()?,
            provider: provider.id,
            new_account: person.account(),
            noise_key: NoiseKey::new(*person.noise_key().public())?,
            registration_id: RegistrationId::try_from(person.registration())?,
            keys: prekeys(person, one_time)?,
            now_ms: NOW_MS,
        };
        let enlisted = store.enlist(&enlistment).await?.outcome;
        let Enlisted::Added { account, device } = enlisted else { anyhow::bail!("not enlisted: {enlisted:?}") };
        let open = Consent { interop: true, ..Consent::default() };
        anyhow::ensure!(store.set_consent(account, device, &open).await?.outcome, "consent is not set");
    }
    Ok(())
}

/// Keys that nobody checks: the store takes those that were checked before.
fn prekeys(person: People, one_time: u32) -> anyhow::Result<VerifiedPrekeys> {
    let bytes = |id: u32, length: usize| {
        let mut bytes = vec![person.number; length];
        bytes[1..5].copy_from_slice(&id.to_be_bytes());
        bytes
    };
    let ec = |id: u32| EcPublicKey::from_stored(&bytes(id, EcPublicKey::LENGTH)).context("the length of an EC key");
    let kyber = |id: u32| {
        let key =
            KyberPublicKey::from_stored(bytes(id, KyberPublicKey::LENGTH)).context("the length of a Kyber key")?;
        anyhow::Ok(SignedPrekey { id: PrekeyId::try_from(id)?, key, signature: Signature::from_bytes([1; 64]) })
    };
    let signed = SignedPrekey { id: PrekeyId::try_from(1)?, key: ec(1)?, signature: Signature::from_bytes([1; 64]) };
    let one_time = 2..2 + one_time;
    Ok(VerifiedPrekeys {
        identity_key: ec(0)?,
        signed: Some(signed),
        last_resort: Some(kyber(1)?),
        ec: one_time
            .clone()
            .map(|id| Ok(EcPrekey { id: PrekeyId::try_from(id)?, key: ec(id)? }))
            .collect::<anyhow::Result<_>>()?,
        kyber: one_time.map(kyber).collect::<anyhow::Result<_>>()?,
    })
}

fn issuer(provider: &str) -> String {
    format!("https://id.{provider}")
}

fn signer(provider: &str) -> anyhow::Result<Ed25519KeyPair> {
    let seed = [u8::try_from(provider.len())?; 32];
    Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| anyhow::anyhow!("no key of this seed"))
}

/// The edge's key and certificate.
fn write_keys(folder: &Path, clock: &SharedClock) -> anyhow::Result<()> {
    let static_key = StaticKey::from_bytes([0x11; 32]);
    let key = format!("{}\n", hex::encode(*static_key.to_bytes()));
    causeway_runtime::secret_file::create(&folder.join("noise.key"), key.as_bytes())?;
    let (now, day) = (clock.now(), Duration::from_secs(86_400));
    let validity = Validity { not_before: now - day, not_after: now + day };
    let public = NoiseKey::new(*static_key.public())?;
    let certificate = ServerCertificate::issue(&RootKey::from_seed([7; 32]), DEPLOYMENT, &public, validity)?;
    std::fs::write(folder.join("certificate"), certificate.to_bytes())?;
    Ok(())
}
