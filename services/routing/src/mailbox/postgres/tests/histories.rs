//! Random histories against the model, one operation after the other; and queued all at once, against SQLite, which does
//! one after the other.

use causeway_test_servers::Postgres as Server;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;

use super::{config, open};
use crate::mailbox::sqlite::SqliteMailbox;
use crate::mailbox::suite::model::{self, Step};
use crate::mailbox::suite::{BOUNDS, ONE, account, device, enc, header, owned, put};
use crate::mailbox::{Commit, DeviceUsage, Mailbox, PutOutcome, StoreError, Usage};
use crate::message::{Header, Seq};
use crate::metrics::Metrics;

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn any_history_is_as_in_the_model() {
    let (server, runtime) = (Server::start().unwrap(), runtime());
    let run = |history| {
        let config = config(server.create_database().unwrap());
        runtime.block_on(async {
            let mailbox = open(&config).await;
            // Nothing is under way when a step ends, so a new start finds what a process that was killed left.
            let reopen = async |before| {
                drop(before);
                open(&config).await
            };
            model::run(mailbox, history, reopen).await;
        });
        Ok(())
    };
    runner(12).run(&model::histories(), run).unwrap();
}

#[test]
fn what_is_queued_together_is_as_if_one_after_the_other() {
    let (server, runtime) = (Server::start().unwrap(), runtime());
    let run = |history: Vec<Step>| {
        let dir = TempDir::new().unwrap();
        let config = config(server.create_database().unwrap());
        runtime.block_on(async {
            let oracle = SqliteMailbox::open(dir.path(), BOUNDS, Metrics::new()).unwrap();
            let (oracle, mailbox) = (owned(oracle).await, owned(open(&config).await).await);
            let (want, got) = (queue(&oracle, &history), queue(&mailbox, &history));
            for (number, (want, got)) in want.into_iter().zip(got).enumerate() {
                assert_eq!(got.await, want.await, "step {number} of {history:?}");
            }
            assert!(mailbox.commits() <= 4 * 9 + 8, "few batches: {}", mailbox.commits());
        });
        Ok(())
    };
    runner(24).run(&model::histories(), run).unwrap();
}

#[derive(Debug, PartialEq, Eq)]
enum Result {
    Put(PutOutcome),
    Erased(Usage),
    Dropped,
    Usage(Vec<DeviceUsage>),
}

type Waiting = Commit<Result>;

fn then<T: Send + 'static>(waiting: Commit<T>, result: fn(T) -> Result) -> Waiting {
    Box::pin(async move { waiting.await.map(result) })
}

/// All operations of a history that concern accounts, each followed by a look at what waits.
fn queue(mailbox: &impl Mailbox, history: &[Step]) -> Vec<Waiting> {
    let mut waiting = Vec::new();
    for (step, number) in history.iter().zip(1..) {
        let (of, operation) = match step {
            Step::Put { account: to, devices, registration, sender, id, bytes, expires_ms } => {
                let header = Header { expires_ms: *expires_ms, ..header(number, *sender, *id) };
                let parts = devices.iter().map(|&to| enc(to, *registration, &vec![1; *bytes])).collect();
                (*to, then(mailbox.put(ONE, put(*to, header, parts)), Result::Put))
            }
            Step::Forget { account: to, device: of, share } => {
                let upto = Seq(number * u64::from(*share) / 100);
                (*to, then(mailbox.forget(ONE, account(*to), device(*of), upto), Result::Erased))
            }
            Step::DropDevice { account: to, device: of, keep } => {
                (*to, then(mailbox.drop_device(ONE, account(*to), device(*of), *keep), Result::Erased))
            }
            Step::DropAccount { account: to } => {
                (*to, then(mailbox.drop_account(ONE, account(*to)), |()| Result::Dropped))
            }
            Step::Expire { .. } | Step::Crash => continue,
        };
        waiting.push(operation);
        if number % 3 == 0 {
            waiting.push(then(mailbox.usage(account(of)), Result::Usage));
        }
    }
    waiting.push(Box::pin(async { Ok::<_, StoreError>(Result::Dropped) }));
    waiting
}
