//! Messages that cannot be read come again, and what must not be read is not.

use causeway_identity::MessageId;
use causeway_stanza::MessageClass;

use super::server::Server;
use super::world::Device;
use crate::store::{Change, Outgoing, Purpose};
use crate::{Body, Content, EventKind, Undecryptable, UndecryptableReason, content};

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
    bo.store.commit(vec![Change::PutSession(with, Vec::new())]).await.unwrap();
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

/// Makes a device send this content as it is, as another implementation might.
async fn send_raw(device: Device, to: &Device, id: MessageId, content: Vec<u8>) -> Device {
    let (seq, _) = device.store.last_seqs().await.unwrap();
    let outgoing = Outgoing {
        seq: seq + 1,
        id,
        to: to.address().clone(),
        class: MessageClass::Chat,
        purpose: Purpose::Message,
        content,
        sealed: vec![],
        repairs: 0,
        created_ms: u64::MAX / 2,
        result: None,
        finished_ms: 0,
    };
    device.client.shutdown().await;
    device.store.commit(vec![Change::PutOutgoing(Box::new(outgoing))]).await.unwrap();
    let device = device.restart().await;
    assert!(device.client.wait_outcome(id).await.unwrap().result.is_accepted());
    device
}

#[tokio::test]
async fn what_is_no_content_is_shown_as_such_and_not_asked_for_again() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    let mut bo = Device::new(&server, "bo").await;
    let id = |byte| MessageId::from_bytes([byte; 16]);
    let text = Content::text("hello");
    let of_another = content::seal(id(9), 1, &text).unwrap();
    let sync_of_a_stranger = content::seal_sync(id(2), 1, bo.address(), &content::seal(id(8), 1, &text).unwrap());
    let nested = content::seal_resent(id(3), 1, &content::seal_nothing(id(8), 1), &[id(7)]);
    for (id, wrong) in [(id(1), of_another), (id(2), sync_of_a_stranger), (id(3), nested), (id(4), vec![0xff; 10])] {
        ada = send_raw(ada, &bo, id, wrong).await;
        let message = unreadable(&mut bo).await;
        assert_eq!((message.id, message.reason), (id, UndecryptableReason::Malformed));
    }
    let submits = server.state().stats.submits;
    bo.hears_nothing_but(&ada, "the next").await;
    assert_eq!(server.state().stats.submits, submits + 1, "nobody was asked");
}

#[tokio::test]
async fn content_of_a_later_version_is_kept_whole() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let mut bo = Device::new(&server, "bo").await;
    let id = MessageId::from_bytes([5; 16]);
    // The id, and field 99, which nobody knows yet.
    let mut later = vec![0x0a, 16];
    later.extend_from_slice(id.as_bytes());
    later.extend_from_slice(&[0x9a, 0x06, 0x02, b'h', b'i']);
    let _ada = send_raw(ada, &bo, id, later.clone()).await;
    let mut bo = {
        let event = bo.next_event(|kind| matches!(kind, EventKind::Message(_)).then_some(())).await;
        drop(event);
        bo.restart().await
    };
    assert_eq!(bo.message().await.content.body, Body::Unknown(later));
}

#[tokio::test]
async fn a_repetition_to_ones_own_devices_is_read_as_what_it_was() {
    let server = Server::start().await;
    let (mut ada_1, mut ada_2) = (Device::new(&server, "ada").await, Device::new(&server, "ada").await);
    let bo = Device::new(&server, "bo").await;
    let ada = ada_1.address().clone();
    server.notify(&ada, &causeway_stanza::Notification::DevicesChanged(ada.clone()));
    ada_1.next(|kind| matches!(kind, EventKind::DevicesChanged { .. }).then_some(())).await;
    ada_1.client.devices().await.unwrap();
    server.state().faults.damage = Some((ada.clone(), ada_2.id(), 1));
    let sent = ada_1.tell(bo.address(), "to bo").await;
    unreadable(&mut ada_2).await;
    let told = ada_2
        .next(|kind| match kind {
            EventKind::SentElsewhere(sent) => Some(sent.clone()),
            _ => None,
        })
        .await;
    assert_eq!((told.id, told.content), (sent.id, Content::text("to bo")));
}
