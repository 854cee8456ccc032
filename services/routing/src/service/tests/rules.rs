//! Who may send what to whom.

use causeway_proto::directory::v1::{ProviderStatus, RecordChange};
use causeway_proto::wire::v1::{Inbox, InboxSetting, Outcome, Reach, Rejection, Status};
use prost::Message as _;

use super::edge::{assert_rejected, assert_status, chat, message_id, number};
use super::*;
use crate::records::fake::deny;

const ADA: &str = "ada@birdy.example";
const BO: &str = "bo@home.example";

/// Every way in which somebody cannot be reached.
async fn closed_doors(net: &Deployment) -> Vec<&'static str> {
    let enter = |address: &'static str, account, edit: fn(&mut causeway_proto::directory::v1::Record)| {
        let mut record = record(address, account, &[1]);
        edit(&mut record);
        net.directory.enter(record);
        address
    };
    vec![
        "somebody@unknown.example",
        "nobody@home.example",
        enter("not-enlisted@home.example", 10, |record| record.devices.clear()),
        enter("opted-out@home.example", 11, |record| record.consent.as_mut().unwrap().interop = false),
        enter("no-consent@home.example", 12, |record| record.consent = None),
        enter("blocks-provider@home.example", 13, |record| deny(record, "birdy.example")),
        enter("for-nobody@home.example", 14, |record| record.consent.as_mut().unwrap().reach = Reach::Nobody.into()),
        enter("suspended@home.example", 15, |record| record.provider_status = ProviderStatus::Suspended.into()),
        enter("other@third.example", 16, |_| {}),
    ]
}

