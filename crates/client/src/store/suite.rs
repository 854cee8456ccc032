//! What every backend promises: one function a sentence.

use std::time::Duration;

use causeway_identity::{AccountId, Address, DeviceAddress, DeviceId, MessageId};
use causeway_stanza::{EncType, Inbox, MessageClass, ProviderKind, Rejection};
use zeroize::Zeroizing;

use super::{
    Change, DeviceRecord, InboxEntry, InboxItem, Outgoing, Peer, PeerDevice, Prekey, PrekeyFamily, Prune, Purpose,
    SealedFor, SignalAddress, Store, UsedBaseKey,
};
use crate::content::Content;
use crate::event::{
    IdentityChanged, Message, Origin, RejectReason, SendResult, SentElsewhere, Undecryptable, UndecryptableReason,
};

/// Runs all of it; each part on a store of its own.
pub(super) async fn run(fresh: impl AsyncFn() -> Box<dyn Store>) {
    a_fresh_store_is_empty(&*fresh().await).await;
    the_device_is_replaced_whole(&*fresh().await).await;
    prekeys_are_published_replaced_and_removed(&*fresh().await).await;
    a_base_key_is_remembered_as_long_as_its_prekey(&*fresh().await).await;
    sessions_identities_and_peers_are_replaced(&*fresh().await).await;
    outgoing_messages_come_back_in_order_until_finished(&*fresh().await).await;
    every_purpose_and_result_comes_back(&*fresh().await).await;
    a_sent_message_is_found_by_recipient_and_prefix(&*fresh().await).await;
    resends_are_counted(&*fresh().await).await;
    a_message_once_read_stays_read(&*fresh().await).await;
    the_inbox_keeps_entries_until_done(&*fresh().await).await;
    pruning_takes_only_what_is_over(&*fresh().await).await;
    numbers_are_never_used_again(&*fresh().await).await;
}

fn device(number: u32) -> SignalAddress {
    SignalAddress { account: AccountId::from_bytes([9; 16]), device: DeviceId::new(number).unwrap() }
}

fn address(local: &str) -> Address {
    format!("{local}@birdy.example").parse().unwrap()
}

fn id(byte: u8) -> MessageId {
    MessageId::from_bytes([byte; 16])
}

fn outgoing(seq: u64) -> Outgoing {
    Outgoing {
        seq,
        id: id(u8::try_from(seq).unwrap()),
        to: address("bo"),
        class: MessageClass::Chat,
        purpose: Purpose::Message,
        content: vec![1, 2, 3],
        sealed: vec![],
        repairs: 0,
        created_ms: 100 + seq,
        result: None,
        finished_ms: 0,
    }
}

fn prekey(family: PrekeyFamily, id: u32, made_ms: u64, last_resort: bool) -> Prekey {
    let record = Zeroizing::new(vec![4, 5]);
    Prekey { family, id, last_resort, record, made_ms, published: false, replaced_ms: None }
}

fn message(byte: u8) -> InboxItem {
    InboxItem::Message(Message {
        id: id(byte),
        from: DeviceAddress { account: address("ada"), device: DeviceId::new(3).unwrap() },
        account: AccountId::from_bytes([9; 16]),
        origin: Origin {
            provider: "birdy.example".to_owned(),
            kind: ProviderKind::ThirdParty,
            protocol: "signal".to_owned(),
            inbox: Inbox::ThirdParty,
        },
        class: MessageClass::Call,
        sent_at_ms: 5,
        accepted_at_ms: 6,
        content: Content::text("hello").in_reply_to(id(77)),
        resolves: vec![id(88)],
    })
}

