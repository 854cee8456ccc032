//! What the database, or the way to it, can do to a mailbox.

mod proxy;

use std::time::Duration;

use causeway_test_servers::{Options, Postgres as Server, PostgresPair};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::{config, open, open_with};
use crate::mailbox::postgres::{PostgresMailbox, PostgresMailboxConfig};
use crate::mailbox::suite::{LONG, ONE, account, device, enc, header, owned, put, request};
use crate::mailbox::{Bounds, Claimed, Mailbox, Put, PutOutcome, Replica, ReplicaId, StoreError, Usage};
use crate::message::Seq;
use proxy::{Cut, Proxy};

const WIDE: Bounds = Bounds { messages: 1_000_000, bytes: 1 << 40 };

fn message(to: u8, seq: u64) -> Put {
    let mut header = header(seq, 9, 1);
    header.key.id = causeway_identity::MessageId::from_bytes(u128::from(seq).to_be_bytes());
    put(to, header, vec![enc(1, 101, b"a")])
}

fn stored() -> PutOutcome {
    PutOutcome::Stored { repeats: Vec::new() }
}

async fn waiting(mailbox: &impl Mailbox, of: u8) -> Vec<u64> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = mailbox.page(request(of, 1, after)).await.unwrap();
        all.extend(page.entries.iter().map(|entry| entry.header.seq.0));
        if page.end {
            return all;
        }
        after = all.last().copied().unwrap_or(after);
    }
}

/// A mailbox behind a proxy, in which account 1 has entries 1 to 3.
async fn behind_a_proxy(server: &Server, idle_ms: u64) -> (PostgresMailbox, Proxy) {
    let proxy = Proxy::start(server.port()).await;
    let url = server.create_database().unwrap().replace(&server.port().to_string(), &proxy.port().to_string());
    let mut config = PostgresMailboxConfig { writers: 1, ..config(url) };
    config.postgres.idle_in_transaction_timeout_ms = idle_ms;
    let mailbox = owned(open(&config).await).await;
    for seq in 1..=3 {
        assert_eq!(mailbox.put(ONE, message(1, seq)).await.unwrap(), stored());
    }
    (mailbox, proxy)
}

/// The results must be those of the one time that it happened.
async fn one_batch_is_cut(mailbox: &PostgresMailbox, proxy: &Proxy, cut: Cut, meanwhile: impl AsyncFnOnce()) {
    let cuts = proxy.cuts();
    proxy.arm(cut);
    let kept = mailbox.put(ONE, message(1, 4));
    let forgotten = mailbox.forget(ONE, account(1), device(1), Seq(1));
    let counted = mailbox.usage(account(1));
    let (kept, forgotten, counted, ()) = futures::join!(kept, forgotten, counted, meanwhile());
    assert_eq!(kept.unwrap(), stored());
    assert_eq!(forgotten.unwrap(), Usage { messages: 1, bytes: 257 });
    assert_eq!(counted.unwrap()[0].usage.messages, 3);
    assert_eq!(waiting(mailbox, 1).await, [2, 3, 4]);
    assert_eq!(proxy.cuts(), cuts + 1);
    assert_eq!(mailbox.put(ONE, message(1, 5)).await.unwrap(), stored());
}

#[tokio::test]
async fn a_commit_without_an_answer_is_no_riddle() {
    let server = Server::start().unwrap();
    for cut in [Cut::BeforeCommit, Cut::AfterCommit] {
        let (mailbox, proxy) = behind_a_proxy(&server, 2_000).await;
        one_batch_is_cut(&mailbox, &proxy, cut, async || {}).await;
    }
}

#[tokio::test]
async fn a_commit_that_arrives_late_is_waited_for() {
    let server = Server::start().unwrap();
    let (mailbox, proxy) = behind_a_proxy(&server, 60_000).await;
    let late = async || {
        // The next attempt has met the lock of the first.
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        while server.execute("postgres", waits).unwrap()[0][0].as_deref() != Some("1") {
            tokio::task::yield_now().await;
        }
        proxy.let_it_arrive();
    };
    one_batch_is_cut(&mailbox, &proxy, Cut::Late, late).await;
}

