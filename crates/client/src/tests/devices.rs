//! Users have several devices, and they change.

use super::server::Server;
use super::world::Device;
use crate::{Content, EventKind, RejectReason, SendResult};

#[tokio::test]
async fn every_device_gets_it_and_the_senders_others_are_told() {
    let server = Server::start().await;
    let (ada, mut ada_2) = (Device::new(&server, "ada").await, Device::new(&server, "ada").await);
    let mut bos =
        [Device::new(&server, "bo").await, Device::new(&server, "bo").await, Device::new(&server, "bo").await];
    let bo = bos[0].address().clone();
    // The first device learns of the second by the server's notice.
    server.notify(ada.address(), &causeway_stanza::Notification::DevicesChanged(ada.address().clone()));
    let mut ada = ada;
    ada.next(|kind| matches!(kind, EventKind::DevicesChanged { .. }).then_some(())).await;
    assert_eq!(ada.client.devices().await.unwrap().len(), 2);
    let outcome = ada.tell(&bo, "to all of you").await;
    for device in &mut bos {
        let message = device.message().await;
        assert_eq!((message.id, message.from.device), (outcome.id, ada.id()));
    }
    let sent = ada_2
        .next(|kind| match kind {
            EventKind::SentElsewhere(sent) => Some(sent.clone()),
            _ => None,
        })
        .await;
    assert_eq!((sent.id, &sent.to, sent.device), (outcome.id, &bo, ada.id()));
    assert_eq!(sent.content, Content::text("to all of you"));
    assert_eq!(server.state().stats.device_rejections, 0);
}

#[tokio::test]
async fn a_list_that_is_out_of_date_is_mended_and_the_order_kept() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let mut bo_1 = Device::new(&server, "bo").await;
    let bo = bo_1.address().clone();
    ada.tell(&bo, "alone").await;
    assert_eq!(bo_1.hear().await, "alone");

    let mut bo_2 = Device::new(&server, "bo").await; // missing
    for n in 0..10 {
        ada.client.send(&bo, Content::text(n.to_string())).await.unwrap();
    }
    for n in 0..10 {
        assert_eq!(bo_1.hear().await, n.to_string());
        assert_eq!(bo_2.hear().await, n.to_string());
    }
    server.remove_device(&bo, bo_1.id()); // extra
    for n in 0..10 {
        ada.client.send(&bo, Content::text(n.to_string())).await.unwrap();
    }
    for n in 0..10 {
        assert_eq!(bo_2.hear().await, n.to_string());
    }
    assert!(server.state().stats.device_rejections >= 2);
}

#[tokio::test]
async fn somebody_all_of_whose_devices_are_new_is_reported() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    let bo_1 = Device::new(&server, "bo").await;
    let bo = bo_1.address().clone();
    ada.tell(&bo, "hello").await;
    let mut bo_2 = Device::new(&server, "bo").await;
    server.remove_device(&bo, bo_1.id());
    ada.tell(&bo, "hello again").await;
    assert_eq!(bo_2.hear().await, "hello again");
    let change = ada
        .next(|kind| match kind {
            EventKind::IdentityChanged(change) => Some(change.clone()),
            _ => None,
        })
        .await;
    assert_eq!((change.address, change.device), (bo, None));
}

/// The next identity change that is reported.
async fn change(device: &mut Device) -> (causeway_identity::Address, Option<causeway_identity::DeviceId>) {
    let wanted = |kind: &EventKind| match kind {
        EventKind::IdentityChanged(change) => Some((change.address.clone(), change.device)),
        _ => None,
    };
    device.next(wanted).await
}

#[tokio::test]
async fn a_device_that_joins_a_partner_is_reported_before_what_it_says() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    let bo = Device::new(&server, "bo").await;
    bo.tell(ada.address(), "hello").await;
    assert_eq!(ada.hear().await, "hello");
    ada.tell(bo.address(), "hello bo").await;
    // Whoever can mint bo's tokens can add a device to bo's account.
    let ghost = Device::new(&server, "bo").await;
    ghost.tell(ada.address(), "please pay to this account").await;
    assert_eq!(change(&mut ada).await, (bo.address().clone(), Some(ghost.id())));
    assert_eq!(ada.hear().await, "please pay to this account");
}

#[tokio::test]
async fn a_device_that_joins_ones_own_is_reported() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    let ghost = Device::new(&server, "ada").await;
    // At the next login, whether or not a notification came.
    let ada_address = ada.address().clone();
    ada = ada.restart().await;
    assert_eq!(change(&mut ada).await, (ada_address, Some(ghost.id())));
}

#[tokio::test]
async fn a_device_id_with_another_identity_is_reported_to_the_user() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    let bo = Device::new(&server, "bo").await;
    let to = bo.address().clone();
    ada.tell(&to, "to the old one").await;
    server.remove_device(&to, bo.id());
    let mut new = Device::new(&server, "bo").await;
    assert_eq!(bo.id(), new.id(), "the same number, other keys");
    ada.tell(&to, "to the new one").await;
    assert_eq!(new.hear().await, "to the new one");
    let change = ada
        .next(|kind| match kind {
            EventKind::IdentityChanged(change) => Some(change.clone()),
            _ => None,
        })
        .await;
    assert_eq!((change.address, change.device), (to, Some(new.id())));
}

#[tokio::test]
async fn an_address_with_another_account_is_reported_to_both_ends() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    let mut bo = Device::new(&server, "bo").await;
    ada.tell(bo.address(), "hello").await;
    bo.tell(ada.address(), "hello").await;
    assert_eq!((ada.hear().await, bo.hear().await), ("hello".to_owned(), "hello".to_owned()));
    bo.client.withdraw().await.unwrap();
    let bo = Device::new(&server, "bo").await;
    bo.tell(ada.address(), "it is me, honestly").await;
    let change = ada
        .next(|kind| match kind {
            EventKind::IdentityChanged(change) => Some(change.clone()),
            _ => None,
        })
        .await;
    assert_eq!((&change.address, change.device), (bo.address(), None));
    assert_eq!(ada.hear().await, "it is me, honestly");
}

#[tokio::test]
async fn keys_with_a_wrong_signature_are_not_used() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let bo = Device::new(&server, "bo").await;
    server.state().faults.bad_bundles = true;
    let outcome = ada.client.send_and_wait(bo.address(), Content::text("?")).await.unwrap();
    assert_eq!(outcome.result, SendResult::Rejected(RejectReason::BadKeys));
    assert_eq!(server.state().stats.submits, 0);
}

#[tokio::test]
async fn a_message_to_oneself_goes_to_the_other_devices() {
    let server = Server::start().await;
    let ada_1 = Device::new(&server, "ada").await;
    let ada = ada_1.address().clone();
    let alone = ada_1.client.send_and_wait(&ada, Content::text("note")).await.unwrap();
    assert_eq!(alone.result, SendResult::Delivered, "there is nobody else to tell");
    let mut ada_2 = Device::new(&server, "ada").await;
    server.notify(&ada, &causeway_stanza::Notification::DevicesChanged(ada.clone()));
    let mut ada_1 = ada_1;
    ada_1.next(|kind| matches!(kind, EventKind::DevicesChanged { .. }).then_some(())).await;
    ada_1.client.devices().await.unwrap();
    ada_1.tell(&ada, "note to both").await;
    assert_eq!(ada_2.hear().await, "note to both");
}