async fn a_fresh_store_is_empty(store: &dyn Store) {
    assert_eq!(store.device().await.unwrap(), None);
    assert_eq!(store.prekey(PrekeyFamily::Ec, 1).await.unwrap(), None);
    assert_eq!(store.signed_prekey_made_ms().await.unwrap(), None);
    assert_eq!(store.session(device(1)).await.unwrap(), None);
    assert_eq!(store.peer(&address("bo")).await.unwrap(), None);
    assert_eq!(store.outgoing(id(1)).await.unwrap(), None);
    assert_eq!(store.last_seqs().await.unwrap(), (0, 0));
    assert!(store.unfinished(0, 10).await.unwrap().is_empty() && store.inbox(0, 10).await.unwrap().is_empty());
}

async fn the_device_is_replaced_whole(store: &dyn Store) {
    let mut record = DeviceRecord {
        noise_private: Zeroizing::new([1; 32]),
        identity: Zeroizing::new(vec![2; 69]),
        registration_id: 16380,
        enlisted: None,
        server_key: None,
        next_prekey_id: (1 << 24) - 1,
    };
    store.commit(vec![Change::PutDevice(Box::new(record.clone()))]).await.unwrap();
    assert_eq!(store.device().await.unwrap(), Some(record.clone()));
    record.enlisted = Some(device(7));
    record.server_key = Some([3; 32]);
    store.commit(vec![Change::PutDevice(Box::new(record.clone()))]).await.unwrap();
    assert_eq!(store.device().await.unwrap(), Some(record));
}

async fn prekeys_are_published_replaced_and_removed(store: &dyn Store) {
    use PrekeyFamily::{Ec, Kyber, Signed};
    let keys = [
        prekey(Ec, 5, 10, false),
        prekey(Ec, 4, 11, false),
        prekey(Signed, 1, 10, false),
        prekey(Kyber, 1, 10, true),
        prekey(Kyber, 2, 5, false),
    ];
    store.commit(keys.iter().cloned().map(Change::PutPrekey).collect()).await.unwrap();
    let unpublished = store.unpublished_prekeys().await.unwrap();
    let ids: Vec<_> = unpublished.iter().map(|key| (key.family, key.id)).collect();
    assert_eq!(ids, [(Ec, 5), (Ec, 4), (Signed, 1), (Kyber, 2), (Kyber, 1)], "in order of their making");
    store.commit(vec![Change::PublishedPrekeys(ids)]).await.unwrap();
    assert!(store.unpublished_prekeys().await.unwrap().is_empty());
    assert!(store.prekey(Kyber, 1).await.unwrap().unwrap().published);

    store
        .commit(vec![
            Change::PutPrekey(prekey(Signed, 9, 20, false)),
            Change::PutPrekey(prekey(Kyber, 9, 20, true)),
            Change::ReplacedPrekeys { at_ms: 21 },
            Change::ReplacedPrekeys { at_ms: 22 },
        ])
        .await
        .unwrap();
    assert_eq!(store.signed_prekey_made_ms().await.unwrap(), Some(20));
    let replaced = async |family, id| store.prekey(family, id).await.unwrap().unwrap().replaced_ms;
    assert_eq!((replaced(Signed, 1).await, replaced(Kyber, 1).await), (Some(21), Some(21)));
    assert_eq!((replaced(Signed, 9).await, replaced(Kyber, 9).await), (None, None));
    assert_eq!((replaced(Kyber, 2).await, replaced(Ec, 4).await), (None, None), "one-time keys are used, not replaced");

    store.commit(vec![Change::RemovePrekey(Ec, 5), Change::RemovePrekey(Ec, 5)]).await.unwrap();
    assert_eq!(store.prekey(Ec, 5).await.unwrap(), None);
    assert!(store.prekey(Ec, 4).await.unwrap().is_some());
}

