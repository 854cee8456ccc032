//! An edge on free ports, and the services that it calls, scripted.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use causeway_identity::token::ed25519_jwk;
use causeway_identity::{NoiseKey, RootKey, ServerCertificate, SessionId, Validity};
use causeway_noise::StaticKey;
use causeway_proto::directory::v1 as dir;
use causeway_proto::media::v1 as media;
use causeway_proto::routing::v1 as routing;
use causeway_proto::routing::v1::edge_event::Event as FromEdge;
use causeway_proto::routing::v1::routing_event::Event as ToEdge;
use causeway_proto::wire::v1 as pb;
use causeway_runtime::clock::ManualClock;
use causeway_runtime::grpc;
use causeway_runtime::grpc::Endpoints;
use causeway_runtime::lifecycle::{Ended, Lifecycle};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream, UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::links::Links;
use crate::{Edge, EdgeConfig, EdgeDeps, Random, UnboundEdge};

pub(super) const NOW_S: u64 = 1_800_000_000;
pub(super) const AUDIENCE: &str = "net.example";
pub(super) const ISSUER: &str = "https://id.birdy.example";
pub(super) const ACCOUNT: [u8; 16] = [0xac; 16];

/// Everything that a test waits for comes within this time, or the test fails.
pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it happens in time")
}

pub(super) type Pipe = (tokio::io::DuplexStream, SocketAddr);
pub(super) type Pipes = mpsc::UnboundedSender<Pipe>;

pub(super) struct Rig {
    pub(super) addr: SocketAddr,
    pub(super) websocket: SocketAddr,
    pub(super) clock: Arc<ManualClock>,
    pub(super) directory: Arc<Directory>,
    /// The first of the replicas.
    pub(super) routing: Arc<Routing>,
    pub(super) replicas: Vec<Arc<Routing>>,
    pub(super) server_key: [u8; 32],
    pub(super) certificate_file: PathBuf,
    pub(super) links: Links,
    pub(super) life: Lifecycle,
    others: Lifecycle,
    _files: tempfile::TempDir,
}

impl Rig {
    pub(super) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Waits until clients can log in.
    pub(super) async fn with(adjust: impl FnOnce(&mut EdgeConfig)) -> Self {
        let rig = Self::not_ready(adjust, true).await;
        rig.directory.wait_for_watch().await;
        rig
    }

    /// With so many replicas of routing, all linked.
    pub(super) async fn with_replicas(replicas: usize, adjust: impl FnOnce(&mut EdgeConfig)) -> Self {
        let rig = Self::start_with(replicas, adjust, true, None).await;
        rig.directory.wait_for_watch().await;
        soon(rig.links.wait_for_links(replicas)).await;
        rig
    }

    pub(super) async fn not_ready(adjust: impl FnOnce(&mut EdgeConfig), wait: bool) -> Self {
        Self::start_with(1, adjust, wait, None).await
    }

    /// Without sockets: clients come over pipes, and what is random is repeated.
    pub(super) async fn over_pipes(replicas: usize, seed: u64) -> (Self, Pipes) {
        let (pipes, incoming) = mpsc::unbounded_channel();
        let rig = Self::start_with(
            replicas,
            |config| config.ping_interval_ms = 5_000,
            true,
            Some((Random::seeded(seed), incoming)),
        )
        .await;
        rig.directory.wait_for_watch().await;
        soon(rig.links.wait_for_links(replicas)).await;
        (rig, pipes)
    }

    async fn start_with(
        replicas: usize,
        adjust: impl FnOnce(&mut EdgeConfig),
        wait: bool,
        pipes: Option<(Random, mpsc::UnboundedReceiver<Pipe>)>,
    ) -> Self {
        let files = tempfile::tempdir().unwrap();
        let clock = ManualClock::at_ms(NOW_S * 1_000);
        let static_key = StaticKey::from_bytes([0x11; 32]);
        let mut config = EdgeConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            websocket_listen: Some("127.0.0.1:0".parse().unwrap()),
            noise_key_file: files.path().join("noise.key"),
            certificate_file: files.path().join("certificate"),
            deployment: AUDIENCE.to_owned(),
            overload_retry_ms: 100,
            ..EdgeConfig::default()
        };
        adjust(&mut config);
        let key = format!("{}\n", hex::encode(*static_key.to_bytes()));
        causeway_runtime::secret_file::create(&config.noise_key_file, key.as_bytes()).unwrap();
        let now = causeway_runtime::clock::Clock::now(&*clock);
        let hour = Duration::from_secs(3_600);
        let validity = Validity { not_before: now - hour, not_after: now + hour };
        let public = NoiseKey::new(*static_key.public()).unwrap();
        let certificate = ServerCertificate::issue(&RootKey::from_seed([7; 32]), AUDIENCE, &public, validity).unwrap();
        std::fs::write(&config.certificate_file, certificate.to_bytes()).unwrap();

