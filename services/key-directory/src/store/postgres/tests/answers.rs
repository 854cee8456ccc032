//! Commits whose answers are lost: they happened, or they did not, and the store must cope with both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::store::RETIRED_MS;
use crate::store::suite::{self as made, added};

/// Between the store and the server: cuts a connection at its next commit when it is told to.
struct Cutter {
    port: u16,
    mode: Arc<AtomicU8>,
}

/// Everything passes.
const PASS: u8 = 0;
/// The next commit happens, and its answer is lost.
const LOSE_ANSWER: u8 = 1;
/// The next commit is lost on its way.
const LOSE_COMMIT: u8 = 2;

impl Cutter {
    async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cutter = Self { port: listener.local_addr().unwrap().port(), mode: Arc::new(AtomicU8::new(PASS)) };
        let mode = Arc::clone(&cutter.mode);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                tokio::spawn(forward(client, server, Arc::clone(&mode)));
            }
        });
        cutter
    }

    fn at_next_commit(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }

    /// The commit has come.
    fn has_cut(&self) -> bool {
        self.mode.load(Ordering::SeqCst) == PASS
    }
}

async fn forward(mut client: TcpStream, mut server: TcpStream, mode: Arc<AtomicU8>) {
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let commits = asked[..length].windows(7).any(|window| window == b"COMMIT\0");
                let cut = if commits { mode.swap(PASS, Ordering::SeqCst) } else { PASS };
                if cut == LOSE_COMMIT || server.write_all(&asked[..length]).await.is_err() {
                    return;
                }
                if cut == LOSE_ANSWER {
                    // It has happened when the server says so.
                    let _answer = server.read(&mut answered).await;
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answered[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A store behind a cutter, and the number that the log has come to.
async fn behind_cutter(server: &Server) -> (PostgresStore, Cutter) {
    let database = server.database();
    let cutter = Cutter::before(server.0.port()).await;
    let url = database.url.replace(&format!(":{}/", server.0.port()), &format!(":{}/", cutter.port));
    (PostgresStore::open(&PostgresConfig { url, ..database }).await.unwrap(), cutter)
}

async fn log_head(store: &PostgresStore) -> u64 {
    let connection = store.postgres().connection().await.unwrap();
    let head: i64 = connection.query_one("SELECT number FROM change_log_head", &[]).await.unwrap().get(0);
    head.unsigned_abs()
}

#[tokio::test]
async fn changes_are_made_once_though_the_answer_of_the_commit_is_lost() {
    let server = Server::start();
    for mode in [LOSE_ANSWER, LOSE_COMMIT] {
        let (store, cutter) = behind_cutter(&server).await;
        macro_rules! cut {
            ($change:expr) => {{
                cutter.at_next_commit(mode);
                let outcome = $change.await.unwrap();
                assert!(cutter.has_cut());
                outcome
            }};
        }
        /// The same, and followers are told of the last change in the log.
        macro_rules! cut_and_told {
            ($change:expr) => {{
                let written = cut!($change);
                assert_eq!(written.logged.number, Some(log_head(&store).await));
                assert_eq!(written.logged.changes.len(), 1);
                written.outcome
            }};
        }
        let provider = made::provider(1);
        let keys = made::token_keys(1);
        assert_eq!(cut_and_told!(store.register_provider(&provider, &keys, 10)), Registered::Done);
        let updated = cut_and_told!(store.update_provider(&provider.settings, &keys));
        assert!(matches!(updated, Updated::Done(after) if after.settings == provider.settings));
        let suspended = cut_and_told!(store.set_provider_status(&provider.settings.domain, ProviderStatus::Suspended));
        let revision = suspended.unwrap().revision;
        assert!(cut!(store.keep_token_keys(provider.id, revision, 1, &made::token_keys(2))));
        assert_eq!(store.token_keys(provider.id).await.unwrap(), Some(made::token_keys(2)));

        let (account, first) = match cut_and_told!(store.enlist(&made::enlistment(1, 1))) {
            Enlisted::Added { account, device } | Enlisted::Before { account, device } => (account, device),
            other => panic!("{other:?}"),
        };
        let (_, second) = added(store.enlist(&made::enlistment(1, 2)).await.unwrap().outcome);
        let (_, third) = added(store.enlist(&made::enlistment(1, 3)).await.unwrap().outcome);
        assert_eq!((first.get(), second.get(), third.get()), (1, 2, 3));
        let consent = Consent { interop: true, ..Consent::default() };
        assert!(cut_and_told!(store.set_consent(account, first, &consent)));
        let token = PushToken::new(bytes::Bytes::from_static(b"wake me")).unwrap();
        assert!(cut_and_told!(store.set_push(account, first, Some(&token))));
        assert_eq!(made::record(&store, account).await.consent, consent);

        let batch = made::one_time_keys(1, (1..=5).collect(), (1..=4).collect());
        let published = cut!(store.publish(account, first, &batch));
        assert_eq!(published, Published::Done(KeyCounts { ec: 5, kyber: 4 }));

        assert_eq!(cut_and_told!(store.remove_device(account, first, second, 1)), Removed::Done);
        assert_eq!(cut_and_told!(store.remove_device(account, third, third, 1)), Removed::Done, "itself");
        assert_eq!(made::record(&store, account).await.devices.len(), 1);
        assert!(cut_and_told!(store.withdraw(account, first, 1)));
        assert_eq!(store.record(&Who::Address(made::address(1))).await.unwrap(), None);
        let late = Enlistment { now_ms: RETIRED_MS + 10, ..made::enlistment(2, 1) };
        added(store.enlist(&late).await.unwrap().outcome);
    }
}

#[tokio::test]
async fn a_key_whose_claim_was_not_answered_is_not_given_again() {
    let server = Server::start();
    for (mode, next) in [(LOSE_ANSWER, 2), (LOSE_COMMIT, 1)] {
        let (store, cutter) = behind_cutter(&server).await;
        let (account, device) = made::an_account(&store).await;
        let batch = made::one_time_keys(1, (1..=3).collect(), (1..=3).collect());
        store.publish(account, device, &batch).await.unwrap();
        cutter.at_next_commit(mode);
        let lost = store.claim(account, &[device], true, 3).await;
        assert!(matches!(lost, Err(StoreError::Failed(_))), "{lost:?}");
        assert!(cutter.has_cut());
        let bundle = made::claim(&store, account, device).await;
        assert_eq!((bundle.ec.unwrap().id.get(), bundle.kyber.id.get()), (next, next));
        // Who runs low is in the log if, and only if, the claim happened.
        let low = made::claim(&store, account, device).await;
        assert_eq!(low.left, KeyCounts { ec: 2 - next, kyber: 2 - next });
        let told = log_head(&store).await;
        // Provider and device; and the lost claim, of three keys, and the last key.
        assert_eq!(told, if mode == LOSE_ANSWER { 4 } else { 2 });
    }
}

#[tokio::test]
async fn what_changes_nothing_is_not_committed() {
    let server = Server::start();
    let (store, cutter) = behind_cutter(&server).await;
    let (account, first) = made::an_account(&store).await;
    let nobody = DeviceId::new(9).unwrap();
    let head = log_head(&store).await;
    cutter.at_next_commit(LOSE_COMMIT);
    assert!(!store.set_consent(account, nobody, &Consent::default()).await.unwrap().outcome);
    assert!(!store.set_push(account, nobody, None).await.unwrap().outcome);
    assert!(!store.withdraw(account, nobody, 1).await.unwrap().outcome);
    assert_eq!(store.remove_device(account, first, nobody, 1).await.unwrap().outcome, Removed::NoDevice);
    let no_keys_left = store.claim(account, &[first], true, 5).await.unwrap();
    assert_eq!((no_keys_left.outcome.len(), no_keys_left.logged.changes), (1, vec![]));
    assert!(!cutter.has_cut());
    assert_eq!(log_head(&store).await, head);
}
