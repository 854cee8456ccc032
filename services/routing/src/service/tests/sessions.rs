//! Sessions: replaced, removed, withdrawn, misbehaving, told.

use causeway_proto::directory::v1::RecordChange;
use causeway_proto::routing::v1::routing_event::Event;
use causeway_proto::wire::v1::notification::Kind;
use causeway_proto::wire::v1::{EndReason, Rejection, Status};

use super::edge::{assert_rejected, assert_status, chat, number};
use super::*;

const ADA: &str = "ada@birdy.example";
const BO: &str = "bo@home.example";

#[tokio::test]
async fn a_newer_session_replaces_the_older_on_whatever_edge() {
    let net = Deployment::new(&[1], &[1]).await;
    let (one, other) = (net.edge().await, net.edge().await);
    let mut ada = one.attach(ADA, 1, 1).await;
    let mut old = one.attach(BO, 2, 1).await;
    for id in 1..=2 {
        ada.submit(chat(id, BO, &[1])).await;
        assert_eq!(number(&old.delivery().await.id), id);
    }
    let mut new = other.start(BO, 2, 1, 101).await;
    old.ends(EndReason::Replaced).await;
    for _ in 0..2 {
        assert_status(&ada.outcome().await, Status::Stored);
    }
    assert_eq!(new.attached().await, 2);
    // What the old one says counts for nothing.
    old.processed(2).await;
    old.submit(chat(9, ADA, &[1])).await;
    assert_eq!((number(&new.delivery().await.id), number(&new.delivery().await.id)), (1, 2));
    ada.submit(chat(3, BO, &[1])).await;
    let third = new.delivery().await;
    assert_eq!((number(&third.id), third.tag), (3, 3));
    new.processed(3).await;
    assert_status(&ada.outcome().await, Status::Delivered);
    new.detach().await;
    let mut newest = one.start(BO, 2, 1, 101).await;
    assert_eq!(newest.attached().await, 0);
    assert!(old.try_next().is_none() && ada.try_next().is_none());
}

#[tokio::test]
async fn a_removed_device_is_sent_away_and_what_waits_for_it_is_erased() {
    let net = Deployment::new(&[1], &[1, 2]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1, 2])).await, Status::Stored);
    let mut phone = edge.attach(BO, 2, 1).await;
    let mut laptop = edge.attach(BO, 2, 2).await;
    phone.delivery().await;
    laptop.delivery().await;
    net.directory.change(BO, RecordChange::Devices, |bo| drop(bo.devices.pop())).await;
    assert!(matches!(phone.notification().await.kind, Some(Kind::DevicesChanged(changed)) if changed.address == BO));
    laptop.notification().await;
    laptop.ends(EndReason::DeviceRemoved).await;
    assert_rejected(&ada.tell(chat(2, BO, &[1, 2])).await, Rejection::Devices);
    ada.submit(chat(2, BO, &[1])).await;
    assert_eq!(number(&phone.delivery().await.id), 2);
    let waiting = net.waiting(2).await;
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    assert_eq!(waiting[0].device.get(), 1);
    edge.start(BO, 2, 2, 102).await.ends(EndReason::DeviceRemoved).await;
}

#[tokio::test]
async fn a_device_enlisted_again_under_its_id_does_not_get_what_was_for_the_one_before() {
    let net = Deployment::new(&[1], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    // The directory tells nobody: a change that fell into a break of the stream.
    let mut again = record(BO, 2, &[1]);
    again.devices[0].registration_id = 777;
    net.directory.enter(again);
    let mut bo = edge.start(BO, 2, 1, 777).await;
    bo.attached().await;
    let mut message = chat(2, BO, &[1]);
    message.enc[0].reg = 777;
    ada.submit(message).await;
    assert_eq!(number(&bo.take().await.id), 2);
    edge.start(BO, 2, 1, 101).await.ends(EndReason::DeviceRemoved).await;
}

#[tokio::test]
async fn who_withdraws_is_gone_and_nothing_is_kept() {
    let net = Deployment::new(&[1], &[1, 2]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let mut bo = edge.attach(BO, 2, 1).await;
    ada.submit(chat(1, BO, &[1, 2])).await;
    bo.take().await;
    assert_status(&ada.outcome().await, Status::Stored);
    net.directory.withdraw(BO).await;
    bo.ends(EndReason::Withdrawn).await;
    assert_rejected(&ada.tell(chat(2, BO, &[1, 2])).await, Rejection::NotAvailable);
    assert_eq!(net.waiting_messages(2).await, 0);
    // The same address, enlisted again: another account.
    net.directory.enter(record(BO, 5, &[1]));
    net.directory.change(BO, RecordChange::Devices, |_| {}).await;
    edge.start(BO, 2, 1, 101).await.ends(EndReason::Withdrawn).await;
    let mut again = edge.attach(BO, 5, 1).await;
    ada.submit(chat(1, BO, &[1])).await;
    assert_eq!(number(&again.take().await.id), 1, "to another account it is another message");
    assert_status(&ada.outcome().await, Status::Delivered);
}

#[tokio::test]
async fn what_waits_for_removed_devices_and_accounts_is_erased_where_nobody_is_in_memory() {
    let mut net = Deployment::new(&[1], &[1, 2]).await;
    net.directory.enter(record("cy@home.example", 3, &[1]));
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1, 2])).await, Status::Stored);
    assert_status(&ada.tell(chat(2, "cy@home.example", &[1])).await, Status::Stored);
    net.kill_and_restart().await;
    assert_eq!((net.waiting_messages(2).await, net.waiting_messages(3).await), (2, 1));
    net.directory.change(BO, RecordChange::Devices, |bo| drop(bo.devices.pop())).await;
    net.directory.withdraw("cy@home.example").await;
    let erased = async {
        while (net.waiting_messages(2).await, net.waiting_messages(3).await) != (1, 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, erased).await.unwrap();
}

