//! Several routings on one store: whose an account is, and what becomes of messages and sessions when that changes.

pub(super) mod rig;

use causeway_proto::directory::v1::RecordChange;
use causeway_proto::routing::v1::routing_event::Event;
use causeway_proto::wire::v1::{EndReason, Rejection, Status};

use super::edge::{assert_rejected, assert_status, chat, number};
use super::*;
use crate::mailbox::memory::MemoryFault;
use crate::records::fake::deny;
use rig::Replicas;

const ADA: &str = "ada@birdy.example";
const BO: &str = "bo@home.example";

#[tokio::test]
async fn a_message_that_comes_to_another_replica_takes_the_account_along() {
    let mut net = Replicas::new(2).await;
    let (here, there) = (net.edge(0).await, net.edge(1).await);
    assert_eq!((here.name.as_str(), there.name.as_str()), ("http://routing-0", "http://routing-1"));
    let mut ada = here.introduce(ADA, 1).await;
    let mut bo = here.attach(BO, 2, 1).await;
    // Given, not acknowledged: it is written before the other replica decides.
    ada.submit(chat(1, BO, &[1])).await;
    assert_eq!(number(&bo.delivery().await.id), 1);
    let mut ada_there = there.same(&ada);
    ada_there.introduce(ADA, 1).await;
    assert_status(&ada_there.tell(chat(2, BO, &[1])).await, Status::Stored);
    assert_status(&ada.outcome().await, Status::Stored);
    bo.moves().await;
    // What it says of the attachment before counts for nothing, and it may submit where it was.
    bo.processed(1).await;
    let mut bo_there = there.same(&bo);
    bo_there.attach_again(BO, 2, 1, 7).await;
    let attached = bo_there.attached_as().await;
    assert_eq!((attached.waiting, attached.number), (2, 7));
    for id in 1..=2 {
        let got = bo_there.take().await;
        assert_eq!((number(&got.id), got.tag), (id, id));
    }
    ada_there.submit(chat(3, BO, &[1])).await;
    assert_eq!(number(&bo_there.take().await.id), 3);
    let third = ada_there.outcome().await;
    assert!(matches!(third.status(), Status::Delivered | Status::Stored));
    assert_eq!(net.sole_owner(2).await, Some(1));
    net.stop().await;
}

#[tokio::test]
async fn two_replicas_that_take_an_account_from_each_other_lose_and_reorder_nothing() {
    let mut net = Replicas::new(2).await;
    let edges = [net.edge(0).await, net.edge(1).await];
    let mut adas = [edges[0].introduce(ADA, 1).await, edges[1].introduce(ADA, 1).await];
    for id in 1..=12 {
        let side = id as usize % 2;
        assert_status(&adas[side].tell(chat(id, BO, &[1])).await, Status::Stored);
        // A repeat at the other side is the same message.
        if id % 3 == 0 {
            assert_status(&adas[1 - side].tell(chat(id, BO, &[1])).await, Status::Stored);
        }
    }
    let mut bo = edges[0].start(BO, 2, 1, 101).await;
    assert_eq!(bo.attached().await, 12);
    for id in 1..=12 {
        assert_eq!(number(&bo.take().await.id), id);
    }
    net.stop().await;
}

#[tokio::test]
async fn when_both_need_an_account_at_once_both_get_on() {
    let mut net = Replicas::new(2).await;
    let edges = [net.edge(0).await, net.edge(1).await];
    let mut adas = [edges[0].introduce(ADA, 1).await, edges[1].introduce(ADA, 1).await];
    for (side, ada) in adas.iter().enumerate() {
        for id in 0..20 {
            ada.submit(chat(1 + 2 * id + side as u64, BO, &[1])).await;
        }
    }
    for ada in &mut adas {
        for _ in 0..20 {
            assert_status(&ada.outcome().await, Status::Stored);
        }
    }
    assert_eq!(net.waiting_messages(2).await, 40);
    net.stop().await;
}