async fn a_base_key_is_remembered_as_long_as_its_prekey(store: &dyn Store) {
    let key = UsedBaseKey { kyber: 1, signed: 2, base_key: vec![5; 33] };
    store
        .commit(vec![Change::PutPrekey(prekey(PrekeyFamily::Kyber, 1, 1, true)), Change::UseBaseKey(key.clone())])
        .await
        .unwrap();
    assert!(store.base_key_used(&key).await.unwrap());
    assert!(!store.base_key_used(&UsedBaseKey { signed: 3, ..key.clone() }).await.unwrap());
    store.commit(vec![Change::RemovePrekey(PrekeyFamily::Kyber, 1)]).await.unwrap();
    assert!(!store.base_key_used(&key).await.unwrap());
}

async fn sessions_identities_and_peers_are_replaced(store: &dyn Store) {
    for value in [vec![1], vec![2, 2]] {
        let changes = vec![Change::PutSession(device(1), value.clone()), Change::PutIdentity(device(1), value.clone())];
        store.commit(changes).await.unwrap();
        assert_eq!(store.session(device(1)).await.unwrap(), Some(value.clone()));
        assert_eq!(store.identity(device(1)).await.unwrap(), Some(value));
        assert_eq!(store.session(device(2)).await.unwrap(), None);
    }
    let listed = PeerDevice { id: DeviceId::new(2).unwrap(), registration_id: 7 };
    for devices in [None, Some(vec![]), Some(vec![listed])] {
        let peer = Peer { address: address("bo"), account: AccountId::from_bytes([2; 16]), devices };
        store.commit(vec![Change::PutPeer(peer.clone())]).await.unwrap();
        assert_eq!(store.peer(&address("bo")).await.unwrap(), Some(peer));
    }
}

