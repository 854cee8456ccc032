//! A key-directory with everything in one place, which outlives crashes: what is simulated is delivery, not the directory.
//! Its promise to followers is kept as the real one keeps it: a change is confirmed when every follower has acknowledged it,
//! or its lease is over.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use causeway_proto::directory::v1 as dir;
use causeway_proto::directory::v1::followed_message::Change as Followed;
use causeway_proto::wire::v1 as pb;
use causeway_runtime::grpc::Router;
use futures::{Stream, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::clock::BEGIN_S;
use crate::people::{PROVIDERS, Person, account_id, address, issuer, jwks, provider};

const LEASE: Duration = Duration::from_secs(2);
/// A lease may be this much longer on its way than the ping that it answers: none, since it counts from the ping.
const QUEUE: usize = 256;

/// The directory. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Directory(Arc<Mutex<State>>);

struct State {
    devices: BTreeMap<u8, Vec<Person>>,
    /// Accounts that let nobody in.
    closed: BTreeMap<u8, bool>,
    last_number: u64,
    last_follower: u64,
    followers: BTreeMap<u64, Follower>,
    progress: watch::Sender<u64>,
}

struct Follower {
    messages: mpsc::Sender<Result<dir::FollowedMessage, Status>>,
    acknowledged: u64,
    trusts_until: Instant,
    cut: bool,
}

type Answer<T> = Result<Response<T>, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Directory {
    pub(crate) fn new(people: &[Person]) -> Self {
        let mut devices: BTreeMap<u8, Vec<Person>> = BTreeMap::new();
        for person in people {
            devices.entry(person.account).or_default().push(*person);
        }
        Self(Arc::new(Mutex::new(State {
            devices,
            closed: BTreeMap::new(),
            last_number: 0,
            last_follower: 0,
            followers: BTreeMap::new(),
            progress: watch::Sender::new(0),
        })))
    }

    pub(crate) fn router(&self) -> Router {
        causeway_runtime::grpc::server()
            .add_service(dir::token_keys_server::TokenKeysServer::new(self.clone()))
            .add_service(dir::accounts_server::AccountsServer::new(self.clone()))
            .add_service(dir::records_server::RecordsServer::new(self.clone()))
    }

    /// Opens or closes an account; returns when no follower acts on what was before.
    pub(crate) async fn set_closed(&self, account: u8, closed: bool) {
        let number = {
            let mut state = self.state();
            state.closed.insert(account, closed);
            state.last_number += 1;
            let number = state.last_number;
            let changed = dir::RecordChanged {
                address: address(account).as_str().to_owned(),
                account_id: Bytes::copy_from_slice(account_id(account).as_bytes()),
                what: dir::RecordChange::Consent.into(),
                ..dir::RecordChanged::default()
            };
            for follower in state.followers.values_mut() {
                let message = dir::FollowedMessage { number, change: Some(Followed::Record(changed.clone())) };
                follower.cut |= follower.messages.try_send(Ok(message)).is_err();
            }
            number
        };
        let asked = Instant::now();
        let mut progress = self.state().progress.subscribe();
        loop {
            let wait_until = {
                let now = Instant::now();
                let mut state = self.state();
                for follower in state.followers.values_mut().filter(|follower| follower.acknowledged < number) {
                    // Without an acknowledgement for a lease it gets no further one.
                    follower.cut |= asked + LEASE <= now;
                }
                let waits = state.followers.values().filter(|follower| follower.acknowledged < number);
                waits.map(|follower| follower.trusts_until.max(asked)).filter(|until| *until > now).min()
            };
            let Some(until) = wait_until else { return };
            tokio::select! {
                biased;
                changed = progress.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn record(&self, wanted: &str) -> Option<dir::Record> {
        let (account, devices) = self.devices.iter().find(|(account, _)| address(**account).as_str() == wanted)?;
        let devices = devices.iter().map(|person| dir::RecordDevice {
            id: person.device_id().get(),
            registration_id: person.registration(),
            push_token: Bytes::new(),
        });
        Some(dir::Record {
            account_id: Bytes::copy_from_slice(account_id(*account).as_bytes()),
            address: wanted.to_owned(),
            provider_domain: provider(*account).to_owned(),
            provider_kind: kind(provider(*account)).into(),
            provider_status: dir::ProviderStatus::Live.into(),
            devices: devices.collect(),
            consent: Some(pb::ConsentSettings {
                interop: !self.closed.get(account).copied().unwrap_or_default(),
                providers: Vec::new(),
                inbox: pb::InboxSetting::Separate.into(),
                reach: pb::Reach::Everyone.into(),
            }),
        })
    }
}

fn kind(provider: &str) -> pb::ProviderKind {
    if provider == PROVIDERS[0] { pb::ProviderKind::Home } else { pb::ProviderKind::ThirdParty }
}

fn keys(index: usize) -> dir::ProviderKeys {
    let domain = PROVIDERS[index];
    dir::ProviderKeys {
        provider_id: Bytes::copy_from_slice(&[u8::try_from(index).unwrap_or(0) + 1; 16]),
        domain: domain.to_owned(),
        kind: kind(domain).into(),
        issuer: issuer(domain),
        status: dir::ProviderStatus::Live.into(),
        jwks: jwks(domain),
        stale_at_ms: (BEGIN_S + 86_400) * 1_000,
        media_prefixes: Vec::new(),
    }
}

#[tonic::async_trait]
impl dir::token_keys_server::TokenKeys for Directory {
    type WatchStream = Streamed<dir::TokenKeysUpdate>;

    async fn watch(&self, _: Request<dir::WatchTokenKeys>) -> Answer<Self::WatchStream> {
        use dir::token_keys_update::Update;
        let all = dir::FullSet { providers: (0..PROVIDERS.len()).map(keys).collect() };
        let update = |update| Ok(dir::TokenKeysUpdate { update: Some(update) });
        let first = futures::stream::iter([update(Update::Full(all)), update(Update::Heartbeat(dir::Heartbeat {}))]);
        let beats = futures::stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok(dir::TokenKeysUpdate { update: Some(Update::Heartbeat(dir::Heartbeat {})) }), ()))
        });
        Ok(Response::new(Box::pin(first.chain(beats))))
    }

    async fn refetch(&self, _: Request<dir::RefetchTokenKeys>) -> Answer<dir::ProviderKeys> {
        Ok(Response::new(keys(0)))
    }
}

