//! What clients did and saw, written down as it happens, and the promises that it is held against.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::people::{Person, address};

/// A fault is felt for so long after it was mended: leases must end, and accounts go back to where they were.
const FAULT_IS_FELT: Duration = Duration::from_secs(5);
/// The first links are up, and accounts where they belong, after so long.
const BEGINNING: Duration = Duration::from_secs(2);
/// What a device acknowledged so long before its session ended is known to the server.
const ACK_TAKES: Duration = Duration::from_secs(1);

/// A message of a device to an account; its number counts the device's messages to that account from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Message {
    pub(crate) from: Person,
    pub(crate) to: u8,
    pub(crate) number: u32,
}

/// What a sender was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Delivered,
    Stored,
    Rejected,
}

#[derive(Debug, Default)]
struct Sent {
    /// When it was submitted, and in which session of its sender.
    submitted: Vec<(Duration, u32)>,
    /// The first outcome.
    told: Option<Told>,
}

/// A delivery, as its device reads it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) tag: u64,
    pub(crate) message: Message,
    /// Whom the body is for.
    pub(crate) body_for: Person,
}

/// A session of a device.
#[derive(Debug)]
struct Session {
    number: u32,
    begun: Duration,
    ended: Option<Duration>,
    last_tag: u64,
    /// What came and is not acknowledged yet.
    open: Vec<(u64, Message)>,
    /// It has acknowledged what was never sent.
    lied: bool,
}

/// A message that a device has.
#[derive(Debug)]
struct Got {
    message: Message,
    /// When its application got it.
    at: Duration,
    /// When it came last, and in which session.
    last: (Duration, u32),
    /// When the device acknowledged it first, and in which session.
    acknowledged: Option<(Duration, u32)>,
}

#[derive(Debug, Default)]
struct State {
    sent: BTreeMap<Message, Sent>,
    /// What each device's application got, in order.
    got: BTreeMap<Person, Vec<Got>>,
    sessions: BTreeMap<Person, Vec<Session>>,
    /// When something is broken: after that, a message that was delivered may come again.
    faults: Vec<Disturbance>,
    wire: u64,
    repeats: u64,
    /// When each account was closed for certain.
    closed: Vec<(u8, Duration, Option<Duration>)>,
    /// When each account may have refused something: longer than that, by what it takes until a change is known everywhere.
    refuses: Vec<(u8, Duration, Option<Duration>)>,
    violations: Vec<Violation>,
    log: Vec<String>,
}

/// Something that is broken from then to then.
#[derive(Debug, Default, Clone, Copy)]
struct Disturbance {
    from: Duration,
    until: Duration,
    /// It is felt for so long after it was mended.
    felt: Duration,
    /// It cuts this device's connections: they may stay lame in one direction for as long as they last, since nothing is sent
    /// twice in this network. Links between servers are watched, and end.
    cuts: Option<Person>,
}

/// A promise that was not kept.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) promise: &'static str,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

/// The figures of one run.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) messages: usize,
    pub(crate) acknowledged: usize,
    pub(crate) delivered: usize,
    pub(crate) deliveries: u64,
    pub(crate) repeats: u64,
}

/// The ledger of a run; all clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<State>>);

fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

impl Ledger {
    pub(crate) fn submitted(&self, message: Message, session: u32) {
        let mut state = self.state();
        state.note(&format!("{message:?} submitted in session {session}"));
        state.sent.entry(message).or_default().submitted.push((now(), session));
    }

    /// Something is broken from then to then; if it cuts the connections of a device, of which.
    pub(crate) fn breaks(&self, from: Duration, until: Duration, cuts: Option<Person>) {
        self.state().faults.push(Disturbance { from, until, felt: FAULT_IS_FELT, cuts });
    }

    /// Links come up one after the other, and accounts move to where they belong.
    pub(crate) fn begins(&self) {
        self.state().faults.push(Disturbance { felt: BEGINNING, ..Disturbance::default() });
    }

    pub(crate) fn connected(&self, device: Person, session: u32) {
        let begun = Session { number: session, begun: now(), ended: None, last_tag: 0, open: Vec::new(), lied: false };
        self.state().sessions.entry(device).or_default().push(begun);
    }

