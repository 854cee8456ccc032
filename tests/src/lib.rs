//! The harness of the whole-system tests, which are in `tests/scenarios`, a file each.
//!
//! Nothing in it is a stand-in for a part of Causeway: a [`Deployment`] is the real `causeway` binary, as one
//! process, as one a service, or as several on a real PostgreSQL and Redis, with its data in a folder of its own, a
//! [`Provider`] is a sandbox provider over real HTTP, a [`Device`] is the SDK with its store on disk, and a [`raw::Session`] speaks the protocol without the SDK, so that it can break it. Tests wait for events, never for
//! time to pass; [`within`] turns an event that does not come into a failure with a name.
//!
//! The binary under test is `$CAUSEWAY_BIN`, or else it is built by the `cargo` that runs the tests.

mod binary;
mod collector;
mod deployment;
mod device;
mod front;
mod network;
mod provider;
pub mod raw;
mod store;
mod world;

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;

pub use binary::program;
pub use collector::{Collector, Span};
pub use deployment::{Deployment, Process, Program, Ready, Replica, Settings, Shape};
pub use device::{Device, DeviceOptions};
pub use network::{CuttingNetwork, RecordingNetwork};
pub use provider::{Kind, Provider};
pub use store::Store;
pub use world::World;

/// How long a test waits for an event. Far longer than any takes, so that a loaded machine fails no test.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What `future` gives, if it comes in time.
///
/// # Errors
/// `what` did not happen, or the future's own error.
pub async fn within<T>(what: &str, future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, future)
        .await
        .with_context(|| format!("waited {} s in vain: {what}", PATIENCE.as_secs()))?
        .with_context(|| what.to_owned())
}
