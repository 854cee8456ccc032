//! Enlistment, prekeys, leaving.

use std::sync::Arc;
use std::time::Duration;

use causeway_stanza::{FailureReason, KeyCounts, Notification};

use super::server::Server;
use super::world::{Device, address, config};
use crate::{ClientError, Ended, EventKind, MemoryStore};

#[tokio::test]
async fn enlisting_twice_is_one_device() {
    let server = Server::start().await;
    let ada = Device::open(config(&server, "ada"), Arc::new(MemoryStore::new())).await;
    assert_eq!(ada.client.device(), None);
    let (first, second) = tokio::join!(ada.client.enlist(), ada.client.enlist());
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(server.state().accounts[&address("ada")].devices.len(), 1);
    let counts = ada.client.prekey_counts().await.unwrap();
    assert_eq!((counts.ec, counts.kyber), (100, 100));
}

/// A device whose enlistment the server has taken, and of which the caller was told that it takes too long.
async fn enlisted_without_an_answer(server: &Server) -> Device {
    server.state().faults.answer_enlistments_late = true;
    let mut config = config(server, "ada");
    config.timing.request_timeout = Duration::from_millis(100);
    let ada = Device::open(config, Arc::new(MemoryStore::new())).await;
    ada.client.connected().await.unwrap();
    assert!(matches!(ada.client.enlist().await, Err(ClientError::Timeout)));
    server.until(|state| state.stats.enlistments == 1).await;
    ada
}

/// However long that takes.
async fn enlist_at_last(device: &Device) {
    loop {
        match device.client.enlist().await {
            Err(ClientError::Timeout) => {}
            enlisted => return drop(enlisted.unwrap()),
        }
    }
}

#[tokio::test]
async fn an_enlistment_that_is_answered_too_late_is_one() {
    let server = Server::start().await;
    let mut ada = enlisted_without_an_answer(&server).await;
    assert!(matches!(ada.client.enlist().await, Err(ClientError::Timeout)), "the same again");
    server.answer_late();
    enlist_at_last(&ada).await;
    assert_eq!(server.state().stats.enlistments, 1);
    let bo = Device::new(&server, "bo").await;
    bo.tell(ada.address(), "welcome").await;
    assert_eq!(ada.hear().await, "welcome");
    server.end(ada.address(), None);
    bo.tell(ada.address(), "again").await;
    assert_eq!(ada.hear().await, "again");
}

#[tokio::test]
async fn an_enlistment_that_is_never_answered_is_asked_again_only_by_the_application() {
    let server = Server::start().await;
    let ada = enlisted_without_an_answer(&server).await;
    server.end(&address("ada"), None);
    server.until(|state| state.stats.logins == 2).await;
    ada.client.connected().await.unwrap();
    server.answer_late();
    assert_eq!((ada.client.device(), server.state().stats.enlistments), (None, 1));
    enlist_at_last(&ada).await;
    assert_eq!(server.state().accounts[ada.address()].devices.len(), 1);
}

#[tokio::test]
async fn an_enlistment_that_has_failed_before_the_connection_is_there_stays_so() {
    let server = Server::start().await;
    server.state().faults.refuse = Some(FailureReason::Overloaded);
    let mut config = config(&server, "ada");
    config.timing.request_timeout = Duration::from_millis(100);
    let ada = Device::open(config, Arc::new(MemoryStore::new())).await;
    assert!(matches!(ada.client.enlist().await, Err(ClientError::Timeout)));
    server.state().faults.refuse = None;
    ada.client.connected().await.unwrap();
    // The engine has taken note of the connection, and has asked for nothing.
    assert!(matches!(ada.client.consent().await, Err(ClientError::NotEnlisted)));
    assert_eq!((ada.client.device(), server.state().stats.enlistments), (None, 0));
    enlist_at_last(&ada).await;
}

#[tokio::test]
async fn consent_is_read_and_set() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    assert!(!ada.client.consent().await.unwrap().interop);
    assert!(ada.client.opt_in().await.unwrap().interop);
    assert!(ada.client.consent().await.unwrap().interop);
}

#[tokio::test]
async fn used_prekeys_are_topped_up() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    {
        let mut state = server.state();
        let device = state.accounts.get_mut(ada.address()).unwrap().devices.get_mut(&ada.id()).unwrap();
        device.ec.truncate(5);
        device.kyber.truncate(7);
    }
    server.notify(ada.address(), &Notification::PrekeysLow(KeyCounts { ec: 5, kyber: 7 }));
    let (to, id) = (ada.address().clone(), ada.id());
    let full = |device: &super::server::Device| device.ec.len() == 100 && device.kyber.len() == 100;
    server.until(|state| full(&state.accounts[&to].devices[&id])).await;
    // The same after a login that says so.
    server.state().accounts.get_mut(&to).unwrap().devices.get_mut(&id).unwrap().ec.clear();
    let _ada = ada.restart().await;
    server.until(|state| full(&state.accounts[&to].devices[&id])).await;
}

#[tokio::test]
async fn signed_prekeys_are_replaced_when_they_are_old_and_the_old_ones_still_work() {
    let server = Server::start().await;
    let (ada, mut bo) = (Device::new(&server, "ada").await, Device::new(&server, "bo").await);
    let (to, id) = (bo.address().clone(), bo.id());
    let signed = |state: &super::server::State| state.accounts[&to].devices[&id].signed.id;
    let (old, old_kyber) = {
        let state = server.state();
        (signed(&state), state.accounts[&to].devices[&id].last_resort.id)
    };
    // Ada's message is made with the old keys and arrives when new ones are in use.
    server.end(&to, None);
    server.state().faults.refuse = Some(FailureReason::Overloaded);
    ada.tell(&to, "under the old key").await;
    bo.config.timing.prekey_rotation = Duration::ZERO;
    let mut bo = bo.restart().await;
    server.state().faults.refuse = None;
    server.until(|state| signed(state) != old).await;
    assert_ne!(server.state().accounts[&to].devices[&id].last_resort.id, old_kyber);
    assert_eq!(bo.hear().await, "under the old key");
}

#[tokio::test]
async fn leaving_ends_the_client() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    ada.client.withdraw().await.unwrap();
    ada.next(|kind| matches!(kind, EventKind::Ended(Ended::Withdrawn)).then_some(())).await;
    assert!(ada.events.next().await.is_none());
    assert!(matches!(ada.client.consent().await, Err(ClientError::Ended(Ended::Withdrawn))));
    assert!(server.state().accounts.is_empty());
}

#[tokio::test]
async fn a_removed_device_ends() {
    let server = Server::start().await;
    let mut ada = Device::new(&server, "ada").await;
    server.remove_device(&ada.address().clone(), ada.id());
    ada.next(|kind| matches!(kind, EventKind::Ended(Ended::DeviceRemoved)).then_some(())).await;
}
