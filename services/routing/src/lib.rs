//! Routing: who gets what (docs/protocol.md, section 6; docs/architecture.md, "Delivery").
//!
//! Owns the mailbox, the sessions that edges have attached, and the outcome of each message. Edges call it over one
//! [`Link`](causeway_proto::routing::v1) stream each; it calls key-directory's `Records` service for who can be reached,
//! and providers' webhooks to wake devices.
//!
//! A submitted message goes to the actor of its recipient address ([`recipient`]), which decides in order of arrival:
//! repeat, consent, limits, size, device list, room. Attached devices get it at once. What they acknowledge within a
//! short window was `delivered` and touches no disk; the rest goes to the [`mailbox`] and is `stored` once that is
//! durable. A sender is told nothing that is not true yet: where no truth can be had (a store or the directory is away),
//! its session ends, and the client sends again under the same ids.
//!
//! Several routings may share one store (docs/replicas.md): each account is owned by one of them at a time, which alone
//! decides about it ([`replica`], `recipient/actor/owning.rs`).
//!
//! To add a rejection reason: a variant of [`message::Rejection`] and its check in `recipient/machine/deciding.rs`, in the
//! protocol's order.

mod config;
mod error;
mod keyed;
mod levels;
mod limits;
mod mailbox;
mod message;
mod metrics;
mod outbox;
mod pace;
mod peers;
mod presence;
mod push;
mod recipient;
mod recipients;
mod records;
mod replica;
mod rpc;
mod rules;
mod service;
mod session;
mod shared_counters;
mod strangers;
mod sweep;
mod trails;
mod twins;

use causeway_runtime::planted;

pub use config::{RoutingConfig, StoreKind};
pub use error::RoutingError;
#[cfg(feature = "simulation")]
pub use mailbox::memory::{MemoryFault, MemoryMailbox};
pub use mailbox::postgres::PostgresMailboxConfig;
pub use service::Routing;
