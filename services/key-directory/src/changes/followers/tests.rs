//! Who is told what, and who is waited for, by a clock that the test moves.

use causeway_runtime::clock::ManualClock;
use futures::FutureExt as _;

use super::*;

const LEASE: Duration = Duration::from_secs(3);

fn changes() -> Followers {
    Followers::alone(LEASE, 16, CancellationToken::new())
}

fn first_lease() -> Next {
    Next::Lease { lasts: LEASE, pong: 0 }
}

fn change() -> Change {
    Change::Provider { domain: "birdy.example".parse().unwrap() }
}

/// Its confirmation.
fn published(changes: &Followers) -> impl Future<Output = ()> + Send + 'static {
    changes.publish_next(&change());
    let (changes, number) = (changes.clone(), changes.last_number());
    async move { changes.settle(number).await }
}

#[tokio::test(start_paused = true)]
async fn nobody_to_wait_for_is_no_wait() {
    let changes = changes();
    assert!(published(&changes).now_or_never().is_some());
    let late = changes.follow().unwrap();
    assert_eq!(late.next().await, Ok(first_lease()));
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_waits_for_the_slowest() {
    let changes = changes();
    let (quick, slow) = (changes.follow().unwrap(), changes.follow().unwrap());
    for follower in [&quick, &slow] {
        assert_eq!(follower.next().await, Ok(first_lease()));
    }
    let confirmation = tokio::spawn(published(&changes));
    for follower in [&quick, &slow] {
        assert_eq!(follower.next().await, Ok(Next::Change(1, change())));
    }
    assert!(quick.ear().heard(1, 0));
    tokio::task::yield_now().await;
    assert!(!confirmation.is_finished());
    assert!(slow.ear().heard(1, 0));
    confirmation.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_follower_is_waited_for_until_it_trusts_nothing() {
    let changes = changes();
    let follower = changes.follow().unwrap();
    assert_eq!(follower.next().await, Ok(first_lease()));
    let start = Instant::now();
    published(&changes).await;
    assert_eq!(start.elapsed(), LEASE + TRANSIT, "it took no lease after the change");
    assert_eq!(follower.next().await, Err(Cut::Behind));
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_reads_and_never_acknowledges_is_cut_off() {
    let changes = changes();
    let follower = changes.follow().unwrap();
    let reader = tokio::spawn(async move {
        loop {
            if let Err(cut) = follower.next().await {
                return cut;
            }
        }
    });
    let start = Instant::now();
    published(&changes).await;
    assert!(start.elapsed() <= 2 * LEASE + TRANSIT, "{:?}", start.elapsed());
    assert!(start.elapsed() >= LEASE + TRANSIT);
    assert_eq!(reader.await.unwrap(), Cut::Behind);
    assert_eq!(changes.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_left_may_trust_its_cache_until_its_lease_has_passed() {
    let changes = changes();
    let follower = changes.follow().unwrap();
    assert_eq!(follower.next().await, Ok(first_lease()));
    let start = Instant::now();
    let confirmation = published(&changes);
    drop(follower);
    confirmation.await;
    assert_eq!(start.elapsed(), LEASE + TRANSIT);

    let start = Instant::now();
    published(&changes).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn one_that_left_before_the_change_is_waited_for_too() {
    let changes = changes();
    let follower = changes.follow().unwrap();
    assert_eq!(follower.next().await, Ok(first_lease()));
    drop(follower);
    let start = Instant::now();
    published(&changes).await;
    assert_eq!(start.elapsed(), LEASE + TRANSIT, "its cache may still be trusted where it is");
}

#[tokio::test(start_paused = true)]
async fn those_that_come_and_go_are_forgotten() {
    let changes = changes();
    for _ in 0..100 {
        let follower = changes.follow().unwrap();
        assert_eq!(follower.next().await, Ok(first_lease()));
        drop(follower);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(changes.shared.lock().followers.len() <= 5);
}

#[tokio::test(start_paused = true)]
async fn leases_come_at_least_each_second() {
    let changes = changes();
    let follower = changes.follow().unwrap();
    for _ in 0..5 {
        let asked = Instant::now();
        assert_eq!(follower.next().await, Ok(first_lease()));
        assert!(asked.elapsed() <= Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_at_once_and_the_lease_counts_from_it() {
    let changes = changes();
    let follower = changes.follow().unwrap();
    assert_eq!(follower.next().await, Ok(first_lease()));
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(follower.ear().heard(0, 7));
    tokio::time::advance(Duration::from_millis(500)).await;
    assert_eq!(follower.next().await, Ok(Next::Lease { lasts: LEASE, pong: 7 }));
    let start = Instant::now();
    published(&changes).await;
    // No change was acknowledged for a lease: cut off then, when the trust has run out already.
    assert_eq!(start.elapsed(), LEASE);

    let leaving = changes.follow().unwrap();
    assert!(leaving.ear().heard(0, 1));
    let pinged = Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(leaving.next().await, Ok(Next::Lease { lasts: LEASE, pong: 1 }));
    drop(leaving);
    published(&changes).await;
    assert_eq!(pinged.elapsed(), LEASE, "nothing is granted to the network, however late the lease is");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_cuts_off_and_is_waited_for() {
    let changes = changes();
    let follower = changes.follow().unwrap();
    assert_eq!(follower.next().await, Ok(first_lease()));
    let start = Instant::now();
    for _ in 0..16 {
        changes.publish_next(&change());
    }
    published(&changes).await;
    assert_eq!(start.elapsed(), LEASE + TRANSIT);
    assert_eq!(follower.next().await, Err(Cut::Behind));
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_from_the_future_cuts_off() {
    let changes = changes();
    let follower = changes.follow().unwrap();
    changes.publish_next(&change());
    assert!(!follower.ear().heard(1, 0), "published, but not sent");
    assert_eq!(follower.next().await, Err(Cut::BadAck));
}

#[tokio::test(start_paused = true)]
async fn streams_end_when_the_directory_stops() {
    let closing = CancellationToken::new();
    let changes = Followers::alone(LEASE, 16, closing.clone());
    let follower = changes.follow().unwrap();
    assert_eq!(follower.next().await, Ok(first_lease()));
    closing.cancel();
    assert_eq!(follower.next().await, Err(Cut::Closing));
}

const DAY_MS: u64 = 1_750_000_000_000;

fn unregistered(clock: Arc<ManualClock>) -> Followers {
    Followers::shared(LEASE, 16, CancellationToken::new(), clock)
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_suspended_grants_nothing() {
    let clock = ManualClock::at_ms(DAY_MS);
    let followers = unregistered(Arc::clone(&clock));
    followers.begin(40, followers.now().after(Duration::from_secs(5)));
    let follower = followers.follow().unwrap();
    assert!(follower.ear().heard(40, 1));
    assert_eq!(follower.next().await, Ok(Next::Lease { lasts: LEASE, pong: 1 }));
    // The other clock has stood still.
    clock.advance(Duration::from_secs(4));
    assert!(follower.ear().heard(40, 2));
    assert_eq!(follower.next().await, Ok(Next::Lease { lasts: Duration::from_secs(1), pong: 2 }));
    clock.advance(Duration::from_secs(1));
    assert!(follower.ear().heard(40, 3));
    assert_eq!(follower.next().await, Ok(Next::Lease { lasts: Duration::ZERO, pong: 3 }));
}

/// Of one of several directories, with a lease of its own for so long.
fn one_of_several(lasts: Duration) -> Followers {
    let followers = unregistered(ManualClock::at_ms(DAY_MS));
    followers.begin(40, followers.now().after(lasts));
    followers
}

#[tokio::test(start_paused = true)]
async fn nobody_follows_a_directory_that_is_not_registered() {
    let followers = unregistered(ManualClock::at_ms(DAY_MS));
    assert_eq!(followers.follow().err(), Some(Cut::Anew));
    followers.begin(7, followers.now().after(LEASE));
    let follower = followers.follow().unwrap();
    assert!(follower.next().await.is_ok());
    followers.end();
    assert_eq!(follower.next().await, Err(Cut::Anew));
    assert_eq!(followers.follow().err(), Some(Cut::Anew));
}

#[tokio::test(start_paused = true)]
async fn what_is_granted_ends_with_the_directorys_own_lease() {
    let followers = one_of_several(Duration::from_secs(2));
    let follower = followers.follow().unwrap();
    assert_eq!(follower.next().await, Ok(Next::Lease { lasts: Duration::ZERO, pong: 0 }), "no ping, no lease");
    tokio::time::advance(Duration::from_millis(500)).await;
    assert!(follower.ear().heard(40, 1));
    assert_eq!(follower.next().await, Ok(Next::Lease { lasts: Duration::from_millis(1_500), pong: 1 }));
    followers.extend(followers.now().after(Duration::from_secs(10)));
    assert!(follower.ear().heard(40, 2));
    assert_eq!(follower.next().await, Ok(Next::Lease { lasts: LEASE, pong: 2 }));
    tokio::time::advance(Duration::from_secs(11)).await;
    assert!(follower.ear().heard(40, 3));
    assert_eq!(follower.next().await, Ok(Next::Lease { lasts: Duration::ZERO, pong: 3 }));
    assert_eq!(followers.trusted_until(), Some(Instant::now() - Duration::from_secs(8)));
}

#[tokio::test(start_paused = true)]
async fn numbers_of_the_log_may_have_gaps_for_followers() {
    let followers = one_of_several(Duration::from_secs(60));
    let follower = followers.follow().unwrap();
    assert!(follower.ear().heard(0, 1));
    assert!(follower.next().await.is_ok());
    followers.publish(41, &change());
    followers.pass(42);
    followers.publish(43, &change());
    followers.pass(44);
    assert_eq!(follower.next().await, Ok(Next::Change(41, change())));
    assert_eq!(follower.next().await, Ok(Next::Change(43, change())));
    assert_eq!(followers.settled().number, 40);
    assert!(follower.ear().heard(41, 0));
    assert_eq!(followers.settled().number, 42);
    assert!(follower.ear().heard(43, 0));
    assert_eq!(followers.settled(), Settled { number: 44, look_again: None });
    followers.pass(45);
    assert_eq!(followers.settled().number, 45, "there is nothing to acknowledge");
}

#[tokio::test(start_paused = true)]
async fn who_was_cut_off_by_a_new_beginning_is_waited_for_until_its_lease_has_passed() {
    let followers = one_of_several(Duration::from_secs(60));
    let follower = followers.follow().unwrap();
    assert!(follower.ear().heard(0, 1));
    assert!(follower.next().await.is_ok());
    followers.begin(50, followers.now().after(Duration::from_secs(60)));
    assert_eq!(follower.next().await, Err(Cut::Anew));
    let start = Instant::now();
    followers.settle(50).await;
    assert_eq!(start.elapsed(), LEASE);
}
