//! What every mailbox must do: one function per sentence of its contract, and a model that any history is compared with.
//! A backend calls [`suite`] and [`model::histories`] with a way to make fresh mailboxes.

pub(crate) mod model;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use causeway_identity::{AccountId, DeviceId, MessageId};

use super::{Bounds, Chain, Claimed, Depth, Mailbox, Page, PageRequest, Put, PutOutcome, Replica, ReplicaId, Usage};
use crate::message::{Class, Enc, EncType, Envelope, Header, Inbox, Kind, MessageKey, Origin, Seq};

/// Bounds of the mailboxes that the suite is run on.
pub(crate) const BOUNDS: Bounds = Bounds { messages: 8, bytes: 8 * 300 };

pub(crate) async fn suite<M: Mailbox>(fresh: impl AsyncFn() -> M) {
    what_was_put_comes_back_as_it_was(&owned(fresh().await).await).await;
    a_repeat_is_one_entry(&owned(fresh().await).await).await;
    one_id_of_two_senders_is_two_entries(&owned(fresh().await).await).await;
    a_repeat_for_another_registration_is_another_entry(&owned(fresh().await).await).await;
    it_knows_what_it_holds(&owned(fresh().await).await).await;
    pages_are_in_order_and_bounded(&owned(fresh().await).await).await;
    forget_takes_exactly_the_prefix(&owned(fresh().await).await).await;
    other_registrations_are_not_shown_and_can_be_dropped(&owned(fresh().await).await).await;
    a_put_is_whole_or_not_at_all(&owned(fresh().await).await).await;
    nothing_happens_behind_a_break_of_its_chain(&owned(fresh().await).await).await;
    room_comes_back(&owned(fresh().await).await).await;
    what_has_expired_is_not_shown_and_is_swept(&owned(fresh().await).await).await;
    the_depth_is_of_all_accounts(&owned(fresh().await).await).await;
    accounts_do_not_see_each_other(&owned(fresh().await).await).await;
    operations_take_effect_in_the_order_of_the_calls(&owned(fresh().await).await).await;
    a_claim_tells_what_waits(&owned(fresh().await).await).await;
}

/// The replica that writes; it owns accounts 1 to 9.
pub(crate) const ONE: ReplicaId = ReplicaId::from_bytes([1; 16]);
/// So long that it does not end during a test.
pub(crate) const LONG: Duration = Duration::from_secs(300);

/// A mailbox in which [`ONE`] has claimed what tests write to.
pub(crate) async fn owned<M: Mailbox>(mailbox: M) -> M {
    mailbox.renew(&Replica { id: ONE, url: String::new() }, LONG).await.unwrap();
    for n in 1..10 {
        let claimed = mailbox.claim(ONE, account(n)).await.unwrap();
        assert!(matches!(claimed, Claimed::Ours { before: None, .. }), "{claimed:?}");
    }
    mailbox
}

pub(crate) fn account(n: u8) -> AccountId {
    AccountId::from_bytes([n; 16])
}

pub(crate) fn device(n: u32) -> DeviceId {
    DeviceId::new(n).unwrap()
}

pub(crate) fn header(seq: u64, sender: u8, id: u8) -> Header {
    Header {
        seq: Seq(seq),
        key: MessageKey { account: account(sender), device: device(3), id: MessageId::from_bytes([id; 16]) },
        from: format!("jos\u{e9}{sender}@birdy.example").parse().unwrap(),
        class: Class::Chat,
        ts_ms: 5_000 + seq,
        expires_ms: 1_000_000,
        origin: Origin { provider: "birdy.example".parse().unwrap(), kind: Kind::ThirdParty, inbox: Inbox::ThirdParty },
        charge: None,
        trace: None,
    }
}

pub(crate) fn enc(to: u32, registration: u32, content: &[u8]) -> Enc {
    Enc { device: device(to), registration, kind: EncType::Whisper, ciphertext: Bytes::copy_from_slice(content) }
}

