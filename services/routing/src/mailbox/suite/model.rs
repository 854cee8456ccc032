//! Any history of operations has the results that a plain list would have.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{BOUNDS, ONE, account, device, enc, header, owned, put};
use crate::mailbox::{Mailbox, PageRequest, PutOutcome, Usage};
use crate::message::{Header, Seq};

/// An operation; small ranges, so that histories meet.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Put {
        account: u8,
        devices: Vec<u32>,
        registration: u32,
        sender: u8,
        id: u8,
        bytes: usize,
        expires_ms: u64,
    },
    Forget {
        account: u8,
        device: u32,
        share: u8,
    },
    DropDevice {
        account: u8,
        device: u32,
        keep: Option<u32>,
    },
    DropAccount {
        account: u8,
    },
    Expire {
        now_ms: u64,
        limit: u32,
    },
    /// The process dies and the mailbox is opened again.
    Crash,
}

/// Histories for a property test.
pub(crate) fn histories() -> impl Strategy<Value = Vec<Step>> {
    let devices = proptest::sample::subsequence(vec![1_u32, 2, 3], 1..=3);
    let step = prop_oneof![
        12 => (1..3_u8, devices, 101..103_u32, 8..10_u8, 0..12_u8, 0..300_usize, 1..6_u64).prop_map(
            |(account, devices, registration, sender, id, bytes, expires)| Step::Put {
                account, devices, registration, sender, id, bytes, expires_ms: expires * 1_000,
            }
        ),
        4 => (1..3_u8, 1..4_u32, 0..=100_u8).prop_map(|(account, device, share)| Step::Forget {
            account, device, share,
        }),
        1 => (1..3_u8, 1..4_u32, proptest::option::of(101..103_u32)).prop_map(|(account, device, keep)| {
            Step::DropDevice { account, device, keep }
        }),
        1 => (1..3_u8).prop_map(|account| Step::DropAccount { account }),
        1 => (0..6_u64, 1..5_u32).prop_map(|(now, limit)| Step::Expire { now_ms: now * 1_000, limit }),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..60)
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    seq: u64,
    registration: u32,
    sender: u8,
    id: u8,
    weight: u64,
    expires_ms: u64,
}

type Model = BTreeMap<(u8, u32), Vec<Entry>>;

/// Runs a history on a mailbox; `reopen` is what a crash and a new start make of it.
pub(crate) async fn run<M: Mailbox>(mailbox: M, history: Vec<Step>, reopen: impl AsyncFn(M) -> M) {
    let mut mailbox = owned(mailbox).await;
    let mut model = Model::new();
    for (number, step) in history.into_iter().enumerate() {
        let seq = number as u64 + 1;
        match step {
            Step::Put { account: to, devices, registration, sender, id, bytes, expires_ms } => {
                let header = Header { expires_ms, ..header(seq, sender, id) };
                let parts: Vec<_> = devices.iter().map(|&to| enc(to, registration, &vec![1; bytes])).collect();
                let entry = Entry { seq, registration, sender, id, weight: bytes as u64 + 256, expires_ms };
                let want = model_put(&mut model, to, &devices, &entry);
                assert_eq!(mailbox.put(ONE, put(to, header, parts)).await.unwrap(), want);
            }
            Step::Forget { account: to, device: of, share } => {
                let upto = seq * u64::from(share) / 100;
                let want = erase(&mut model, to, of, |entry| entry.seq <= upto);
                assert_eq!(mailbox.forget(ONE, account(to), device(of), Seq(upto)).await.unwrap(), want);
            }
            Step::DropDevice { account: to, device: of, keep } => {
                let want = erase(&mut model, to, of, |entry| keep.is_none_or(|keep| entry.registration != keep));
                assert_eq!(mailbox.drop_device(ONE, account(to), device(of), keep).await.unwrap(), want);
            }
            Step::DropAccount { account: to } => {
                model.retain(|(account, _), _| *account != to);
                mailbox.drop_account(ONE, account(to)).await.unwrap();
            }
            Step::Expire { now_ms, limit } => {
                let due = model.values().flatten().filter(|entry| entry.expires_ms <= now_ms).count() as u64;
                let erased = mailbox.expire(now_ms, limit).await.unwrap();
                assert_eq!(erased, due.min(limit.into()));
                // Which of them is up to the mailbox when not all are taken: so take them all.
                while mailbox.expire(now_ms, 1_000).await.unwrap() > 0 {}
                model.values_mut().for_each(|entries| entries.retain(|entry| entry.expires_ms > now_ms));
            }
            Step::Crash => mailbox = reopen(mailbox).await,
        }
        compare(&mailbox, &model).await;
    }
}

fn model_put(model: &mut Model, to: u8, devices: &[u32], entry: &Entry) -> PutOutcome {
    let same =
        |known: &Entry| (known.sender, known.id, known.registration) == (entry.sender, entry.id, entry.registration);
    let (mut repeats, mut fresh) = (Vec::new(), Vec::new());
    for &of in devices {
        let entries = model.entry((to, of)).or_default();
        if entries.iter().any(same) {
            repeats.push(device(of));
        } else {
            let bytes: u64 = entries.iter().map(|entry| entry.weight).sum();
            let fits = (entries.len() as u64) < BOUNDS.messages && bytes + entry.weight <= BOUNDS.bytes;
            if !fits {
                return PutOutcome::Full;
            }
            fresh.push(of);
        }
    }
    for of in fresh {
        model.entry((to, of)).or_default().push(entry.clone());
    }
    PutOutcome::Stored { repeats }
}

fn erase(model: &mut Model, to: u8, of: u32, which: impl Fn(&Entry) -> bool) -> Usage {
    let mut erased = Usage::default();
    if let Some(entries) = model.get_mut(&(to, of)) {
        for entry in entries.iter().filter(|entry| which(entry)) {
            erased.add(Usage { messages: 1, bytes: entry.weight });
        }
        entries.retain(|entry| !which(entry));
    }
    erased
}

async fn compare(mailbox: &impl Mailbox, model: &Model) {
    for to in 1..3 {
        let usage = mailbox.usage(account(to)).await.unwrap();
        for of in 1..4 {
            let entries = model.get(&(to, of)).map_or(&[][..], Vec::as_slice);
            let known = usage.iter().find(|known| known.device == device(of));
            let bytes: u64 = entries.iter().map(|entry| entry.weight).sum();
            let want = Usage { messages: entries.len() as u64, bytes };
            assert_eq!(known.map(|known| known.usage).unwrap_or_default(), want);
            assert_eq!(known.map(|known| known.last.0), entries.last().map(|entry| entry.seq));
            for registration in 101..103 {
                let request = PageRequest {
                    account: account(to),
                    device: device(of),
                    registration,
                    after: Seq(0),
                    messages: 100,
                    bytes: usize::MAX,
                    now_ms: 0,
                };
                let page = mailbox.page(request).await.unwrap();
                let got: Vec<u64> = page.entries.iter().map(|entry| entry.header.seq.0).collect();
                let mine = entries.iter().filter(|entry| entry.registration == registration);
                assert_eq!(got, mine.map(|entry| entry.seq).collect::<Vec<_>>());
            }
        }
    }
}
