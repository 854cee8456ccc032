//! Things that break: links, the mailbox, the directory, the process.

use std::sync::atomic::{AtomicBool, Ordering};

use causeway_proto::directory::v1::RecordChange;
use causeway_proto::wire::v1::{EndReason, Rejection, Status};

use causeway_identity::{DeviceId, SessionId};
use causeway_runtime::grpc::Ear;
use futures::FutureExt as _;
use tokio::sync::Notify;

use super::edge::{assert_rejected, assert_status, chat, number};
use super::*;
use crate::message::Sender;
use crate::outbox::Outbox;
use crate::recipient::actor::Actor;
use crate::recipient::{Control, Inbox};
use crate::records::fake::deny;
use crate::session::{Session, SessionKey, Voice};

const ADA: &str = "ada@birdy.example";
const BO: &str = "bo@home.example";

#[tokio::test]
async fn a_link_that_breaks_detaches_its_sessions_and_loses_nothing() {
    let net = Deployment::new(&[1], &[1]).await;
    let (one, other) = (net.edge().await, net.edge().await);
    let mut ada = one.attach(ADA, 1, 1).await;
    let mut bo = other.attach(BO, 2, 1).await;
    for id in 1..=3 {
        ada.submit(chat(id, BO, &[1])).await;
        bo.delivery().await;
    }
    other.cut();
    drop(bo);
    for _ in 0..3 {
        assert_status(&ada.outcome().await, Status::Stored);
    }
    let mut bo = one.start(BO, 2, 1, 101).await;
    assert_eq!(bo.attached().await, 3);
    for id in 1..=3 {
        assert_eq!(number(&bo.take().await.id), id);
    }
}

#[tokio::test]
async fn what_cannot_be_written_is_not_told_as_stored_and_online_traffic_goes_on() {
    let net = Deployment::with(&[1], &[1], |config| config.ack_window_ms = 2_000).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    net.mailbox().fail_commits(true);
    ada.submit(chat(1, BO, &[1])).await;
    let end = ada.end().await;
    assert_eq!(end.reason(), EndReason::Overloaded);
    assert!((100..=200).contains(&end.retry_after_ms), "{end:?}");
    let mut ada = edge.attach(ADA, 1, 1).await;
    let mut bo = edge.attach(BO, 2, 1).await;
    ada.submit(chat(2, BO, &[1])).await;
    assert_eq!(number(&bo.take().await.id), 2);
    assert_status(&ada.outcome().await, Status::Delivered);
    bo.detach().await;
    net.mailbox().fail_commits(false);
    // The client comes again with the same id.
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    let mut bo = edge.attach(BO, 2, 1).await;
    assert_eq!(number(&bo.take().await.id), 1);
}

#[tokio::test]
async fn messages_behind_one_that_was_given_up_do_not_overtake_it() {
    let net = Deployment::with(&[1], &[1], |config| config.directory_timeout_ms = 300).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    net.directory.set_up(false);
    // Without a lease nothing cached is used.
    net.directory.lost_by_follower().await;
    for id in 2..=5 {
        ada.submit(chat(id, BO, &[1])).await;
    }
    ada.ends(EndReason::Overloaded).await;
    net.directory.set_up(true);
    net.directory.followed().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    for id in 2..=5 {
        assert_status(&ada.tell(chat(id, BO, &[1])).await, Status::Stored);
    }
    let mut bo = edge.attach(BO, 2, 1).await;
    for id in 1..=5 {
        assert_eq!(number(&bo.take().await.id), id);
    }
}