async fn outgoing_messages_come_back_in_order_until_finished(store: &dyn Store) {
    let changes = (1..=5).map(|seq| Change::PutOutgoing(Box::new(outgoing(seq)))).collect();
    store.commit(changes).await.unwrap();
    let mut sent = outgoing(2);
    sent.sealed.push(SealedFor {
        device: DeviceId::new(4).unwrap(),
        registration_id: 9,
        kind: EncType::Whisper,
        ciphertext: vec![8; 100].into(),
        identity: vec![5; 33],
    });
    sent.repairs = 3;
    store.commit(vec![Change::PutOutgoing(Box::new(sent.clone()))]).await.unwrap();
    assert_eq!(store.outgoing(id(2)).await.unwrap(), Some(sent.clone()));
    let seqs = async |after, limit| {
        let headers = store.unfinished(after, limit).await.unwrap();
        headers.iter().map(|header| header.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(0, 10).await, [1, 2, 3, 4, 5]);
    assert_eq!(seqs(1, 2).await, [2, 3]);
    sent.result = Some(SendResult::Stored);
    sent.finished_ms = 500;
    store.commit(vec![Change::PutOutgoing(Box::new(sent.clone()))]).await.unwrap();
    assert_eq!(seqs(0, 10).await, [1, 3, 4, 5]);
    assert_eq!(store.outgoing(id(2)).await.unwrap(), Some(sent));
}

async fn every_purpose_and_result_comes_back(store: &dyn Store) {
    let purposes = [
        Purpose::Message,
        Purpose::Sync,
        Purpose::RetryRequest,
        Purpose::Resend {
            device: device(3),
            identity: vec![5; 33],
            original: id(50),
            instead_of: vec![id(50), id(51)],
        },
    ];
    let results = [
        None,
        Some(SendResult::Delivered),
        Some(SendResult::Dropped),
        Some(SendResult::Rejected(RejectReason::Server(Rejection::RequestPending))),
        Some(SendResult::Rejected(RejectReason::Expired)),
        Some(SendResult::Rejected(RejectReason::BadKeys)),
        Some(SendResult::Rejected(RejectReason::IdentityChanged)),
    ];
    let mut seq = 0;
    for purpose in &purposes {
        for result in results {
            seq += 1;
            let sent = Outgoing { purpose: purpose.clone(), result, ..outgoing(seq) };
            store.commit(vec![Change::PutOutgoing(Box::new(sent.clone()))]).await.unwrap();
            assert_eq!(store.outgoing(sent.id).await.unwrap(), Some(sent));
        }
    }
}

async fn a_sent_message_is_found_by_recipient_and_prefix(store: &dyn Store) {
    let changes = (1..=3).map(|seq| Change::PutOutgoing(Box::new(outgoing(seq)))).collect();
    store.commit(changes).await.unwrap();
    assert_eq!(store.sent_to(&address("bo"), [2; 6]).await.unwrap(), Some(outgoing(2)));
    assert_eq!(store.sent_to(&address("cy"), [2; 6]).await.unwrap(), None);
    assert_eq!(store.sent_to(&address("bo"), [9; 6]).await.unwrap(), None);
}

async fn resends_are_counted(store: &dyn Store) {
    assert_eq!(store.resends(id(1), device(1)).await.unwrap(), 0);
    for count in 1..=3 {
        store.commit(vec![Change::CountResend(id(1), device(1))]).await.unwrap();
        assert_eq!(store.resends(id(1), device(1)).await.unwrap(), count);
    }
    assert_eq!(store.resends(id(1), device(2)).await.unwrap(), 0);
    assert_eq!(store.resends(id(2), device(1)).await.unwrap(), 0);
}

async fn a_message_once_read_stays_read(store: &dyn Store) {
    assert_eq!(store.seen(device(1), id(1)).await.unwrap(), None);
    for (read, expected) in [(false, false), (true, true), (false, true)] {
        store.commit(vec![Change::Seen { from: device(1), id: id(1), at_ms: 1, read }]).await.unwrap();
        assert_eq!(store.seen(device(1), id(1)).await.unwrap(), Some(expected));
    }
    assert_eq!(store.seen(device(2), id(1)).await.unwrap(), None);
}

async fn the_inbox_keeps_entries_until_done(store: &dyn Store) {
    let items = [
        message(1),
        InboxItem::SentElsewhere(SentElsewhere {
            id: id(2),
            device: DeviceId::new(1).unwrap(),
            to: address("cy"),
            sent_at_ms: 3,
            content: Content::text("hi"),
        }),
        InboxItem::Undecryptable(Undecryptable {
            id: id(3),
            from: DeviceAddress { account: address("ada"), device: DeviceId::new(3).unwrap() },
            account: AccountId::from_bytes([9; 16]),
            accepted_at_ms: 8,
            reason: UndecryptableReason::Malformed,
        }),
        InboxItem::IdentityChanged(IdentityChanged { address: address("ada"), device: None }),
        InboxItem::IdentityChanged(IdentityChanged { address: address("ada"), device: DeviceId::new(3).ok() }),
    ];
    let entries: Vec<_> = (1..).zip(items).map(|(seq, item)| InboxEntry { seq, item }).collect();
    let put = entries.iter().cloned().map(|entry| Change::PutInbox(Box::new(entry))).collect();
    store.commit(put).await.unwrap();
    assert_eq!(store.inbox(0, 10).await.unwrap(), entries);
    assert_eq!(store.inbox(2, 2).await.unwrap(), entries[2..4]);
    store.commit(vec![Change::DoneInbox(2), Change::DoneInbox(2)]).await.unwrap();
    assert_eq!(store.inbox_len().await.unwrap(), 4);
    assert_eq!(store.inbox(1, 1).await.unwrap(), entries[2..3]);
}

async fn pruning_takes_only_what_is_over(store: &dyn Store) {
    let mut changes = Vec::new();
    for seq in 1..=6 {
        let finished = seq <= 4;
        let result = finished.then_some(SendResult::Delivered);
        let finished_ms = if finished { 1000 * seq } else { 0 };
        changes.push(Change::PutOutgoing(Box::new(Outgoing { result, finished_ms, ..outgoing(seq) })));
        changes.push(Change::Seen {
            from: device(1),
            id: id(u8::try_from(seq).unwrap()),
            at_ms: 1000 * seq,
            read: true,
        });
        changes.push(Change::CountResend(id(u8::try_from(seq).unwrap()), device(1)));
    }
    changes.push(Change::PutPrekey(prekey(PrekeyFamily::Signed, 1, 1, false)));
    changes.push(Change::PutPrekey(prekey(PrekeyFamily::Signed, 2, 2, false)));
    changes.push(Change::ReplacedPrekeys { at_ms: 100 });
    for (key, made_ms) in [(7, 1), (9, 1), (8, 3), (3, 2)] {
        for family in [PrekeyFamily::Ec, PrekeyFamily::Kyber] {
            let published = key != 7;
            changes.push(Change::PutPrekey(Prekey { published, ..prekey(family, key, made_ms, false) }));
        }
    }
    changes.push(Change::PutPrekey(prekey(PrekeyFamily::Kyber, 20, 1, true)));
    changes.push(Change::PutInbox(Box::new(InboxEntry { seq: 1, item: message(1) })));
    store.commit(changes).await.unwrap();
    let keep = Prune {
        now_ms: 10_000,
        prekeys: Duration::from_millis(9_950),
        one_time_count: 2,
        sent: Duration::from_millis(8_500),
        sent_count: 2,
        seen: Duration::from_millis(7_500),
        seen_count: 3,
    };
    store.commit(vec![Change::Prune(keep)]).await.unwrap();
    for family in [PrekeyFamily::Ec, PrekeyFamily::Kyber] {
        let mut kept = Vec::new();
        for key in [7, 9, 3, 8] {
            kept.push(store.prekey(family, key).await.unwrap().is_some());
        }
        assert_eq!(kept, [true, false, true, true], "one is not published, and of the others the oldest goes");
    }
    assert!(store.prekey(PrekeyFamily::Kyber, 20).await.unwrap().is_some(), "the last resort is not counted");
    assert!(store.prekey(PrekeyFamily::Signed, 1).await.unwrap().is_some(), "replaced less than 9.95 s ago");
    let mut left = Vec::new();
    for byte in 1..=6 {
        let sent = store.outgoing(id(byte)).await.unwrap().is_some();
        left.push((sent, store.seen(device(1), id(byte)).await.unwrap().is_some()));
        assert_eq!(store.resends(id(byte), device(1)).await.unwrap(), u32::from(sent), "counts go with their message");
    }
    // Sent: 1 is too old, 2 one too many, 5 and 6 not finished. Received: 1 and 2 too old, 3 one too many.
    let expected = [(false, false), (false, false), (true, false), (true, true), (true, true), (true, true)];
    assert_eq!(left, expected);
    store.commit(vec![Change::Prune(Prune { now_ms: 20_000, ..keep })]).await.unwrap();
    assert!(store.prekey(PrekeyFamily::Signed, 1).await.unwrap().is_none());
    assert!(store.prekey(PrekeyFamily::Signed, 2).await.unwrap().is_some(), "in use");
    assert_eq!(store.inbox_len().await.unwrap(), 1, "not confirmed");
}

async fn numbers_are_never_used_again(store: &dyn Store) {
    let finished = Outgoing { result: Some(SendResult::Delivered), finished_ms: 1, ..outgoing(4) };
    let changes = vec![
        Change::PutOutgoing(Box::new(finished)),
        Change::PutInbox(Box::new(InboxEntry { seq: 9, item: message(1) })),
        Change::DoneInbox(9),
        Change::Prune(Prune {
            now_ms: 1_000_000,
            prekeys: Duration::ZERO,
            one_time_count: 0,
            sent: Duration::ZERO,
            sent_count: 0,
            seen: Duration::ZERO,
            seen_count: 0,
        }),
    ];
    store.commit(changes).await.unwrap();
    assert_eq!(store.outgoing(id(4)).await.unwrap(), None);
    assert_eq!(store.last_seqs().await.unwrap(), (4, 9));
}
