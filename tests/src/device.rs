//! A user's device: the SDK with its store on disk.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use causeway_client::media::{MediaBounds, MediaHost, MediaTransfers, ProviderHost};
use causeway_client::{
    Address, Client, ClientConfig, Content, DisconnectReason, Encoding, Event, EventKind, Events, Message, MessageId,
    RootPublicKey, SendResult, ServerAddress, SqliteStore, Suite, TokenSource,
};
use tempfile::TempDir;

use crate::{Deployment, Kind, Provider, within};

/// How a device speaks.
#[derive(Debug, Clone, Copy)]
pub struct DeviceOptions {
    /// How stanzas are written.
    pub encoding: Encoding,
    /// The Noise cipher suite.
    pub suite: Suite,
    /// Over WebSocket instead of TCP.
    pub websocket: bool,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self { encoding: Encoding::Binary, suite: Suite::default(), websocket: false }
    }
}

/// One device of one user. Between [`Device::stop`] or [`Device::kill`] and [`Device::start`] it is offline.
pub struct Device {
    config: ClientConfig,
    tokens: Arc<dyn TokenSource>,
    upload_endpoint: Option<String>,
    store: PathBuf,
    running: Option<(Client, Events)>,
    _folder: TempDir,
}

impl Device {
    /// A fresh device that connects, but is not enlisted.
    ///
    /// # Errors
    /// The client cannot be opened.
    pub async fn fresh(net: &Deployment, provider: &Provider, user: &str) -> anyhow::Result<Self> {
        Self::fresh_with(net, provider, user, DeviceOptions::default()).await
    }

    /// The same, speaking in another way.
    ///
    /// # Errors
    /// The client cannot be opened.
    pub async fn fresh_with(
        net: &Deployment,
        provider: &Provider,
        user: &str,
        options: DeviceOptions,
    ) -> anyhow::Result<Self> {
        Self::prepare(net, provider, user, options, net.ready().root).await
    }

    /// A fresh device that trusts another root than the deployment's.
    ///
    /// # Errors
    /// The client cannot be opened.
    pub async fn fresh_pinning(
        net: &Deployment,
        provider: &Provider,
        user: &str,
        root: RootPublicKey,
    ) -> anyhow::Result<Self> {
        Self::prepare(net, provider, user, DeviceOptions::default(), root).await
    }

    async fn prepare(
        net: &Deployment,
        provider: &Provider,
        user: &str,
        options: DeviceOptions,
        root: RootPublicKey,
    ) -> anyhow::Result<Self> {
        let ready = net.ready();
        let server: ServerAddress = if options.websocket {
            format!("ws://{}/v1/noise", ready.websocket).parse()?
        } else {
            ready.edge.to_string().parse()?
        };
        let mut config = ClientConfig::new(provider.address(user)?, server, &ready.deployment, vec![root]);
        config.encoding = options.encoding;
        config.suite = options.suite;
        config.timing.backoff_first = Duration::from_millis(20);
        config.timing.backoff_longest = Duration::from_millis(500);
        let folder = tempfile::tempdir().context("folder for the device")?;
        let store = folder.path().join("device.db");
        let upload_endpoint = (provider.kind() == Kind::ThirdParty).then(|| provider.sandbox().upload_url());
        let tokens = provider.tokens(user);
        let mut device = Self { config, tokens, upload_endpoint, store, running: None, _folder: folder };
        device.start().await?;
        Ok(device)
    }