pub(crate) fn put(to: u8, header: Header, parts: Vec<Enc>) -> Put {
    Put { account: account(to), chain: Chain::default(), header: Arc::new(header), parts }
}

pub(crate) fn request(to: u8, to_device: u32, after: u64) -> PageRequest {
    PageRequest {
        account: account(to),
        device: device(to_device),
        registration: 100 + to_device,
        after: Seq(after),
        messages: 100,
        bytes: usize::MAX,
        now_ms: 10_000,
    }
}

fn stored() -> PutOutcome {
    PutOutcome::Stored { repeats: Vec::new() }
}

fn seqs(page: &Page) -> Vec<u64> {
    page.entries.iter().map(|entry| entry.header.seq.0).collect()
}

async fn all(mailbox: &impl Mailbox, to: u8, to_device: u32) -> Vec<u64> {
    let page = mailbox.page(request(to, to_device, 0)).await.unwrap();
    assert!(page.end);
    seqs(&page)
}

async fn usage(mailbox: &impl Mailbox, to: u8, to_device: u32) -> Usage {
    let all = mailbox.usage(account(to)).await.unwrap();
    all.iter().find(|known| known.device == device(to_device)).map(|known| known.usage).unwrap_or_default()
}

async fn what_was_put_comes_back_as_it_was(mailbox: &impl Mailbox) {
    let mut sent = header(7, 9, 1);
    sent.class = Class::Call;
    sent.origin.kind = Kind::Home;
    sent.origin.inbox = Inbox::Main;
    let mut part = enc(1, 101, b"\x00secret\xff");
    part.kind = EncType::Prekey;
    assert_eq!(mailbox.put(ONE, put(1, sent, vec![part.clone()])).await.unwrap(), stored());
    let page = mailbox.page(request(1, 1, 0)).await.unwrap();
    let Envelope { header: got, enc } = &page.entries[0];
    let want = header(7, 9, 1);
    assert_eq!(*enc, part);
    assert_eq!((got.seq, got.key, got.class), (want.seq, want.key, Class::Call));
    assert_eq!((&got.from, got.ts_ms, got.expires_ms), (&want.from, want.ts_ms, want.expires_ms));
    assert_eq!(got.origin, Origin { kind: Kind::Home, inbox: Inbox::Main, ..want.origin });
    let known = mailbox.usage(account(1)).await.unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].device, known[0].usage.messages, known[0].last), (device(1), 1, Seq(7)));
}

async fn a_repeat_is_one_entry(mailbox: &impl Mailbox) {
    mailbox.put(ONE, put(1, header(1, 9, 1), vec![enc(1, 101, b"a")])).await.unwrap();
    let again = put(1, header(5, 9, 1), vec![enc(1, 101, b"other"), enc(2, 102, b"b")]);
    let outcome = mailbox.put(ONE, again).await.unwrap();
    assert_eq!(outcome, PutOutcome::Stored { repeats: vec![device(1)] });
    assert_eq!(all(mailbox, 1, 1).await, [1]);
    assert_eq!(all(mailbox, 1, 2).await, [5]);
    assert_eq!(usage(mailbox, 1, 1).await.messages, 1);
}

async fn one_id_of_two_senders_is_two_entries(mailbox: &impl Mailbox) {
    mailbox.put(ONE, put(1, header(1, 8, 1), vec![enc(1, 101, b"a")])).await.unwrap();
    mailbox.put(ONE, put(1, header(2, 9, 1), vec![enc(1, 101, b"b")])).await.unwrap();
    let mut other_device = header(3, 9, 1);
    other_device.key.device = device(4);
    mailbox.put(ONE, put(1, other_device, vec![enc(1, 101, b"c")])).await.unwrap();
    assert_eq!(all(mailbox, 1, 1).await, [1, 2, 3]);
}

