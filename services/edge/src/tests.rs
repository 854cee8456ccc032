//! The edge over real sockets, with real gRPC servers of the contract's services in place of the other services; the
//! whole system is tested in the workspace's `tests`.

mod abuse;
mod client;
mod log;
mod logins;
mod redis;
mod repeats;
mod replicas;
mod rig;
mod sessions;
mod storms;

pub(crate) use self::log::Log;
pub(crate) use self::sessions::message;

/// A delivery with this tag, as routing sends it.
pub(crate) fn delivery(tag: u64) -> causeway_proto::routing::v1::routing_event::Event {
    sessions::delivery(tag, 20)
}
