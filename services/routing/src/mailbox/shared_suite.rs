//! What every mailbox must do that several processes share: who owns an account, and who may write. A backend calls
//! [`shared_suite`] with a way to make two handles on one fresh store.

use std::time::Duration;

use super::suite::{LONG, account, device, enc, header, put, request};
use super::{Claimed, DeviceUsage, Mailbox, Replica, ReplicaId, StoreError};
use crate::message::Seq;

const A: ReplicaId = ReplicaId::from_bytes([0xa; 16]);
const B: ReplicaId = ReplicaId::from_bytes([0xb; 16]);
const A_AGAIN: ReplicaId = ReplicaId::from_bytes([0xaa; 16]);
/// A lease that a test waits for the end of.
const SHORT: Duration = Duration::from_millis(600);

/// Runs all tests; `pass` must let at least so much of the store's time go by.
pub(crate) async fn shared_suite<M: Mailbox>(fresh: impl AsyncFn() -> (M, M), pass: impl AsyncFn(Duration)) {
    let (a, b) = fresh().await;
    an_account_has_one_owner(&a, &b).await;
    let (a, b) = fresh().await;
    who_is_not_the_owner_writes_nothing(&a, &b).await;
    let (a, b) = fresh().await;
    what_one_stored_the_next_owner_has(&a, &b).await;
    let (a, b) = fresh().await;
    when_a_lease_ends_the_account_is_free_and_its_owner_fenced(&a, &b, &pass).await;
    let (a, b) = fresh().await;
    a_lease_that_has_ended_is_not_renewed(&a, &b, &pass).await;
    let (a, b) = fresh().await;
    an_owner_keeps_its_account_over_a_new_lease(&a, &b, &pass).await;
    let (a, b) = fresh().await;
    who_leaves_frees_everything(&a, &b).await;
    let (a, b) = fresh().await;
    a_release_comes_behind_what_was_queued(&a, &b).await;
    let (a, b) = fresh().await;
    one_of_many_claims_wins(&a, &b).await;
    let (a, b) = fresh().await;
    anybody_may_read_and_expire(&a, &b).await;
}

fn replica(id: ReplicaId) -> Replica {
    let name = if id == B { "b" } else { "a" };
    Replica { id, url: format!("http://{name}.example:7000") }
}

async fn register(mailbox: &impl Mailbox, id: ReplicaId, lasts: Duration) {
    mailbox.renew(&replica(id), lasts).await.unwrap();
}

async fn claim(mailbox: &impl Mailbox, id: ReplicaId, of: u8) -> (Vec<DeviceUsage>, Option<ReplicaId>) {
    match mailbox.claim(id, account(of)).await.unwrap() {
        Claimed::Ours { usage, before } => (usage, before),
        Claimed::Held(by) => panic!("account {of} is held by {by:?}"),
    }
}

async fn stored(mailbox: &impl Mailbox, of: u8) -> Vec<u64> {
    let page = mailbox.page(request(of, 1, 0)).await.unwrap();
    page.entries.iter().map(|entry| entry.header.seq.0).collect()
}

async fn an_account_has_one_owner(a: &impl Mailbox, b: &impl Mailbox) {
    assert_eq!(a.claim(A, account(1)).await, Err(StoreError::Fenced), "it has not registered");
    register(a, A, LONG).await;
    register(b, B, LONG).await;
    assert_eq!(claim(a, A, 1).await, (Vec::new(), None));
    assert_eq!(b.claim(B, account(1)).await.unwrap(), Claimed::Held(replica(A)));
    assert_eq!(claim(a, A, 1).await.1, Some(A), "its own");
    assert_eq!(claim(b, B, 2).await.1, None, "another account");
    b.release(B, account(1)).await.unwrap();
    assert_eq!(b.claim(B, account(1)).await.unwrap(), Claimed::Held(replica(A)), "not its to release");
    a.release(A, account(1)).await.unwrap();
    assert_eq!(claim(b, B, 1).await.1, None, "it was released");
    let mut known = a.replicas().await.unwrap();
    known.sort_by_key(|known| known.id);
    assert_eq!(known, [replica(A), replica(B)]);
}

