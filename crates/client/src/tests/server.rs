//! The server: one process, no disk, no consent.

mod state;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use causeway_identity::{
    Address, DeviceAddress, DeviceId, MessageId, NoiseKey, RootKey, RootPublicKey, ServerCertificate, Validity,
};
use causeway_noise::transport::{self, Connection};
use causeway_noise::{Limits, Received, StaticKey};
use causeway_stanza as stanza;
use causeway_stanza::hello::{ClientHello, ServerHello};
use causeway_stanza::{
    Delivery, Encoding, End, EndReason, ErrorCode, FromClient, FromServer, Inbox, IqError, Notification, Origin,
    Outcome, ProviderKind, Request, RequestBody, Response, ResponseBody, Submit, decode_client, encode_server,
};
use rand::TryRngCore;
use rand::rngs::OsRng;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use self::state::Online;
pub(super) use self::state::{Device, State};

pub(super) const DEPLOYMENT: &str = "test.causeway";

/// A handle; clones are the same server.
#[derive(Clone)]
pub(super) struct Server {
    state: Arc<Mutex<State>>,
    pub(super) port: u16,
    changed: watch::Sender<u64>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self { state: Arc::default(), port, changed: watch::Sender::new(0) };
        server.new_static_key();
        let this = server.clone();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let this = this.clone();
                tokio::spawn(async move { this.connection(tcp).await });
            }
        });
        server
    }

    pub(super) fn root() -> RootPublicKey {
        root_key().public()
    }

    /// As after a restart with other keys.
    pub(super) fn new_static_key(&self) {
        let key = StaticKey::generate(&mut OsRng.unwrap_err());
        let public = NoiseKey::new(*key.public()).unwrap();
        self.certify(&root_key(), DEPLOYMENT, &public, -1000, 1000);
        self.state().static_key = Some(Arc::new(key));
    }

    /// Another certificate for the present key.
    pub(super) fn recertify(&self, root: &RootKey, deployment: &str, from_s: i64, to_s: i64) {
        let public = NoiseKey::new(*self.state().static_key.as_ref().unwrap().public()).unwrap();
        self.certify(root, deployment, &public, from_s, to_s);
    }

    #[expect(clippy::disallowed_methods, reason = "the test's server has a real clock")]
    fn certify(&self, root: &RootKey, deployment: &str, key: &NoiseKey, from_s: i64, to_s: i64) {
        let at = |s: i64| {
            let by = Duration::from_secs(s.unsigned_abs());
            if s < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
        };
        let validity = Validity { not_before: at(from_s), not_after: at(to_s) };
        self.state().certificate = Some(ServerCertificate::issue(root, deployment, key, validity).unwrap());
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the state is as wanted.
    pub(super) async fn until(&self, wanted: impl Fn(&State) -> bool) {
        let mut changes = self.changed.subscribe();
        while !wanted(&self.state()) {
            changes.changed().await.unwrap();
        }
    }

    /// Ends sessions with a reason, or without a word.
    pub(super) fn end(&self, address: &Address, reason: Option<EndReason>) {
        for device in self.state().accounts.get_mut(address).unwrap().devices.values_mut() {
            if let Some(online) = device.online.take()
                && let Some(reason) = reason
            {
                let _ = online.to.send(FromServer::End(End::new(reason)));
            }
        }
        self.changed.send_modify(|change| *change += 1);
    }

    /// Answers the enlistments that wait for it.
    pub(super) fn answer_late(&self) {
        let mut state = self.state();
        state.faults.answer_enlistments_late = false;
        for (to, answer) in state.late.drain(..) {
            let _ = to.send(answer);
        }
    }

    /// Takes a device off the list, as another device of the user would.
    pub(super) fn remove_device(&self, address: &Address, device: DeviceId) {
        self.state().accounts.get_mut(address).unwrap().devices.remove(&device);
        self.changed.send_modify(|change| *change += 1);
    }

    /// A retry request that the server makes up.
    pub(super) fn inject(&self, from: &Address, device: DeviceId, to: &Address, request: &[u8]) {
        let mut state = self.state();
        let from_account = state.accounts[from].id;
        let delivery = Delivery {
            id: MessageId::from_bytes([0xee; 16]),
            from: DeviceAddress { account: from.clone(), device },
            from_account,
            class: stanza::MessageClass::Chat,
            ts_ms: 1,
            tag: 1,
            origin: origin(from),
            kind: stanza::EncType::Plaintext,
            ciphertext: stanza::Ciphertext::try_from(request.to_vec()).unwrap(),
        };
        for device in state.accounts.get_mut(to).unwrap().devices.values_mut() {
            device.mailbox.push_back(delivery.clone());
            device.deliver(delivery.clone());
        }
    }

    pub(super) fn notify(&self, address: &Address, notification: &Notification) {
        for device in self.state().accounts.get_mut(address).unwrap().devices.values_mut() {
            if let Some(online) = &device.online {
                let _ = online.to.send(FromServer::Notification(notification.clone()));
            }
        }
    }

    async fn connection(self, tcp: TcpStream) {
        let (key, certificate) = {
            let state = self.state();
            (Arc::clone(state.static_key.as_ref().unwrap()), state.certificate.clone().unwrap())
        };
        let hello = || {
            let limits = stanza::hello::Limits { max_stanza_bytes: 256 * 1024, ping_interval_ms: 30_000 };
            #[expect(clippy::disallowed_methods, reason = "the test's server has a real clock")]
            let now = SystemTime::now();
            ServerHello { certificate: certificate.to_proto(), server_time_ms: crate::clock::ms(now), limits }.encode()
        };
        let accepted = transport::accept(tcp, &key, Limits::server(), &mut OsRng.unwrap_err(), hello).await;
        let Ok(accepted) = accepted else { return };
        let Ok(hello) = ClientHello::decode(&accepted.client_hello) else { return };
        let Connection { mut reader, mut writer } = accepted.connection;
        let (to, mut outgoing) = mpsc::unbounded_channel();
        let mut session = Session {
            server: self.clone(),
            number: 0,
            noise: accepted.client_key,
            address: address_of(hello.token.as_str()),
            device: hello.device,
            to,
        };
        let first = {
            let mut state = self.state();
            state.stats.logins += 1;
            state.stats.resumed += u32::from(accepted.pattern == causeway_noise::Pattern::Ik);
            state.stats.tokens.push(hello.token.as_str().to_owned());
            session.number = u64::from(state.stats.logins);
            state.login(&session)
        };
        let refused = matches!(first, FromServer::Failure(_));
        if writer.send(&encode_server(hello.encoding, first)).await.is_err() || refused {
            return;
        }
        session.attach();
        self.changed.send_modify(|change| *change += 1);
        loop {
            tokio::select! {
                biased;
                received = reader.read() => {
                    let Ok(Some(received)) = received else { break };
                    let Received::Record(record) = received else { continue };
                    let stanza = decode_client(hello.encoding, &record).expect("the client writes stanzas");
                    let goes_on = session.handle(stanza);
                    self.changed.send_modify(|change| *change += 1);
                    if !goes_on { break }
                }
                stanza = outgoing.recv() => {
                    let Some(stanza) = stanza else { break };
                    let last = matches!(stanza, FromServer::End(_));
                    if writer.send(&encode_server(hello.encoding, stanza)).await.is_err() || last { break }
                }
                // Another session took over, or the test cut this one.
                () = session.replaced() => break,
            }
        }
        session.detach();
        self.changed.send_modify(|change| *change += 1);
    }
}

