//! What waits to be sent: a lane for each address, so that one recipient's trouble holds up nobody else, and the order
//! within it is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use causeway_identity::{Address, DeviceId, MessageId};
use causeway_stanza::MessageClass;
use tokio::time::Instant;

use crate::store::{Outgoing, OutgoingHeader};

/// Messages to one address that are in flight at a time.
const WINDOW: usize = 32;

/// All lanes.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    lanes: HashMap<Address, Lane>,
    by_id: HashMap<MessageId, Address>,
    in_flight: usize,
    short_lived: usize,
}

/// What waits for one address.
#[derive(Debug, Default)]
pub(super) struct Lane {
    queue: BTreeMap<u64, Waiting>,
    in_flight: BTreeMap<u64, InFlight>,
    /// Keys to ask for before anything else is sent.
    pub(super) claim: Claim,
    /// A claim is under way.
    pub(super) claiming: bool,
    /// Nothing is sent before this.
    pub(super) not_before: Option<Instant>,
    /// The list of devices is being mended: what is in flight comes back first, so that the order can be restored.
    pub(super) mending: bool,
    /// Claims that failed in a row.
    pub(super) failures: u32,
    /// The server pushed back: so many of its answers must be good before many messages are in flight again. What is in
    /// flight together can overtake what is pushed back, so it should not happen twice.
    caution: usize,
}

/// A message that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) header: OutgoingHeader,
    /// When the application sent it, if that was in this run.
    pub(super) since: Option<Instant>,
}

/// A message that the server has not answered.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) waiting: Waiting,
    pub(super) outgoing: Outgoing,
    deadline: Instant,
}

/// Whose keys to ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Claim {
    #[default]
    Nobody,
    All,
    Devices(BTreeSet<DeviceId>),
}

impl Claim {
    /// One device more.
    pub(super) fn add(&mut self, device: DeviceId) {
        match self {
            Self::Nobody => *self = Self::Devices(BTreeSet::from([device])),
            Self::Devices(devices) => {
                devices.insert(device);
            }
            Self::All => {}
        }
    }
}

impl Lane {
    /// Whether something may be sent now.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        !self.claiming
            && self.claim == Claim::Nobody
            && (!self.mending || self.in_flight.is_empty())
            && self.in_flight.len() + self.caution < WINDOW
            && self.not_before.is_none_or(|at| at <= now)
    }

    /// Whether keys should be asked for now.
    pub(super) fn wants_claim(&self, now: Instant) -> bool {
        !self.claiming
            && self.claim != Claim::Nobody
            && !self.queue.is_empty()
            && self.not_before.is_none_or(|at| at <= now)
    }

    /// The server pushed a message back.
    pub(super) fn pushed_back(&mut self) {
        self.caution = WINDOW - 1;
    }

    /// The server took a message.
    pub(super) fn taken(&mut self) {
        self.caution = self.caution.saturating_sub(1);
    }

    /// The next message, if anything waits.
    pub(super) fn first(&self) -> Option<&Waiting> {
        self.queue.first_key_value().map(|(_, waiting)| waiting)
    }

    /// Messages that are not finished.
    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.in_flight.len()
    }
}

impl Outbox {
    /// Messages that are not finished.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Messages that the server has not answered.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Some messages are only worth something soon.
    pub(super) fn has_short_lived(&self) -> bool {
        self.short_lived > 0
    }

    /// Adds a message.
    pub(super) fn push(&mut self, header: OutgoingHeader, since: Option<Instant>) {
        if header.class != MessageClass::Chat {
            self.short_lived += 1;
        }
        self.by_id.insert(header.id, header.to.clone());
        let lane = self.lanes.entry(header.to.clone()).or_default();
        lane.queue.insert(header.seq, Waiting { header, since });
    }

    /// The lane of an address.
    pub(super) fn lane(&mut self, address: &Address) -> Option<&mut Lane> {
        self.lanes.get_mut(address)
    }

    /// Addresses that something waits for, oldest message first.
    pub(super) fn waiting(&self) -> Vec<Address> {
        let mut lanes: Vec<_> = self.lanes.iter().filter(|(_, lane)| !lane.queue.is_empty()).collect();
        lanes.sort_by_key(|(_, lane)| lane.queue.first_key_value().map(|(seq, _)| *seq));
        lanes.into_iter().map(|(address, _)| address.clone()).collect()
    }

    /// Moves the first message of a lane into flight.
    pub(super) fn launch(&mut self, address: &Address, outgoing: Outgoing, deadline: Instant) {
        let Some(lane) = self.lanes.get_mut(address) else { return };
        let Some(waiting) = lane.queue.remove(&outgoing.seq) else { return };
        // Once what had to be mended is under way again, the lane is as good as new.
        lane.mending = false;
        lane.in_flight.insert(outgoing.seq, InFlight { waiting, outgoing, deadline });
        self.in_flight += 1;
    }

    /// Takes a message out of flight; `None` when it is not there, as with an answer that comes twice.
    pub(super) fn land(&mut self, id: MessageId, to: &Address) -> Option<InFlight> {
        let lane = self.lanes.get_mut(to)?;
        let seq = lane.in_flight.values().find(|flying| flying.outgoing.id == id)?.outgoing.seq;
        let flying = lane.in_flight.remove(&seq)?;
        self.in_flight -= 1;
        Some(flying)
    }

    /// Puts what came out of flight back to its place.
    pub(super) fn put_back(&mut self, waiting: Waiting) {
        if let Some(lane) = self.lanes.get_mut(&waiting.header.to) {
            lane.queue.insert(waiting.header.seq, waiting);
        }
    }