async fn who_is_not_the_owner_writes_nothing(a: &impl Mailbox, b: &impl Mailbox) {
    register(a, A, LONG).await;
    register(b, B, LONG).await;
    let one = |seq| put(1, header(seq, 9, seq as u8), vec![enc(1, 101, b"a")]);
    assert_eq!(a.put(A, one(1)).await, Err(StoreError::Fenced), "nobody's");
    claim(a, A, 1).await;
    a.put(A, one(2)).await.unwrap();
    assert_eq!(b.put(B, one(3)).await, Err(StoreError::Fenced));
    assert_eq!(b.forget(B, account(1), device(1), Seq(9)).await, Err(StoreError::Fenced));
    assert_eq!(b.drop_device(B, account(1), device(1), None).await, Err(StoreError::Fenced));
    assert_eq!(b.drop_account(B, account(1)).await, Err(StoreError::Fenced));
    assert_eq!(stored(a, 1).await, [2]);
    a.release(A, account(1)).await.unwrap();
    assert_eq!(a.put(A, one(4)).await, Err(StoreError::Fenced));
    assert_eq!(a.forget(A, account(1), device(1), Seq(9)).await, Err(StoreError::Fenced));
    assert_eq!(stored(b, 1).await, [2]);
    // One that is fenced takes nothing along that is queued beside it.
    claim(a, A, 2).await;
    let good = a.put(A, put(2, header(1, 9, 1), vec![enc(1, 101, b"a")]));
    let bad = a.put(A, one(5));
    let also_good = a.put(A, put(2, header(2, 9, 2), vec![enc(1, 101, b"a")]));
    assert_eq!(bad.await, Err(StoreError::Fenced));
    good.await.unwrap();
    also_good.await.unwrap();
    assert_eq!((stored(b, 1).await, stored(b, 2).await), (vec![2], vec![1, 2]));
}

async fn what_one_stored_the_next_owner_has(a: &impl Mailbox, b: &impl Mailbox) {
    register(a, A, LONG).await;
    register(b, B, LONG).await;
    let mut owners = [(a as &dyn Mailbox, A), (b as &dyn Mailbox, B)].into_iter().cycle();
    for round in 1..=6_u64 {
        let Some((owner, id)) = owners.next() else { return };
        let Claimed::Ours { usage, .. } = owner.claim(id, account(1)).await.unwrap() else { panic!("it is free") };
        let last = usage.first().map_or(Seq(0), |usage| usage.last);
        assert_eq!((last, usage.first().map_or(0, |usage| usage.usage.messages)), (Seq(round - 1), round - 1));
        // A repeat of what the one before stored.
        if round > 1 {
            let again = put(1, header(90 + round, 9, (round - 1) as u8), vec![enc(1, 101, b"a")]);
            let outcome = owner.put(id, again).await.unwrap();
            assert_eq!(outcome, super::PutOutcome::Stored { repeats: vec![device(1)] });
            assert!(owner.holds(account(1), header(0, 9, (round - 1) as u8).key).await.unwrap());
        }
        owner.put(id, put(1, header(round, 9, round as u8), vec![enc(1, 101, b"a")])).await.unwrap();
        owner.release(id, account(1)).await.unwrap();
    }
    assert_eq!(stored(b, 1).await, [1, 2, 3, 4, 5, 6]);
}

async fn when_a_lease_ends_the_account_is_free_and_its_owner_fenced(
    a: &impl Mailbox,
    b: &impl Mailbox,
    pass: &impl AsyncFn(Duration),
) {
    register(a, A, SHORT).await;
    register(b, B, LONG).await;
    claim(a, A, 1).await;
    claim(a, A, 2).await;
    a.put(A, put(1, header(1, 9, 1), vec![enc(1, 101, b"a")])).await.unwrap();
    pass(SHORT).await;
    let (usage, before) = claim(b, B, 1).await;
    assert_eq!((usage[0].last, before), (Seq(1), Some(A)));
    assert_eq!(a.put(A, put(1, header(2, 9, 2), vec![enc(1, 101, b"a")])).await, Err(StoreError::Fenced));
    assert_eq!(a.forget(A, account(1), device(1), Seq(9)).await, Err(StoreError::Fenced));
    assert_eq!(a.claim(A, account(1)).await, Err(StoreError::Fenced), "its lease has ended");
    a.release(A, account(1)).await.unwrap();
    assert_eq!(stored(b, 1).await, [1]);
    // What nobody has claimed since it may still write, which is its own decision of before.
    a.put(A, put(2, header(1, 9, 1), vec![enc(1, 101, b"a")])).await.unwrap();
    assert_eq!(a.replicas().await.unwrap(), [replica(B)]);
}

