//! The contract for stores that several key-directories share, as tests with two handles on one database.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::*;

/// Two handles on one empty store that live as long as this value.
pub(crate) trait FreshPair {
    fn handles(&self) -> [&dyn Store; 2];
}

pub(crate) fn run<F: FreshPair>(fresh: impl AsyncFn() -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        one_sees_what_the_other_has_changed(fresh().await.handles()).await;
        concurrent_claims_give_no_key_twice(fresh().await.handles()).await;
        concurrent_enlistments_of_an_address_make_one_account(fresh().await.handles()).await;
        one_phone_that_enlists_everywhere_is_one_device(fresh().await.handles()).await;
        concurrent_registrations_keep_names_and_number(fresh().await.handles()).await;
        who_withdraws_while_others_enlist_leaves_nothing_behind(fresh().await.handles()).await;
        concurrent_publications_of_a_batch_add_it_once(fresh().await.handles()).await;
        a_device_is_removed_once(fresh().await.handles()).await;
        changes_are_numbered_in_one_order(fresh().await.handles()).await;
    });
}

/// The handles in turn.
fn turns(handles: [&dyn Store; 2]) -> impl Iterator<Item = &dyn Store> {
    handles.into_iter().cycle()
}

async fn one_sees_what_the_other_has_changed([one, other]: [&dyn Store; 2]) {
    let (account, device) = an_account(one).await;
    assert!(other.record(&Who::Account(account)).await.unwrap().is_some());
    let consent = Consent { interop: true, ..Consent::default() };
    assert!(other.set_consent(account, device, &consent).await.unwrap().outcome);
    assert_eq!(record(one, account).await.consent, consent);
    let domain = provider(1).settings.domain;
    other.set_provider_status(&domain, ProviderStatus::Suspended).await.unwrap();
    assert_eq!(record(one, account).await.provider.status, ProviderStatus::Suspended);
}

async fn concurrent_claims_give_no_key_twice(handles: [&dyn Store; 2]) {
    let (account, first) = an_account(handles[0]).await;
    let (_, second) = added(handles[1].enlist(&enlistment(1, 2)).await.unwrap().outcome);
    let mut ec_given = BTreeSet::new();
    let mut kyber_given = BTreeSet::new();
    for round in 0..3 {
        // The same batch again, and new keys, while claims go on.
        let ids = || (1..=round * 40 + 40).collect::<Vec<u32>>();
        let publications = join_all(turns(handles).take(4).zip([(first, 1), (second, 2)].into_iter().cycle()).map(
            async |(store, (device, phone))| {
                let mut keys = one_time_keys(phone, ids(), ids());
                // Keys of the second phone differ from those of the first.
                if phone == 2 {
                    keys.ec.iter_mut().for_each(|key| key.key = ec(500 + key.id.get()));
                    keys.kyber.iter_mut().for_each(|key| key.key = kyber(500 + key.id.get()));
                }
                store.publish(account, device, &keys).await.unwrap();
            },
        ));
        let claims = join_all(
            turns(handles)
                .take(100)
                .map(async |store| store.claim(account, &[first, second], true, 0).await.unwrap().outcome),
        );
        let (_, claimed) = tokio::join!(publications, claims);
        for bundle in claimed.into_iter().flatten() {
            if let Some(key) = &bundle.ec {
                assert!(ec_given.insert(key.key.as_bytes().to_vec()), "an EC key was given twice");
            }
            if bundle.taken.1 {
                let key = bundle.kyber.key.as_bytes().to_vec();
                assert!(kyber_given.insert(key), "a Kyber key was given twice");
            }
        }
    }
    while let bundles = handles[0].claim(account, &[first, second], true, 0).await.unwrap().outcome
        && bundles.iter().any(|bundle| bundle.taken != (false, false))
    {
        for bundle in bundles {
            assert!(bundle.ec.is_none_or(|key| ec_given.insert(key.key.as_bytes().to_vec())));
            assert!(!bundle.taken.1 || kyber_given.insert(bundle.kyber.key.as_bytes().to_vec()));
        }
    }
    assert_eq!((ec_given.len(), kyber_given.len()), (240, 240), "and none was lost");
}

