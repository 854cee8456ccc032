//! SDK for the clients of providers: connects a user's device to a Causeway deployment and exchanges end-to-end
//! encrypted messages with its users.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use causeway_client::{Client, ClientConfig, ClientError, Content, EventKind, SqliteStore, TokenSource};
//! # async fn example(config: ClientConfig, tokens: Arc<dyn TokenSource>) -> Result<(), Box<dyn std::error::Error>> {
//! let store = Arc::new(SqliteStore::open("device.db").await?);
//! let (client, mut events) = Client::open(config, store, tokens).await?;
//! client.enlist().await?; // once; later it returns at once
//! client.opt_in().await?; // nobody reaches a user who has not opted in
//!
//! client.send(&"bo@home.example".parse()?, Content::text("hello")).await?;
//! while let Some(event) = events.next().await {
//!     if let EventKind::Message(message) = &event.kind {
//!         println!("{}: {}", message.from, message.content.as_text().unwrap_or("(something else)"));
//!     }
//!     event.done().await?; // only now is it safe to forget it
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What the SDK promises:
//! - [`Client::send`] returns when the message is on this device's disk. It is then sent, over as many connections as it
//!   takes, under one id, so that the recipient sees it once; its [`Outcome`] is an event and can be waited for.
//! - Messages from one client to one address arrive in the order of sending. Only when the server sends one back for
//!   later (a rate limit, a device list that has just changed) can those overtake it that were under way with it.
//! - A message that arrived is on disk before the server hears so, and comes as an event again after each start until
//!   [`Event::done`] has returned. It is never shown under two events in one run.
//! - A private key never leaves the [`Store`]; one-time keys are erased in the same transaction that uses them.
//!
//! Where things are: `content` (what is said), `signal` (how it is encrypted), `engine` (what happens when), `link` (the
//! connection), `store` (what is kept).

mod client;
mod clock;
mod config;
mod content;
mod engine;
mod error;
mod event;
mod events;
mod link;
pub mod media;
mod provider_tokens;
mod random;
mod signal;
pub mod store;
#[cfg(test)]
mod tests;
mod token;

pub use causeway_identity::{AccountId, Address, CertificateError, DeviceAddress, DeviceId, MessageId, RootPublicKey};
pub use causeway_noise::Suite;
pub use causeway_stanza::{
    ConsentSettings, Device, Encoding, EndReason, ErrorCode, FailureReason, Inbox, InboxSetting, KeyCounts,
    MediaTicket, MessageClass, ProviderKind, ProviderRule, Reach, Rejection, RequestBody, ResponseBody,
};

pub use client::Client;
pub use clock::{Clock, SystemClock};
pub use config::{Bounds, ClientConfig, ConfigError, ServerAddress, ServerAddressError, Timing};
pub use content::{Body, Content, Media, MediaKind, ReceiptKind, WireError as ContentError};
pub use error::ClientError;
pub use event::{
    Connected, DisconnectReason, Disconnected, Ended, EventKind, IdentityChanged, Message, Origin, Outcome,
    RejectReason, SendResult, SentElsewhere, Undecryptable, UndecryptableReason,
};
pub use events::{Event, Events};
pub use link::reconnect_pause;
pub use provider_tokens::ProviderTokens;
pub use store::{MemoryStore, SqliteStore, Store, StoreError};
pub use token::TokenSource;
