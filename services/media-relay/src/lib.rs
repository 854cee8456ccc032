//! Ciphertext blobs over HTTP, in two roles.
//!
//! - [`host`]: providers' users upload ciphertext by ticket, and relays fetch it from here.
//! - [`relay`]: users fetch ciphertext of other providers through here by ticket, so that their network address never
//!   reaches the other provider.
//!
//! It owns the blobs of the operator's own users and the key that seals [`tickets`]. Edges call it over gRPC for tickets
//! ([`MediaRelay::router`]), clients over HTTP; it calls providers' media hosts, through `causeway_fetch` only. It never
//! holds a key to what it carries. The host role is also a library for providers: see [`host::Host`].
//!
//! A further HTTP route is a file beside [`host`] or [`relay`] and one line in `service.rs`; a further gRPC call is a
//! file in `rpc/` and one line in `rpc.rs`.

pub mod blobs;
mod config;
mod error;
pub mod host;
pub mod http;
mod metrics;
mod quota;
pub mod relay;
mod rpc;
mod service;
mod shares;
pub mod tickets;

pub use config::{MediaConfig, StoreKind};
pub use error::{MediaError, RequestError};
pub use service::MediaRelay;

#[cfg(test)]
mod tests;
