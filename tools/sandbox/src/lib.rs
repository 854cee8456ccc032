//! A stand-in for a provider: OpenID Connect discovery, key set, tokens, receiver of push webhooks, media host.
//!
//! It is for demonstrations, tests and for providers who want something to compare with. All its parts are real and
//! speak over HTTP, but **it asks nobody for a password**: who can reach it can be any of its users. So it listens on
//! loopback only, and answers only requests whose `Host` is its own address.
//!
//! [`Sandbox::build`] binds and makes keys in one folder, [`Sandbox::serve`] serves; [`Provider`] is a handle to what it
//! knows and can do. A further HTTP route is a file in `http/` and one line in `http.rs`.

mod config;
mod error;
mod http;
mod keys;
mod provider;
mod pushes;
mod sandbox;
mod tokens;

pub use config::SandboxConfig;
pub use error::SandboxError;
pub use provider::Provider;
pub use pushes::ReceivedPush;
pub use sandbox::Sandbox;

#[cfg(test)]
mod tests;