#[tonic::async_trait]
impl dir::accounts_server::Accounts for Directory {
    async fn login(&self, request: Request<dir::LoginRequest>) -> Answer<dir::LoginResponse> {
        use dir::login_response::Outcome;
        let request = request.into_inner();
        let state = self.state();
        let found = state.devices.iter().find(|(account, _)| address(**account).as_str() == request.address);
        let device = found.and_then(|(account, devices)| {
            let device = devices.iter().find(|person| person.device_id().get() == request.device_id)?;
            Some((account, devices, device))
        });
        let outcome = match device {
            Some((account, devices, device)) if device.noise_key().public()[..] == request.noise_key[..] => {
                Outcome::LoggedIn(dir::LoggedIn {
                    account_id: Bytes::copy_from_slice(account_id(*account).as_bytes()),
                    registration_id: device.registration(),
                    device_count: u32::try_from(devices.len()).unwrap_or(u32::MAX),
                    prekeys_low: false,
                })
            }
            Some(_) => Outcome::Refused(pb::FailureReason::DeviceKey.into()),
            None => Outcome::Refused(pb::FailureReason::DeviceUnknown.into()),
        };
        Ok(Response::new(dir::LoginResponse { outcome: Some(outcome) }))
    }

    async fn enlist(&self, _: Request<dir::EnlistRequest>) -> Answer<dir::EnlistResponse> {
        Err(Status::unimplemented("everybody is enlisted"))
    }

    async fn devices(&self, _: Request<dir::AccountRef>) -> Answer<dir::DevicesResponse> {
        Err(Status::unimplemented("not simulated"))
    }

    async fn remove_device(&self, _: Request<dir::RemoveDeviceRequest>) -> Answer<dir::DoneResponse> {
        Err(Status::unimplemented("not simulated"))
    }

    async fn withdraw(&self, _: Request<dir::AccountRef>) -> Answer<dir::DoneResponse> {
        Err(Status::unimplemented("not simulated"))
    }

    async fn discover(&self, _: Request<dir::DiscoverRequest>) -> Answer<dir::DoneResponse> {
        Err(Status::unimplemented("not simulated"))
    }

    async fn set_push(&self, _: Request<dir::SetPushRequest>) -> Answer<dir::DoneResponse> {
        Err(Status::unimplemented("not simulated"))
    }
}

#[tonic::async_trait]
impl dir::records_server::Records for Directory {
    async fn get(&self, request: Request<dir::GetRecord>) -> Answer<dir::RecordResponse> {
        Ok(Response::new(dir::RecordResponse { record: self.state().record(&request.get_ref().address) }))
    }

    type FollowStream = Streamed<dir::FollowedMessage>;

    async fn follow(&self, request: Request<Streaming<dir::FollowerMessage>>) -> Answer<Self::FollowStream> {
        let (messages, stream) = mpsc::channel(QUEUE);
        let id = {
            let mut state = self.state();
            state.last_follower += 1;
            let now = Instant::now();
            // Those that are gone matter until they stop trusting their caches.
            state.followers.retain(|_, follower| !follower.cut || follower.trusts_until > now);
            let follower = Follower { messages, acknowledged: state.last_number, trusts_until: now, cut: false };
            let id = state.last_follower;
            state.followers.insert(id, follower);
            id
        };
        let (this, mut heard) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Some(Ok(message)) = heard.next().await {
                if !this.hear(id, &message) {
                    break;
                }
            }
            this.end(id);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn webhook(&self, _: Request<dir::GetWebhook>) -> Answer<dir::WebhookResponse> {
        Ok(Response::new(dir::WebhookResponse { webhook: None }))
    }
}

impl Directory {
    /// A follower says something; false when it is cut off.
    fn hear(&self, id: u64, message: &dir::FollowerMessage) -> bool {
        let mut state = self.state();
        let Some(follower) = state.followers.get_mut(&id) else { return false };
        follower.acknowledged = follower.acknowledged.max(message.acked);
        let serves = !follower.cut;
        if serves && message.ping > 0 {
            // It counts from when it sent the ping, which was before now.
            follower.trusts_until = follower.trusts_until.max(Instant::now() + LEASE);
            let lease = dir::Lease { lease_ms: u32::try_from(LEASE.as_millis()).unwrap_or(0), pong: message.ping };
            let message = dir::FollowedMessage { number: 0, change: Some(Followed::Lease(lease)) };
            follower.cut |= follower.messages.try_send(Ok(message)).is_err();
        }
        state.progress.send_modify(|count| *count += 1);
        serves
    }

    fn end(&self, id: u64) {
        let mut state = self.state();
        if let Some(follower) = state.followers.get_mut(&id) {
            follower.cut = true;
            // Ends the stream.
            follower.messages = mpsc::channel(1).0;
        }
        state.progress.send_modify(|count| *count += 1);
    }
}
