//! Follow: one routing's stream of changes and leases, and its acknowledgements.

use std::sync::Arc;

use causeway_proto::directory::v1 as pb;
use causeway_proto::directory::v1::followed_message::Change as Followed;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tonic::{Status, Streaming};

use crate::changes::{Change, Cut, Ear, Following, Next, What};
use crate::directory::Directory;
use crate::metrics::Follows;
use crate::store::KeyCounts;

pub(super) fn run(
    directory: &Arc<Directory>,
    messages: Streaming<pb::FollowerMessage>,
) -> Result<BoxStream<'static, Result<pb::FollowedMessage, Status>>, Status> {
    let following = directory.changes.follow().map_err(status)?;
    tokio::spawn(read(messages, following.ear(), Arc::clone(directory)));
    let metrics = directory.metrics.clone();
    let beginning = Some((following, metrics.follows()));
    let stream = futures::stream::unfold(beginning, move |following: Option<(Following, Follows)>| {
        let metrics = metrics.clone();
        async move {
            let (following, counted) = following?;
            match following.next().await {
                Ok(next) => Some((Ok(to_proto(next)), Some((following, counted)))),
                Err(cut) => {
                    if matches!(cut, Cut::Behind | Cut::BadAck) {
                        metrics.follower_cut();
                    }
                    Some((Err(status(cut)), None))
                }
            }
        }
    });
    Ok(stream.boxed())
}

/// Ends with the connection, or with the directory.
async fn read(mut messages: Streaming<pb::FollowerMessage>, ear: Ear, directory: Arc<Directory>) {
    loop {
        let message = tokio::select! {
            message = messages.message() => message,
            () = directory.closing.cancelled() => return,
        };
        let Ok(Some(message)) = message else {
            ear.cut(Cut::Left);
            return;
        };
        if !ear.heard(message.acked, message.ping) {
            return;
        }
    }
}

fn status(cut: Cut) -> Status {
    let text = cut.to_string();
    match cut {
        Cut::Behind => Status::resource_exhausted(text),
        Cut::BadAck => Status::invalid_argument(text),
        Cut::Left => Status::cancelled(text),
        Cut::Anew | Cut::Closing => Status::unavailable(text),
    }
}

fn to_proto(next: Next) -> pb::FollowedMessage {
    let (number, change) = match next {
        Next::Lease { lasts, pong } => {
            let lease_ms = u32::try_from(lasts.as_millis()).unwrap_or(u32::MAX);
            (0, Followed::Lease(pb::Lease { lease_ms, pong }))
        }
        Next::Change(number, Change::Provider { domain }) => {
            (number, Followed::Provider(pb::ProviderChanged { domain: domain.to_string() }))
        }
        // Not for followers; whoever gets it all the same acknowledges it.
        Next::Change(number, Change::TokenKeys { .. }) => return pb::FollowedMessage { number, change: None },
        Next::Change(number, Change::Record { address, account, what }) => {
            let (what, device_id, left) = match what {
                What::Devices => (pb::RecordChange::Devices, 0, KeyCounts::default()),
                What::Consent => (pb::RecordChange::Consent, 0, KeyCounts::default()),
                What::Withdrawn => (pb::RecordChange::Withdrawn, 0, KeyCounts::default()),
                What::Push => (pb::RecordChange::Push, 0, KeyCounts::default()),
                What::PrekeysLow { device, left } => (pb::RecordChange::PrekeysLow, device.get(), left),
            };
            let account_id = account.as_bytes().to_vec().into();
            let record = pb::RecordChanged {
                address: address.to_string(),
                account_id,
                what: what.into(),
                device_id,
                ec: left.ec,
                kyber: left.kyber,
            };
            (number, Followed::Record(record))
        }
    };
    pb::FollowedMessage { number, change: Some(change) }
}