#[tokio::test]
async fn a_short_absence_of_the_directory_is_waited_out() {
    let net = Deployment::new(&[1], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    net.directory.set_up(false);
    ada.submit(chat(1, BO, &[1])).await;
    let asked = net.directory.refused();
    net.directory.was_refused(asked + 1).await;
    net.directory.set_up(true);
    assert_status(&ada.outcome().await, Status::Stored);
}

#[tokio::test]
async fn without_a_lease_every_record_is_asked_for_anew() {
    let net = Deployment::with_lease(&[1], &[1], 0).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    for id in 1..=3 {
        let before = net.directory.gets();
        assert_status(&ada.tell(chat(id, BO, &[1])).await, Status::Stored);
        assert!(net.directory.gets() >= before + 2, "sender and recipient");
    }
    // Nobody is told, and it counts all the same.
    let mut closed = record(BO, 2, &[1]);
    deny(&mut closed, "birdy.example");
    net.directory.enter(closed);
    assert_rejected(&ada.tell(chat(4, BO, &[1])).await, Rejection::NotAvailable);
}

#[tokio::test]
async fn with_a_lease_records_are_asked_for_once() {
    let net = Deployment::new(&[1], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    let before = net.directory.gets();
    for id in 2..=20 {
        assert_status(&ada.tell(chat(id, BO, &[1])).await, Status::Stored);
    }
    assert_eq!(net.directory.gets(), before);
    // A stream that breaks takes the cache with it.
    let mut closed = record(BO, 2, &[1]);
    deny(&mut closed, "birdy.example");
    net.directory.enter(closed);
    net.directory.cut_streams();
    net.directory.followed().await;
    assert_rejected(&ada.tell(chat(21, BO, &[1])).await, Rejection::NotAvailable);
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_was_told_and_repeats_are_one_message() {
    let mut net = Deployment::new(&[1], &[1, 2]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let mut phone = edge.attach(BO, 2, 1).await;
    for id in 1..=5 {
        ada.submit(chat(id, BO, &[1, 2])).await;
        phone.take().await;
        assert_status(&ada.outcome().await, Status::Stored);
    }
    ada.submit(chat(6, BO, &[1, 2])).await;
    phone.delivery().await;
    net.kill_and_restart().await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    for id in 4..=6 {
        assert_status(&ada.tell(chat(id, BO, &[1, 2])).await, Status::Stored);
    }
    let mut laptop = edge.start(BO, 2, 2, 102).await;
    assert_eq!(laptop.attached().await, 6);
    for id in 1..=6 {
        assert_eq!(number(&laptop.take().await.id), id);
    }
}

#[tokio::test]
async fn a_repeat_of_what_the_mailbox_holds_gets_its_first_outcome_whatever_has_changed() {
    let mut net = Deployment::new(&[1], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    net.kill_and_restart().await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    // What it holds is not rejected, whatever the repeat says.
    assert_status(&ada.tell(chat(1, BO, &[7])).await, Status::Stored);
    assert_rejected(&ada.tell(chat(2, BO, &[7])).await, Rejection::Devices);
    net.kill_and_restart().await;
    net.directory.change(BO, RecordChange::Consent, |bo| deny(bo, "birdy.example")).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    // Shut out since: with the account loaded or not, and no other message gets through.
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    assert_rejected(&ada.tell(chat(3, BO, &[1])).await, Rejection::NotAvailable);
    let mut bo = edge.start(BO, 2, 1, 101).await;
    assert_eq!(bo.attached().await, 1);
    assert_rejected(&ada.tell(chat(3, BO, &[1])).await, Rejection::NotAvailable);
    assert_eq!(number(&bo.take().await.id), 1);
    assert_rejected(&ada.tell(chat(4, "nobody@home.example", &[1])).await, Rejection::NotAvailable);
}

#[tokio::test]
async fn a_drain_keeps_what_is_not_acknowledged_and_tells_so() {
    let mut net = Deployment::new(&[1], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let mut bo = edge.attach(BO, 2, 1).await;
    for id in 1..=3 {
        ada.submit(chat(id, BO, &[1])).await;
        bo.delivery().await;
    }
    net.drain().await;
    for _ in 0..3 {
        assert_status(&ada.outcome().await, Status::Stored);
    }
    bo.moves().await;
    ada.moves().await;
    assert!(bo.next().await.is_none(), "the link has ended");
    net.start().await;
    let edge = net.edge().await;
    let mut bo = edge.start(BO, 2, 1, 101).await;
    assert_eq!(bo.attached().await, 3);
    for id in 1..=3 {
        assert_eq!(number(&bo.take().await.id), id);
    }
}

#[tokio::test]
async fn strangers_take_no_place_that_somebody_needs_to_attach() {
    let net = Deployment::with(&[1], &[1], |config| config.max_recipients = 16).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    // Whoever does not exist is not kept: many of them one after the other find room.
    for id in 0..50 {
        let outcome = ada.tell(chat(id, &format!("nobody{id}@home.example"), &[1])).await;
        assert_rejected(&outcome, Rejection::NotAvailable);
    }
    net.directory.set_up(false);
    net.directory.lost_by_follower().await;
    for id in 50..70 {
        ada.submit(chat(id, &format!("nobody{id}@home.example"), &[1])).await;
    }
    for _ in 0..6 {
        assert_rejected(&ada.outcome().await, Rejection::RateLimited);
    }
    let mut bo = edge.start(BO, 2, 1, 101).await;
    net.directory.set_up(true);
    assert_eq!(bo.attached().await, 0);
    for _ in 0..14 {
        assert_rejected(&ada.outcome().await, Rejection::NotAvailable);
    }
}

/// How often a task is woken that is run while it is woken, up to so often.
fn turns(actor: &mut Actor, most: usize) -> usize {
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    let mut context = std::task::Context::from_waker(&waker);
    (1..=most)
        .find(|_| {
            assert!(actor.poll_unpin(&mut context).is_pending());
            !woken.0.swap(false, Ordering::Relaxed)
        })
        .unwrap_or(usize::MAX)
}

#[derive(Default)]
struct Woken(AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn who_has_long_been_idle_waits_quietly_for_the_end_of_a_drain() {
    let net = Deployment::with(&[1], &[1], |config| config.recipient_idle_ms = 1_000).await;
    let clock: SharedClock = net.clock.clone();
    let (store, directory) = (net.routing().mailbox.clone(), net.directory.channel(&net.life));
    let lease = Lease::always(clock.clone());
    let routing = Routing::with_mailbox(&net.config, store, lease, directory, clock, Metrics::new()).unwrap();
    let inbox = Inbox::new(8);
    let address: Address = BO.parse().unwrap();
    let recipients = Arc::clone(&routing.links.0.recipients);
    let mut bo = Actor::new(address.clone(), Arc::clone(&inbox), Arc::clone(&routing.shared), recipients);

    let attached = Arc::new(Notify::new());
    let told = Arc::clone(&attached);
    let outbox = Outbox::new(1 << 20, String::new(), Some(Ear::new(move |_| told.notify_one())));
    let device = Sender {
        account: AccountId::from_bytes([2; 16]),
        device: DeviceId::new(1).unwrap(),
        address,
        provider: "home.example".parse().unwrap(),
    };
    let voice = Voice::new(SessionId::from_bytes([1; 16]), device, outbox, Metrics::new());
    let session = Session::new(SessionKey(1), voice, 101, 0, None);
    session.own(Arc::clone(&inbox));
    assert!(inbox.tell(Control::Attach(Arc::clone(&session))));
    tokio::select! {
        () = &mut bo => panic!("somebody is there"),
        attached = tokio::time::timeout(PATIENCE, attached.notified()) => attached.unwrap(),
    }
    session.detach();
    assert_eq!(turns(&mut bo, 9), 1);

    let (quiet, mut all_quiet) = mpsc::channel(1);
    assert!(inbox.tell(Control::Finish(quiet)));
    assert_eq!(turns(&mut bo, 9), 1);
    assert!(all_quiet.recv().await.is_none());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(turns(&mut bo, 9), 1);
    assert!(inbox.tell(Control::Leave));
    tokio::time::timeout(PATIENCE, bo).await.unwrap();
}
