//! Which devices are to be woken, and when: no I/O, time comes in.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use bytes::Bytes;
use causeway_identity::{AccountId, DeviceId, Domain};
use causeway_runtime::telemetry::trace::TraceContext;
use tokio::time::Instant;

use super::send::Sent;

/// A device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) account: AccountId,
    pub(super) device: DeviceId,
}

/// What its provider is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wake {
    /// Never logged.
    pub(crate) token: Bytes,
    pub(crate) urgent: bool,
    /// Of the message for which it is woken, if that is traced.
    pub(crate) trace: Option<TraceContext>,
}

/// A call to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    /// The same for each attempt.
    pub(super) id: String,
    pub(super) wake: Wake,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct QueueBounds {
    pub(super) devices: usize,
    pub(super) at_a_time: usize,
    pub(super) per_provider: usize,
    pub(super) interval: Duration,
    pub(super) give_up: Duration,
}

const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
pub(super) struct Queue {
    bounds: QueueBounds,
    providers: HashMap<Domain, Provider>,
    devices: usize,
    at_a_time: usize,
    random: RandomState,
    drawn: u64,
}

#[derive(Debug, Default)]
struct Provider {
    devices: HashMap<Key, Device>,
    due: BTreeSet<(Instant, Key)>,
    at_a_time: usize,
    /// Calls that failed since the last one that did not.
    failures: u32,
    blocked_until: Option<Instant>,
}

#[derive(Debug)]
struct Device {
    /// `None`: it has been called, and is remembered for the interval.
    job: Option<Job>,
    /// When the job was made.
    since: Instant,
    /// Its place in `due`; `None` while a call is being made.
    due: Option<Instant>,
    /// What came while the call was being made.
    again: Option<Wake>,
    failures: u32,
}

impl Queue {
    pub(super) fn new(bounds: QueueBounds) -> Self {
        Self { bounds, providers: HashMap::new(), devices: 0, at_a_time: 0, random: RandomState::new(), drawn: 0 }
    }

    /// Devices that wait to be woken, or are remembered.
    pub(super) fn len(&self) -> usize {
        self.devices
    }

    /// A device is to be woken; false when there is no room.
    pub(super) fn wake(&mut self, provider: &Domain, key: Key, wake: Wake, now: Instant) -> bool {
        let id = self.new_id();
        let full = self.devices >= self.bounds.devices;
        let known = self.providers.get(provider).is_some_and(|provider| provider.devices.contains_key(&key));
        if full && !known {
            return false;
        }
        let provider = self.providers.entry(provider.clone()).or_default();
        let Some(device) = provider.devices.get_mut(&key) else {
            let job = Job { id, wake };
            let device = Device { job: Some(job), since: now, due: Some(now), again: None, failures: 0 };
            provider.devices.insert(key, device);
            provider.due.insert((now, key));
            self.devices += 1;
            return true;
        };
        let Some(due) = device.due else {
            let urgent = wake.urgent || device.again.as_ref().is_some_and(|again| again.urgent);
            device.again = Some(Wake { urgent, ..wake });
            return true;
        };
        // One more message for a device that waits is no further call; a call that rings does not wait for the interval.
        let rings = wake.urgent && device.job.as_ref().is_none_or(|job| !job.wake.urgent);
        match &mut device.job {
            Some(job) => {
                job.wake = Wake { urgent: job.wake.urgent || wake.urgent, ..wake };
            }
            none => {
                *none = Some(Job { id, wake });
                device.since = now;
                device.failures = 0;
            }
        }
        if rings && due > now {
            provider.due.remove(&(due, key));
            provider.due.insert((now, key));
            device.due = Some(now);
        }
        true
    }

    /// The device needs no waking any more.
    pub(super) fn forget(&mut self, provider: &Domain, key: Key) {
        let Some(queue) = self.providers.get_mut(provider) else { return };
        let Some(device) = queue.devices.get_mut(&key) else { return };
        device.again = None;
        if let Some(due) = device.due {
            queue.due.remove(&(due, key));
            queue.devices.remove(&key);
            self.devices -= 1;
        }
        self.tidy(provider);
    }

    /// The provider may be tried at once.
    pub(super) fn unblock(&mut self, provider: &Domain) {
        if let Some(provider) = self.providers.get_mut(provider) {
            provider.blocked_until = None;
            provider.failures = 0;
        }
    }