#[tokio::test]
async fn nobody_can_tell_why_somebody_is_not_available() {
    let net = Deployment::new(&[1], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for (n, address) in closed_doors(&net).await.into_iter().enumerate() {
        // With the right devices and with wrong ones, small and too large.
        for (m, devices) in [&[1][..], &[7, 8][..]].into_iter().enumerate() {
            let id = (2 * n + m) as u64;
            let mut message = chat(id, address, devices);
            if m == 1 {
                message.enc[0].ciphertext = vec![0; 300_000].into();
            }
            let outcome = ada.tell(message).await;
            assert_rejected(&outcome, Rejection::NotAvailable);
            assert_eq!((number(&outcome.id), outcome.to.as_str()), (id, address));
            let same = Outcome { id: message_id(0), to: String::new(), ..outcome };
            seen.push(same.encode_to_vec());
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
}

#[tokio::test]
async fn all_refusals_take_the_same_time() {
    let net = Deployment::new(&[1], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let doors = closed_doors(&net).await;
    // From here on there is nothing that is not of this runtime: no mailbox is looked at.
    tokio::time::pause();
    assert_rejected(&ada.tell(chat(1, "aligned@home.example", &[1])).await, Rejection::NotAvailable);
    let mut times = Vec::new();
    // Unknown to the cache, and known.
    for id in 2..4 {
        for address in &doors {
            let start = tokio::time::Instant::now();
            assert_rejected(&ada.tell(chat(id, address, &[1])).await, Rejection::NotAvailable);
            times.push(start.elapsed());
        }
    }
    times.dedup();
    assert_eq!(times.len(), 1, "{times:?}");
    // The timer's ticks do not begin with the message.
    let (least, most) = (Duration::from_millis(20), Duration::from_millis(21));
    assert!((least..=most).contains(&times[0]), "{times:?}");
    // None of them waits for another.
    let start = tokio::time::Instant::now();
    for address in &doors {
        ada.submit(chat(9, address, &[1])).await;
    }
    let mut order = Vec::new();
    for _ in &doors {
        order.push(ada.outcome().await.to);
    }
    assert_eq!(start.elapsed(), times[0]);
    assert_eq!(order, doors);
}

#[tokio::test]
async fn a_refusal_holds_up_nothing_behind_it() {
    let net = Deployment::with(&[1], &[1], |config| config.refusal_delay_ms = 1_000).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let mut bo = edge.attach(BO, 2, 1).await;
    net.directory.enter(record("eve@crow.example", 3, &[1]));
    let mut eve = edge.attach("eve@crow.example", 3, 1).await;
    net.directory.change(BO, RecordChange::Consent, |bo| deny(bo, "crow.example")).await;
    bo.notification().await;
    let start = tokio::time::Instant::now();
    eve.submit(chat(1, BO, &[1])).await;
    ada.submit(chat(2, BO, &[1])).await;
    assert_eq!(number(&bo.take().await.id), 2);
    assert_status(&ada.outcome().await, Status::Delivered);
    assert!(eve.try_next().is_none());
    assert_rejected(&eve.outcome().await, Rejection::NotAvailable);
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn who_has_been_refused_too_often_asks_for_no_more_strangers() {
    let net = Deployment::with(&[1], &[1], |config| {
        config.account_refusals_per_hour = 1;
        config.account_refusal_burst = 2;
    })
    .await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    net.directory.enter(record("eve@home.example", 3, &[1]));
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    for id in 2..4 {
        assert_rejected(&ada.tell(chat(id, &format!("nobody{id}@home.example"), &[1])).await, Rejection::NotAvailable);
    }
    let before = net.directory.gets();
    // One who is there, and one who is not.
    for address in ["eve@home.example", "nobody4@home.example"] {
        let limited = ada.tell(chat(4, address, &[1])).await;
        assert_rejected(&limited, Rejection::RateLimited);
        assert!(limited.retry_after_ms > 3_500_000, "{limited:?}");
    }
    assert_eq!(net.directory.gets(), before, "nobody was looked up");
    let mut ada = edge.attach(ADA, 1, 1).await;
    assert_status(&ada.tell(chat(5, BO, &[1])).await, Status::Stored);
}

#[tokio::test]
async fn who_closes_the_own_door_reaches_nobody() {
    let net = Deployment::new(&[1, 2], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    net.directory.change(ADA, RecordChange::Consent, |ada| ada.consent.as_mut().unwrap().interop = false).await;
    ada.notification().await;
    assert_rejected(&ada.tell(chat(2, BO, &[1])).await, Rejection::NotAvailable);
    assert_status(&ada.tell(chat(3, ADA, &[2])).await, Status::Stored);
}

#[tokio::test]
async fn a_confirmed_change_of_consent_is_in_force() {
    let net = Deployment::with(&[1], &[1], |config| {
        config.account_per_s = 100_000;
        config.account_burst = 100_000;
        config.provider_burst = 100_000;
    })
    .await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let mut id = 0;
    for _ in 0..20 {
        id += 1;
        assert_status(&ada.tell(chat(id, BO, &[1])).await, Status::Stored);
        net.directory.change(BO, RecordChange::Consent, |bo| deny(bo, "birdy.example")).await;
        id += 1;
        assert_rejected(&ada.tell(chat(id, BO, &[1])).await, Rejection::NotAvailable);
        net.directory.change(BO, RecordChange::Consent, |bo| bo.consent.as_mut().unwrap().providers.clear()).await;
    }
    // Under way while it changes: whatever was submitted after the confirmation stays out.
    for round in 0..20 {
        for _ in 0..10 {
            id += 1;
            ada.submit(chat(id, BO, &[1])).await;
        }
        net.directory.change(BO, RecordChange::Consent, |bo| deny(bo, "birdy.example")).await;
        let first_closed = id + 1;
        for _ in 0..5 {
            id += 1;
            ada.submit(chat(id, BO, &[1])).await;
        }
        for _ in 0..15 {
            let outcome = ada.outcome().await;
            let closed = number(&outcome.id) >= first_closed;
            assert!(!closed || outcome.status() == Status::Rejected, "round {round}: {outcome:?}");
        }
        net.directory.change(BO, RecordChange::Consent, |bo| bo.consent.as_mut().unwrap().providers.clear()).await;
    }
}

#[tokio::test]
async fn a_provider_that_is_suspended_is_out_at_once() {
    let net = Deployment::new(&[1], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    let mut suspended = record(ADA, 1, &[1]);
    suspended.provider_status = ProviderStatus::Suspended.into();
    net.directory.enter(suspended);
    net.directory.change_provider("birdy.example").await;
    assert_rejected(&ada.tell(chat(2, BO, &[1])).await, Rejection::NotAvailable);
}

#[tokio::test]
async fn a_wrong_list_of_devices_reaches_nobody_and_says_what_is_wrong() {
    let net = Deployment::new(&[1], &[1, 4]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let mut bo = edge.attach(BO, 2, 1).await;
    let mut list = async |id, devices: &[(u32, u32)]| {
        let mut message = chat(id, BO, &devices.iter().map(|(device, _)| *device).collect::<Vec<_>>());
        for (enc, (_, reg)) in message.enc.iter_mut().zip(devices) {
            enc.reg = *reg;
        }
        let outcome = ada.tell(message).await;
        assert_rejected(&outcome, Rejection::Devices);
        let devices = outcome.devices.unwrap();
        (devices.missing, devices.extra, devices.stale)
    };
    assert_eq!(list(1, &[]).await, (vec![1, 4], vec![], vec![]));
    assert_eq!(list(2, &[(1, 101), (1, 101), (4, 104)]).await, (vec![], vec![1], vec![]));
    assert_eq!(list(3, &[(1, 101), (4, 9)]).await, (vec![], vec![], vec![4]));
    assert_eq!(list(4, &[(1, 101), (4, 104), (9, 9)]).await, (vec![], vec![9], vec![]));
    let many: Vec<(u32, u32)> = (1..=17).map(|n| (n, 100 + n)).collect();
    assert_eq!(list(5, &many).await.1.len(), 15);
    // The same id with the right list.
    ada.submit(chat(1, BO, &[1, 4])).await;
    assert_eq!(number(&bo.take().await.id), 1, "the first that came");
    assert_status(&ada.outcome().await, Status::Stored);
}

#[tokio::test]
async fn of_ones_own_account_the_sending_device_is_not_named() {
    let net = Deployment::new(&[1, 2], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let outcome = ada.tell(chat(1, ADA, &[1, 2])).await;
    assert_rejected(&outcome, Rejection::Devices);
    assert_eq!(outcome.devices.unwrap().extra, [1]);
    assert_status(&ada.tell(chat(1, ADA, &[2])).await, Status::Stored);
}

#[tokio::test]
async fn a_device_that_the_directory_has_not_announced_yet_is_looked_up() {
    let net = Deployment::new(&[1], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Stored);
    net.directory.enter(record(BO, 2, &[1, 2]));
    assert_status(&ada.tell(chat(2, BO, &[1, 2])).await, Status::Stored);
    let mut laptop = edge.attach(BO, 2, 2).await;
    assert_eq!(number(&laptop.take().await.id), 2);
    net.directory.enter(record(ADA, 1, &[1, 5]));
    edge.attach(ADA, 1, 5).await;
}

#[tokio::test]
async fn limits_come_after_consent_and_before_size_and_devices() {
    let net = Deployment::with(&[1], &[1], |config| {
        config.account_per_s = 1;
        config.account_burst = 2;
        config.max_message_bytes = 1_024;
    })
    .await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let large = |id| {
        let mut message = chat(id, BO, &[9]);
        message.enc[0].ciphertext = vec![0; 1_025].into();
        message
    };
    assert_rejected(&ada.tell(large(1)).await, Rejection::TooLarge);
    assert_rejected(&ada.tell(chat(2, BO, &[9])).await, Rejection::Devices);
    let limited = ada.tell(large(3)).await;
    assert_rejected(&limited, Rejection::RateLimited);
    assert!((1..=1_001).contains(&limited.retry_after_ms), "{limited:?}");
    assert_rejected(&ada.tell(chat(4, "nobody@home.example", &[1])).await, Rejection::NotAvailable);
}

#[tokio::test]
async fn a_combined_inbox_takes_third_parties_in() {
    let net = Deployment::new(&[1], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let mut bo = edge.attach(BO, 2, 1).await;
    net.directory
        .change(BO, RecordChange::Consent, |bo| {
            bo.consent.as_mut().unwrap().inbox = InboxSetting::Combined.into();
        })
        .await;
    bo.notification().await;
    ada.submit(chat(1, BO, &[1])).await;
    assert_eq!(bo.take().await.origin.unwrap().inbox(), Inbox::Main);
    assert_status(&ada.outcome().await, Status::Delivered);
}