    pub(crate) fn ended(&self, device: Person, session: u32) {
        if let Some(session) = self.state().session(device, session) {
            session.ended.get_or_insert_with(now);
        }
    }

    /// An acknowledgement for this device names a message to an account; true if there is such a message.
    pub(crate) fn named(&self, device: Person, session: u32, message: Message, to: &str) -> bool {
        let mut state = self.state();
        let submitted = |sent: &Sent| sent.submitted.iter().any(|(_, submitted)| *submitted == session);
        let known = message.from == device && state.sent.get(&message).is_some_and(submitted);
        let right = known && to == address(message.to).to_string();
        if !right {
            let what = format!("{device:?} in session {session}: {message:?} to {to}");
            state.violate("an acknowledgement names a message that its session submitted", what);
        }
        right
    }

    /// What the sender is told, the first time or again.
    pub(crate) fn told(&self, message: Message, told: Told) {
        let mut state = self.state();
        state.note(&format!("{message:?} {told:?}"));
        let Some(sent) = state.sent.get_mut(&message) else { return };
        sent.told.get_or_insert(told);
        if told == Told::Delivered {
            let has_acknowledged =
                |device: &Person| state.got(device, message).is_some_and(|got| got.acknowledged.is_some());
            let missing: Vec<Person> =
                state.devices_of(message.to).filter(|device| !has_acknowledged(device)).collect();
            if !missing.is_empty() {
                state.violate(
                    "delivered means that every device has acknowledged",
                    format!("{message:?}, and {missing:?} did not"),
                );
            }
        }
    }

    /// Something came over the wire for a device.
    pub(crate) fn arrived(&self, device: Person, session: u32, arrival: Arrival) {
        let mut state = self.state();
        let Arrival { tag, message, body_for } = arrival;
        state.note(&format!("{device:?} in session {session} gets {message:?} with tag {tag}"));
        state.wire += 1;
        if message.to != device.account || body_for != device {
            let what = format!("{device:?} got what is for {body_for:?}: {message:?}");
            state.violate("nobody gets what is for another", what);
        }
        if !state.sent.contains_key(&message) {
            state.violate("nothing comes from nowhere", format!("{device:?} got {message:?}"));
        }
        if let Some(in_session) = state.session(device, session) {
            let last = std::mem::replace(&mut in_session.last_tag, tag);
            in_session.open.push((tag, message));
            if last + 1 != tag {
                let what = format!("{device:?} in session {session}: {tag} after {last}");
                state.violate("tags rise by one, from 1", what);
            }
        }
        match state.got(&device, message) {
            Some(_) => state.came_again(device, session, message),
            None => state.came_first(device, session, message),
        }
    }

    /// The device acknowledges everything up to a tag.
    pub(crate) fn acknowledges(&self, device: Person, session: u32, upto: u64) {
        let mut state = self.state();
        state.note(&format!("{device:?} in session {session} acknowledges {upto}"));
        let Some(in_session) = state.session(device, session) else { return };
        let acknowledged: Vec<Message> =
            in_session.open.extract_if(.., |(tag, _)| *tag <= upto).map(|(_, message)| message).collect();
        for got in state.got.get_mut(&device).into_iter().flatten() {
            if acknowledged.contains(&got.message) {
                got.acknowledged.get_or_insert((now(), session));
            }
        }
    }

    /// The device acknowledges what was never sent.
    pub(crate) fn lies(&self, device: Person, session: u32) {
        let mut state = self.state();
        state.note(&format!("{device:?} in session {session} acknowledges what was never sent"));
        if let Some(session) = state.session(device, session) {
            session.lied = true;
        }
    }

    /// What was asked behind such an acknowledgement was answered.
    pub(crate) fn believed(&self, device: Person, session: u32) {
        let what = format!("{device:?} in session {session}");
        self.state().violate("a wrong acknowledgement ends the session", what);
    }

    /// The session is ended for a wrong acknowledgement.
    pub(crate) fn disbelieved(&self, device: Person, session: u32) {
        let mut state = self.state();
        if !state.session(device, session).is_some_and(|session| session.lied) {
            let what = format!("{device:?} in session {session}");
            state.violate("a right acknowledgement does not end the session", what);
        }
    }

