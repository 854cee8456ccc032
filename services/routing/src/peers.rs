//! Asks other routings to release accounts.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use causeway_identity::{AccountId, Address};
use causeway_proto::routing::v1::ReleaseRequest;
use causeway_proto::routing::v1::peers_client::PeersClient;
use causeway_runtime::grpc;
use causeway_runtime::grpc::Channel;

use crate::mailbox::Replica;

/// How a peer is reached; `None`: not by this URL.
pub(crate) type Connect = Box<dyn Fn(&str) -> Option<Channel> + Send + Sync>;

/// Channels to other routings, made when they are needed.
pub(crate) struct Peers {
    channels: Mutex<HashMap<String, Channel>>,
    connect: OnceLock<Connect>,
    timeout: Duration,
}

/// A routing has far fewer peers; what is forgotten is connected again.
const MAX_CHANNELS: usize = 256;

impl Peers {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { channels: Mutex::default(), connect: OnceLock::new(), timeout }
    }

    /// Peers are reached in another way than in plain text over TCP. To be called before they are.
    pub(crate) fn connect_by(&self, connect: Connect) {
        let _set_before = self.connect.set(connect);
    }

    /// Asks the owner of an account to release it; true if it says that it has.
    pub(crate) async fn release(&self, owner: &Replica, account: AccountId, address: &Address) -> bool {
        let Some(channel) = self.channel(&owner.url) else { return false };
        let request = ReleaseRequest {
            account_id: Bytes::copy_from_slice(account.as_bytes()),
            address: address.as_str().to_owned(),
        };
        let mut client = PeersClient::new(channel);
        let answer = tokio::time::timeout(self.timeout, client.release(grpc::call(request))).await;
        match answer {
            Ok(Ok(_)) => true,
            Ok(Err(status)) => {
                tracing::debug!(code = ?status.code(), owner = %owner.id, "a peer did not release an account");
                false
            }
            Err(_elapsed) => {
                tracing::debug!(owner = %owner.id, "a peer did not release an account in time");
                false
            }
        }
    }

    fn channel(&self, url: &str) -> Option<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(url) {
            return Some(channel.clone());
        }
        let channel = match self.connect.get() {
            Some(connect) => connect(url)?,
            None => grpc::connect(url).ok()?,
        };
        if channels.len() >= MAX_CHANNELS {
            channels.clear();
        }
        channels.insert(url.to_owned(), channel.clone());
        Some(channel)
    }
}
