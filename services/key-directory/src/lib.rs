//! Who is who: providers and the keys that sign their tokens, accounts, devices, prekeys, consent.
//!
//! Called by edges (token keys, accounts, prekeys, consent), by routings (records) and by operators (providers); calls
//! nobody but, by way of the guarded HTTP client, the providers' OIDC endpoints. Owns the only durable record of who
//! exists. [`KeyDirectory::build`] opens the store and fails early; the routers serve its calls; [`KeyDirectory::serve`]
//! keeps token keys fresh and ends the long streams at the drain.
//!
//! - [`providers`], [`accounts`], [`consent`], [`keys`]: the nouns, checked where they come in;
//! - [`store`]: what is kept, behind a trait, on SQLite or PostgreSQL;
//! - `changes`: who follows records, and how a narrower setting is confirmed only when nobody acts on the wider one;
//! - `peers`: several directories on one PostgreSQL, which confirm changes together;
//! - `token_keys`: discovery, JWKS, refresh, outage;
//! - `limits`, `operator`: rate limits and the operator token;
//! - `rpc`: a file per call. A further call is a method in the .proto, a file there, and a line in its service.

pub mod accounts;
mod after_restore;
mod changes;
mod config;
pub mod consent;
mod directory;
mod error;
pub mod keys;
mod limits;
mod metrics;
mod operator;
mod peers;
pub mod providers;
mod rpc;
pub mod store;
#[cfg(test)]
mod testing;
mod token_keys;
mod traces;
mod witness;

pub use after_restore::{GivenUp, after_restore};
pub use config::{DirectoryConfig, StoreKind};
pub use directory::KeyDirectory;
pub use error::DirectoryError;
