//! What clients did and saw, written down as it happens, and the promises that it is held against.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::people::Person;

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
    told: Option<(Duration, Told)>,
}

#[derive(Debug, Default)]
struct State {
    sent: BTreeMap<Message, Sent>,
    /// What each device's application got, in order.
    got: BTreeMap<Person, Vec<(Duration, Message)>>,
    wire: u64,
    repeats: u64,
    /// When each account was closed for certain.
    closed: Vec<(u8, Duration, Option<Duration>)>,
    /// When each account may have refused something: longer than that, by what it takes until a change is known everywhere.
    refuses: Vec<(u8, Duration, Option<Duration>)>,
    violations: Vec<Violation>,
    log: Vec<String>,
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

    pub(crate) fn told(&self, message: Message, told: Told) {
        let mut state = self.state();
        state.note(&format!("{message:?} {told:?}"));
        let Some(sent) = state.sent.get_mut(&message) else {
            state.violate("an acknowledgement names a message that was submitted", format!("{message:?}"));
            return;
        };
        sent.told = Some((now(), told));
        if told == Told::Delivered {
            let missing: Vec<Person> = state
                .devices_of(message.to)
                .filter(|device| !state.got[device].iter().any(|(_, got)| *got == message))
                .collect();
            if !missing.is_empty() {
                state.violate("delivered means that every device has it", format!("{message:?} lacks {missing:?}"));
            }
        }
    }

    /// Something came over the wire for a device; true if its application has not had it.
    pub(crate) fn arrived(&self, device: Person, session: u32, message: Message, first: bool) {
        let mut state = self.state();
        state.note(&format!("{device:?} in session {session} gets {message:?}{}", if first { "" } else { " again" }));
        state.wire += 1;
        if message.to != device.account {
            state.violate("nobody gets what is for another", format!("{device:?} got {message:?}"));
        }
        if !state.sent.contains_key(&message) {
            state.violate("nothing comes from nowhere", format!("{device:?} got {message:?}"));
        }
        if !first {
            state.repeats += 1;
            return;
        }
        let got = state.got.get(&device).map(Vec::as_slice).unwrap_or_default();
        let later = got
            .iter()
            .find(|(_, other)| (other.from, other.to) == (message.from, message.to) && other.number > message.number);
        // What was refused, its answer lost, and what was taken when it came again, is late: nobody promised it a place. It may
        // have been under way for any time before it was refused.
        let refused = state.sent.get(&message).and_then(|sent| sent.submitted.first()).is_some_and(|(first, _)| {
            let until = |until: &Option<Duration>| until.unwrap_or(Duration::MAX);
            state
                .refuses
                .iter()
                .any(|(account, from, to)| *account == message.to && *from < now() && *first < until(to))
        });
        if let (Some((at, later)), false) = (later.copied(), refused) {
            state.violate(
                "a pair's messages stay in order",
                format!("{device:?} got {later:?} at {at:?}, then {message:?}"),
            );
        }
        state.got.entry(device).or_default().push((now(), message));
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
        state.sent.iter().all(|(message, sent)| sent.told.is_some_and(|told| state.lacks(message, told.1).is_empty()))
    }

    pub(crate) fn figures(&self) -> Figures {
        let state = self.state();
        let told = |wanted: &[Told]| {
            state.sent.values().filter(|sent| sent.told.is_some_and(|(_, told)| wanted.contains(&told))).count()
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
            let got_by = |device: &Person| state.got[device].iter().find(|(_, got)| got == message).map(|(at, _)| *at);
            match sent.told {
                Some((_, told @ (Told::Delivered | Told::Stored))) => {
                    let lacks = state.lacks(message, told);
                    if !lacks.is_empty() {
                        violate("what is acknowledged arrives", format!("{message:?} {told:?}, missing at {lacks:?}"));
                    }
                }
                // One that was submitted before may have been taken; that the account has closed since is true all the same.
                Some((_, Told::Rejected)) if sent.submitted.len() > 1 => {}
                Some((_, Told::Rejected)) => {
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
        for (device, got) in &state.got {
            let distinct: BTreeSet<Message> = got.iter().map(|(_, message)| *message).collect();
            if distinct.len() != got.len() {
                violate("nothing arrives twice", format!("{device:?}"));
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
        let has = |device: &Person| self.got[device].iter().any(|(_, got)| got == message);
        self.devices_of(message.to).filter(|device| !has(device)).collect()
    }
}
