//! Messages that cannot be read come again, and what must not be read is not.

use super::server::Server;
use super::world::Device;
use crate::{EventKind, Undecryptable, UndecryptableReason};

async fn unreadable(device: &mut Device) -> Undecryptable {
    device
        .next(|kind| match kind {
            EventKind::Undecryptable(message) => Some(message.clone()),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_damaged_message_is_asked_for_and_comes_again() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let mut bo = Device::new(&server, "bo").await;
    ada.tell(bo.address(), "whole").await;
    assert_eq!(bo.hear().await, "whole");
    for damages in 1..=3 {
        server.state().faults.damage = Some((bo.address().clone(), bo.id(), damages));
        let sent = ada.tell(bo.address(), "damaged").await;
        let first = unreadable(&mut bo).await;
        assert_eq!((first.id, first.reason), (sent.id, UndecryptableReason::Keys));
        let mut waiting = vec![first.id];
        for _ in 1..damages {
            waiting.push(unreadable(&mut bo).await.id);
        }
        let message = bo.message().await;
        assert_eq!((message.id, message.content.as_text()), (sent.id, Some("damaged")));
        assert_eq!(message.resolves, waiting, "nothing waits for ever");
        bo.hears_nothing_but(&ada, "on we go").await;
    }
}

#[tokio::test]
async fn a_message_is_sent_again_three_times_at_most() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let mut bo = Device::new(&server, "bo").await;
    server.state().faults.damage = Some((bo.address().clone(), bo.id(), u32::MAX));
    ada.tell(bo.address(), "never readable").await;
    for _ in 0..4 {
        unreadable(&mut bo).await;
    }
    server.state().faults.damage = None;
    bo.hears_nothing_but(&ada, "readable").await;
}

#[tokio::test]
async fn only_the_device_that_cannot_read_it_gets_it_again() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let (mut bo_1, mut bo_2) = (Device::new(&server, "bo").await, Device::new(&server, "bo").await);
    let bo = bo_1.address().clone();
    server.state().faults.damage = Some((bo.clone(), bo_2.id(), 1));
    let sent = ada.tell(&bo, "damaged for one").await;
    assert_eq!(bo_1.hear().await, "damaged for one");
    assert_eq!(unreadable(&mut bo_2).await.id, sent.id);
    assert_eq!(bo_2.hear().await, "damaged for one");
    bo_1.hears_nothing_but(&ada, "last").await;
}

#[tokio::test]
async fn a_lost_one_time_key_costs_a_round_trip_not_a_message() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let mut bo = Device::new(&server, "bo").await;
    let (to, id) = (bo.address().clone(), bo.id());
    {
        // The directory hands out a key that the device no longer has.
        let mut state = server.state();
        let device = state.accounts.get_mut(&to).unwrap().devices.get_mut(&id).unwrap();
        device.ec[0].id = 0xfff_fff;
        device.kyber[0].id = 0xfff_fff;
    }
    let sent = ada.tell(&to, "under a lost key").await;
    assert_eq!(unreadable(&mut bo).await.id, sent.id);
    let message = bo.message().await;
    assert_eq!((message.id, message.content.as_text()), (sent.id, Some("under a lost key")));
}

#[tokio::test]
async fn a_store_that_lost_its_sessions_recovers() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    let mut bo = Device::new(&server, "bo").await;
    for n in 0..3 {
        ada.tell(bo.address(), &n.to_string()).await;
        assert_eq!(bo.hear().await, n.to_string());
        bo.tell(ada.address(), &n.to_string()).await;
        assert_eq!(ada.hear().await, n.to_string());
    }
    // An old backup of the session: what Ada sends next is far ahead of it.
    let with = crate::store::SignalAddress { account: server.state().accounts[ada.address()].id, device: ada.id() };
    bo.client.shutdown().await;
    bo.store.commit(vec![crate::store::Change::PutSession(with, Vec::new())]).await.unwrap();
    let mut bo = bo.restart().await;
    let sent = ada.tell(bo.address(), "can you read this?").await;
    assert_eq!(unreadable(&mut bo).await.id, sent.id);
    assert_eq!(bo.message().await.id, sent.id);
    bo.tell(ada.address(), "now I can").await;
    assert_eq!(ada.hear().await, "now I can");
}

#[tokio::test]
async fn a_forged_request_to_send_again_gets_nothing_out() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let mut bo = Device::new(&server, "bo").await;
    let to = bo.address().clone();
    let sent = ada.tell(&to, "for the old device only").await;
    assert_eq!(bo.message().await.id, sent.id);
    // The server swaps the device for one of its own and asks in its name.
    server.remove_device(&to, bo.id());
    bo.client.shutdown().await;
    let mut forged = Device::new(&server, "bo").await;
    assert_eq!(forged.id(), bo.id());
    let request =
        crate::signal::ask_again(sent.id, ada.id(), causeway_stanza::EncType::Whisper, b"no session").unwrap();
    server.inject(&to, forged.id(), ada.address(), &request);
    forged.hears_nothing_but(&ada, "hello, whoever you are").await;
}
