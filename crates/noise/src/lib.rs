//! What the bytes of a connection mean (docs/protocol.md, sections 2, 3 and 5): the opening, frames and alerts, Noise
//! handshakes, and the records inside. Used by the edge and the client SDK; the only crate that names snow, whose primitives it replaces by those of aws-lc-rs.
//!
//! Two layers:
//! - Machines without I/O: [`server`] and [`client`] handshakes, and the [`Session`] that either ends in.
//! - [`transport`], which drives them over anything that reads and writes bytes with tokio, and [`websocket`], which
//!   makes a WebSocket such a thing.
//!
//! Payloads of the handshake and records are opaque bytes here; what they say is for the identity and stanza crates.
//! Deadlines are the caller's: drop a future, and the connection with it, to give up.

mod alert;
pub mod client;
mod crypto;
mod frame;
mod key;
mod preamble;
mod record;
pub mod server;
mod session;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;
pub mod websocket;

#[cfg(test)]
mod tests;

pub use alert::Alert;
pub use frame::{Frame, FrameLength, FrameReader, MAX_MESSAGE, write as write_frame};
pub use key::{PublicKey, StaticKey};
pub use preamble::{Pattern, Preamble, PreambleError, Suite};
pub use record::{Received, RecordError};
pub use session::{Limits, Proved, ReceiveError, Receiver, SendError, Sender, Session};
