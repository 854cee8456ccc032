//! A session's dealings with the replicas of routing, without I/O: where it is attached, to which replica each of its
//! messages goes, and what is done again when a replica is lost. docs/replicas.md, section "Edges", says why.
//!
//! - The session attaches at the replica that its own address hashes to, and submits to the one that the recipient's
//!   address hashes to. To each replica it is known under a *place*: a link, and a number that is part of the session id
//!   on that link. Every attachment has a place of its own, so that what an earlier one still says is never taken for
//!   what the present one says.
//! - A message is kept until it has an outcome. The messages to one recipient are a *lane*: those of them that are
//!   submitted are all with one replica, and the others wait for it to answer, should the lane belong elsewhere by now.
//! - When a place is lost, what was submitted there is submitted again, in order, before anything else of its lane.
//! - A refusal counts only if nobody else can have accepted the message before. Otherwise the session ends, and the client
//!   asks again.
//! - A message that is refused for a while closes its lane ([`closing`]), so that nothing overtakes it.

mod attachment;
mod closing;
mod lane;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use causeway_proto::routing::v1::edge_event::Event as ToRouting;
use causeway_proto::routing::v1::routing_event::Event as FromRouting;
use causeway_proto::routing::v1::{Attach, Moved};
use causeway_proto::wire::v1 as pb;
use prost::Message as _;
use tokio::time::Instant;

use self::attachment::Attachment;
use self::closing::Owing;
use self::lane::{Kept, Lane};
use crate::limits::{Budget, Charge};
use crate::metrics::Metrics;
use crate::rendezvous::Chosen;
use crate::trip::Trip;

/// Messages of one session that wait for outcomes hold at most the free bytes of the edge divided by this.
const SHARES: usize = 16;
/// What a message costs beside its bytes.
const OVERHEAD: usize = 512;

/// A stream to a replica, from its beginning to its end. Rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkId(pub(crate) u64);

/// What a link knows the session as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) link: LinkId,
    /// Different for each place of a session.
    pub(crate) number: u32,
}

/// The links that are up.
#[derive(Debug, Default, Clone)]
pub(crate) struct View {
    pub(crate) links: BTreeMap<LinkId, Seen>,
    /// Shared by all views of an edge: the next one asks less.
    pub(crate) chosen: Arc<Chosen<LinkId>>,
    /// The greatest id of all that ever came.
    newest: Option<LinkId>,
}

/// A link that is up.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The replica's stable name.
    pub(crate) name: Arc<str>,
    /// It takes nothing new.
    pub(crate) draining: bool,
}

impl View {
    /// A link is up. Ids are given when links begin, so one may come up after one that began later: what was chosen without it
    /// is forgotten then, since [`Chosen`] looks only at ids that are greater than those that it knows.
    pub(crate) fn comes(&mut self, id: LinkId, seen: Seen) {
        if self.newest.is_some_and(|newest| id < newest) {
            self.chosen = Arc::default();
        }
        self.newest = self.newest.max(Some(id));
        self.links.insert(id, seen);
    }

    /// The link to the replica that is responsible for `address`.
    pub(crate) fn choose(&self, address: &str) -> Option<LinkId> {
        self.chosen.choose(&self.links, |seen| (!seen.draining).then_some(&*seen.name), address)
    }

    /// Links that take something new.
    pub(crate) fn taking(&self) -> impl Iterator<Item = (&LinkId, &Seen)> {
        self.links.iter().filter(|(_, seen)| !seen.draining)
    }
}

/// What a session may keep, and how long it waits.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// Without any replica for so long, the session ends.
    pub(crate) grace: Duration,
    /// Messages without outcome at which nothing more is read from the client.
    pub(crate) messages: usize,
    /// The same in bytes.
    pub(crate) bytes: usize,
    /// For all sessions.
    pub(crate) total: Arc<Budget>,
    pub(crate) metrics: Arc<Metrics>,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Act {
    Send(Place, ToRouting),
    Tell(Told),
}