    /// Forgets a message that waits or has landed.
    pub(super) fn finish(&mut self, header: &OutgoingHeader) {
        if self.by_id.remove(&header.id).is_none() {
            return;
        }
        if header.class != MessageClass::Chat {
            self.short_lived -= 1;
        }
        if let Some(lane) = self.lanes.get_mut(&header.to) {
            lane.queue.remove(&header.seq);
            // A lane that is asking or was told to wait is kept until that is over.
            if lane.len() == 0 && !lane.claiming && lane.not_before.is_none() {
                self.lanes.remove(&header.to);
            }
        }
    }

    /// The connection is gone: everything waits again, and nobody is asked for anything.
    pub(super) fn ground(&mut self) {
        for lane in self.lanes.values_mut() {
            let flying = std::mem::take(&mut lane.in_flight);
            lane.queue.extend(flying.into_iter().map(|(seq, flying)| (seq, flying.waiting)));
            lane.claiming = false;
            lane.mending = false;
        }
        self.in_flight = 0;
        self.lanes.retain(|_, lane| lane.len() > 0);
    }

    /// Lanes with an answer overdue are sent again from there, in order.
    pub(super) fn relaunch_overdue(&mut self, now: Instant) {
        for lane in self.lanes.values_mut() {
            if lane.in_flight.values().all(|flying| flying.deadline > now) {
                continue;
            }
            let flying = std::mem::take(&mut lane.in_flight);
            self.in_flight -= flying.len();
            lane.queue.extend(flying.into_iter().map(|(seq, flying)| (seq, flying.waiting)));
        }
    }

    /// Waits that are over are forgotten.
    pub(super) fn wake(&mut self, now: Instant) {
        for lane in self.lanes.values_mut() {
            if lane.not_before.is_some_and(|at| at <= now) {
                lane.not_before = None;
            }
        }
        self.lanes.retain(|_, lane| lane.len() > 0 || lane.claiming || lane.not_before.is_some());
    }

    /// Everything that waits, in no order.
    pub(super) fn queued(&self) -> impl Iterator<Item = &Waiting> {
        self.lanes.values().flat_map(|lane| lane.queue.values())
    }

    /// Everything that waits for one address, in order.
    pub(super) fn queued_for(&self, address: &Address) -> Vec<Waiting> {
        self.lanes.get(address).map(|lane| lane.queue.values().cloned().collect()).unwrap_or_default()
    }

    /// When something is due next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let answers = self.lanes.values().flat_map(|lane| lane.in_flight.values().map(|flying| flying.deadline));
        let waits = self.lanes.values().filter_map(|lane| lane.not_before);
        answers.chain(waits).min()
    }
}

/// A server's pause, within reason.
pub(super) fn pause(retry_after_ms: u64) -> Duration {
    Duration::from_millis(retry_after_ms.clamp(100, 600_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Purpose;

    fn outgoing(seq: u8, to: &str) -> Outgoing {
        Outgoing {
            seq: seq.into(),
            id: MessageId::from_bytes([seq; 16]),
            to: to.parse().unwrap(),
            class: MessageClass::Chat,
            purpose: Purpose::Message,
            content: vec![],
            sealed: vec![],
            repairs: 0,
            created_ms: 0,
            result: None,
            finished_ms: 0,
        }
    }

    fn outbox(messages: &[Outgoing]) -> Outbox {
        let mut outbox = Outbox::default();
        messages.iter().for_each(|message| outbox.push(message.header(), None));
        outbox
    }

    #[tokio::test]
    async fn what_was_in_flight_comes_back_to_its_place() {
        let messages = [outgoing(1, "bo@home.example"), outgoing(2, "bo@home.example"), outgoing(3, "bo@home.example")];
        let (bo, now) = (messages[0].to.clone(), Instant::now());
        let mut outbox = outbox(&messages);
        for message in &messages[..2] {
            outbox.launch(&bo, message.clone(), now);
        }
        assert_eq!(outbox.in_flight(), 2);
        let rejected = outbox.land(messages[0].id, &bo).unwrap();
        let lane = outbox.lane(&bo).unwrap();
        lane.mending = true;
        assert!(!lane.is_open(now), "the second is still out");
        outbox.put_back(rejected.waiting);
        let second = outbox.land(messages[1].id, &bo).unwrap();
        outbox.put_back(second.waiting);
        let lane = outbox.lane(&bo).unwrap();
        assert!(lane.is_open(now));
        assert_eq!(lane.first().unwrap().header.seq, 1);
        assert!(outbox.land(messages[1].id, &bo).is_none(), "an answer that comes twice");
    }

    #[tokio::test]
    async fn a_lost_connection_grounds_all_and_an_overdue_answer_its_lane() {
        let messages = [outgoing(1, "bo@home.example"), outgoing(2, "cy@home.example"), outgoing(3, "cy@home.example")];
        let now = Instant::now();
        let mut outbox = outbox(&messages);
        outbox.launch(&messages[0].to, messages[0].clone(), now + Duration::from_secs(9));
        outbox.launch(&messages[1].to, messages[1].clone(), now + Duration::from_secs(1));
        outbox.launch(&messages[2].to, messages[2].clone(), now + Duration::from_secs(9));
        assert_eq!(outbox.next_deadline(), Some(now + Duration::from_secs(1)));
        outbox.relaunch_overdue(now + Duration::from_secs(2));
        assert_eq!(outbox.in_flight(), 1);
        assert_eq!(outbox.waiting(), [messages[1].to.clone()]);
        assert_eq!(outbox.queued_for(&messages[1].to).len(), 2);
        outbox.ground();
        assert_eq!((outbox.in_flight(), outbox.len()), (0, 3));
        messages.iter().for_each(|message| outbox.finish(&message.header()));
        assert_eq!((outbox.len(), outbox.waiting().len()), (0, 0));
    }
}
