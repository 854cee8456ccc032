//! What becomes of messages.

use causeway_proto::wire::v1::{EncType, Inbox, MessageClass, ProviderKind, Rejection, Status};

use super::edge::{assert_rejected, assert_status, chat, number, of_class};
use super::*;

const ADA: &str = "ada@birdy.example";
const BO: &str = "bo@home.example";

#[tokio::test]
async fn what_all_devices_acknowledge_in_time_touches_no_disk() {
    let net = Deployment::new(&[1], &[1, 2]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let mut phone = edge.attach(BO, 2, 1).await;
    let mut laptop = edge.attach(BO, 2, 2).await;
    let commits = net.mailbox().commits();
    for id in 1..=3 {
        ada.submit(chat(id, BO, &[1, 2])).await;
        let first = phone.take().await;
        assert_eq!((number(&first.id), first.tag, &first.ciphertext[..]), (id, id, format!("{id} for 1").as_bytes()));
        let second = laptop.take().await;
        assert_eq!((number(&second.id), second.tag, second.r#type()), (id, id, EncType::Whisper));
        let outcome = ada.outcome().await;
        assert_status(&outcome, Status::Delivered);
        assert_eq!((number(&outcome.id), outcome.to.as_str()), (id, BO));
    }
    assert_eq!(net.mailbox().commits(), commits);
}

#[tokio::test]
async fn a_delivery_says_where_it_comes_from() {
    let net = Deployment::new(&[1, 2], &[1]).await;
    let edge = net.edge().await;
    let ada = edge.attach(ADA, 1, 1).await;
    let mut tablet = edge.attach(ADA, 1, 2).await;
    let mut bo = edge.attach(BO, 2, 1).await;
    ada.submit(chat(1, BO, &[1])).await;
    let got = bo.take().await;
    assert_eq!((got.from.as_str(), &got.from_account[..], got.ts), ("ada@birdy.example/1", &[1; 16][..], START_MS));
    let origin = got.origin.unwrap();
    assert_eq!((origin.provider.as_str(), origin.protocol.as_str()), ("birdy.example", "signal"));
    assert_eq!((origin.kind(), origin.inbox()), (ProviderKind::ThirdParty, Inbox::ThirdParty));
    bo.submit(chat(2, ADA, &[1, 2])).await;
    assert_eq!(tablet.take().await.origin.unwrap().inbox(), Inbox::Main);
    ada.submit(chat(3, ADA, &[2])).await;
    let own = tablet.take().await;
    assert_eq!((own.from.as_str(), own.origin.unwrap().inbox()), ("ada@birdy.example/1", Inbox::Main));
}

#[tokio::test]
async fn an_offline_device_gets_its_messages_in_order_when_it_comes() {
    let net = Deployment::with(&[1], &[1], |config| config.account_burst = 1_000).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    for id in 1..=300 {
        ada.submit(chat(id, BO, &[1])).await;
        if id % 100 == 0 {
            for _ in 0..100 {
                assert_status(&ada.outcome().await, Status::Stored);
            }
        }
    }
    let mut bo = edge.start(BO, 2, 1, 101).await;
    assert_eq!(bo.attached().await, 300);
    for id in 1..=300 {
        let got = bo.take().await;
        assert_eq!((number(&got.id), got.tag), (id, id));
    }
    // Live behind it, in order.
    ada.submit(chat(301, BO, &[1])).await;
    assert_eq!(number(&bo.take().await.id), 301);
    let last = ada.outcome().await;
    assert!(matches!(last.status(), Status::Delivered | Status::Stored));
    bo.detach().await;
    let mut bo = edge.start(BO, 2, 1, 101).await;
    assert_eq!(bo.attached().await, 0);
    assert_eq!(net.waiting_messages(2).await, 0);
}

#[tokio::test]
async fn a_device_that_is_late_finds_it_stored_and_its_acknowledgement_erases_it() {
    let net = Deployment::with(&[1], &[1], |config| config.ack_window_ms = 10).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let mut bo = edge.attach(BO, 2, 1).await;
    ada.submit(chat(1, BO, &[1])).await;
    let got = bo.delivery().await;
    assert_status(&ada.outcome().await, Status::Stored);
    assert_eq!(net.waiting_messages(2).await, 1);
    bo.processed(got.tag).await;
    bo.detach().await;
    let mut bo = edge.start(BO, 2, 1, 101).await;
    assert_eq!(bo.attached().await, 0);
    assert_eq!(net.waiting_messages(2).await, 0);
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again() {
    let net = Deployment::new(&[1], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let mut bo = edge.attach(BO, 2, 1).await;
    for id in 1..=3 {
        ada.submit(chat(id, BO, &[1])).await;
        assert_eq!(number(&bo.delivery().await.id), id);
    }
    bo.processed(1).await;
    assert_status(&ada.outcome().await, Status::Delivered);
    bo.detach().await;
    for _ in 0..2 {
        assert_status(&ada.outcome().await, Status::Stored);
    }
    let mut bo = edge.start(BO, 2, 1, 101).await;
    assert_eq!(bo.attached().await, 2);
    assert_eq!((number(&bo.delivery().await.id), number(&bo.delivery().await.id)), (2, 3));
}

#[tokio::test]
async fn a_repeat_gets_the_first_outcome_before_and_after_it() {
    let net = Deployment::new(&[1], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let mut bo = edge.attach(BO, 2, 1).await;
    ada.submit(chat(1, BO, &[1])).await;
    let got = bo.delivery().await;
    ada.submit(chat(1, BO, &[1])).await;
    // Whatever it says the second time.
    ada.submit(chat(1, BO, &[7])).await;
    bo.processed(got.tag).await;
    for _ in 0..3 {
        assert_status(&ada.outcome().await, Status::Delivered);
    }
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Delivered);
    // On another session, while the recipient is away, and although it is closed by now.
    bo.detach().await;
    net.directory
        .change(BO, causeway_proto::directory::v1::RecordChange::Consent, |bo| {
            bo.consent.as_mut().unwrap().interop = false;
        })
        .await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    assert_status(&ada.tell(chat(1, BO, &[1])).await, Status::Delivered);
    assert_rejected(&ada.tell(chat(2, BO, &[1])).await, Rejection::NotAvailable);
    assert_eq!(net.waiting_messages(2).await, 0);
}

#[tokio::test]
async fn one_id_of_two_senders_is_two_messages() {
    let net = Deployment::new(&[1, 2], &[1]).await;
    net.directory.enter(record("eve@birdy.example", 3, &[1]));
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let mut tablet = edge.attach(ADA, 1, 2).await;
    let mut eve = edge.attach("eve@birdy.example", 3, 1).await;
    for sender in [&mut ada, &mut tablet, &mut eve] {
        assert_status(&sender.tell(chat(1, BO, &[1])).await, Status::Stored);
    }
    let mut bo = edge.start(BO, 2, 1, 101).await;
    assert_eq!(bo.attached().await, 3);
    let mut senders: Vec<String> = Vec::new();
    for _ in 0..3 {
        senders.push(bo.take().await.from);
    }
    assert_eq!(senders, ["ada@birdy.example/1", "ada@birdy.example/2", "eve@birdy.example/1"]);
    // The recipient's own message under the same id.
    bo.submit(chat(1, "eve@birdy.example", &[1])).await;
    assert_eq!(eve.take().await.from, "bo@home.example/1");
    assert_status(&bo.outcome().await, Status::Delivered);
}

#[tokio::test]
async fn an_ephemeral_message_is_delivered_now_or_dropped() {
    let net = Deployment::with(&[1], &[1, 2], |config| config.ack_window_ms = 300).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let typing = |id| of_class(MessageClass::Ephemeral, chat(id, BO, &[1, 2]));
    assert_status(&ada.tell(typing(1)).await, Status::Dropped);
    let mut phone = edge.attach(BO, 2, 1).await;
    assert_status(&ada.tell(typing(2)).await, Status::Dropped);
    assert_eq!(number(&phone.take().await.id), 2, "whoever is there gets it");
    let mut laptop = edge.attach(BO, 2, 2).await;
    ada.submit(typing(3)).await;
    assert_eq!(number(&phone.take().await.id), 3);
    assert_eq!(number(&laptop.take().await.id), 3);
    assert_status(&ada.outcome().await, Status::Delivered);
    ada.submit(typing(4)).await;
    assert_eq!(number(&phone.delivery().await.id), 4);
    assert_status(&ada.outcome().await, Status::Dropped);
    assert_eq!(net.waiting_messages(2).await, 0);
}

#[tokio::test]
async fn a_call_waits_for_a_minute() {
    let net = Deployment::new(&[1], &[1]).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let ring = |id| of_class(MessageClass::Call, chat(id, BO, &[1]));
    assert_status(&ada.tell(ring(1)).await, Status::Stored);
    assert_status(&ada.tell(chat(2, BO, &[1])).await, Status::Stored);
    net.clock.advance(Duration::from_secs(61));
    let mut bo = edge.start(BO, 2, 1, 101).await;
    bo.attached().await;
    assert_eq!(number(&bo.take().await.id), 2);
}

#[tokio::test]
async fn a_full_mailbox_is_said_before_anybody_gets_anything() {
    let net = Deployment::with(&[1, 2], &[1, 2], |config| config.mailbox_messages = 3).await;
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    for id in 1..=3 {
        assert_status(&ada.tell(chat(id, BO, &[1, 2])).await, Status::Stored);
    }
    let mut phone = edge.attach(BO, 2, 1).await;
    for _ in 0..3 {
        phone.take().await;
    }
    let full = ada.tell(chat(4, BO, &[1, 2])).await;
    assert_rejected(&full, Rejection::RateLimited);
    assert_eq!(full.retry_after_ms, net.config.mailbox_full_retry_ms);
    // Others are none the worse for it.
    assert_status(&ada.tell(chat(5, ADA, &[2])).await, Status::Stored);
    let mut laptop = edge.attach(BO, 2, 2).await;
    for id in 1..=3 {
        assert_eq!(number(&laptop.take().await.id), id);
    }
    // The same id, now that there is room. What acknowledges is counted when it is committed.
    laptop.detach().await;
    let laptop = edge.attach(BO, 2, 2).await;
    laptop.detach().await;
    // On a new session: the old one is held to its patience for a while.
    let mut ada = edge.attach(ADA, 1, 1).await;
    ada.submit(chat(4, BO, &[1, 2])).await;
    assert_eq!(number(&phone.take().await.id), 4, "nothing of it had come before");
    assert_status(&ada.outcome().await, Status::Stored);
}

#[tokio::test]
async fn a_device_that_does_not_read_fills_its_mailbox_and_holds_up_nobody() {
    let net = Deployment::with(&[1], &[1], |config| {
        config.ack_window_ms = 25;
        config.session_messages = 16;
        config.account_per_s = 100_000;
        config.account_burst = 100_000;
        config.provider_per_s = 100_000;
        config.provider_burst = 100_000;
    })
    .await;
    net.directory.enter(record("cy@home.example", 3, &[1]));
    let edge = net.edge().await;
    let mut ada = edge.attach(ADA, 1, 1).await;
    let mut bo = edge.attach(BO, 2, 1).await;
    let mut cy = edge.attach("cy@home.example", 3, 1).await;
    let total = 1_000_u64;
    let reader = tokio::spawn(async move {
        for id in 1..=total {
            assert_eq!(number(&cy.take().await.id), id);
        }
    });
    let mut outcomes = 0;
    for id in 1..=total {
        ada.submit(chat(id, BO, &[1])).await;
        ada.submit(chat(id, "cy@home.example", &[1])).await;
        // At most a hundred on their way.
        while outcomes + 200 < 2 * id {
            let outcome = ada.outcome().await;
            assert!(matches!(outcome.status(), Status::Stored | Status::Delivered), "{outcome:?}");
            assert!(outcome.to != BO || outcome.status() == Status::Stored);
            outcomes += 1;
        }
    }
    reader.await.unwrap();
    while outcomes < 2 * total {
        ada.outcome().await;
        outcomes += 1;
    }
    assert_eq!(net.waiting_messages(2).await, total);
    for id in 1..=total {
        let got = bo.take().await;
        assert_eq!((number(&got.id), got.tag), (id, id));
    }
    ada.submit(chat(total + 1, BO, &[1])).await;
    assert_eq!(number(&bo.take().await.id), total + 1);
}