    /// The calls to be made now, and when to look again.
    pub(super) fn take_due(&mut self, now: Instant) -> (Vec<(Domain, Key, Job)>, Option<Instant>) {
        let mut jobs = Vec::new();
        let mut next: Option<Instant> = None;
        let mut look_again_at = |at: Instant| next = Some(next.map_or(at, |before| before.min(at)));
        let mut emptied = Vec::new();
        for (domain, provider) in &mut self.providers {
            while let Some(&(due, key)) = provider.due.first() {
                let due_at = provider.blocked_until.map_or(due, |blocked| blocked.max(due));
                if due_at > now {
                    look_again_at(due_at);
                    break;
                }
                let Some(device) = provider.devices.get_mut(&key) else {
                    provider.due.pop_first();
                    continue;
                };
                let overdue = now.duration_since(device.since) > self.bounds.give_up;
                let Some(job) = device.job.clone().filter(|_| !overdue) else {
                    provider.due.pop_first();
                    provider.devices.remove(&key);
                    self.devices -= 1;
                    continue;
                };
                // Whoever finishes stirs the queue again. A provider that fails is tried with one call at a time.
                let most = if provider.failures == 0 { self.bounds.per_provider } else { 1 };
                if provider.at_a_time >= most || self.at_a_time >= self.bounds.at_a_time {
                    break;
                }
                provider.due.pop_first();
                device.due = None;
                provider.at_a_time += 1;
                self.at_a_time += 1;
                jobs.push((domain.clone(), key, job));
            }
            if provider.devices.is_empty() {
                emptied.push(domain.clone());
            }
        }
        for domain in emptied {
            self.tidy(&domain);
        }
        (jobs, next)
    }

    /// A call has been made.
    pub(super) fn done(&mut self, domain: &Domain, key: Key, sent: Sent, now: Instant) {
        let jitter = self.jitter();
        let id = self.new_id();
        self.at_a_time = self.at_a_time.saturating_sub(1);
        let Some(provider) = self.providers.get_mut(domain) else { return };
        provider.at_a_time = provider.at_a_time.saturating_sub(1);
        match sent {
            Sent::Failed { retry_after } => {
                provider.failures = provider.failures.saturating_add(1);
                let wait = backoff(provider.failures, jitter).max(retry_after.unwrap_or_default());
                provider.blocked_until = Some(now + wait);
            }
            Sent::Taken | Sent::Refused | Sent::Gone => {
                provider.failures = 0;
                provider.blocked_until = None;
            }
            Sent::Nowhere => {}
        }
        let Some(device) = provider.devices.get_mut(&key) else { return };
        let again = device.again.take();
        let due = match sent {
            Sent::Taken => {
                let urgent = again.as_ref().is_some_and(|again| again.urgent);
                device.job = again.map(|wake| Job { id, wake });
                device.since = now;
                device.failures = 0;
                Some(if urgent { now } else { now + self.bounds.interval })
            }
            Sent::Failed { .. } => Some(provider.blocked_until.unwrap_or(now)),
            Sent::Refused => {
                device.failures = device.failures.saturating_add(1);
                Some(now + backoff(device.failures, jitter))
            }
            Sent::Gone | Sent::Nowhere => None,
        };
        device.due = due;
        match due {
            Some(due) => {
                provider.due.insert((due, key));
            }
            None => {
                provider.devices.remove(&key);
                self.devices -= 1;
            }
        }
        self.tidy(domain);
    }

    /// Providers of which nothing is to be known take no room.
    fn tidy(&mut self, domain: &Domain) {
        if self.providers.get(domain).is_some_and(|provider| {
            provider.devices.is_empty() && provider.at_a_time == 0 && provider.blocked_until.is_none()
        }) {
            self.providers.remove(domain);
        }
    }

    /// Unique, and not to be guessed.
    fn new_id(&mut self) -> String {
        self.drawn = self.drawn.wrapping_add(2);
        format!("wake_{:016x}{:016x}", self.random.hash_one(self.drawn), self.random.hash_one(self.drawn + 1))
    }

    /// From 0 to 255.
    fn jitter(&mut self) -> u32 {
        self.drawn = self.drawn.wrapping_add(2);
        u32::try_from(self.random.hash_one(self.drawn) & 0xff).unwrap_or(0)
    }
}