fn origin(from: &Address) -> Origin {
    Origin {
        provider: from.provider().parse().unwrap(),
        kind: ProviderKind::ThirdParty,
        protocol: stanza::Text::try_from("signal").unwrap(),
        inbox: Inbox::ThirdParty,
    }
}

fn root_key() -> RootKey {
    RootKey::from_seed([42; 32])
}

/// The token of these tests says who it is for and nothing else.
pub(super) fn token_for(address: &Address, number: u32, expires_s: u64) -> String {
    let claims = format!(r#"{{"exp":{expires_s},"sub":"{address}","jti":"{number}"}}"#);
    let claims = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims);
    format!("e30.{claims}.x")
}

fn address_of(token: &str) -> Address {
    let claims = token.split('.').nth(1).unwrap();
    let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    claims["sub"].as_str().unwrap().parse().unwrap()
}

struct Session {
    server: Server,
    number: u64,
    noise: [u8; 32],
    address: Address,
    device: Option<DeviceId>,
    to: mpsc::UnboundedSender<FromServer>,
}

impl Session {
    fn send(&self, stanza: FromServer) {
        let _ = self.to.send(stanza);
    }

    /// From now on the device is here, and gets what waits.
    fn attach(&self) {
        let mut state = self.server.state();
        let Some(device) = state.device(&self.address, self.device) else { return };
        if let Some(old) = device.online.take() {
            let _ = old.to.send(FromServer::End(End::new(EndReason::Replaced)));
        }
        device.online = Some(Online { session: self.number, to: self.to.clone(), next_tag: 1, sent: VecDeque::new() });
        for delivery in device.mailbox.clone() {
            device.deliver(delivery);
        }
    }