    /// A delivery contradicts itself.
    pub(crate) fn garbled(&self, device: Person, session: u32, why: &str) {
        let what = format!("{device:?} in session {session}: {why}");
        self.state().violate("a delivery is what its sender sent", what);
    }

    /// A session is told that a newer one of its device has come. Clients here begin a login only when they have done with
    /// the one before, and hear nothing of that one any more: so whoever hears this is in the newest.
    pub(crate) fn replaced(&self, device: Person, session: u32) {
        let what = format!("{device:?} in session {session}");
        self.state().violate("only a login that began later replaces a session", what);
    }

    pub(crate) fn note(&self, what: &str) {
        self.state().note(what);
    }

    /// From outside of the simulated hosts.
    pub(crate) fn note_at(&self, at: Duration, what: &str) {
        self.state().log.push(format!("{:>9.3} {what}", at.as_secs_f64()));
    }

    /// The account is about to be closed.
    pub(crate) fn closes(&self, account: u8) {
        self.state().refuses.push((account, now(), None));
    }

    pub(crate) fn closed(&self, account: u8) {
        self.state().closed.push((account, now(), None));
    }

    /// Called before the account is opened again.
    pub(crate) fn opens(&self, account: u8) {
        let mut state = self.state();
        if let Some((_, _, until)) = state.closed.iter_mut().rev().find(|(closed, ..)| *closed == account) {
            *until = Some(now());
        }
    }

    /// It is open for everybody.
    pub(crate) fn opened(&self, account: u8) {
        let mut state = self.state();
        if let Some((_, _, until)) = state.refuses.iter_mut().rev().find(|(closed, ..)| *closed == account) {
            *until = Some(now());
        }
    }

    pub(crate) fn join(&self, people: &[Person]) {
        let mut state = self.state();
        for person in people {
            state.got.entry(*person).or_default();
        }
    }

    /// True when every message has an outcome, and every device has what it should have.
    pub(crate) fn is_settled(&self) -> bool {
        let state = self.state();
        state.sent.iter().all(|(message, sent)| sent.told.is_some_and(|told| state.lacks(message, told).is_empty()))
    }

    pub(crate) fn figures(&self) -> Figures {
        let state = self.state();
        let told = |wanted: &[Told]| {
            state.sent.values().filter(|sent| sent.told.is_some_and(|told| wanted.contains(&told))).count()
        };
        Figures {
            messages: state.sent.len(),
            acknowledged: told(&[Told::Delivered, Told::Stored]),
            delivered: told(&[Told::Delivered]),
            deliveries: state.wire,
            repeats: state.repeats,
        }
    }

    /// What was not kept, at the end of a run in which everything had time to settle.
    pub(crate) fn check(&self) -> Vec<Violation> {
        let mut state = self.state();
        let mut found = std::mem::take(&mut state.violations);
        let mut violate = |promise, what| found.push(Violation { promise, what });
        for (message, sent) in &state.sent {
            let got_by = |device: &Person| state.got(device, *message).map(|got| got.at);
            match sent.told {
                Some(told @ (Told::Delivered | Told::Stored)) => {
                    let lacks = state.lacks(message, told);
                    if !lacks.is_empty() {
                        violate("what is acknowledged arrives", format!("{message:?} {told:?}, missing at {lacks:?}"));
                    }
                }
                // One that was submitted before may have been taken; that the account has closed since is true all the same.
                Some(Told::Rejected) if sent.submitted.len() > 1 => {}
                Some(Told::Rejected) => {
                    for device in state.devices_of(message.to).filter(|device| got_by(device).is_some()) {
                        violate("what is rejected does not arrive", format!("{message:?} at {device:?}"));
                    }
                }
                None => violate("every message gets an outcome in the end", format!("{message:?}")),
            }
            for (account, from, until) in &state.closed {
                let until = until.unwrap_or(Duration::MAX);
                let inside = sent.submitted.iter().all(|(at, _)| from < at && *at < until);
                if *account == message.to && inside {
                    for device in
                        state.devices_of(*account).filter(|device| got_by(device).is_some_and(|at| at < until))
                    {
                        violate(
                            "who has closed gets nothing",
                            format!("{message:?} at {device:?}, closed from {from:?}"),
                        );
                    }
                }
            }
        }
        found
    }