/// What the session gets to know.
#[derive(Debug)]
pub(crate) enum Told {
    /// It is attached for the first time; so many messages wait.
    Attached(u64),
    /// Tags rise over all attachments.
    Deliver(pb::Delivery),
    Outcome(pb::Outcome),
    Notify(pb::Notification),
    /// The client is to be pinged with this number; [`Dispatch::ponged`] when it answers.
    Ping(u64),
    End(pb::End),
    /// There is no routing for it, or what became of a message cannot be told.
    Lost,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Dispatch {
    bounds: Bounds,
    view: Arc<View>,
    /// How the device attaches; `None` while the session is nobody's device.
    who: Option<Attach>,
    attachment: Attachment,
    /// It has been attached, and the session knows.
    begun: bool,
    /// Of attachments in a row that were moved on at once.
    moves: u32,
    /// The greatest tag that the session has been given, by all attachments before this one, and by all.
    base: u64,
    last: u64,
    /// Where the session submits on each link.
    known: BTreeMap<LinkId, u32>,
    next_number: u32,
    /// By recipient. What is empty has no entry.
    lanes: BTreeMap<String, Lane>,
    /// The greatest of all lanes, and that of each that comes to be.
    generation: u32,
    owing: Owing,
    /// Messages that the client has sent.
    arrived: u64,
    messages: usize,
    /// Of messages that have no outcome.
    held: Charge,
    /// Links that have asked for a pause in submissions.
    pauses: BTreeMap<LinkId, Instant>,
    /// Since when some message has no replica to go to.
    stuck: Option<Instant>,
    /// The session has been told that it is lost. Nothing is submitted any more: its client sends all of it again, in order.
    over: bool,
    acts: VecDeque<Act>,
}

impl Dispatch {
    pub(crate) fn new(bounds: Bounds, view: Arc<View>) -> Self {
        let held = bounds.total.charge_anyway(0);
        Self {
            bounds,
            view,
            who: None,
            attachment: Attachment::None,
            begun: false,
            moves: 0,
            base: 0,
            last: 0,
            known: BTreeMap::new(),
            next_number: 0,
            lanes: BTreeMap::new(),
            // 0 is what an edge says that does not count.
            generation: 1,
            owing: Owing::default(),
            arrived: 0,
            messages: 0,
            held,
            pauses: BTreeMap::new(),
            stuck: None,
            over: false,
            acts: VecDeque::new(),
        }
    }