#[tokio::test]
async fn a_commit_that_never_arrives_is_ended_by_the_server() {
    let server = Server::start().unwrap();
    let (mailbox, proxy) = behind_a_proxy(&server, 300).await;
    one_batch_is_cut(&mailbox, &proxy, Cut::Late, async || {}).await;
}

#[tokio::test]
async fn what_was_told_stored_survives_a_kill_of_the_server() {
    let mut server = Server::start_with(Options { durable: true, ..Options::default() }).unwrap();
    let mut config = config(server.create_database().unwrap());
    config.postgres.allow_unsafe_durability = false;
    config.write_timeout_ms = 30_000;
    let mailbox = owned(open_with(&config, WIDE).await).await;
    for round in 0..3_u64 {
        let mut under_way = FuturesUnordered::new();
        for seq in 1..=400 {
            for to in 1..=4 {
                under_way.push(mailbox.put(ONE, message(to, round * 1_000 + seq)));
            }
        }
        for _ in 0..200 {
            assert_eq!(under_way.next().await.unwrap().unwrap(), stored());
        }
        server.kill().unwrap();
        let starting = tokio::task::spawn_blocking(move || {
            server.start_again().unwrap();
            server
        });
        // Nobody is told that it failed: there was time enough.
        while let Some(result) = under_way.next().await {
            assert_eq!(result.unwrap(), stored());
        }
        server = starting.await.unwrap();
    }
    let want: Vec<u64> = (0..3).flat_map(|round| (1..=400).map(move |seq| round * 1_000 + seq)).collect();
    for to in 1..=4 {
        assert_eq!(waiting(&mailbox, to).await, want, "each once, in order");
        assert_eq!(mailbox.usage(account(to)).await.unwrap()[0].usage.messages, 1_200);
    }
}

#[tokio::test]
async fn while_the_database_is_away_operations_fail_in_time_and_go_on_after() {
    let mut server = Server::start().unwrap();
    let mut config = config(server.create_database().unwrap());
    (config.write_timeout_ms, config.postgres.connect_timeout_ms, config.writers) = (1_500, 1_000, 2);
    let mailbox = owned(open(&config).await).await;
    mailbox.put(ONE, message(1, 1)).await.unwrap();
    for hang in [false, true] {
        if hang {
            server.pause().unwrap()
        } else {
            server.kill().unwrap()
        }
        let puts: Vec<_> = (1..=4).map(|to| mailbox.put(ONE, message(to, 2 + u64::from(hang)))).collect();
        for put in puts {
            let error = put.await.unwrap_err();
            assert!(matches!(error, StoreError::Failed(_) | StoreError::Unknown(_)), "{error}");
        }
        assert!(matches!(mailbox.page(request(1, 1, 0)).await, Err(StoreError::Failed(_))));
        let one = Replica { id: ONE, url: String::new() };
        let error = mailbox.renew(&one, Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(error, StoreError::Failed(_) | StoreError::Unknown(_)), "{error}");
        if hang {
            server.resume().unwrap()
        } else {
            server.start_again().unwrap()
        }
        mailbox.renew(&one, LONG).await.unwrap();
        // Behind whatever the server has done late.
        let Claimed::Ours { usage, before } = mailbox.claim(ONE, account(1)).await.unwrap() else { panic!() };
        assert_eq!(before, Some(ONE));
        assert_eq!(usage[0].usage.messages, waiting(&mailbox, 1).await.len() as u64);
        mailbox.put(ONE, message(1, 10 + u64::from(hang))).await.unwrap();
    }
    mailbox.close().await;
    assert_eq!(mailbox.put(ONE, message(1, 20)).await, Err(StoreError::Closed));
}