    /// A fresh device that is enlisted, and whose user has opted in.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn opted_in(net: &Deployment, provider: &Provider, user: &str) -> anyhow::Result<Self> {
        Self::opted_in_with(net, provider, user, DeviceOptions::default()).await
    }

    /// The same, speaking in another way.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn opted_in_with(
        net: &Deployment,
        provider: &Provider,
        user: &str,
        options: DeviceOptions,
    ) -> anyhow::Result<Self> {
        let device = Self::fresh_with(net, provider, user, options).await?;
        within("a device enlists", async { Ok(device.client().enlist().await?) }).await?;
        within("a user opts in", async { Ok(device.client().opt_in().await?) }).await?;
        Ok(device)
    }

    /// Opens the client on the device's store.
    ///
    /// # Errors
    /// It cannot be opened.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.running.is_none(), "the device is running");
        let open = async {
            loop {
                // What was killed may hold the file for a moment longer.
                match SqliteStore::open(&self.store).await {
                    Err(causeway_client::StoreError::InUse) => tokio::task::yield_now().await,
                    other => return Ok(other?),
                }
            }
        };
        let store = Arc::new(within("a device's store is free", open).await?);
        self.running = Some(Client::open(self.config.clone(), store, Arc::clone(&self.tokens)).await?);
        Ok(())
    }

    /// Connects to this address instead of the edge's own from the next start on.
    ///
    /// # Errors
    /// None at present.
    pub fn connect_through(&mut self, network: SocketAddr) -> anyhow::Result<()> {
        self.config.server = network.to_string().parse()?;
        Ok(())
    }

    /// Says goodbye and closes; everything is in the store.
    ///
    /// # Errors
    /// It was not running.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let (client, events) = self.running.take().context("the device is not running")?;
        within("a device stops", async {
            client.shutdown().await;
            Ok(())
        })
        .await?;
        drop(events);
        Ok(())
    }

    /// Drops the client where it stands.
    ///
    /// # Errors
    /// It was not running.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.running.take().map(drop).context("the device is not running")
    }

    /// The running client.
    ///
    /// # Panics
    /// The device is not running: a mistake in a test.
    pub fn client(&self) -> &Client {
        &self.running.as_ref().expect("the device is running").0
    }

    /// The user's address.
    pub fn address(&self) -> &Address {
        &self.config.address
    }

    /// A second device with a copy of this device's store, as a thief or a restored backup has it. The device must be
    /// stopped.
    ///
    /// # Errors
    /// It is running, or the copy fails.
    pub fn twin(&self) -> anyhow::Result<Self> {
        anyhow::ensure!(self.running.is_none(), "stop the device first");
        let folder = tempfile::tempdir().context("folder for the twin")?;
        let store = folder.path().join("device.db");
        std::fs::copy(&self.store, &store).context("copy the store")?;
        Ok(Self {
            config: self.config.clone(),
            tokens: Arc::clone(&self.tokens),
            upload_endpoint: self.upload_endpoint.clone(),
            store,
            running: None,
            _folder: folder,
        })
    }

    /// Waits for a session.
    ///
    /// # Errors
    /// None comes.
    pub async fn connected(&self) -> anyhow::Result<()> {
        within("a device connects", async { Ok(self.client().connected().await?) }).await
    }

    /// Sends text and waits for its outcome.
    ///
    /// # Errors
    /// None comes.
    pub async fn send(&self, to: &Address, text: &str) -> anyhow::Result<SendResult> {
        let sent = async { Ok(self.client().send_and_wait(to, Content::text(text)).await?.result) };
        within(&format!("the outcome of {text:?}"), sent).await
    }

    /// Hands text over for sending; gives its id.
    ///
    /// # Errors
    /// Refused.
    pub async fn queue(&self, to: &Address, text: &str) -> anyhow::Result<MessageId> {
        Ok(self.client().send(to, Content::text(text)).await?)
    }

    /// What became of a queued message.
    ///
    /// # Errors
    /// Nothing.
    pub async fn outcome(&self, id: MessageId) -> anyhow::Result<SendResult> {
        within("an outcome", async { Ok(self.client().wait_outcome(id).await?.result) }).await
    }

    /// The next event of any kind.
    ///
    /// # Errors
    /// None comes.
    pub async fn next_event(&mut self) -> anyhow::Result<Event> {
        let (_, events) = self.running.as_mut().context("the device is not running")?;
        within("an event", async { events.next().await.context("the client has ended") }).await
    }

    /// The first event of which `pick` makes something; those before it are done.
    ///
    /// # Errors
    /// None comes.
    pub async fn wait_for<T>(&mut self, what: &str, pick: impl Fn(&EventKind) -> Option<T>) -> anyhow::Result<T> {
        loop {
            let event = self.next_event().await.with_context(|| what.to_owned())?;
            if let Some(picked) = pick(&event.kind) {
                // The client may have ended with this very event.
                let _ended = event.done().await;
                return Ok(picked);
            }
            if let EventKind::Ended(ended) = &event.kind {
                bail!("waited for {what}, but the client ended: {ended:?}");
            }
            event.done().await?;
        }
    }

    /// The next message.
    ///
    /// # Errors
    /// None comes, or one that cannot be read.
    pub async fn next_message(&mut self) -> anyhow::Result<Message> {
        let next = self.wait_for("a message", |kind| match kind {
            EventKind::Message(message) => Some(Ok(message.clone())),
            EventKind::Undecryptable(lost) => Some(Err(lost.clone())),
            _ => None,
        });
        next.await?.map_err(|lost| anyhow::anyhow!("cannot be read: {lost:?}"))
    }

    /// The text of the next message.
    ///
    /// # Errors
    /// None comes, or it is no text.
    pub async fn next_text(&mut self) -> anyhow::Result<String> {
        let message = self.next_message().await?;
        Ok(message.content.as_text().context("a text")?.to_owned())
    }

    /// The next text, and why sessions were lost until it came.
    ///
    /// # Errors
    /// None comes, it is no text, or it cannot be read.
    pub async fn next_text_and_losses(&mut self, losses: &mut Vec<DisconnectReason>) -> anyhow::Result<String> {
        loop {
            let next = self.wait_for("a message", |kind| match kind {
                EventKind::Message(message) => Some(Ok(Ok(message.content.as_text().map(str::to_owned)))),
                EventKind::Undecryptable(lost) => Some(Ok(Err(lost.clone()))),
                EventKind::Disconnected(gone) => Some(Err(gone.reason.clone())),
                _ => None,
            });
            match next.await? {
                Ok(Ok(text)) => return text.context("a text"),
                Ok(Err(lost)) => bail!("cannot be read: {lost:?}"),
                Err(reason) => losses.push(reason),
            }
        }
    }

    /// The text of the next message that another device of this user sent.
    ///
    /// # Errors
    /// None comes, or it is no text.
    pub async fn next_sent_elsewhere(&mut self) -> anyhow::Result<String> {
        let next = self.wait_for("a message sent elsewhere", |kind| match kind {
            EventKind::SentElsewhere(sent) => Some(sent.content.as_text().map(str::to_owned)),
            _ => None,
        });
        next.await?.context("a text")
    }

    /// Uploads and downloads.
    ///
    /// # Errors
    /// They cannot be set up.
    pub fn transfers(&self) -> anyhow::Result<MediaTransfers> {
        Ok(MediaTransfers::new(MediaBounds::default())?)
    }

    /// Where this user's uploads go: to the operator for users of the home provider, else to their own provider.
    ///
    /// # Errors
    /// The provider's endpoint is unusable.
    pub fn media_host(&self) -> anyhow::Result<Box<dyn MediaHost>> {
        let client = self.client();
        Ok(match &self.upload_endpoint {
            None => Box::new(client.clone()),
            Some(endpoint) => Box::new(ProviderHost::new(endpoint, Arc::clone(&self.tokens), client.noise_public())?),
        })
    }
}
