//! What several fuzz targets and the seeds share.

mod handshake;
mod provider;
mod stanzas;

pub use handshake::{CLIENT_HELLO, Edits, Opening, SERVER_HELLO, client_key, rng, server_key};
pub use provider::{AUDIENCE, ISSUER, Provider, now};
pub use stanzas::{client_agrees, server_agrees};