async fn a_repeat_for_another_registration_is_another_entry(mailbox: &impl Mailbox) {
    mailbox.put(ONE, put(1, header(1, 9, 1), vec![enc(1, 77, b"for the device before")])).await.unwrap();
    let outcome = mailbox.put(ONE, put(1, header(2, 9, 1), vec![enc(1, 101, b"for this one")])).await.unwrap();
    assert_eq!(outcome, stored());
    assert_eq!(all(mailbox, 1, 1).await, [2]);
}

async fn it_knows_what_it_holds(mailbox: &impl Mailbox) {
    let key = header(1, 9, 1).key;
    assert!(!mailbox.holds(account(1), key).await.unwrap());
    mailbox.put(ONE, put(1, header(1, 9, 1), vec![enc(2, 102, b"a")])).await.unwrap();
    assert!(mailbox.holds(account(1), key).await.unwrap());
    assert!(!mailbox.holds(account(2), key).await.unwrap());
    assert!(!mailbox.holds(account(1), MessageKey { device: device(4), ..key }).await.unwrap());
    assert!(!mailbox.holds(account(1), MessageKey { account: account(8), ..key }).await.unwrap());
    mailbox.forget(ONE, account(1), device(2), Seq(1)).await.unwrap();
    assert!(!mailbox.holds(account(1), key).await.unwrap());
}

async fn pages_are_in_order_and_bounded(mailbox: &impl Mailbox) {
    for seq in [3, 1, 2, 5] {
        mailbox.put(ONE, put(1, header(seq, 9, seq as u8), vec![enc(1, 101, b"0123456789")])).await.unwrap();
    }
    let two = PageRequest { messages: 2, ..request(1, 1, 0) };
    let page = mailbox.page(two).await.unwrap();
    assert_eq!((seqs(&page), page.end), (vec![1, 2], false));
    let page = mailbox.page(PageRequest { after: Seq(2), ..two }).await.unwrap();
    assert_eq!((seqs(&page), page.end), (vec![3, 5], true), "nothing behind the last one");
    let one_by_weight = PageRequest { bytes: 1, ..request(1, 1, 1) };
    let page = mailbox.page(one_by_weight).await.unwrap();
    assert_eq!((seqs(&page), page.end), (vec![2], false), "one at least");
    let page = mailbox.page(request(1, 1, 5)).await.unwrap();
    assert_eq!((seqs(&page), page.end), (vec![], true));
}

async fn forget_takes_exactly_the_prefix(mailbox: &impl Mailbox) {
    for seq in 1..=4 {
        mailbox.put(ONE, put(1, header(seq, 9, seq as u8), vec![enc(1, 101, b"a"), enc(2, 102, b"a")])).await.unwrap();
    }
    assert_eq!(
        mailbox.forget(ONE, account(1), device(1), Seq(2)).await.unwrap(),
        Usage { messages: 2, bytes: 2 * 257 }
    );
    assert_eq!(all(mailbox, 1, 1).await, [3, 4]);
    assert_eq!(all(mailbox, 1, 2).await, [1, 2, 3, 4], "the other device's are its own");
    assert_eq!(
        mailbox.forget(ONE, account(1), device(1), Seq(2)).await.unwrap(),
        Usage::default(),
        "twice is no error"
    );
    assert_eq!(mailbox.forget(ONE, account(1), device(7), Seq(9)).await.unwrap(), Usage::default());
    assert_eq!(usage(mailbox, 1, 1).await, Usage { messages: 2, bytes: 2 * 257 });
}

async fn other_registrations_are_not_shown_and_can_be_dropped(mailbox: &impl Mailbox) {
    mailbox.put(ONE, put(1, header(1, 9, 1), vec![enc(1, 77, b"a")])).await.unwrap();
    mailbox.put(ONE, put(1, header(2, 9, 2), vec![enc(1, 101, b"a")])).await.unwrap();
    assert_eq!(all(mailbox, 1, 1).await, [2]);
    assert_eq!(mailbox.drop_device(ONE, account(1), device(1), Some(101)).await.unwrap().messages, 1);
    assert_eq!(all(mailbox, 1, 1).await, [2]);
    assert_eq!(mailbox.drop_device(ONE, account(1), device(1), None).await.unwrap().messages, 1);
    assert_eq!(all(mailbox, 1, 1).await, Vec::<u64>::new());
    assert!(mailbox.usage(account(1)).await.unwrap().is_empty());
}