        let (life, others) = (Lifecycle::new(), Lifecycle::new());
        let directory = Arc::new(Directory::new());
        let replicas: Vec<_> = (1..=replicas).map(|n| Arc::new(Routing::new(format!("routing-{n}")))).collect();
        let deps = EdgeDeps {
            directory: grpc::in_process(directory_router(&directory), &others),
            routing: Endpoints::fixed(replicas.iter().map(|replica| {
                let server = routing::routing_server::RoutingServer::from_arc(Arc::clone(replica));
                let channel = grpc::in_process(grpc::server().add_service(server), &others);
                (format!("http://{}", replica.name), channel)
            })),
            media: grpc::in_process(
                grpc::server().add_service(media::tickets_server::TicketsServer::new(Tickets)),
                &others,
            ),
        };
        let certificate_file = config.certificate_file.clone();
        let (mut addr, mut websocket) = (config.listen, config.listen);
        let links = if let Some((random, incoming)) = pipes {
            let edge = UnboundEdge::build(config, deps, clock.clone(), random).unwrap();
            let (ready, links) = (edge.ready(), edge.links.clone());
            let incoming = UnboundedReceiverStream::new(incoming).map(Ok);
            life.spawn_vital("edge", edge.serve_on(life.clone(), incoming));
            soon(ready).await;
            links
        } else {
            let edge = Edge::build(config, deps, clock.clone()).await.unwrap();
            (addr, websocket) = (edge.local_addr(), edge.websocket_addr().unwrap());
            let (ready, links) = (edge.ready(), edge.inside.links.clone());
            life.spawn_vital("edge", edge.serve(life.clone()));
            if wait {
                soon(ready).await;
            }
            links
        };
        Self {
            addr,
            websocket,
            clock,
            directory,
            routing: Arc::clone(&replicas[0]),
            replicas,
            server_key: *static_key.public(),
            certificate_file,
            links,
            life,
            others,
            _files: files,
        }
    }

    /// The replica that is responsible for an address, of those with these names.
    pub(super) fn owner<'a>(replicas: impl IntoIterator<Item = &'a Arc<Routing>>, address: &str) -> &'a Arc<Routing> {
        let replicas: Vec<_> = replicas.into_iter().collect();
        let names = replicas.iter().enumerate().map(|(index, replica)| (replica.name.as_str(), index));
        replicas[crate::rendezvous::choose(names, address).unwrap()]
    }

    /// Ends everything; the edge must leave by itself.
    pub(super) async fn stop(self) {
        assert_eq!(self.life.finish(Duration::from_secs(15)).await, Ended::Clean);
        self.others.finish(Duration::ZERO).await;
    }
}

// ---- tokens

/// A provider's signing key.
pub(super) struct Signer {
    pub(super) kid: &'static str,
    pair: Ed25519KeyPair,
}

impl Signer {
    pub(super) fn new(kid: &'static str, seed: u8) -> Self {
        Self { kid, pair: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap() }
    }

