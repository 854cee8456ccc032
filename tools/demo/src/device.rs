//! A user's device: the SDK, a state file, and a list of what arrived.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use causeway_client::{
    Address, Client, ClientConfig, EventKind, Message, MessageId, Outcome, RootPublicKey, ServerAddress, SqliteStore,
    TokenSource,
};
use tokio::sync::Notify;
use tokio::time::timeout;

const WAIT: Duration = Duration::from_secs(30);

/// How to reach the deployment.
#[derive(Clone)]
pub(crate) struct Deployment {
    pub(crate) server: ServerAddress,
    pub(crate) name: String,
    pub(crate) root: RootPublicKey,
}

/// A device that is on.
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) client: Client,
    arrived: Arc<Arrivals>,
}

#[derive(Default)]
struct Arrivals {
    unread: Mutex<VecDeque<Message>>,
    news: Notify,
}

impl Device {
    /// Switches the device on: connects, and enlists it if it is new.
    pub(crate) async fn on(
        name: &str,
        address: &Address,
        deployment: &Deployment,
        state: &Path,
        tokens: Arc<dyn TokenSource>,
    ) -> anyhow::Result<Self> {
        let mut config =
            ClientConfig::new(address.clone(), deployment.server.clone(), &deployment.name, vec![deployment.root]);
        config.timing.backoff_longest = Duration::from_secs(1);
        let store = SqliteStore::open(state).await.with_context(|| format!("state of {name}"))?;
        let (client, mut events) = Client::open(config, Arc::new(store), tokens).await?;
        let arrived = Arc::new(Arrivals::default());
        let sink = Arc::clone(&arrived);
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                if let EventKind::Message(message) = &event.kind {
                    sink.unread.lock().unwrap_or_else(PoisonError::into_inner).push_back(message.clone());
                    sink.news.notify_one();
                }
                if event.done().await.is_err() {
                    return;
                }
            }
        });
        let device = Self { name: name.to_owned(), client, arrived };
        timeout(WAIT, device.client.enlist()).await.map_err(|_| anyhow!("{name} could not log in"))??;
        Ok(device)
    }

    /// The next message, once it is there.
    pub(crate) async fn next(&self) -> anyhow::Result<Message> {
        let arrival = async {
            loop {
                let news = self.arrived.news.notified();
                let first = self.arrived.unread.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                if let Some(message) = first {
                    return message;
                }
                news.await;
            }
        };
        timeout(WAIT, arrival).await.map_err(|_| anyhow!("{} waited {} s for a message", self.name, WAIT.as_secs()))
    }

    /// The next message, which must be this text.
    pub(crate) async fn expect_text(&self, text: &str) -> anyhow::Result<Message> {
        let message = self.next().await?;
        if message.content.as_text() != Some(text) {
            bail!("{} got another message than {text:?}", self.name);
        }
        Ok(message)
    }

    /// What arrived and was not looked at.
    pub(crate) fn unread(&self) -> usize {
        self.arrived.unread.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits for what became of a message.
    pub(crate) async fn outcome(&self, id: MessageId) -> anyhow::Result<Outcome> {
        let outcome = timeout(WAIT, self.client.wait_outcome(id)).await;
        Ok(outcome.map_err(|_| anyhow!("{} got no answer for a message within {} s", self.name, WAIT.as_secs()))??)
    }

    /// Switches the device off; its state stays.
    pub(crate) async fn off(self) {
        self.client.shutdown().await;
    }
}