async fn nothing_happens_behind_a_break_of_its_chain(mailbox: &impl Mailbox) {
    let chain = Chain::default();
    let of_chain = |id: u8| {
        let mut put = put(1, header(id.into(), 9, id), vec![enc(1, 101, b"a")]);
        put.chain = chain.clone();
        put
    };
    assert_eq!(mailbox.put(ONE, of_chain(1)).await, Ok(PutOutcome::Stored { repeats: Vec::new() }));
    chain.break_off();
    assert_eq!(mailbox.put(ONE, of_chain(2)).await, Err(Chain::error()));
    let other = mailbox.put(ONE, put(1, header(3, 9, 3), vec![enc(1, 101, b"a")])).await;
    assert_eq!(other, Ok(PutOutcome::Stored { repeats: Vec::new() }), "it is of another chain");
    let page = mailbox.page(request(1, 1, 0)).await.expect("a page");
    let kept: Vec<Seq> = page.entries.iter().map(|entry| entry.header.seq).collect();
    assert_eq!(kept, [Seq(1), Seq(3)]);
}

async fn a_put_is_whole_or_not_at_all(mailbox: &impl Mailbox) {
    for seq in 1..=BOUNDS.messages {
        let outcome = mailbox.put(ONE, put(1, header(seq, 9, seq as u8), vec![enc(1, 101, b"")])).await.unwrap();
        assert_eq!(outcome, stored());
    }
    let both = put(1, header(50, 9, 50), vec![enc(2, 102, b""), enc(1, 101, b"")]);
    assert_eq!(mailbox.put(ONE, both).await.unwrap(), PutOutcome::Full);
    assert_eq!(all(mailbox, 1, 2).await, Vec::<u64>::new());
    let heavy = put(1, header(51, 9, 51), vec![enc(2, 102, &[0; BOUNDS.bytes as usize])]);
    assert_eq!(mailbox.put(ONE, heavy).await.unwrap(), PutOutcome::Full);
    let again = put(1, header(60, 9, 1), vec![enc(1, 101, b"")]);
    assert_eq!(mailbox.put(ONE, again).await.unwrap(), PutOutcome::Stored { repeats: vec![device(1)] }, "it is there");
    assert_eq!(usage(mailbox, 1, 1).await.messages, BOUNDS.messages);
}

async fn room_comes_back(mailbox: &impl Mailbox) {
    for seq in 1..=BOUNDS.messages {
        mailbox.put(ONE, put(1, header(seq, 9, seq as u8), vec![enc(1, 101, b"")])).await.unwrap();
    }
    let one_more = |id| put(1, header(u64::from(id), 9, id), vec![enc(1, 101, b"")]);
    assert_eq!(mailbox.put(ONE, one_more(50)).await.unwrap(), PutOutcome::Full);
    mailbox.forget(ONE, account(1), device(1), Seq(1)).await.unwrap();
    assert_eq!(mailbox.put(ONE, one_more(50)).await.unwrap(), stored());
    assert_eq!(mailbox.put(ONE, one_more(51)).await.unwrap(), PutOutcome::Full);
}

async fn what_has_expired_is_not_shown_and_is_swept(mailbox: &impl Mailbox) {
    for (seq, expires_ms) in [(1, 9_999), (2, 10_000), (3, 10_001)] {
        let header = Header { expires_ms, ..header(seq, 9, seq as u8) };
        mailbox.put(ONE, put(1, header, vec![enc(1, 101, b"a")])).await.unwrap();
    }
    assert_eq!(all(mailbox, 1, 1).await, [3]);
    assert_eq!(mailbox.expire(10_000, 1).await.unwrap(), 1);
    assert_eq!(mailbox.expire(10_000, 10).await.unwrap(), 1);
    assert_eq!(mailbox.expire(10_000, 10).await.unwrap(), 0);
    assert_eq!(usage(mailbox, 1, 1).await.messages, 1);
    assert_eq!(all(mailbox, 1, 1).await, [3]);
}