#[tokio::test]
async fn a_killed_replica_is_replaced_when_its_lease_ends() {
    let mut net = Replicas::new(2).await;
    let (here, there) = (net.edge(0).await, net.edge(1).await);
    let mut ada = here.introduce(ADA, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    net.kill(0).await;
    let mut ada = there.introduce(ADA, 1).await;
    ada.submit(chat(2, BO, &[1])).await;
    net.asked_for_release(1).await;
    assert!(ada.try_next().is_none(), "the dead replica's lease holds");
    net.clock.advance(net.lease());
    assert_status(&ada.outcome().await, Status::Stored);
    // One that comes back is another replica, and asks.
    net.restart(0).await;
    let here = net.edge(0).await;
    let mut bo = here.start(BO, 2, 1, 101).await;
    assert_eq!(bo.attached().await, 2);
    assert_eq!((number(&bo.take().await.id), number(&bo.take().await.id)), (1, 2));
    net.stop().await;
}

#[tokio::test]
async fn who_is_not_let_in_does_not_notice_that_an_account_is_being_claimed() {
    let mut net = Replicas::with(2, |config| config.refusal_delay_ms = 0).await;
    net.directory.enter(record("eve@crow.example", 3, &[1]));
    let mut closed = record(BO, 2, &[1]);
    deny(&mut closed, "crow.example");
    net.directory.enter(closed);
    let (here, there) = (net.edge(0).await, net.edge(1).await);
    let mut ada = here.introduce(ADA, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    net.kill(0).await;
    let (mut ada, mut eve) = (there.introduce(ADA, 1).await, there.introduce("eve@crow.example", 3).await);
    ada.submit(chat(2, BO, &[1])).await;
    net.asked_for_release(1).await;
    // Behind a message that waits until the dead replica's lease has ended.
    for id in 3..5 {
        assert_rejected(&eve.tell(chat(id, BO, &[1])).await, Rejection::NotAvailable);
    }
    assert!(ada.try_next().is_none());
    net.clock.advance(net.lease());
    assert_status(&ada.outcome().await, Status::Stored);
    net.stop().await;
}

#[tokio::test]
async fn a_replica_that_stood_still_decides_nothing_with_what_it_knew() {
    let mut net = Replicas::new(2).await;
    let (here, there) = (net.edge(0).await, net.edge(1).await);
    let mut bo = here.attach(BO, 2, 1).await;
    let mut ada = here.introduce(ADA, 1).await;
    let mut ada_there = there.introduce(ADA, 1).await;
    // It hears nothing from the store any more, and nobody from it.
    net.mailbox(0).hold(true);
    net.cut_off(0);
    net.clock.advance(net.lease());
    ada.submit(chat(1, BO, &[1])).await;
    assert_status(&ada_there.tell(chat(2, BO, &[1])).await, Status::Stored);
    assert!(ada.try_next().is_none() && bo.try_next().is_none(), "it has decided without a lease");
    net.reach(0);
    net.mailbox(0).hold(false);
    // Its session hears of it, or the message does first and takes the account back; in either case it attaches again.
    bo.moves().await;
    assert_status(&ada.outcome().await, Status::Stored);
    let mut bo = here.start(BO, 2, 1, 101).await;
    assert_eq!(bo.attached().await, 2);
    assert_eq!((number(&bo.take().await.id), number(&bo.take().await.id)), (2, 1));
    net.stop().await;
}

#[tokio::test]
async fn sessions_learn_that_another_replica_took_their_account_although_nobody_writes_to_it_here() {
    let mut net = Replicas::new(2).await;
    let (here, there) = (net.edge(0).await, net.edge(1).await);
    let mut bo = here.attach(BO, 2, 1).await;
    net.mailbox(0).hold(true);
    net.cut_off(0);
    net.clock.advance(net.lease());
    let mut ada = there.introduce(ADA, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    net.mailbox(0).hold(false);
    bo.moves().await;
    assert_eq!(net.sole_owner(2).await, Some(1), "it is left to whom it is with");
    net.stop().await;
}

#[tokio::test]
async fn a_lease_that_ended_unnoticed_moves_nobody() {
    let mut net = Replicas::new(2).await;
    let here = net.edge(0).await;
    let mut bo = here.attach(BO, 2, 1).await;
    let mut ada = here.introduce(ADA, 1).await;
    ada.submit(chat(1, BO, &[1])).await;
    assert_eq!(bo.delivery().await.tag, 1);
    net.clock.advance(net.lease() * 3);
    ada.submit(chat(2, BO, &[1])).await;
    // The same attachment goes on, under another id of its replica.
    assert_eq!(bo.delivery().await.tag, 2);
    bo.processed(2).await;
    for _ in 0..2 {
        assert_status(&ada.outcome().await, Status::Delivered);
    }
    assert_eq!(net.waiting_messages(2).await, 0);
    net.stop().await;
}

#[tokio::test]
async fn without_a_lease_nothing_is_decided_and_messages_wait_or_are_given_up() {
    let mut net = Replicas::with(1, |config| config.claim_timeout_ms = 700).await;
    let here = net.edge(0).await;
    let mut ada = here.introduce(ADA, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    net.mailbox(0).hold(true);
    net.clock.advance(net.lease());
    ada.submit(chat(2, BO, &[1])).await;
    ada.ends(EndReason::Overloaded).await;
    let mut ada = here.introduce(ADA, 1).await;
    ada.submit(chat(2, BO, &[1])).await;
    net.mailbox(0).hold(false);
    assert_status(&ada.outcome().await, Status::Stored);
    assert_eq!(net.waiting_messages(2).await, 2);
    net.stop().await;
}

#[tokio::test]
async fn a_replica_that_is_cut_off_from_the_store_for_long_is_left_by_its_edges() {
    let mut net = Replicas::with(1, |config| {
        config.lease_ms = 500;
        config.claim_timeout_ms = 500;
    })
    .await;
    let here = net.edge(0).await;
    let mut bo = here.attach(BO, 2, 1).await;
    net.mailbox(0).hold(true);
    assert!(bo.next().await.is_none(), "the link has ended");
    assert!(net.link_refused(0).await);
    net.mailbox(0).hold(false);
    while net.link_refused(0).await {
        tokio::task::yield_now().await;
    }
    let here = net.edge(0).await;
    bo = here.attach(BO, 2, 1).await;
    assert!(bo.try_next().is_none());
    net.stop().await;
}

#[tokio::test]
async fn a_write_of_which_nobody_knows_makes_everybody_come_again_and_is_one_message() {
    for (fault, before) in [(MemoryFault::UnknownDone, 1), (MemoryFault::UnknownLost, 0)] {
        let mut net = Replicas::with(1, |config| config.ack_window_ms = 5).await;
        let here = net.edge(0).await;
        let mut ada = here.introduce(ADA, 1).await;
        let mut bo = here.attach(BO, 2, 1).await;
        net.mailbox(0).fail_next([fault]);
        ada.submit(chat(1, BO, &[1])).await;
        assert_eq!(number(&bo.delivery().await.id), 1);
        ada.ends(EndReason::Overloaded).await;
        bo.moves().await;
        assert_eq!(net.waiting_messages(2).await, before);
        let mut ada = here.introduce(ADA, 1).await;
        assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
        bo.attach_again(BO, 2, 1, 5).await;
        assert_eq!(bo.attached().await, 1);
        let again = bo.take().await;
        assert_eq!((number(&again.id), again.tag), (1, 1), "tags of an attachment begin at 1");
        net.stop().await;
    }
}

#[tokio::test]
async fn an_owner_that_does_not_answer_is_asked_for_as_long_as_the_message_has_patience() {
    let mut net = Replicas::with(2, |config| {
        config.claim_timeout_ms = 600;
        config.release_timeout_ms = 100;
    })
    .await;
    let (here, there) = (net.edge(0).await, net.edge(1).await);
    let _bo = here.attach(BO, 2, 1).await;
    net.cut_off(0);
    let mut ada = there.introduce(ADA, 1).await;
    ada.submit(chat(1, BO, &[1])).await;
    ada.ends(EndReason::Overloaded).await;
    net.reach(0);
    let mut ada = there.introduce(ADA, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    net.stop().await;
}

#[tokio::test]
async fn the_newest_session_of_a_device_wins_wherever_it_attached_first() {
    let mut net = Replicas::new(2).await;
    let (here, there) = (net.edge(0).await, net.edge(1).await);
    let mut old = here.start(BO, 2, 1, 101).await;
    let first = old.attached_as().await.number;
    assert!(first > 0);
    // It comes again by another link: it is the same session.
    let mut same = net.edge(0).await.same(&old);
    same.attach_again(BO, 2, 1, first).await;
    old.ends(EndReason::Replaced).await;
    assert_eq!(same.attached_as().await.number, first);
    // A newer one attaches elsewhere, which takes the account there; the older one must not come behind it.
    net.clock.advance(Duration::from_millis(1));
    let mut new = there.start(BO, 2, 1, 101).await;
    let second = new.attached_as().await.number;
    same.moves().await;
    let mut follows = there.same(&same);
    follows.attach_again(BO, 2, 1, first).await;
    follows.ends(EndReason::Replaced).await;
    // Whatever clocks say: what has attached here for the first time is newer than what comes from elsewhere.
    let mut ahead = there.phone();
    ahead.attach_again(BO, 2, 1, second + 1_000_000).await;
    ahead.ends(EndReason::Replaced).await;
    // Where neither is new, numbers tell.
    let mut back = here.same(&new);
    back.attach_again(BO, 2, 1, second).await;
    assert_eq!(back.attached_as().await.number, second);
    new.moves().await;
    let mut late = here.phone();
    late.attach_again(BO, 2, 1, first).await;
    late.ends(EndReason::Replaced).await;
    let mut newest = here.start(BO, 2, 1, 101).await;
    back.ends(EndReason::Replaced).await;
    assert!(newest.attached_as().await.number > second);
    net.stop().await;
}

#[tokio::test]
async fn an_order_to_attach_that_comes_late_replaces_nobody() {
    let mut net = Replicas::new(2).await;
    let (here, there) = (net.edge(0).await, net.edge(1).await);
    let (mut late, mut bo) = (there.phone(), here.phone());
    bo.attach_as(BO, 2, (1, 20, 1), 0).await;
    let number = bo.attached_as().await.number;
    // It was under way while the device came back by another edge.
    let mut older = here.phone();
    older.attach_as(BO, 2, (1, 10, 1), 0).await;
    older.ends(EndReason::Replaced).await;
    // It takes the account elsewhere, where nothing is known of newer logins; the newer one comes behind it and wins.
    net.clock.advance(Duration::from_millis(1));
    late.attach_as(BO, 2, (1, 10, 2), 0).await;
    assert!(late.attached_as().await.number > 0);
    bo.moves().await;
    let mut back = there.same(&bo);
    back.attach_as(BO, 2, (1, 20, 2), number).await;
    late.ends(EndReason::Replaced).await;
    let again = back.attached_as().await.number;
    assert!(again >= number);

    // An earlier attachment of the same login, and a later one: the session is not replaced by itself.
    let mut overtaken = there.phone();
    overtaken.attach_as(BO, 2, (1, 20, 1), 0).await;
    overtaken.moves().await;
    let mut next = there.phone();
    next.attach_as(BO, 2, (1, 20, 3), number).await;
    back.moves().await;
    assert_eq!(next.attached_as().await.number, again);

    // A later login wins also over one that has attached here first; of other sources nothing is known.
    let mut newer = there.phone();
    newer.attach_as(BO, 2, (1, 30, 1), 0).await;
    next.ends(EndReason::Replaced).await;
    newer.attached().await;
    let mut other = there.phone();
    other.attach_as(BO, 2, (2, 5, 1), 0).await;
    newer.ends(EndReason::Replaced).await;
    other.attached().await;
    let mut unknown = there.start(BO, 2, 1, 101).await;
    other.ends(EndReason::Replaced).await;
    unknown.attached().await;
    net.stop().await;
}

#[tokio::test]
async fn a_login_that_is_gone_replaces_nobody() {
    let mut net = Replicas::new(1).await;
    let here = net.edge(0).await;
    // A number far from the others', as from a counter that somebody has set.
    let mut gone = here.phone();
    gone.attach_as(BO, 2, (1, 1_000, 1), 0).await;
    let number = gone.attached_as().await.number;
    gone.detach().await;
    let mut next = here.phone();
    next.attach_as(BO, 2, (1, 20, 1), 0).await;
    next.attached().await;
    // One that is there still goes before an earlier one.
    let mut late = here.phone();
    late.attach_as(BO, 2, (1, 10, 1), 0).await;
    late.ends(EndReason::Replaced).await;
    // It was between two attachments only: it wins when it comes.
    let mut back = here.phone();
    back.attach_as(BO, 2, (1, 1_000, 2), number).await;
    next.ends(EndReason::Replaced).await;
    assert!(back.attached_as().await.number >= number);
    next.attach_as(BO, 2, (1, 20, 2), 0).await;
    next.ends(EndReason::Replaced).await;
    net.stop().await;
}

#[tokio::test]
async fn who_only_submits_gets_nothing_else_and_may_attach_later() {
    let mut net = Replicas::new(1).await;
    let here = net.edge(0).await;
    let mut bo = here.introduce(BO, 2).await;
    let mut ada = here.attach(ADA, 1, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    bo.introduce(BO, 2).await;
    // What it has submitted is answered although it attaches meanwhile.
    bo.submit(chat(1, ADA, &[1])).await;
    let asked = ada.delivery().await;
    bo.attach_again(BO, 2, 1, 3).await;
    assert_eq!(bo.attached().await, 1);
    assert_eq!(number(&bo.delivery().await.id), 1);
    ada.processed(asked.tag).await;
    assert_status(&bo.outcome().await, Status::Delivered);
    // To introduce a session that is attached changes nothing.
    bo.introduce(BO, 2).await;
    ada.submit(chat(2, BO, &[1])).await;
    assert_eq!(bo.delivery().await.tag, 2);
    net.stop().await;
}

#[tokio::test]
async fn a_drain_hands_everything_over_at_once() {
    let mut net = Replicas::new(2).await;
    let (here, there) = (net.edge(0).await, net.edge(1).await);
    let mut bo = here.attach(BO, 2, 1).await;
    let mut ada = here.introduce(ADA, 1).await;
    ada.submit(chat(1, BO, &[1])).await;
    bo.delivery().await;
    net.drain(0).await;
    here.drains().await;
    assert_status(&ada.outcome().await, Status::Stored);
    bo.moves().await;
    // No lease has to end, and nobody is there to be asked.
    let mut bo = there.same(&bo);
    bo.attach_again(BO, 2, 1, 1).await;
    assert_eq!(bo.attached().await, 1);
    assert_eq!(number(&bo.take().await.id), 1);
    net.stop().await;
}

#[tokio::test]
async fn what_accounts_leave_is_erased_by_their_owner_or_by_one_of_many() {
    let mut net = Replicas::new(2).await;
    net.directory.enter(record("cy@home.example", 3, &[1, 2]));
    net.directory.enter(record("di@home.example", 4, &[1]));
    let (here, there) = (net.edge(0).await, net.edge(1).await);
    let mut ada = here.introduce(ADA, 1).await;
    let mut ada_there = there.introduce(ADA, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    assert_status(&ada.tell(chat(2, "cy@home.example", &[1, 2])).await, Status::Stored);
    assert_status(&ada_there.tell(chat(3, "di@home.example", &[1])).await, Status::Stored);
    net.drain(0).await;
    net.restart(0).await;
    // Nobody owns the first two, the other replica owns the third; all replicas hear of all.
    net.directory.change("cy@home.example", RecordChange::Devices, |cy| drop(cy.devices.pop())).await;
    net.directory.withdraw(BO).await;
    net.directory.withdraw("di@home.example").await;
    let erased = async {
        while (net.waiting_messages(2).await, net.waiting_messages(3).await, net.waiting_messages(4).await) != (0, 1, 0)
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, erased).await.unwrap();
    let here = net.edge(0).await;
    let mut ada = here.introduce(ADA, 1).await;
    assert_rejected(&ada.tell(chat(4, BO, &[1])).await, Rejection::NotAvailable);
    net.stop().await;
}

#[tokio::test]
async fn an_event_for_a_session_that_has_moved_is_its_last_as_an_attached_one() {
    let mut net = Replicas::new(2).await;
    let (here, there) = (net.edge(0).await, net.edge(1).await);
    let mut bo = here.attach(BO, 2, 1).await;
    let mut ada = there.introduce(ADA, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    bo.moves().await;
    net.directory.change(BO, RecordChange::PrekeysLow, |_| {}).await;
    // It goes on submitting, and hears nothing else.
    bo.submit(chat(1, ADA, &[1])).await;
    let event = bo.next().await;
    assert!(matches!(event, Some(Event::Outcome(_))), "{event:?}");
    net.stop().await;
}