/// Doubles with each failure, from half to one and a half of it.
fn backoff(failures: u32, jitter: u32) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LAST_RETRY);
    doubled / 2 + doubled * jitter / 256
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn queue() -> Queue {
        Queue::new(QueueBounds {
            devices: 3,
            at_a_time: 2,
            per_provider: 1,
            interval: INTERVAL,
            give_up: Duration::from_secs(24 * 3_600),
        })
    }

    fn key(n: u8) -> Key {
        Key { account: AccountId::from_bytes([n; 16]), device: DeviceId::new(1).unwrap() }
    }

    fn quiet() -> Wake {
        Wake { token: Bytes::from_static(b"token"), urgent: false, trace: None }
    }

    fn ring() -> Wake {
        Wake { urgent: true, ..quiet() }
    }

    fn birdy() -> Domain {
        "birdy.example".parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn many_messages_are_one_call_per_interval() {
        let (mut queue, start) = (queue(), Instant::now());
        for _ in 0..3 {
            assert!(queue.wake(&birdy(), key(1), quiet(), start));
        }
        let (jobs, _) = queue.take_due(start);
        assert_eq!(jobs.len(), 1);
        assert!(queue.wake(&birdy(), key(1), quiet(), start), "while it is called");
        queue.done(&birdy(), key(1), Sent::Taken, start);
        assert_eq!(queue.take_due(start), (vec![], Some(start + INTERVAL)));
        let (again, _) = queue.take_due(start + INTERVAL);
        assert_eq!(again.len(), 1);
        assert_ne!(again[0].2.id, jobs[0].2.id);
        queue.done(&birdy(), key(1), Sent::Taken, start + INTERVAL);
        assert_eq!(queue.take_due(start + 2 * INTERVAL), (vec![], None));
        assert_eq!((queue.devices, queue.providers.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_rings_does_not_wait() {
        let (mut queue, start) = (queue(), Instant::now());
        queue.wake(&birdy(), key(1), quiet(), start);
        queue.take_due(start);
        queue.done(&birdy(), key(1), Sent::Taken, start);
        queue.wake(&birdy(), key(1), ring(), start);
        let (jobs, _) = queue.take_due(start);
        assert!(jobs[0].2.wake.urgent);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_under_its_id_and_ever_more_rarely() {
        let (mut queue, mut now) = (queue(), Instant::now());
        queue.wake(&birdy(), key(1), quiet(), now);
        let id = queue.take_due(now).0[0].2.id.clone();
        let mut waited = Duration::ZERO;
        for attempt in 0..8 {
            queue.done(&birdy(), key(1), Sent::Failed { retry_after: None }, now);
            let (none, next) = queue.take_due(now);
            assert!(none.is_empty());
            let wait = next.unwrap() - now;
            assert!(wait >= waited / 3, "attempt {attempt}: {wait:?} after {waited:?}");
            (now, waited) = (now + wait, wait);
            let (jobs, _) = queue.take_due(now);
            assert_eq!(jobs[0].2.id, id);
        }
        assert!(waited >= Duration::from_secs(128), "{waited:?}");
        let patience = Duration::from_secs(7_200);
        queue.done(&birdy(), key(1), Sent::Failed { retry_after: Some(patience) }, now);
        assert!(queue.take_due(now).1.unwrap() >= now + patience);
        let much_later = now + Duration::from_secs(30 * 24 * 3_600);
        assert!(queue.take_due(much_later).0.is_empty(), "it is given up");
        assert_eq!(queue.devices, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_fails_holds_up_no_other() {
        let (mut queue, now) = (queue(), Instant::now());
        let other: Domain = "other.example".parse().unwrap();
        queue.wake(&birdy(), key(1), quiet(), now);
        queue.wake(&birdy(), key(2), quiet(), now);
        queue.wake(&other, key(3), quiet(), now);
        assert!(!queue.wake(&other, key(4), quiet(), now), "there is no room");
        let (jobs, _) = queue.take_due(now);
        assert_eq!(jobs.len(), 2, "one at a time of each");
        queue.done(&birdy(), key(1), Sent::Failed { retry_after: None }, now);
        queue.done(&other, key(3), Sent::Taken, now);
        queue.wake(&other, key(3), ring(), now);
        let (jobs, _) = queue.take_due(now);
        assert_eq!(jobs.len(), 1);
        assert_eq!(jobs[0].0, other);
        queue.unblock(&birdy());
        assert_eq!(queue.take_due(now + Duration::from_secs(10)).0[0].0, birdy());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_here_needs_no_waking() {
        let (mut queue, now) = (queue(), Instant::now());
        queue.wake(&birdy(), key(1), quiet(), now);
        queue.forget(&birdy(), key(1));
        assert_eq!(queue.take_due(now), (vec![], None));
        queue.wake(&birdy(), key(1), quiet(), now);
        assert_eq!(queue.take_due(now).0.len(), 1);
        queue.forget(&birdy(), key(1));
        queue.done(&birdy(), key(1), Sent::Gone, now);
        assert_eq!((queue.devices, queue.at_a_time, queue.providers.len()), (0, 0, 0));
    }
}