async fn the_depth_is_of_all_accounts(mailbox: &impl Mailbox) {
    assert_eq!(mailbox.depth().await.unwrap(), Depth::default());
    for (to, ts_ms, class) in [(1, 3_000, Class::Chat), (2, 2_000, Class::Chat), (3, 1_000, Class::Call)] {
        let header = Header { ts_ms, expires_ms: ts_ms + 500_000, class, ..header(u64::from(to), 9, to) };
        mailbox.put(ONE, put(to, header, vec![enc(1, 101, b"a"), enc(2, 102, b"a")])).await.unwrap();
    }
    let depth = mailbox.depth().await.unwrap();
    assert_eq!((depth.waiting.messages, depth.oldest_ms), (6, Some(2_000)));
    assert_eq!(depth.waiting.bytes, 3 * 2 * usage(mailbox, 1, 1).await.bytes);
    mailbox.forget(ONE, account(2), device(1), Seq(2)).await.unwrap();
    mailbox.forget(ONE, account(2), device(2), Seq(2)).await.unwrap();
    let depth = mailbox.depth().await.unwrap();
    assert_eq!((depth.waiting.messages, depth.oldest_ms), (4, Some(3_000)));
}

async fn accounts_do_not_see_each_other(mailbox: &impl Mailbox) {
    mailbox.put(ONE, put(1, header(1, 9, 1), vec![enc(1, 101, b"a"), enc(2, 102, b"a")])).await.unwrap();
    mailbox.put(ONE, put(2, header(1, 9, 1), vec![enc(1, 101, b"a")])).await.unwrap();
    mailbox.drop_account(ONE, account(1)).await.unwrap();
    assert_eq!(all(mailbox, 1, 1).await, Vec::<u64>::new());
    assert_eq!(all(mailbox, 2, 1).await, [1]);
    assert!(mailbox.usage(account(1)).await.unwrap().is_empty());
    mailbox.drop_account(ONE, account(1)).await.unwrap();
}

async fn operations_take_effect_in_the_order_of_the_calls(mailbox: &impl Mailbox) {
    let first = mailbox.put(ONE, put(1, header(1, 9, 1), vec![enc(1, 101, b"a")]));
    let forget = mailbox.forget(ONE, account(1), device(1), Seq(1));
    let again = mailbox.put(ONE, put(1, header(2, 9, 1), vec![enc(1, 101, b"a")]));
    let counted = mailbox.usage(account(1));
    let drop_all = mailbox.drop_account(ONE, account(1));
    // Waited for in another order, and one not at all.
    drop(drop_all);
    assert_eq!(counted.await.unwrap()[0].last, Seq(2));
    assert_eq!(again.await.unwrap(), stored());
    assert_eq!(forget.await.unwrap().messages, 1);
    assert_eq!(first.await.unwrap(), stored());
    assert!(mailbox.usage(account(1)).await.unwrap().is_empty());
}

async fn a_claim_tells_what_waits(mailbox: &impl Mailbox) {
    let first = mailbox.put(ONE, put(1, header(1, 9, 1), vec![enc(1, 101, b"a")]));
    // Behind what was queued before it.
    let Claimed::Ours { usage, .. } = mailbox.claim(ONE, account(1)).await.unwrap() else { panic!("it is ours") };
    assert_eq!((usage.len(), usage[0].device, usage[0].last), (1, device(1), Seq(1)));
    first.await.unwrap();
    mailbox.release(ONE, account(1)).await.unwrap();
    let Claimed::Ours { usage, before } = mailbox.claim(ONE, account(1)).await.unwrap() else { panic!("it is ours") };
    assert_eq!((usage.len(), before), (1, None));
    mailbox.release(ONE, account(7)).await.unwrap();
    mailbox.release(ONE, account(7)).await.unwrap();
}
