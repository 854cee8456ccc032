//! Claims that are put together.

use futures::future::join_all;

use super::*;
use crate::store::suite::{self as made, added};

/// Two accounts with keys, and somebody who has locked the first one.
async fn with_lock(server: &Server) -> (PostgresStore, [(AccountId, DeviceId); 2], servers::Session) {
    let database = PostgresConfig { lock_timeout_ms: 50, ..server.database() };
    let store = PostgresStore::open(&database).await.unwrap();
    let first = made::an_account(&store).await;
    let second = added(store.enlist(&made::enlistment(2, 1)).await.unwrap().outcome);
    for (account, device) in [first, second] {
        let keys = made::one_time_keys(1, (1..=50).collect(), (1..=50).collect());
        store.publish(account, device, &keys).await.unwrap();
    }
    let name = database.url.rsplit('/').next().unwrap();
    let mut session = server.0.session(name).unwrap();
    session.execute(&format!("BEGIN; SELECT FROM accounts WHERE account_id = '\\x{}' FOR UPDATE", first.0)).unwrap();
    (store, [first, second], session)
}

#[tokio::test]
async fn one_account_that_is_held_up_holds_up_no_other() {
    let server = Server::start();
    let (store, [first, second], mut session) = with_lock(&server).await;
    let held_up = join_all((0..20).map(|_| made::claim(&store, first.0, first.1)));
    let others = async {
        let bundles = join_all((0..20).map(|_| made::claim(&store, second.0, second.1))).await;
        let mut ids: Vec<u32> = bundles.iter().map(|bundle| bundle.ec.as_ref().unwrap().id.get()).collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=20).collect::<Vec<_>>());
        // They have not waited for this.
        session.execute("ROLLBACK").unwrap();
    };
    let (bundles, ()) = tokio::join!(held_up, others);
    let mut ids: Vec<u32> = bundles.iter().map(|bundle| bundle.ec.as_ref().unwrap().id.get()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn more_claims_than_may_wait_are_refused_and_take_nothing() {
    let server = Server::start();
    let (store, [first, _], mut session) = with_lock(&server).await;
    let devices = [first.1];
    let mut claims: Vec<_> = (0..2_000).map(|_| Box::pin(store.claim(first.0, &devices, true, 0))).collect();
    let mut refused = 0;
    for claim in &mut claims {
        if let std::task::Poll::Ready(answer) = futures::poll!(claim) {
            assert!(matches!(answer, Err(StoreError::Overloaded)));
            refused += 1;
        }
    }
    assert_eq!(refused, 2_000 - 1_024);
    drop(claims);
    session.execute("ROLLBACK").unwrap();
    // Those who had given up before it was their turn have taken nothing, and have left their places.
    loop {
        match store.claim(first.0, &devices, true, 0).await {
            Ok(claimed) => {
                assert!(claimed.outcome[0].taken.0);
                break;
            }
            Err(error) => assert!(matches!(error, StoreError::Overloaded), "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn keys_are_found_by_the_account_whatever_the_server_knows_of_the_table() {
    let server = Server::start();
    let database = server.database();
    PostgresStore::open(&database).await.unwrap();
    let mut session = server.0.session(database.url.rsplit('/').next().unwrap()).unwrap();
    for (name, value) in SETTINGS {
        session.execute(&format!("SET {name} = {value}")).unwrap();
    }
    session.execute(&format!("PREPARE take AS {}", statements::TAKE_PREKEYS.text())).unwrap();
    let fill = "INSERT INTO one_time_prekeys SELECT decode(md5((n / 100)::text), 'hex'), 1, 1, n, n,
        decode(md5(n::text), 'hex'), 'key', NULL FROM generate_series(1, 20000) AS n; ANALYZE one_time_prekeys";
    for before in
        ["", fill, "UPDATE one_time_prekeys SET public_key = NULL WHERE place % 3 = 0; ANALYZE one_time_prekeys"]
    {
        session.execute(before).unwrap();
        let plan = session.execute("EXPLAIN EXECUTE take(NULL, NULL, NULL, NULL)").unwrap();
        let plan: Vec<String> = plan.into_iter().filter_map(|row| row[0].clone()).collect();
        let scans =
            plan.iter().enumerate().filter(|(_, line)| line.contains(" on one_time_prekeys") && line.contains("Scan"));
        let by_account = |at: usize| plan[at + 1].contains("Index Cond: ((account_id = ");
        let scans: Vec<bool> = scans.map(|(at, line)| !line.contains("Seq Scan") && by_account(at)).collect();
        assert_eq!(scans, [true; 5], "{plan:#?}");
    }
}