    pub(super) fn jwks(&self) -> String {
        json!({ "keys": [ed25519_jwk(self.kid, self.pair.public_key().as_ref().try_into().unwrap())] }).to_string()
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let header = json!({ "typ": "JWT", "alg": "EdDSA", "kid": self.kid });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let body = format!("{}.{}", encode(&header), encode(claims));
        let signature = self.pair.sign(body.as_bytes());
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

pub(super) fn birdy() -> Signer {
    Signer::new("k1", 1)
}

/// Good claims for this Noise key.
pub(super) fn claims(key: &StaticKey) -> Value {
    json!({
        "iss": ISSUER,
        "sub": "ada",
        "aud": AUDIENCE,
        "iat": NOW_S - 10,
        "exp": NOW_S + 3_600,
        "jti": "token-1",
        "cnf": { "kid": URL_SAFE_NO_PAD.encode(key.public()) },
    })
}

pub(super) fn token(key: &StaticKey) -> String {
    birdy().sign(&claims(key))
}

/// Good claims, changed.
pub(super) fn token_with(key: &StaticKey, change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims(key);
    change(&mut claims);
    birdy().sign(&claims)
}

pub(super) fn provider(id: u8, name: &str, signer: &Signer) -> dir::ProviderKeys {
    dir::ProviderKeys {
        provider_id: Bytes::copy_from_slice(&[id; 16]),
        domain: format!("{name}.example"),
        kind: pb::ProviderKind::ThirdParty.into(),
        issuer: format!("https://id.{name}.example"),
        status: dir::ProviderStatus::Live.into(),
        jwks: signer.jwks(),
        stale_at_ms: (NOW_S + 86_400) * 1_000,
        media_prefixes: vec![format!("https://media.{name}.example/v1/blobs/")],
    }
}

// ---- key-directory

pub(super) struct Directory {
    script: Mutex<Script>,
    updates: broadcast::Sender<dir::TokenKeysUpdate>,
    watches: AtomicUsize,
    watch: Mutex<CancellationToken>,
    pub(super) logins: AtomicUsize,
    pub(super) refetches: AtomicUsize,
    pub(super) broken: AtomicBool,
    /// Each refetch takes one.
    pub(super) refetch_permits: Semaphore,
}

pub(super) struct Script {
    pub(super) providers: Vec<dir::ProviderKeys>,
    /// Noise keys of ada's devices.
    pub(super) devices: HashMap<u32, [u8; 32]>,
    /// What a refetch brings.
    pub(super) fetched: Option<dir::ProviderKeys>,
    /// Names of the requests that came.
    pub(super) asked: Vec<&'static str>,
    /// Requests wait until it has a permit.
    pub(super) gate: Option<Arc<Semaphore>>,
}

impl Directory {
    fn new() -> Self {
        let script = Script {
            providers: vec![provider(1, "birdy", &birdy()), provider(2, "crow", &Signer::new("k1", 2))],
            devices: HashMap::new(),
            fetched: None,
            asked: Vec::new(),
            gate: None,
        };
        Self {
            script: Mutex::new(script),
            updates: broadcast::Sender::new(64),
            watches: AtomicUsize::new(0),
            watch: Mutex::default(),
            logins: AtomicUsize::new(0),
            refetches: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            refetch_permits: Semaphore::new(Semaphore::MAX_PERMITS),
        }
    }

    pub(super) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// Changes a provider, and tells the watchers.
    pub(super) fn put(&self, keys: dir::ProviderKeys) {
        let mut script = self.script();
        script.providers.retain(|known| known.provider_id != keys.provider_id);
        script.providers.push(keys.clone());
        let _nobody =
            self.updates.send(dir::TokenKeysUpdate { update: Some(dir::token_keys_update::Update::Provider(keys)) });
    }

    /// Ends the watch; the next one begins with everything, then says that this was all.
    pub(super) fn break_watch(&self) {
        self.watch.lock().unwrap().cancel();
    }

    async fn wait_for_watch(&self) {
        soon(async {
            while self.watches.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn asked(&self, name: &'static str) -> Result<(), Status> {
        let gate = {
            let mut script = self.script();
            script.asked.push(name);
            script.gate.clone()
        };
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        if self.broken.load(Ordering::SeqCst) { Err(Status::unavailable("broken")) } else { Ok(()) }
    }
}

fn directory_router(directory: &Arc<Directory>) -> grpc::Router {
    grpc::server()
        .add_service(dir::token_keys_server::TokenKeysServer::from_arc(Arc::clone(directory)))
        .add_service(dir::accounts_server::AccountsServer::from_arc(Arc::clone(directory)))
        .add_service(dir::prekeys_server::PrekeysServer::from_arc(Arc::clone(directory)))
        .add_service(dir::consent_server::ConsentServer::from_arc(Arc::clone(directory)))
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl dir::token_keys_server::TokenKeys for Directory {
    type WatchStream = BoxStream<'static, Result<dir::TokenKeysUpdate, Status>>;

    async fn watch(&self, _: Request<dir::WatchTokenKeys>) -> Answer<Self::WatchStream> {
        self.watches.fetch_add(1, Ordering::SeqCst);
        let script = self.script();
        let later = BroadcastStream::new(self.updates.subscribe()).filter_map(async |update| update.ok().map(Ok));
        let full = dir::FullSet { providers: script.providers.clone() };
        let first = dir::TokenKeysUpdate { update: Some(dir::token_keys_update::Update::Full(full)) };
        let heartbeat = dir::token_keys_update::Update::Heartbeat(dir::Heartbeat {});
        let all = Ok(dir::TokenKeysUpdate { update: Some(heartbeat) });
        let ended = CancellationToken::new();
        *self.watch.lock().unwrap() = ended.clone();
        let stream = futures::stream::iter([Ok(first), all]).chain(later).take_until(ended.cancelled_owned());
        Ok(Response::new(stream.boxed()))
    }

    async fn refetch(&self, _: Request<dir::RefetchTokenKeys>) -> Answer<dir::ProviderKeys> {
        self.refetches.fetch_add(1, Ordering::SeqCst);
        self.refetch_permits.acquire().await.unwrap().forget();
        let fetched = self.script().fetched.clone();
        match fetched {
            Some(keys) => {
                self.put(keys.clone());
                Ok(Response::new(keys))
            }
            None => Ok(Response::new(self.script().providers[0].clone())),
        }
    }
}

#[tonic::async_trait]
impl dir::accounts_server::Accounts for Directory {
    async fn login(&self, request: Request<dir::LoginRequest>) -> Answer<dir::LoginResponse> {
        self.logins.fetch_add(1, Ordering::SeqCst);
        if self.broken.load(Ordering::SeqCst) {
            return Err(Status::unavailable("broken"));
        }
        let request = request.into_inner();
        let key = self.script().devices.get(&request.device_id).copied();
        let outcome = match key {
            Some(key) if key == request.noise_key[..] => dir::login_response::Outcome::LoggedIn(dir::LoggedIn {
                account_id: Bytes::copy_from_slice(&ACCOUNT),
                registration_id: 77,
                device_count: 2,
                prekeys_low: true,
            }),
            Some(_) => dir::login_response::Outcome::Refused(pb::FailureReason::DeviceKey.into()),
            None => dir::login_response::Outcome::Refused(pb::FailureReason::DeviceUnknown.into()),
        };
        Ok(Response::new(dir::LoginResponse { outcome: Some(outcome) }))
    }

    async fn enlist(&self, request: Request<dir::EnlistRequest>) -> Answer<dir::EnlistResponse> {
        self.asked("enlist").await?;
        let request = request.into_inner();
        self.script().devices.insert(9, request.noise_key[..].try_into().unwrap());
        let enlisted = pb::Enlisted { account_id: Bytes::copy_from_slice(&ACCOUNT), device_id: 9 };
        let outcome = Some(dir::enlist_response::Outcome::Enlisted(enlisted));
        Ok(Response::new(dir::EnlistResponse { outcome }))
    }

    async fn devices(&self, _: Request<dir::AccountRef>) -> Answer<dir::DevicesResponse> {
        self.asked("devices").await?;
        let device = pb::Device { id: 1, registration_id: 77, enlisted_ms: 5 };
        let outcome = Some(dir::devices_response::Outcome::Devices(pb::Devices { devices: vec![device] }));
        Ok(Response::new(dir::DevicesResponse { outcome }))
    }

    async fn remove_device(&self, request: Request<dir::RemoveDeviceRequest>) -> Answer<dir::DoneResponse> {
        self.asked("remove-device").await?;
        self.script().devices.remove(&request.into_inner().device_id);
        Ok(Response::new(done()))
    }

    async fn withdraw(&self, _: Request<dir::AccountRef>) -> Answer<dir::DoneResponse> {
        self.asked("withdraw").await?;
        Ok(Response::new(done()))
    }

    async fn discover(&self, _: Request<dir::DiscoverRequest>) -> Answer<dir::DoneResponse> {
        self.asked("discover").await?;
        let refusal = dir::Refusal { code: pb::ErrorCode::NotAvailable.into(), ..dir::Refusal::default() };
        Ok(Response::new(dir::DoneResponse { outcome: Some(dir::done_response::Outcome::Refused(refusal)) }))
    }

    async fn set_push(&self, _: Request<dir::SetPushRequest>) -> Answer<dir::DoneResponse> {
        self.asked("push").await?;
        Ok(Response::new(done()))
    }
}

fn done() -> dir::DoneResponse {
    dir::DoneResponse { outcome: Some(dir::done_response::Outcome::Done(dir::Done {})) }
}

#[tonic::async_trait]
impl dir::prekeys_server::Prekeys for Directory {
    async fn publish(&self, _: Request<dir::PublishRequest>) -> Answer<dir::KeyCountsResponse> {
        self.asked("publish").await?;
        Ok(Response::new(counts()))
    }

    async fn count(&self, _: Request<dir::DeviceRef>) -> Answer<dir::KeyCountsResponse> {
        self.asked("count").await?;
        Ok(Response::new(counts()))
    }

    async fn claim(&self, _: Request<dir::ClaimRequest>) -> Answer<dir::ClaimResponse> {
        self.asked("claim").await?;
        let bundles = pb::KeyBundles { account_id: Bytes::copy_from_slice(&ACCOUNT), bundles: Vec::new() };
        Ok(Response::new(dir::ClaimResponse { outcome: Some(dir::claim_response::Outcome::Bundles(bundles)) }))
    }
}

fn counts() -> dir::KeyCountsResponse {
    let counts = pb::KeyCounts { ec: 3, kyber: 4 };
    dir::KeyCountsResponse { outcome: Some(dir::key_counts_response::Outcome::Counts(counts)) }
}

#[tonic::async_trait]
impl dir::consent_server::Consent for Directory {
    async fn get(&self, _: Request<dir::AccountRef>) -> Answer<dir::ConsentResponse> {
        self.asked("consent-get").await?;
        Ok(Response::new(consent()))
    }

    async fn set(&self, _: Request<dir::SetConsentRequest>) -> Answer<dir::ConsentResponse> {
        self.asked("consent-set").await?;
        Ok(Response::new(consent()))
    }
}

fn consent() -> dir::ConsentResponse {
    let settings = pb::ConsentSettings {
        interop: true,
        providers: Vec::new(),
        inbox: pb::InboxSetting::Combined.into(),
        reach: pb::Reach::Everyone.into(),
    };
    dir::ConsentResponse { outcome: Some(dir::consent_response::Outcome::Settings(settings)) }
}

// ---- media-relay

struct Tickets;

#[tonic::async_trait]
impl media::tickets_server::Tickets for Tickets {
    async fn upload(&self, _: Request<media::UploadRequest>) -> Answer<media::Ticket> {
        let mut status = Status::resource_exhausted("quota");
        status.metadata_mut().insert("retry-after-ms", "1234".parse().unwrap());
        Err(status)
    }

    async fn download(&self, request: Request<media::DownloadRequest>) -> Answer<media::Ticket> {
        let url = request.into_inner().url;
        let ticket = "t".to_owned();
        Ok(Response::new(media::Ticket { url, ticket, expires_ms: 9, public_url: String::new() }))
    }
}

// ---- routing

type ToEdgeSender = mpsc::Sender<Result<routing::ToEdge, Status>>;

pub(super) struct Routing {
    pub(super) name: String,
    seen: mpsc::UnboundedSender<(SessionId, FromEdge)>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<(SessionId, FromEdge)>>,
    link: Mutex<Option<(ToEdgeSender, CancellationToken)>>,
    /// Answers each attach at once.
    pub(super) attaches: Arc<AtomicBool>,
    /// Refuses links.
    pub(super) down: AtomicBool,
}

impl Routing {
    fn new(name: String) -> Self {
        let (seen, events) = mpsc::unbounded_channel();
        Self {
            name,
            seen,
            events: tokio::sync::Mutex::new(events),
            link: Mutex::new(None),
            attaches: Arc::new(AtomicBool::new(true)),
            down: AtomicBool::new(false),
        }
    }

    /// The next event from the edge.
    pub(super) async fn next(&self) -> (SessionId, FromEdge) {
        soon(async { self.events.lock().await.recv().await.unwrap() }).await
    }

    /// The attach that must be next.
    pub(super) async fn attached(&self) -> (SessionId, routing::Attach) {
        match self.next().await {
            (id, FromEdge::Attach(attach)) => (id, attach),
            (_, other) => panic!("{other:?}"),
        }
    }

    pub(super) async fn detached(&self) -> SessionId {
        match self.next().await {
            (id, FromEdge::Detach(_)) => id,
            (_, other) => panic!("{other:?}"),
        }
    }

    /// True if nothing has come that was not taken.
    pub(super) fn is_quiet(&self) -> bool {
        self.events.try_lock().unwrap().is_empty()
    }

    pub(super) async fn say(&self, session: SessionId, event: ToEdge) {
        let (link, _) = self.link.lock().unwrap().clone().unwrap();
        soon(link.send(Ok(to_edge(session, event)))).await.unwrap();
    }

    /// Says all of it in one batch.
    pub(super) async fn say_all(&self, session: SessionId, events: impl IntoIterator<Item = ToEdge>) {
        let (link, _) = self.link.lock().unwrap().clone().unwrap();
        let events = events.into_iter().flat_map(|event| to_edge(session, event).events).collect();
        soon(link.send(Ok(routing::ToEdge { events, ..routing::ToEdge::default() }))).await.unwrap();
    }

    pub(super) async fn say_draining(&self) {
        let (link, _) = self.link.lock().unwrap().clone().unwrap();
        soon(link.send(Ok(routing::ToEdge { draining: true, ..routing::ToEdge::default() }))).await.unwrap();
    }

    /// The message that must be next, by the first byte of its id.
    pub(super) async fn submitted(&self) -> (SessionId, u8) {
        match self.next().await {
            (id, FromEdge::Submit(submitted)) => (id, submitted.message.unwrap().id[0]),
            (_, other) => panic!("{other:?}"),
        }
    }

    /// It is gone and does not come back.
    pub(super) fn die(&self) {
        self.down.store(true, Ordering::SeqCst);
        self.break_link();
    }

    pub(super) fn break_link(&self) {
        if let Some((_, ended)) = self.link.lock().unwrap().take() {
            ended.cancel();
        }
    }
}

fn to_edge(session: SessionId, event: ToEdge) -> routing::ToEdge {
    let session_id = Bytes::copy_from_slice(session.as_bytes());
    routing::ToEdge {
        events: vec![routing::RoutingEvent { session_id, event: Some(event), ..routing::RoutingEvent::default() }],
        ..routing::ToEdge::default()
    }
}

#[tonic::async_trait]
impl routing::routing_server::Routing for Routing {
    type LinkStream = BoxStream<'static, Result<routing::ToEdge, Status>>;

    async fn link(&self, request: Request<Streaming<routing::FromEdge>>) -> Answer<Self::LinkStream> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Status::unavailable("down"));
        }
        let (sender, receiver) = mpsc::channel(8);
        let hello = routing::Hello { name: self.name.clone() };
        sender.try_send(Ok(routing::ToEdge { hello: Some(hello), ..routing::ToEdge::default() })).unwrap();
        let ended = CancellationToken::new();
        *self.link.lock().unwrap() = Some((sender.clone(), ended.clone()));
        let (seen, answers) = (self.seen.clone(), Arc::clone(&self.attaches));
        let mut incoming = request.into_inner();
        let closing = ended.clone();
        let reading = async move {
            while let Some(Ok(Some(batch))) = closing.run_until_cancelled(incoming.message()).await {
                for event in batch.events {
                    let id = SessionId::try_from(&event.session_id[..]).unwrap();
                    let event = event.event.unwrap();
                    let attach = matches!(&event, FromEdge::Attach(attach) if !attach.submits_only);
                    seen.send((id, event)).unwrap();
                    if attach && answers.load(Ordering::SeqCst) {
                        let answer = ToEdge::Attached(routing::Attached { waiting: 3, number: 1 });
                        let _gone = sender.send(Ok(to_edge(id, answer))).await;
                    }
                }
            }
            closing.cancel();
        };
        tokio::spawn(reading);
        let outgoing = ReceiverStream::new(receiver).take_until(ended.cancelled_owned());
        Ok(Response::new(outgoing.boxed()))
    }
}