    fn detach(&self) {
        let mut state = self.server.state();
        if let Some(device) = state.device(&self.address, self.device)
            && device.online.as_ref().is_some_and(|online| online.session == self.number)
        {
            device.online = None;
        }
    }

    async fn replaced(&self) {
        self.server
            .until(|state| {
                let Some(id) = self.device else { return false };
                let device = state.accounts.get(&self.address).and_then(|account| account.devices.get(&id));
                let here = device.and_then(|device| device.online.as_ref());
                here.is_none_or(|online| online.session != self.number)
            })
            .await;
    }

    fn handle(&mut self, stanza: FromClient) -> bool {
        match stanza {
            FromClient::Message(submit) => return self.submit(submit),
            FromClient::Ack(tag) => return self.server.state().processed(&self.address, self.device, self.number, tag),
            FromClient::Iq(request) => self.request(request),
            FromClient::Ping(n) => self.send(FromServer::Pong(n)),
            FromClient::End(_) => return false,
            FromClient::Pong(_) | FromClient::UnsolicitedIq => {}
        }
        true
    }

    fn submit(&self, submit: Submit) -> bool {
        let (id, to) = (submit.id, submit.to.clone());
        let mut state = self.server.state();
        state.stats.submits += 1;
        let Some(own) = self.device else { return false };
        let fate = state.accept(&self.address, own, submit);
        if state.faults.lose_outcomes > 0 {
            state.faults.lose_outcomes -= 1;
            return false;
        }
        self.send(FromServer::Ack(Outcome { id, to, fate }));
        true
    }

    fn request(&mut self, request: Request) {
        let mut state = self.server.state();
        let body = match request.body {
            RequestBody::Enlist(enlist) => state.enlist(self, enlist),
            RequestBody::KeysPublish(keys) => {
                let device = state.device(&self.address, self.device).unwrap();
                assert_eq!(device.identity, keys.identity_key);
                device.ec.extend(keys.ec_prekeys.into_vec());
                device.kyber.extend(keys.kyber_prekeys.into_vec());
                device.signed = keys.signed_prekey.unwrap_or(device.signed.clone());
                device.last_resort = keys.last_resort_kyber.unwrap_or(device.last_resort.clone());
                ResponseBody::KeyCounts(device.counts())
            }
            RequestBody::KeysCount => {
                ResponseBody::KeyCounts(state.device(&self.address, self.device).unwrap().counts())
            }
            RequestBody::KeysClaim(claim) => state.claim(self, &claim.address, &claim.devices),
            RequestBody::DevicesList => ResponseBody::Devices(state.list(&self.address)),
            RequestBody::DeviceRemove(id) => {
                state.accounts.get_mut(&self.address).unwrap().devices.remove(&id);
                ResponseBody::Done
            }
            RequestBody::ConsentGet => ResponseBody::Consent(state.accounts[&self.address].consent.clone()),
            RequestBody::ConsentSet(settings) => {
                state.accounts.get_mut(&self.address).unwrap().consent = settings.clone();
                ResponseBody::Consent(settings)
            }
            RequestBody::Discover(address) => {
                let there = state.accounts.contains_key(&address) && !state.faults.closed.contains(&address);
                if there { ResponseBody::Done } else { error(ErrorCode::NotAvailable) }
            }
            RequestBody::TokenRefresh(token) => {
                state.stats.refreshed.push(token.as_str().to_owned());
                ResponseBody::Done
            }
            RequestBody::Withdraw => {
                state.accounts.remove(&self.address);
                ResponseBody::Done
            }
            RequestBody::Push(_) => ResponseBody::Done,
            _ => error(ErrorCode::Unsupported),
        };
        let enlisted = match &body {
            ResponseBody::Enlisted(enlisted) => Some(enlisted.device),
            _ => None,
        };
        let answer = FromServer::Iq(Response { id: request.id, body });
        if enlisted.is_some() && state.faults.answer_enlistments_late {
            state.late.push((self.to.clone(), answer));
        } else {
            self.send(answer);
        }
        drop(state);
        if enlisted.is_some() {
            self.device = enlisted;
            self.attach();
        }
    }
}

fn error(code: ErrorCode) -> ResponseBody {
    ResponseBody::Error(IqError::new(code))
}

/// Unused encodings would hide a client that speaks only one.
pub(super) const ENCODINGS: [Encoding; 2] = [Encoding::Binary, Encoding::Xml];
