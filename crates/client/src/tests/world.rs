//! Users and their devices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use causeway_identity::Address;

use super::server::{DEPLOYMENT, Server, token_for};
use crate::{
    Client, ClientConfig, Content, DeviceId, Event, EventKind, Events, MemoryStore, Message, Outcome, SendResult,
    ServerAddress, Store,
};

/// A device that a test holds in its hand.
pub(super) struct Device {
    pub(super) client: Client,
    pub(super) events: Events,
    pub(super) store: Arc<dyn Store>,
    pub(super) config: ClientConfig,
    tokens: Arc<AtomicU32>,
}

pub(super) fn address(local: &str) -> Address {
    format!("{local}@birdy.example").parse().unwrap()
}

pub(super) fn config(server: &Server, local: &str) -> ClientConfig {
    let at = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: server.port };
    let mut config = ClientConfig::new(address(local), at, DEPLOYMENT, vec![Server::root()]);
    config.timing.backoff_first = Duration::from_millis(1);
    config.timing.backoff_longest = Duration::from_millis(20);
    config
}

impl Device {
    /// A new device, enlisted and connected.
    pub(super) async fn new(server: &Server, local: &str) -> Self {
        let device = Self::open(config(server, local), Arc::new(MemoryStore::new())).await;
        device.client.enlist().await.unwrap();
        device
    }

    /// A device over a store.
    pub(super) async fn open(config: ClientConfig, store: Arc<dyn Store>) -> Self {
        let tokens = Arc::new(AtomicU32::new(0));
        Self::open_with(config, store, tokens).await
    }

    async fn open_with(config: ClientConfig, store: Arc<dyn Store>, tokens: Arc<AtomicU32>) -> Self {
        let (count, local) = (Arc::clone(&tokens), config.address.clone());
        let source = move |_key| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            let token = token_for(&local, number, 4_000_000_000);
            async move { Ok(token) }
        };
        let (client, events) = Client::open(config.clone(), Arc::clone(&store), Arc::new(source)).await.unwrap();
        Self { client, events, store, config, tokens }
    }

    /// Stops in an orderly way and starts again over the same store.
    pub(super) async fn restart(self) -> Self {
        self.client.shutdown().await;
        Self::open_with(self.config, self.store, self.tokens).await
    }

    pub(super) fn address(&self) -> &Address {
        self.client.address()
    }

    pub(super) fn id(&self) -> DeviceId {
        self.client.device().unwrap().device
    }

    /// Sends text and wants it stored.
    pub(super) async fn tell(&self, to: &Address, text: &str) -> Outcome {
        let outcome = self.client.send_and_wait(to, Content::text(text)).await.unwrap();
        assert_eq!(outcome.result, SendResult::Stored, "{text}");
        outcome
    }

    /// The next event of a kind, which is then done; others are left out.
    pub(super) async fn next<T>(&mut self, wanted: impl Fn(&EventKind) -> Option<T>) -> T {
        let event = self.next_event(&wanted).await;
        event.done().await.unwrap();
        wanted(&event.kind).unwrap()
    }

    pub(super) async fn next_event<T>(&mut self, wanted: impl Fn(&EventKind) -> Option<T>) -> Event {
        let waiting = async {
            loop {
                let event = self.events.next().await.expect("the client has not ended");
                if wanted(&event.kind).is_some() {
                    return event;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the event comes")
    }

    /// The next message.
    pub(super) async fn message(&mut self) -> Message {
        self.next(|kind| match kind {
            EventKind::Message(message) => Some(message.clone()),
            _ => None,
        })
        .await
    }

    /// The text of the next message.
    pub(super) async fn hear(&mut self) -> String {
        self.message().await.content.as_text().unwrap().to_owned()
    }

    /// Checks that nothing that is kept is left: `from` says one last thing, and it is the next.
    pub(super) async fn hears_nothing_but(&mut self, from: &Self, last: &str) {
        from.tell(&self.address().clone(), last).await;
        let event = self.events_kept().await;
        match event {
            EventKind::Message(message) => assert_eq!(message.content.as_text(), Some(last)),
            other => panic!("{other:?} comes before {last:?}"),
        }
    }

    async fn events_kept(&mut self) -> EventKind {
        loop {
            let event = self.events.next().await.expect("the client has not ended");
            event.done().await.unwrap();
            if event.is_kept() {
                return event.kind;
            }
        }
    }
}
