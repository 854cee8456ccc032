//! A server that is killed, or hangs, while it is used.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::*;
use crate::store::suite::{self as made, added};

const USERS: u8 = 6;
/// What each user's device does in turn; a kill comes at each third of all.
const ROUNDS: u32 = 40;
const KILLS: usize = 3;

/// Counts what has been confirmed, so that kills come in the middle.
#[derive(Default)]
struct Progress {
    done: AtomicUsize,
    changed: Notify,
}

impl Progress {
    fn step(&self) {
        self.done.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    async fn reaches(&self, goal: usize) {
        loop {
            let changed = self.changed.notified();
            if self.done.load(Ordering::SeqCst) >= goal {
                return;
            }
            changed.await;
        }
    }
}

/// Asks until it is confirmed; everything but a claim may be asked for again.
macro_rules! insist {
    ($ask:expr) => {
        loop {
            match $ask.await {
                Ok(answer) => break answer,
                Err(StoreError::Corrupt(what)) => panic!("corrupt: {what}"),
                // Nobody has to wait here: the store has waited for the server itself.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
}

/// What a user's device was told.
struct Ledger {
    account: AccountId,
    device: DeviceId,
    consent: Consent,
    /// Numbers of one-time EC keys that were given.
    given: BTreeSet<u32>,
    /// Claims without an answer; each may have cost a key.
    unanswered: usize,
}

async fn live(stores: [Arc<PostgresStore>; 2], user: u8, progress: Arc<Progress>) -> Ledger {
    let new = made::enlistment(user, 1);
    let (account, device) = match insist!(stores[0].enlist(&new)).outcome {
        Enlisted::Added { account, device } | Enlisted::Before { account, device } => (account, device),
        other => panic!("{other:?}"),
    };
    let mut ledger = Ledger { account, device, consent: Consent::default(), given: BTreeSet::new(), unanswered: 0 };
    for round in 0..ROUNDS {
        let store = &stores[(round as usize + usize::from(user)) % 2];
        let keys = made::one_time_keys(1, vec![2 * round + 1, 2 * round + 2], vec![]);
        insist!(store.publish(account, device, &keys));
        match store.claim(account, &[device], true, 0).await {
            Ok(claimed) => {
                if let Some(key) = &claimed.outcome[0].ec {
                    assert!(ledger.given.insert(key.id.get()), "a key was given twice");
                }
            }
            Err(_) => ledger.unanswered += 1,
        }
        let rule = (format!("r{round}.example").parse().unwrap(), true);
        let consent = Consent { interop: round % 2 == 0, rules: [rule].into(), ..Consent::default() };
        assert!(insist!(store.set_consent(account, device, &consent)).outcome);
        ledger.consent = consent;
        progress.step();
    }
    ledger
}

#[test]
fn nothing_that_was_confirmed_is_lost_when_the_server_is_killed() {
    let options = servers::Options { durable: true, ..servers::Options::default() };
    let mut server = Server(servers::Postgres::start_with(options).unwrap());
    let database = PostgresConfig { allow_unsafe_durability: false, ..server.database() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let progress = Arc::new(Progress::default());
    let (stores, lives) = runtime.block_on(async {
        let (one, other) = tokio::join!(PostgresStore::open(&database), PostgresStore::open(&database));
        let stores = [Arc::new(one.unwrap()), Arc::new(other.unwrap())];
        stores[0].register_provider(&made::provider(1), &made::token_keys(1), 10).await.unwrap();
        let lives: Vec<_> =
            (0..USERS).map(|user| tokio::spawn(live(stores.clone(), user, Arc::clone(&progress)))).collect();
        (stores, lives)
    });
    let all = usize::from(USERS) * ROUNDS as usize;
    for kill in 1..=KILLS {
        runtime.block_on(progress.reaches(all * kill / (KILLS + 1)));
        server.0.kill().unwrap();
        server.0.start_again().unwrap();
    }
    runtime.block_on(async {
        for (user, life) in (0..USERS).zip(lives) {
            let mut ledger = life.await.unwrap();
            let record = stores[0].record(&Who::Address(made::address(user))).await.unwrap().unwrap();
            assert_eq!((record.account, record.devices.len()), (ledger.account, 1));
            assert_eq!(record.consent, ledger.consent, "what was confirmed last");
            let mut bundle = made::claim(&*stores[1], ledger.account, ledger.device).await;
            while let Some(key) = bundle.ec {
                assert!(ledger.given.insert(key.id.get()), "a key was given twice");
                bundle = made::claim(&*stores[0], ledger.account, ledger.device).await;
            }
            let lost = 2 * ROUNDS as usize - ledger.given.len();
            assert!(lost <= ledger.unanswered, "{lost} keys are lost, {} claims were not answered", ledger.unanswered);
        }
    });
}

#[test]
fn a_server_that_is_away_is_an_error_of_a_call_and_comes_back() {
    let mut server = Server::start();
    let database = server.database();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let store = runtime.block_on(async { PostgresStore::open(&database).await.unwrap() });
    let (account, device) = runtime.block_on(made::an_account(&store));
    server.0.kill().unwrap();
    runtime.block_on(async {
        let start = Instant::now();
        let record = store.record(&Who::Account(account)).await;
        assert!(matches!(record, Err(StoreError::Away(_))), "{record:?}");
        let claim = store.claim(account, &[device], true, 0).await;
        assert!(matches!(claim, Err(StoreError::Away(_))), "{claim:?}");
        let status = tonic::Status::from(crate::error::CallError::Store(claim.unwrap_err()));
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
        assert!(futures::poll!(Box::pin(store.lost())).is_pending());
    });
    server.0.start_again().unwrap();
    runtime.block_on(async { made::record(&store, account).await });
}

#[test]
fn a_server_that_hangs_is_waited_for_no_longer_than_callers_wait() {
    let mut server = Server::start();
    let database = PostgresConfig { statement_timeout_ms: 1_000, connect_timeout_ms: 500, ..server.database() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let store = runtime.block_on(async { PostgresStore::open(&database).await.unwrap() });
    let (account, device) = runtime.block_on(made::an_account(&store));
    server.0.pause().unwrap();
    runtime.block_on(async {
        let start = Instant::now();
        let (who, consent) = (Who::Account(account), Consent::default());
        let (record, consent) = tokio::join!(store.record(&who), store.set_consent(account, device, &consent));
        assert!(record.is_err() && consent.is_err(), "{record:?}, {consent:?}");
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    });
    server.0.resume().unwrap();
    runtime.block_on(async {
        assert!(store.set_consent(account, device, &Consent::default()).await.unwrap().outcome);
        added(store.enlist(&made::enlistment(1, 2)).await.unwrap().outcome);
    });
}