    /// What is to be done next; to be asked for after each of the others until there is nothing.
    pub(crate) fn next_act(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// Nothing more should be read from the client until there are outcomes.
    pub(crate) fn is_full(&self) -> bool {
        let share = (self.bounds.total.free() / SHARES).min(self.bounds.bytes);
        // Whoever has nothing under way may always send something.
        self.messages > 0 && (self.messages >= self.bounds.messages || self.held.amount() >= share)
    }

    /// Every message has its outcome.
    pub(crate) fn is_idle(&self) -> bool {
        self.messages == 0
    }

    /// Lets go of the room that a burst needed.
    pub(crate) fn rest(&mut self) {
        self.acts.shrink_to_fit();
        self.owing.rest();
    }

    /// Everywhere that the session is known, to be detached in the end.
    pub(crate) fn places(&self) -> Vec<Place> {
        let mut places: Vec<Place> =
            self.known.iter().map(|(link, number)| Place { link: *link, number: *number }).collect();
        places.extend(self.attached_at().filter(|place| !places.contains(place)));
        places
    }

    /// The session is a device's from now on.
    pub(crate) fn attach(&mut self, who: Attach, now: Instant) {
        self.who = Some(who);
        self.attachment = Attachment::Away { since: now, next: now };
        self.attach_if_due(now);
    }

    /// The client has sent a message.
    pub(crate) fn submit(&mut self, message: pb::Submit, now: Instant) {
        self.arrived += 1;
        let mut trip = Trip::begin(&message, now);
        let order = match self.admit(&message, now) {
            Ok(order) => order,
            Err(refused) => {
                trip.ends(&refused, now, &self.bounds.metrics);
                self.tell(Told::Outcome(*refused));
                return self.ping();
            }
        };
        let size = message.encoded_len() + OVERHEAD;
        self.held.grow_anyway(size);
        self.messages += 1;
        let to = message.to.clone();
        let newest = self.generation;
        let lane = match self.lanes.get_mut(&to) {
            Some(lane) => lane,
            None => self.lanes.entry(to.clone()).or_insert_with(|| Lane { generation: newest, ..Lane::default() }),
        };
        lane.queue.push_back(Kept { message, order, generation: lane.generation, tried: false, trip, size });
        self.pump(&to, now);
    }

    /// The client has acknowledged everything up to this tag.
    pub(crate) fn processed(&mut self, tag: u64) {
        // What earlier attachments delivered, they have written or will deliver again.
        if let Attachment::Here { place, .. } = self.attachment
            && tag > self.base
        {
            self.acts.push_back(Act::Send(place, ToRouting::Processed(tag - self.base)));
        }
    }

    /// Other links are up than before. Gives how many messages were submitted where nobody answers any more.
    pub(crate) fn see(&mut self, view: Arc<View>, now: Instant) -> usize {
        self.view = view;
        let view = Arc::clone(&self.view);
        let up = &view.links;
        self.known.retain(|link, _| up.contains_key(link));
        self.pauses.retain(|link, _| up.contains_key(link));
        let gone = |place: &Place| !up.contains_key(&place.link);
        let lanes = self.lanes.values_mut().filter(|lane| lane.place.as_ref().is_some_and(gone));
        let (mut lost, mut overtaking) = (0, false);
        for lane in lanes {
            overtaking |= lane.is_closing();
            lost += lane.lose();
        }
        if overtaking {
            self.tell(Told::Lost);
        }
        if let Attachment::Asked { since, place } = self.attachment
            && gone(&place)
        {
            self.attachment = Attachment::Away { since, next: now };
        } else if let Attachment::Here { place, .. } = self.attachment
            && gone(&place)
        {
            self.attachment = Attachment::Away { since: now, next: now };
        }
        // First, since it may be an introduction too.
        self.attach_if_due(now);
        self.pump_all(now);
        lost
    }

    /// A replica says something.
    pub(crate) fn event(&mut self, place: Place, event: FromRouting, now: Instant) {
        let attached = self.attached_at() == Some(place);
        match event {
            FromRouting::Outcome(outcome) => self.outcome(place, outcome, now),
            FromRouting::End(end) => self.end(place, end, attached, now),
            // Of an attachment that is over.
            _ if !attached => {}
            FromRouting::Attached(answer) => {
                if let Attachment::Asked { place, .. } = self.attachment {
                    self.attachment = Attachment::Here { since: now, place };
                }
                if !std::mem::replace(&mut self.begun, true) {
                    if let Some(who) = &mut self.who {
                        who.number = answer.number;
                    }
                    self.tell(Told::Attached(answer.waiting));
                }
            }
            FromRouting::Deliver(mut delivery) => {
                delivery.tag = delivery.tag.saturating_add(self.base);
                self.last = self.last.max(delivery.tag);
                self.tell(Told::Deliver(delivery));
            }
            FromRouting::Notify(notification) => self.tell(Told::Notify(notification)),
            FromRouting::Moved(Moved {}) => self.moved(place, now),
        }
    }

    /// When [`Dispatch::tick`] is due.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        let attachment = match self.attachment {
            Attachment::None | Attachment::Here { .. } => None,
            // Without a link there is nothing to try.
            Attachment::Away { since, next } if self.home().is_some() => Some(next.min(since + self.bounds.grace)),
            Attachment::Away { since, .. } | Attachment::Asked { since, .. } => Some(since + self.bounds.grace),
        };
        let stuck = self.stuck.map(|since| since + self.bounds.grace);
        [attachment, stuck, self.pauses.values().min().copied()].into_iter().flatten().min()
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        let away = match self.attachment {
            Attachment::None | Attachment::Here { .. } => None,
            Attachment::Away { since, .. } | Attachment::Asked { since, .. } => Some(since),
        };
        if [away, self.stuck].into_iter().flatten().any(|since| now >= since + self.bounds.grace) {
            self.tell(Told::Lost);
            return;
        }
        let pauses = self.pauses.len();
        self.pauses.retain(|_, until| *until > now);
        self.attach_if_due(now);
        if self.pauses.len() < pauses {
            self.pump_all(now);
        }
    }

    /// A message is kept no more.
    fn release(&mut self, kept: &Kept) {
        self.messages -= 1;
        self.held.shrink(kept.size);
    }

    fn tell(&mut self, told: Told) {
        self.over |= matches!(told, Told::Lost | Told::End(_));
        self.acts.push_back(Act::Tell(told));
    }

    /// The link to the replica that is responsible for an address, unless it has asked for a pause.
    fn link_for(&self, address: &str) -> Option<LinkId> {
        self.view.choose(address).filter(|link| !self.pauses.contains_key(link))
    }

    fn new_place(&mut self, link: LinkId) -> Place {
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        Place { link, number }
    }

    /// Where the session submits on this link.
    fn introduced(&mut self, link: LinkId) -> Place {
        if let Some(number) = self.known.get(&link) {
            return Place { link, number: *number };
        }
        let place = self.new_place(link);
        self.known.insert(link, place.number);
        if let Some(who) = &self.who {
            let introduction = Attach { submits_only: true, ..who.clone() };
            self.acts.push_back(Act::Send(place, ToRouting::Attach(introduction)));
        }
        place
    }
}
