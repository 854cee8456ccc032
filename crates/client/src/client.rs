//! The handle that an application holds.

use std::sync::Arc;

use causeway_identity::{Address, DeviceAddress, DeviceId, MessageId};
use causeway_stanza as stanza;
use causeway_stanza::{ConsentSettings, ErrorCode, KeyCounts, MediaTicket, Reach, RequestBody, ResponseBody};
use rand::CryptoRng;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::{Clock, SystemClock};
use crate::config::ClientConfig;
use crate::content::Content;
use crate::engine::{self, Command, Status};
use crate::error::ClientError;
use crate::event::{Ended, Outcome};
use crate::events::Events;
use crate::random;
use crate::store::Store;
use crate::token::TokenSource;

/// One device of one user, connected for as long as a handle exists. Clones are the same client.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    address: Address,
    noise_public: [u8; 32],
}

impl Client {
    /// Opens the device in `store`, or makes its keys if the store is fresh, and starts to connect.
    ///
    /// # Errors
    /// [`ClientError::Config`] and [`ClientError::Store`]. Whether the server is there shows in the events.
    pub async fn open(
        config: ClientConfig,
        store: Arc<dyn Store>,
        tokens: Arc<dyn TokenSource>,
    ) -> Result<(Self, Events), ClientError> {
        Self::open_with(config, store, tokens, Arc::new(SystemClock), random::system()).await
    }

    /// [`Client::open`] with a clock and randomness of the caller's choice, for tests.
    ///
    /// # Errors
    /// The same.
    pub async fn open_with(
        config: ClientConfig,
        store: Arc<dyn Store>,
        tokens: Arc<dyn TokenSource>,
        clock: Arc<dyn Clock>,
        random: Box<dyn CryptoRng + Send + Sync>,
    ) -> Result<(Self, Events), ClientError> {
        config.check()?;
        let address = config.address.clone();
        let started = engine::start(config, store, tokens, clock, random).await?;
        let client =
            Self { commands: started.commands, status: started.status, address, noise_public: started.noise_public };
        Ok((client, started.events))
    }

    /// The user's address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// This device; `None` before it is enlisted.
    pub fn device(&self) -> Option<DeviceAddress> {
        let device = self.status.borrow().device?;
        Some(DeviceAddress { account: self.address.clone(), device })
    }

    /// The device's X25519 public key, to which tokens are bound.
    pub fn noise_public(&self) -> [u8; 32] {
        self.noise_public
    }

    /// Waits until a session is open; returns at once while one is.
    ///
    /// # Errors
    /// [`ClientError::Ended`].
    pub async fn connected(&self) -> Result<(), ClientError> {
        let mut status = self.status.clone();
        match status.wait_for(|status| status.connected || status.ended.is_some()).await {
            Ok(status) if status.connected => Ok(()),
            Ok(status) => Err(ClientError::Ended(status.ended.unwrap_or(Ended::Shutdown))),
            Err(_) => Err(ClientError::Ended(Ended::Shutdown)),
        }
    }

    // ---- the account

    /// Opts the user in to the network with this device, which then has an id. Again is no error. Waits for a connection.
    ///
    /// After [`ClientError::Timeout`] the device may still be enlisted, if the server has been asked and its answer is late:
    /// [`Client::device`] tells, and enlisting again waits for that answer.
    ///
    /// # Errors
    /// [`ClientError::Refused`] (`device-limit`, ...), [`ClientError::Timeout`].
    pub async fn enlist(&self) -> Result<DeviceAddress, ClientError> {
        let device = self.ask(|reply| Command::Enlist { reply }).await?;
        Ok(DeviceAddress { account: self.address.clone(), device })
    }

    /// Switches interoperability on and lets everyone write, keeping the other consent settings.
    ///
    /// # Errors
    /// As [`Client::set_consent`].
    pub async fn opt_in(&self) -> Result<ConsentSettings, ClientError> {
        let settings = self.consent().await?;
        self.set_consent(ConsentSettings { interop: true, reach: Reach::Everyone, ..settings }).await
    }

    /// The user's consent settings.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Timeout`].
    pub async fn consent(&self) -> Result<ConsentSettings, ClientError> {
        match self.request(RequestBody::ConsentGet).await? {
            ResponseBody::Consent(settings) => Ok(settings),
            _ => Err(ClientError::Protocol),
        }
    }

    /// Replaces the consent settings; a narrower setting holds everywhere when this returns.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Timeout`].
    pub async fn set_consent(&self, settings: ConsentSettings) -> Result<ConsentSettings, ClientError> {
        match self.request(RequestBody::ConsentSet(settings.clone())).await? {
            ResponseBody::Consent(settings) => Ok(settings),
            ResponseBody::Done => Ok(settings),
            _ => Err(ClientError::Protocol),
        }
    }

    /// The user's devices.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Timeout`].
    pub async fn devices(&self) -> Result<Vec<stanza::Device>, ClientError> {
        match self.request(RequestBody::DevicesList).await? {
            ResponseBody::Devices(devices) => Ok(devices.into_vec()),
            _ => Err(ClientError::Protocol),
        }
    }

    /// Removes a device of this user, this one included; its session ends and its keys are gone.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Timeout`].
    pub async fn remove_device(&self, device: DeviceId) -> Result<(), ClientError> {
        self.done(RequestBody::DeviceRemove(device)).await
    }

    /// Leaves the network: account, keys, waiting messages and consents are erased. The client ends.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Timeout`].
    pub async fn withdraw(&self) -> Result<(), ClientError> {
        self.ask(|reply| Command::Withdraw { reply }).await
    }

