//! The clients of the ledger test: light ones, which speak the protocol with opaque bodies and write down all that they
//! see, and those of the SDK.

pub mod canary;
pub mod dial;
pub mod enlist;
pub mod light;
mod outbox;
pub mod sdk;
