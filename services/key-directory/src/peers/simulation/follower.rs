//! A follower, by the rules that routing keeps: a cache that is used while a lease holds, emptied with each stream, and
//! filled by requests that began under the lease and met no change.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, sleep, sleep_until};

use super::store::{ACCOUNTS, account_of, late};
use super::world::{Shared, Stream};
use crate::changes::Next;

const PING_EVERY: Duration = Duration::from_millis(250);

#[derive(Default)]
struct Cache {
    until: Option<Instant>,
    epoch: u64,
    records: [Option<u64>; ACCOUNTS],
    changes: [u64; ACCOUNTS],
}

impl Cache {
    fn begin(&mut self) {
        self.until = None;
        self.epoch += 1;
        self.records = [None; ACCOUNTS];
    }

    fn holds(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }
}

/// What was known when a request began.
struct Ticket {
    account: usize,
    epoch: u64,
    changes: u64,
}

/// Follows one directory after the other, for ever.
pub(super) async fn live(name: usize, shared: Arc<Shared>, mut random: StdRng) {
    let cache = Arc::new(Mutex::new(Cache::default()));
    loop {
        cache.lock().unwrap().begin();
        if let Some(stream) = shared.connect(&mut random) {
            one_stream(name, &shared, &cache, stream, &mut random).await;
        }
        cache.lock().unwrap().begin();
        sleep(Duration::from_millis(20)).await;
    }
}

async fn one_stream(name: usize, shared: &Arc<Shared>, cache: &Arc<Mutex<Cache>>, stream: Stream, random: &mut StdRng) {
    let Stream { mut incoming, outgoing, link } = stream;
    let (fetched, mut answers) = mpsc::unbounded_channel::<(Ticket, u64)>();
    let mut pings: VecDeque<(u64, Instant)> = VecDeque::new();
    let mut last_ping = 0;
    let mut acknowledged = 0;
    let mut ticks = tokio::time::interval(PING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let decide_in = Duration::from_millis(random.random_range(1..80));
        tokio::select! {
            biased;
            message = incoming.recv() => {
                let Some((sent, message)) = message else { return };
                sleep_until(sent.max(link.stalled_until())).await;
                match message {
                    Next::Lease { lasts, pong } => {
                        while pings.front().is_some_and(|(ping, _)| *ping < pong) {
                            pings.pop_front();
                        }
                        if let Some((_, at)) = pings.front().filter(|(ping, _)| *ping == pong && pong != 0) {
                            let until = *at + lasts;
                            let mut cache = cache.lock().unwrap();
                            cache.until = Some(cache.until.map_or(until, |before| before.max(until)));
                        }
                    }
                    Next::Change(number, change) => {
                        let account = account_of(&change);
                        {
                            let mut cache = cache.lock().unwrap();
                            cache.records[account] = None;
                            cache.changes[account] += 1;
                        }
                        acknowledged = number;
                        let _gone = outgoing.send((Instant::now() + late(random), acknowledged, 0));
                    }
                }
            }
            answer = answers.recv() => {
                let Some((ticket, version)) = answer else { return };
                let mut cache = cache.lock().unwrap();
                let valid = cache.holds() && cache.epoch == ticket.epoch;
                if valid && cache.changes[ticket.account] == ticket.changes {
                    cache.records[ticket.account] = Some(version);
                }
            }
            _ = ticks.tick() => {
                last_ping += 1;
                pings.push_back((last_ping, Instant::now()));
                if outgoing.send((Instant::now() + late(random), acknowledged, last_ping)).is_err() {
                    return;
                }
            }
            () = sleep(decide_in) => {
                let account = random.random_range(0..ACCOUNTS);
                let cache = cache.lock().unwrap();
                if !cache.holds() {
                    continue;
                }
                if let Some(version) = cache.records[account] {
                    shared.decided(name, account, version);
                    continue;
                }
                let ticket = Ticket { account, epoch: cache.epoch, changes: cache.changes[account] };
                let (there, back, shared) = (late(random), late(random), Arc::clone(shared));
                let fetched = fetched.clone();
                tokio::spawn(async move {
                    sleep(there).await;
                    let version = shared.store.version(account);
                    sleep(back).await;
                    let _gone = fetched.send((ticket, version));
                });
            }
        }
    }
}