    /// Everything that was written down.
    pub(crate) fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, what: &str) {
        self.log.push(format!("{:>9.3} {what}", now().as_secs_f64()));
    }

    fn violate(&mut self, promise: &'static str, what: String) {
        self.note(&format!("VIOLATION {promise}: {what}"));
        self.violations.push(Violation { promise, what });
    }

    fn devices_of(&self, account: u8) -> impl Iterator<Item = Person> {
        self.got.keys().copied().filter(move |device| device.account == account)
    }

    /// The devices that should have a message and have not.
    fn lacks(&self, message: &Message, told: Told) -> Vec<Person> {
        if told == Told::Rejected {
            return Vec::new();
        }
        self.devices_of(message.to).filter(|device| self.got(device, *message).is_none()).collect()
    }

    fn got(&self, device: &Person, message: Message) -> Option<&Got> {
        self.got.get(device)?.iter().find(|got| got.message == message)
    }

    fn session(&mut self, device: Person, number: u32) -> Option<&mut Session> {
        self.sessions.get_mut(&device)?.iter_mut().rev().find(|session| session.number == number)
    }

    fn came_first(&mut self, device: Person, session: u32, message: Message) {
        let got = self.got.get(&device).map(Vec::as_slice).unwrap_or_default();
        let later = got.iter().find(|got| {
            (got.message.from, got.message.to) == (message.from, message.to) && got.message.number > message.number
        });
        let later = later.map(|got| (got.at, got.message));
        // What was refused, its answer lost, and what was taken when it came again, is late: nobody promised it a place. It may
        // have been under way for any time before it was refused.
        let refused = self.sent.get(&message).and_then(|sent| sent.submitted.first()).is_some_and(|(first, _)| {
            let until = |until: &Option<Duration>| until.unwrap_or(Duration::MAX);
            // Both of them must be open.
            let concerned = |account: u8| [message.to, message.from.account].contains(&account);
            self.refuses.iter().any(|(account, from, to)| concerned(*account) && *from < now() && *first < until(to))
        });
        if let (Some((at, later)), false) = (later, refused) {
            self.violate(
                "a pair's messages stay in order",
                format!("{device:?} got {later:?} at {at:?}, then {message:?}"),
            );
        }
        let got = Got { message, at: now(), last: (now(), session), acknowledged: None };
        self.got.entry(device).or_default().push(got);
    }

    /// A device may get again what it had not acknowledged when a session of it ended; and anything when those who remember
    /// outcomes and acknowledgements may have failed since.
    fn came_again(&mut self, device: Person, session: u32, message: Message) {
        self.repeats += 1;
        let Some(got) = self.got(&device, message) else { return };
        let ((last, in_session), acknowledged) = (got.last, got.acknowledged);
        let lived = self.session(device, in_session).map(|session| (session.begun, session.ended.unwrap_or_else(now)));
        let disturbed = self.faults.iter().any(|fault| {
            let lived = lived.is_some_and(|(begun, ended)| begun <= fault.until && fault.from <= ended);
            let lame = fault.cuts == Some(device) && lived;
            fault.from <= now() && (last <= fault.until + fault.felt || lame)
        });
        let in_time = acknowledged.is_some_and(|(at, number)| {
            let ended = self.session(device, number).and_then(|session| session.ended);
            ended.is_none_or(|ended| at + ACK_TAKES < ended)
        });
        let was_open = session != in_session && !in_time;
        if !disturbed && !was_open {
            let what = format!("{device:?} got {message:?} at {last:?} in session {in_session}, now in {session}");
            self.violate("nothing comes twice without a reason", what);
        }
        for got in self.got.get_mut(&device).into_iter().flatten().filter(|got| got.message == message) {
            got.last = (now(), session);
        }
    }
}

#[cfg(test)]
mod tests;