#[tokio::test]
async fn who_acknowledges_what_was_not_sent_is_ended_and_loses_nothing() {
    let net = Deployment::new(&[1], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let mut bo = edge.attach(BO, 2, 1).await;
    ada.submit(chat(1, BO, &[1])).await;
    bo.delivery().await;
    bo.processed(2).await;
    bo.ends(EndReason::BadAck).await;
    assert_status(&ada.outcome().await, Status::Stored);
    let mut bo = edge.start(BO, 2, 1, 101).await;
    assert_eq!(bo.attached().await, 1);
}

#[tokio::test]
async fn what_no_edge_lets_through_ends_the_session_that_it_came_by() {
    let net = Deployment::new(&[1], &[1]).await;
    let edge = net.edge().await;
    let good = || chat(1, BO, &[1]);
    type Spoil = fn(&mut causeway_proto::wire::v1::Submit);
    let spoilt: [Spoil; 8] = [
        |m| m.id = vec![1; 15].into(),
        |m| m.to = "no address".to_owned(),
        |m| m.class = 0,
        |m| m.class = 99,
        |m| m.enc[0].r#type = 0,
        |m| m.enc[0].device = 0,
        |m| m.enc[0].device = u32::MAX,
        |m| m.enc = vec![m.enc[0].clone(); 300],
    ];
    for spoil in spoilt {
        let mut ada = edge.attach(ADA, 1, 1).await;
        let mut message = good();
        spoil(&mut message);
        ada.submit(message).await;
        ada.ends(EndReason::BadStanza).await;
    }
    let mut ada = edge.attach(ADA, 1, 1).await;
    assert_status(&ada.tell(good()).await, Status::Stored);
}

#[tokio::test]
async fn devices_are_told_what_changes() {
    let net = Deployment::new(&[1, 2], &[1]).await;
    let edge = net.edge().await;
    let mut phone = edge.attach(ADA, 1, 1).await;
    let mut tablet = edge.attach(ADA, 1, 2).await;
    net.directory.change(ADA, RecordChange::PrekeysLow, |_| {}).await;
    let Some(Kind::PrekeysLow(low)) = phone.notification().await.kind else { panic!("not told") };
    assert_eq!((low.ec, low.kyber), (3, 4));
    net.directory.change(ADA, RecordChange::Consent, |_| {}).await;
    for device in [&mut phone, &mut tablet] {
        assert!(matches!(device.notification().await.kind, Some(Kind::ConsentChanged(_))));
    }
    net.directory
        .change(ADA, RecordChange::Devices, |ada| ada.devices.push(record(ADA, 1, &[3]).devices.remove(0)))
        .await;
    for device in [&mut phone, &mut tablet] {
        assert!(matches!(device.notification().await.kind, Some(Kind::DevicesChanged(_))));
    }
}

#[tokio::test]
async fn a_session_id_that_comes_twice_is_a_new_session() {
    let net = Deployment::new(&[1], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let bo = edge.attach(BO, 2, 1).await;
    let attach = causeway_proto::routing::v1::Attach {
        account_id: vec![2; 16].into(),
        device_id: 1,
        registration_id: 101,
        address: BO.to_owned(),
        provider_domain: "home.example".to_owned(),
        ..causeway_proto::routing::v1::Attach::default()
    };
    ada.submit(chat(1, BO, &[1])).await;
    let mut bo = bo;
    bo.delivery().await;
    bo.send(causeway_proto::routing::v1::edge_event::Event::Attach(attach)).await;
    // The older one's end comes first, if it comes at all: it has been detached.
    let mut event = bo.next().await;
    if matches!(event, Some(Event::End(_))) {
        event = bo.next().await;
    }
    assert!(matches!(event, Some(Event::Attached(_))), "{event:?}");
    let again = bo.take().await;
    assert_eq!((number(&again.id), again.tag), (1, 1));
    assert_status(&ada.outcome().await, Status::Stored);
}