    /// Registers the token (at most 512 bytes) with which this user's provider wakes the device; `None` drops it.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Timeout`].
    pub async fn push(&self, token: Option<Vec<u8>>) -> Result<(), ClientError> {
        let token = match token {
            Some(token) => {
                Some(stanza::PushToken::try_from(bytes::Bytes::from(token)).map_err(|_| bad_request("push"))?)
            }
            None => None,
        };
        self.done(RequestBody::Push(token)).await
    }

    /// How many one-time prekeys the server has of this device. They are topped up without being asked.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Timeout`].
    pub async fn prekey_counts(&self) -> Result<KeyCounts, ClientError> {
        match self.request(RequestBody::KeysCount).await? {
            ResponseBody::KeyCounts(counts) => Ok(counts),
            _ => Err(ClientError::Protocol),
        }
    }

    // ---- messages

    /// Whether `address` accepts messages from this user. Why it does not is nobody's business.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Timeout`].
    pub async fn discover(&self, address: &Address) -> Result<bool, ClientError> {
        match self.done(RequestBody::Discover(address.clone())).await {
            Ok(()) => Ok(true),
            Err(ClientError::Refused { code: ErrorCode::NotAvailable, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends `content` to all devices of `to`. Returns as soon as the message is safe on this device's disk, connected or
    /// not; [`EventKind::Outcome`](crate::EventKind::Outcome) or [`Client::wait_outcome`] tell what became of it.
    ///
    /// # Errors
    /// [`ClientError::NotEnlisted`], [`ClientError::QueueFull`], [`ClientError::Content`], [`ClientError::Store`].
    pub async fn send(&self, to: &Address, content: Content) -> Result<MessageId, ClientError> {
        self.ask(|reply| Command::Send { to: to.clone(), content, reply }).await
    }

    /// [`Client::send`], then [`Client::wait_outcome`].
    ///
    /// # Errors
    /// Those of both.
    pub async fn send_and_wait(&self, to: &Address, content: Content) -> Result<Outcome, ClientError> {
        let id = self.send(to, content).await?;
        self.wait_outcome(id).await
    }

    /// Waits until the server has taken the message or refused it, however long that is.
    ///
    /// # Errors
    /// [`ClientError::UnknownMessage`], [`ClientError::Ended`].
    pub async fn wait_outcome(&self, id: MessageId) -> Result<Outcome, ClientError> {
        self.ask(|reply| Command::WaitOutcome { id, reply }).await
    }

    /// What became of a sent message; `None`: nothing yet.
    ///
    /// # Errors
    /// [`ClientError::UnknownMessage`], [`ClientError::Ended`].
    pub async fn outcome(&self, id: MessageId) -> Result<Option<Outcome>, ClientError> {
        self.ask(|reply| Command::Outcome { id, reply }).await
    }

    // ---- media: tickets only; see `media` for whole uploads and downloads

    /// The right to upload one ciphertext of `size` bytes to the operator's media host (users of the home provider only).
    ///
    /// # Errors
    /// [`ClientError::Refused`] (`unsupported`, `too-large`, ...), [`ClientError::Timeout`].
    pub async fn media_upload_ticket(&self, size: u64, sha256: [u8; 32]) -> Result<MediaTicket, ClientError> {
        let upload = stanza::MediaUpload { size, sha256: stanza::Sha256(sha256) };
        self.ticket(RequestBody::MediaUpload(upload)).await
    }

    /// The right to fetch the ciphertext at `url` through the operator's media relay.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Timeout`].
    pub async fn media_download_ticket(
        &self,
        url: &str,
        size: u64,
        sha256: [u8; 32],
    ) -> Result<MediaTicket, ClientError> {
        let url = stanza::Url::try_from(url).map_err(|_| bad_request("url"))?;
        let download = stanza::MediaDownload { url, size, sha256: stanza::Sha256(sha256) };
        self.ticket(RequestBody::MediaDownload(download)).await
    }

    // ---- the rest

    /// Any request of the protocol, for those without a method here. Requests that concern keys would leave this client's
    /// own state behind; use the methods.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for an error answer, [`ClientError::Timeout`], [`ClientError::TooManyRequests`].
    pub async fn request(&self, body: RequestBody) -> Result<ResponseBody, ClientError> {
        self.ask(|reply| Command::Request { body: Box::new(body), reply }).await
    }

    /// Says goodbye to the server and stops. What was not sent stays in the store for the next start, which may come as
    /// soon as this returns.
    pub async fn shutdown(&self) {
        // Whether it takes this or ends by itself: the channel ends last.
        let _ = self.commands.send(Command::Shutdown).await;
        self.commands.closed().await;
    }

    async fn ticket(&self, body: RequestBody) -> Result<MediaTicket, ClientError> {
        match self.request(body).await? {
            ResponseBody::MediaTicket(ticket) => Ok(ticket),
            _ => Err(ClientError::Protocol),
        }
    }

    async fn done(&self, body: RequestBody) -> Result<(), ClientError> {
        match self.request(body).await? {
            ResponseBody::Done => Ok(()),
            _ => Err(ClientError::Protocol),
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, ClientError>>) -> Command,
    ) -> Result<T, ClientError> {
        let (reply, answer) = oneshot::channel();
        let ended = || ClientError::Ended(self.status.borrow().ended.unwrap_or(Ended::Shutdown));
        self.commands.send(command(reply)).await.map_err(|_| ended())?;
        engine::answer(&self.commands, answer).await.ok_or_else(ended)?
    }
}

/// Shows nothing personal.
impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

fn bad_request(field: &str) -> ClientError {
    ClientError::Refused { code: ErrorCode::BadRequest, retry_after: None, detail: Some(field.to_owned()) }
}