async fn a_lease_that_has_ended_is_not_renewed(a: &impl Mailbox, b: &impl Mailbox, pass: &impl AsyncFn(Duration)) {
    register(a, A, SHORT).await;
    register(a, A, LONG).await;
    pass(SHORT).await;
    register(a, A, SHORT).await;
    claim(a, A, 1).await;
    // The last word counts, also where it shortens the lease.
    pass(SHORT).await;
    assert_eq!(a.renew(&replica(A), LONG).await, Err(StoreError::Fenced));
    register(a, A_AGAIN, LONG).await;
    assert_eq!(b.replicas().await.unwrap(), [replica(A_AGAIN)]);
}

async fn an_owner_keeps_its_account_over_a_new_lease(
    a: &impl Mailbox,
    b: &impl Mailbox,
    pass: &impl AsyncFn(Duration),
) {
    register(a, A, SHORT).await;
    claim(a, A, 1).await;
    claim(a, A, 2).await;
    pass(SHORT).await;
    register(b, B, LONG).await;
    claim(b, B, 2).await;
    b.release(B, account(2)).await.unwrap();
    register(a, A_AGAIN, LONG).await;
    assert_eq!(claim(a, A_AGAIN, 1).await.1, Some(A), "nobody had it meanwhile");
    assert_eq!(claim(a, A_AGAIN, 2).await.1, None, "somebody may have had it");
    assert_eq!(a.put(A, put(1, header(2, 9, 2), vec![enc(1, 101, b"a")])).await, Err(StoreError::Fenced));
}

async fn who_leaves_frees_everything(a: &impl Mailbox, b: &impl Mailbox) {
    register(a, A, LONG).await;
    register(b, B, LONG).await;
    for of in 1..=3 {
        claim(a, A, of).await;
    }
    let last = a.put(A, put(1, header(1, 9, 1), vec![enc(1, 101, b"a")]));
    last.await.unwrap();
    a.leave(A).await.unwrap();
    a.leave(A).await.unwrap();
    for of in 1..=3 {
        claim(b, B, of).await;
    }
    assert_eq!(a.put(A, put(2, header(1, 9, 1), vec![enc(1, 101, b"a")])).await, Err(StoreError::Fenced));
    assert_eq!(a.renew(&replica(A), LONG).await, Err(StoreError::Fenced));
    assert_eq!(b.replicas().await.unwrap(), [replica(B)]);
}

async fn a_release_comes_behind_what_was_queued(a: &impl Mailbox, b: &impl Mailbox) {
    register(a, A, LONG).await;
    register(b, B, LONG).await;
    let claimed = a.claim(A, account(1));
    let kept = a.put(A, put(1, header(1, 9, 1), vec![enc(1, 101, b"a")]));
    let released = a.release(A, account(1));
    let too_late = a.put(A, put(1, header(2, 9, 2), vec![enc(1, 101, b"a")]));
    assert_eq!(too_late.await, Err(StoreError::Fenced));
    released.await.unwrap();
    kept.await.unwrap();
    assert!(matches!(claimed.await, Ok(Claimed::Ours { .. })));
    assert_eq!(claim(b, B, 1).await.0[0].last, Seq(1));
}

async fn one_of_many_claims_wins(a: &impl Mailbox, b: &impl Mailbox) {
    register(a, A, LONG).await;
    register(b, B, LONG).await;
    for of in 1..=20 {
        let (ours, theirs) = futures::join!(a.claim(A, account(of)), b.claim(B, account(of)));
        let won = matches!((ours.unwrap(), theirs.unwrap()),
            (Claimed::Ours { .. }, Claimed::Held(by)) | (Claimed::Held(by), Claimed::Ours { .. }) if by.id == A || by.id == B);
        assert!(won, "account {of}");
    }
}

async fn anybody_may_read_and_expire(a: &impl Mailbox, b: &impl Mailbox) {
    register(a, A, LONG).await;
    claim(a, A, 1).await;
    let mut old = header(1, 9, 1);
    old.expires_ms = 10_000;
    a.put(A, put(1, old, vec![enc(1, 101, b"a")])).await.unwrap();
    a.put(A, put(1, header(2, 9, 2), vec![enc(1, 101, b"a")])).await.unwrap();
    assert_eq!(b.usage(account(1)).await.unwrap()[0].usage.messages, 2);
    assert_eq!(b.expire(10_000, 10).await.unwrap(), 1);
    assert_eq!(stored(b, 1).await, [2]);
}