async fn concurrent_enlistments_of_an_address_make_one_account(handles: [&dyn Store; 2]) {
    handles[0].register_provider(&provider(1), &token_keys(1), 10).await.unwrap();
    let enlistments: Vec<Enlistment> = (0..30)
        .map(|phone| Enlistment { new_account: AccountId::from_bytes([phone + 100; 16]), ..enlistment(1, phone) })
        .collect();
    let outcomes = join_all(turns(handles).zip(&enlistments).map(|(store, new)| store.enlist(new))).await;
    let mut accounts = BTreeSet::new();
    let mut devices = BTreeSet::new();
    let mut refused = 0;
    for outcome in outcomes {
        match outcome.unwrap().outcome {
            Enlisted::Added { account, device } => {
                accounts.insert(account);
                assert!(devices.insert(device.get()), "a device id was given twice");
            }
            Enlisted::DeviceLimit => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((accounts.len(), refused), (1, 14));
    assert_eq!(devices, (1..=16).collect());
    let known = handles[1].record(&Who::Address(address(1))).await.unwrap().unwrap();
    assert_eq!((known.account, known.devices.len()), (accounts.pop_first().unwrap(), 16));
}

async fn one_phone_that_enlists_everywhere_is_one_device(handles: [&dyn Store; 2]) {
    handles[0].register_provider(&provider(1), &token_keys(1), 10).await.unwrap();
    let enlistments: Vec<Enlistment> =
        (0..12).map(|n| Enlistment { new_account: AccountId::from_bytes([n + 100; 16]), ..enlistment(1, 1) }).collect();
    let outcomes = join_all(turns(handles).zip(&enlistments).map(|(store, new)| store.enlist(new))).await;
    let mut was_added = 0;
    let mut ids = BTreeSet::new();
    for outcome in outcomes {
        match outcome.unwrap().outcome {
            Enlisted::Added { account, device } => {
                was_added += 1;
                ids.insert((account, device));
            }
            Enlisted::Before { account, device } => {
                ids.insert((account, device));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((was_added, ids.len()), (1, 1));
}

async fn concurrent_registrations_keep_names_and_number(handles: [&dyn Store; 2]) {
    let count = async |providers: Vec<Provider>, limit: u32| {
        let keys = token_keys(1);
        let registrations =
            turns(handles).zip(&providers).map(|(store, new)| store.register_provider(new, &keys, limit));
        let outcomes = join_all(registrations).await;
        let mut counts = [0; 4];
        for outcome in outcomes {
            counts[match outcome.unwrap().outcome {
                Registered::Done => 0,
                Registered::DomainTaken => 1,
                Registered::IssuerTaken => 2,
                Registered::Full => 3,
            }] += 1;
        }
        counts
    };
    let with_id = |n: u8, id: u8| Provider { id: ProviderId::from_bytes([id; 16]), ..provider(n) };
    assert_eq!(count((0..8).map(|n| with_id(1, 100 + n)).collect(), 10).await, [1, 7, 0, 0], "one domain");
    let same_issuer = |n: u8| {
        let mut other = provider(n);
        other.settings.issuer = "https://one.example".to_owned();
        other
    };
    assert_eq!(count((2..10).map(same_issuer).collect(), 10).await, [1, 0, 7, 0], "one issuer");
    assert_eq!(count((20..30).map(provider).collect(), 5).await, [3, 0, 0, 7], "as many as there may be");
    assert_eq!(handles[0].providers(None, 100).await.unwrap().len(), 5);
}

async fn who_withdraws_while_others_enlist_leaves_nothing_behind(handles: [&dyn Store; 2]) {
    let (mut account, mut device) = an_account(handles[0]).await;
    for round in 0..6_u8 {
        let withdrawal = handles[0].withdraw(account, device, 1);
        let enlistments: Vec<Enlistment> = (0..4)
            .map(|n| Enlistment {
                new_account: AccountId::from_bytes([100 + round * 4 + n; 16]),
                ..enlistment(1, 20 + round * 4 + n)
            })
            .collect();
        let enlistments = join_all(turns(handles).zip(&enlistments).map(|(store, new)| store.enlist(new)));
        let (withdrawn, outcomes) = tokio::join!(withdrawal, enlistments);
        assert!(withdrawn.unwrap().outcome);
        let outcomes: Vec<_> = outcomes.into_iter().map(|outcome| added(outcome.unwrap().outcome)).collect();
        assert_eq!(handles[1].record(&Who::Account(account)).await.unwrap(), None);
        let after = handles[1].record(&Who::Address(address(1))).await.unwrap();
        let expected = outcomes.iter().filter(|(id, _)| *id != account).copied().collect::<BTreeSet<_>>();
        let stored: BTreeSet<_> =
            after.iter().flat_map(|record| record.devices.iter().map(|device| (record.account, device.id))).collect();
        assert_eq!(stored, expected, "those that came before are gone, those that came after are of one account");
        (account, device) = match stored.first() {
            Some(first) => *first,
            None => added(
                handles[0]
                    .enlist(&Enlistment {
                        new_account: AccountId::from_bytes([200 + round; 16]),
                        ..enlistment(1, 90 + round)
                    })
                    .await
                    .unwrap()
                    .outcome,
            ),
        };
    }
}

async fn concurrent_publications_of_a_batch_add_it_once(handles: [&dyn Store; 2]) {
    let (account, device) = an_account(handles[0]).await;
    let batch = one_time_keys(1, (1..=50).collect(), (1..=30).collect());
    let published = join_all(turns(handles).take(8).map(|store| store.publish(account, device, &batch))).await;
    for outcome in published {
        assert_eq!(outcome.unwrap(), Published::Done(KeyCounts { ec: 50, kyber: 30 }));
    }
}

async fn a_device_is_removed_once(handles: [&dyn Store; 2]) {
    let (account, first) = an_account(handles[0]).await;
    let (_, second) = added(handles[1].enlist(&enlistment(1, 2)).await.unwrap().outcome);
    let removals = join_all(turns(handles).take(8).map(|store| store.remove_device(account, first, second, 1))).await;
    let done = removals.into_iter().filter(|removed| removed.as_ref().unwrap().outcome == Removed::Done).count();
    assert_eq!(done, 1);
    // Two that remove each other: one is left.
    let (_, third) = added(handles[1].enlist(&enlistment(1, 3)).await.unwrap().outcome);
    let (one, other) = tokio::join!(
        handles[0].remove_device(account, first, third, 2),
        handles[1].remove_device(account, third, first, 2)
    );
    let outcomes = BTreeSet::from([one.unwrap().outcome == Removed::Done, other.unwrap().outcome == Removed::Done]);
    assert_eq!(outcomes.len(), 2);
    assert_eq!(record(handles[0], account).await.devices.len(), 1);
}

async fn changes_are_numbered_in_one_order(handles: [&dyn Store; 2]) {
    let (account, device) = an_account(handles[0]).await;
    let consent = |n: usize| {
        let rule = (format!("r{n}.example").parse().unwrap(), false);
        Consent { rules: [rule].into(), ..Consent::default() }
    };
    let numbers = join_all(turns(handles).take(20).enumerate().map(async |(n, store)| {
        let written = store.set_consent(account, device, &consent(n)).await.unwrap();
        assert_eq!(written.logged.changes.len(), 1);
        written.logged.number.expect("a store that is shared has a log")
    }))
    .await;
    let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(distinct.len(), 20);
    assert_eq!(distinct.last().unwrap() - distinct.first().unwrap(), 19, "no number is left out");
    // The last one is what counts.
    let last = numbers.iter().position(|number| Some(number) == distinct.last()).unwrap();
    assert_eq!(record(handles[1], account).await.consent, consent(last));
    let nothing = handles[0].set_consent(account, DeviceId::new(9).unwrap(), &Consent::default()).await.unwrap();
    assert_eq!(nothing.logged, Logged::default());
}
