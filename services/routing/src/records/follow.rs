//! Follows the directory's changes, so that the cache is true.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use causeway_identity::{AccountId, Address, DeviceId};
use causeway_proto::directory::v1::followed_message::Change as Followed;
use causeway_proto::directory::v1::{FollowerMessage, Lease, RecordChange, RecordChanged};
use causeway_runtime::grpc::CALL_TIMEOUT;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{Change, Changes, Records};

const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// How often the directory is pinged; each answer renews the lease.
const PING_EVERY: Duration = Duration::from_millis(250);
/// A stream without a message for so long is given up: pings are answered at once, leases are shorter, and another
/// key-directory may be there.
const SILENCE: Duration = Duration::from_secs(5);
/// Pings whose answer is still of interest.
const MAX_PINGS: usize = 128;

/// Keeps a stream to the directory until `stop`; changes are passed on before they are acknowledged.
pub(crate) async fn follow(records: Records, changes: Arc<dyn Changes>, stop: CancellationToken) {
    let mut retry = FIRST_RETRY;
    loop {
        records.cache().begin();
        let served = tokio::select! {
            served = one_stream(&records, &*changes) => served,
            () = stop.cancelled() => return,
        };
        records.cache().begin();
        retry = if served { FIRST_RETRY } else { (retry * 2).min(LAST_RETRY) };
        tokio::select! {
            () = tokio::time::sleep(retry) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Serves one stream to its end; false when nothing came of it.
async fn one_stream(records: &Records, changes: &dyn Changes) -> bool {
    let (acks, outgoing) = mpsc::channel(64);
    // Sent at once: a server may wait for the first message before it answers.
    let mut pings = Pings::default();
    let _room = acks.try_send(pings.next(0));
    let opened = tokio::time::timeout(CALL_TIMEOUT, records.client().follow(ReceiverStream::new(outgoing))).await;
    let mut incoming = match opened {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => {
            tracing::debug!(code = ?status.code(), "the directory cannot be followed");
            return false;
        }
        Err(_elapsed) => return false,
    };
    let mut ticks = tokio::time::interval(PING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut acked = 0;
    // When the stream was last seen empty: whatever is read next arrived later than that. If this process stood still,
    // that is long ago, and a lease that waited meanwhile is as old as it is.
    let mut empty_at = Instant::now();
    let mut heard_at = empty_at;
    let mut served = false;
    loop {
        let message = tokio::select! {
            biased;
            message = incoming.message() => message,
            _ = ticks.tick() => {
                empty_at = Instant::now();
                if heard_at.elapsed() > SILENCE {
                    tracing::warn!("the directory is silent; following it anew");
                    return true;
                }
                if acks.try_send(pings.next(acked)).is_err() {
                    return true;
                }
                continue;
            }
        };
        let Ok(Some(message)) = message else {
            tracing::warn!("lost the stream of the directory's changes; records are fetched for each use");
            return served;
        };
        heard_at = Instant::now();
        served = true;
        match message.change {
            Some(Followed::Lease(lease)) => {
                let since = pings.sent_at(&lease).unwrap_or(empty_at);
                records.cache().trust_until(since + Duration::from_millis(lease.lease_ms.into()));
            }
            Some(Followed::Record(change)) => record_changed(records, changes, &change),
            Some(Followed::Provider(change)) => match change.domain.parse() {
                Ok(domain) => {
                    records.cache().forget_provider(&domain);
                    changes.provider_changed(&domain);
                }
                // Unreadable: better to know nothing than something old.
                Err(_) => return true,
            },
            None => {}
        }
        if message.number > acked {
            acked = message.number;
            if acks.send(FollowerMessage { acked, ping: 0 }).await.is_err() {
                return true;
            }
        }
    }
}

fn record_changed(records: &Records, changes: &dyn Changes, change: &RecordChanged) {
    let Ok(address) = change.address.parse::<Address>() else {
        // Unreadable: better to know nothing than something old.
        records.cache().begin();
        return;
    };
    let what = match RecordChange::try_from(change.what) {
        Ok(RecordChange::Devices) => Change::Devices,
        Ok(RecordChange::Consent) => Change::Consent,
        Ok(RecordChange::Withdrawn) => Change::Withdrawn,
        Ok(RecordChange::Push) => Change::Push,
        Ok(RecordChange::PrekeysLow) => {
            Change::PrekeysLow { device: DeviceId::new(change.device_id).ok(), ec: change.ec, kyber: change.kyber }
        }
        Ok(RecordChange::Unspecified) | Err(_) => Change::Other,
    };
    if !(matches!(what, Change::Consent) && crate::planted::is("consent-cached-too-long")) {
        records.cache().forget(&address);
    }
    changes.changed(address, AccountId::try_from(&change.account_id[..]).ok(), what);
}

/// When each ping was sent.
#[derive(Debug, Default)]
struct Pings {
    last: u64,
    sent: VecDeque<(u64, Instant)>,
}

impl Pings {
    fn next(&mut self, acked: u64) -> FollowerMessage {
        self.last += 1;
        if self.sent.len() == MAX_PINGS {
            self.sent.pop_front();
        }
        self.sent.push_back((self.last, Instant::now()));
        FollowerMessage { acked, ping: self.last }
    }

    /// When the ping was sent that the lease answers; `None` if it answers none.
    fn sent_at(&mut self, lease: &Lease) -> Option<Instant> {
        while self.sent.front().is_some_and(|(ping, _)| *ping < lease.pong) {
            self.sent.pop_front();
        }
        self.sent.front().filter(|(ping, _)| *ping == lease.pong && lease.pong != 0).map(|(_, at)| *at)
    }
}
