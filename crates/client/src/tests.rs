//! The client against a small server of its own: real sockets, Noise, stanzas and libsignal; only directory and mailbox
//! are a few maps, so that a test can make them forget, refuse, lie or vanish at a chosen moment. The whole system is
//! tested with the real services in the workspace's `tests` package.

mod account;
mod connection;
mod conversation;
mod crash;
mod devices;
mod server;
mod unreadable;
mod world;