#[tokio::test]
async fn the_standby_takes_over_with_everything_that_was_told_stored() {
    let mut pair = PostgresPair::start().unwrap();
    let (first, second) = pair.urls("postgres");
    let host = second.unwrap().split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
    let mut config = config(first.replace("/postgres", &format!(",{host}/postgres")));
    config.write_timeout_ms = 30_000;
    let mailbox = owned(open_with(&config, WIDE).await).await;
    let mut under_way = FuturesUnordered::new();
    for seq in 1..=1_000 {
        under_way.push(mailbox.put(ONE, message(1, seq)));
    }
    assert_eq!(under_way.next().await.unwrap().unwrap(), stored());
    let promoting = tokio::task::spawn_blocking(move || {
        pair.promote().unwrap();
        pair
    });
    while let Some(result) = under_way.next().await {
        assert_eq!(result.unwrap(), stored());
    }
    let _pair = promoting.await.unwrap();
    assert_eq!(mailbox.put(ONE, message(1, 1_001)).await.unwrap(), stored());
    assert_eq!(waiting(&mailbox, 1).await, (1..=1_001).collect::<Vec<_>>());
}

/// Somebody on the server cuts the wait for the standby short: then the server confirms a commit that only it has.
#[tokio::test]
async fn nothing_is_told_stored_before_the_standby_has_it() {
    let mut pair = PostgresPair::start().unwrap();
    let mut config = config(pair.urls("postgres").0);
    (config.write_timeout_ms, config.postgres.statement_timeout_ms) = (20_000, 20_000);
    let mailbox = owned(open_with(&config, WIDE).await).await;
    pair.standby().unwrap().pause().unwrap();
    let kept = mailbox.put(ONE, message(1, 1));
    let impatient = tokio::task::spawn_blocking(move || {
        let waits = "SELECT pid, query_start FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let mut first = None;
        loop {
            let found = pair.primary().execute("postgres", waits).unwrap();
            let Some(commit) = found.into_iter().find(|commit| first.as_ref() != Some(commit)) else { continue };
            if first.is_some() {
                return pair;
            }
            let cancel = format!("SELECT pg_cancel_backend({})", commit[0].as_deref().unwrap());
            pair.primary().execute("postgres", &cancel).unwrap();
            first = Some(commit);
        }
    });
    let (mut pair, kept) = match futures::future::select(impatient, kept).await {
        // The question what became of the commit waits for the standby in its turn.
        futures::future::Either::Left((pair, kept)) => (pair.unwrap(), kept),
        futures::future::Either::Right((told, _)) => panic!("told too early: {told:?}"),
    };
    pair.standby().unwrap().resume().unwrap();
    assert_eq!(kept.await.unwrap(), stored());
    assert_eq!(waiting(&mailbox, 1).await, [1]);
}

#[tokio::test]
async fn what_cannot_be_done_fails_alone() {
    let server = Server::start().unwrap();
    let config = PostgresMailboxConfig { writers: 1, ..config(server.create_database().unwrap()) };
    let mailbox = owned(open(&config).await).await;
    // A number that is taken: no owner does that.
    let mut clash = message(2, 1);
    clash.header = std::sync::Arc::new(header(1, 8, 77));
    let results = [
        mailbox.put(ONE, message(1, 1)),
        mailbox.put(ONE, message(2, 1)),
        mailbox.put(ONE, clash),
        mailbox.put(ONE, message(3, 1)),
        mailbox.put(ONE, message(4, 1)),
    ];
    let results = futures::future::join_all(results).await;
    assert!(matches!(&results[2], Err(StoreError::Failed(reason)) if reason.contains("23505")), "{results:?}");
    for of in [1, 3, 4] {
        assert_eq!(waiting(&mailbox, of).await, [1]);
    }
}

/// A renewal and a claim that meet when the lease ends: one of them wins, never both.
#[tokio::test]
async fn a_lease_is_renewed_or_replaced_and_never_both() {
    let server = Server::start().unwrap();
    let config = config(server.create_database().unwrap());
    let (a, b) = (open(&config).await, open(&config).await);
    let database = config.postgres.url.rsplit('/').next().unwrap();
    let replica = |n: u8| Replica { id: ReplicaId::from_bytes([n; 16]), url: format!("http://{n}.example:1") };
    b.renew(&replica(255), LONG).await.unwrap();
    let (mut renewed, mut replaced) = (0, 0);
    for n in 1..=8_u8 {
        let mine = replica(n);
        let lasts = Duration::from_millis(400);
        a.renew(&mine, lasts).await.unwrap();
        assert!(matches!(a.claim(mine.id, account(n)).await.unwrap(), Claimed::Ours { .. }));
        // Whoever comes while this is locked waits, and the lease ends meanwhile.
        let mut session = server.session(database).unwrap();
        session.execute("BEGIN").unwrap();
        let lock = format!("SELECT 1 FROM mailbox_replicas WHERE replica_id = '{}' FOR UPDATE", mine.id);
        session.execute(&lock).unwrap();
        let renewal = a.renew(&mine, LONG);
        let claim = async {
            loop {
                match b.claim(replica(255).id, account(n)).await.unwrap() {
                    // Its first lease holds still.
                    Claimed::Held(by) if by == mine && replicas(&b).await.contains(&mine.id) => continue,
                    claimed => return claimed,
                }
            }
        };
        let unlock = async {
            let over = format!(
                "SELECT count(*) FROM pg_stat_activity, mailbox_replicas WHERE wait_event_type = 'Lock'
                 AND replica_id = '{}' AND lease_until < clock_timestamp()",
                mine.id
            );
            while server.execute(database, &over).unwrap()[0][0].as_deref() == Some("0") {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            session.execute("COMMIT").unwrap();
        };
        // The claim would go on while the renewal has won: so it is asked once more at the end.
        let ((), renewal) = futures::join!(unlock, async {
            let claiming = Box::pin(claim);
            match futures::future::select(claiming, renewal).await {
                futures::future::Either::Left((claimed, renewal)) => (Some(claimed), renewal.await),
                futures::future::Either::Right((renewal, claiming)) if renewal.is_err() => {
                    (Some(claiming.await), renewal)
                }
                futures::future::Either::Right((renewal, _)) => (None, renewal),
            }
        });
        let held = matches!(b.claim(replica(255).id, account(n)).await.unwrap(), Claimed::Held(by) if by == mine);
        match renewal {
            (_, Ok(())) => {
                renewed += 1;
                assert!(held, "the lease holds, so nobody else has the account");
            }
            (claimed, Err(error)) => {
                replaced += 1;
                assert_eq!(error, StoreError::Fenced);
                assert!(matches!(claimed, Some(Claimed::Ours { before: Some(before), .. }) if before == mine.id));
                assert!(!held);
            }
        }
    }
    println!("renewed {renewed}, replaced {replaced}");
}

#[tokio::test]
async fn a_look_up_that_hangs_delays_neither_others_nor_writers() {
    let server = Server::start().unwrap();
    let config = config(server.create_database().unwrap());
    let mailbox = owned(open(&config).await).await;
    let mut session = server.session(config.postgres.url.rsplit('/').next().unwrap()).unwrap();
    session.execute("BEGIN; LOCK TABLE mailbox_entries IN ACCESS EXCLUSIVE MODE").unwrap();
    let looking =
        tokio::spawn(futures::future::join_all((0..20).map(|_| mailbox.holds(account(1), header(1, 9, 1).key))));
    let hang = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%EXISTS%'";
    while server.execute("postgres", hang).unwrap()[0][0].as_deref() != Some("4") {
        tokio::task::yield_now().await;
    }
    // Nobody else has become slower: each writer has a connection of its own.
    let written = (1..10).map(|of| mailbox.release(ONE, account(of)));
    assert!(futures::future::join_all(written).await.into_iter().all(|released| released == Ok(())));
    session.execute("ROLLBACK").unwrap();
    assert!(looking.await.unwrap().into_iter().all(|held| held == Ok(false)));
}

async fn replicas(mailbox: &PostgresMailbox) -> Vec<ReplicaId> {
    mailbox.replicas().await.unwrap().into_iter().map(|replica| replica.id).collect()
}
