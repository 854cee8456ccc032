//! Random changes, and a model that is simple enough to be believed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

use super::*;

/// A change. Devices are named by their place among those there, so that most changes meet something.
#[derive(Debug, Clone)]
enum Change {
    Enlist { user: u8, phone: u8, other_identity: bool, keys: Vec<u32> },
    Remove { user: u8, by: usize, nth: usize },
    Withdraw { user: u8, by: usize },
    Publish { user: u8, nth: usize, ec: BTreeSet<u32>, kyber: BTreeSet<u32>, other_identity: bool },
    Claim { user: u8, devices: Vec<usize> },
    Push { user: u8, nth: usize, token: Option<u8> },
    Consent { user: u8, by: usize, interop: bool, rules: BTreeMap<u8, bool> },
    Suspend { suspended: bool },
    WaitThirdsOfRetirement(u64),
}

#[derive(Default)]
struct Model {
    users: BTreeMap<u8, User>,
    suspended: bool,
    enlistments: u8,
    now_ms: u64,
    /// Users' phones that are no longer devices, with the end of their waiting.
    retired: BTreeMap<(u8, u8), u64>,
}

struct User {
    account: AccountId,
    devices: BTreeMap<u32, Phone>,
    freed: Vec<u32>,
    consent: Consent,
}

struct Phone {
    number: u8,
    enlisted_ms: u64,
    push: Option<PushToken>,
    ec: Vec<u32>,
    kyber: Vec<u32>,
    spent_ec: BTreeSet<u32>,
    spent_kyber: BTreeSet<u32>,
}

pub(super) fn any_changes_agree_with_the_model<F: Fresh>(runtime: &Runtime, fresh: &impl AsyncFn() -> F) {
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let changes = prop::collection::vec(change(), 1..40);
    let result = runner.run(&changes, |changes| {
        runtime.block_on(async {
            let fresh = fresh().await;
            let store = fresh.store();
            store.register_provider(&provider(1), &token_keys(1), 10).await.unwrap();
            let mut model = Model::default();
            for change in changes {
                model.apply(store, change).await;
                model.agrees_with(store).await;
            }
        });
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

fn change() -> impl Strategy<Value = Change> {
    let user = 0..3_u8;
    let keys = || prop::collection::btree_set(1..30_u32, 0..8);
    prop_oneof![
        6 => (user.clone(), 0..5_u8, prop::bool::weighted(0.1), prop::collection::vec(1..30_u32, 0..3))
            .prop_map(|(user, phone, other_identity, keys)| Change::Enlist { user, phone, other_identity, keys }),
        2 => (user.clone(), 0..3_usize, 0..4_usize).prop_map(|(user, by, nth)| Change::Remove { user, by, nth }),
        1 => (user.clone(), 0..3_usize).prop_map(|(user, by)| Change::Withdraw { user, by }),
        4 => (user.clone(), 0..4_usize, keys(), keys(), prop::bool::weighted(0.1)).prop_map(
            |(user, nth, ec, kyber, other_identity)| Change::Publish { user, nth, ec, kyber, other_identity }
        ),
        6 => (user.clone(), prop::collection::vec(0..4_usize, 0..4))
            .prop_map(|(user, devices)| Change::Claim { user, devices }),
        1 => (user.clone(), 0..4_usize, prop::option::of(any::<u8>()))
            .prop_map(|(user, nth, token)| Change::Push { user, nth, token }),
        1 => (user, 0..3_usize, any::<bool>(), prop::collection::btree_map(2..9_u8, any::<bool>(), 0..4))
            .prop_map(|(user, by, interop, rules)| Change::Consent { user, by, interop, rules }),
        1 => any::<bool>().prop_map(|suspended| Change::Suspend { suspended }),
        1 => (1..5_u64).prop_map(Change::WaitThirdsOfRetirement),
    ]
}

impl Model {
    async fn apply(&mut self, store: &dyn Store, change: Change) {
        match change {
            Change::Enlist { user, phone, other_identity, mut keys } => {
                keys.sort_unstable();
                keys.dedup();
                self.enlist(store, user, phone, other_identity, keys).await;
            }
            Change::Remove { user, by, nth } => {
                let (account, device) = self.device(user, nth);
                let by = self.device(user, by).1;
                let expected = match (self.phone(user, by).is_some(), self.phone(user, device).is_some()) {
                    (false, _) => Removed::NotEnlisted,
                    (true, false) => Removed::NoDevice,
                    (true, true) => Removed::Done,
                };
                assert_eq!(store.remove_device(account, by, device, self.now_ms).await.unwrap().outcome, expected);
                if expected == Removed::Done {
                    let known = self.users.get_mut(&user).unwrap();
                    let phone = known.devices.remove(&device.get()).unwrap();
                    known.freed.push(device.get());
                    self.retired.insert((user, phone.number % 100), self.now_ms + RETIRED_MS);
                }
            }
            Change::Withdraw { user, by } => {
                let (account, by) = self.device(user, by);
                let known = if self.phone(user, by).is_some() { self.users.remove(&user) } else { None };
                assert_eq!(store.withdraw(account, by, self.now_ms).await.unwrap().outcome, known.is_some());
                for phone in known.iter().flat_map(|known| known.devices.values()) {
                    self.retired.insert((user, phone.number % 100), self.now_ms + RETIRED_MS);
                }
            }
            Change::Publish { user, nth, ec, kyber, other_identity } => {
                let (account, device) = self.device(user, nth);
                let number = self.phone(user, device).map_or(0, |phone| phone.number);
                let number = if other_identity { number + 100 } else { number };
                let batch = one_time_keys(number, ec.iter().copied().collect(), kyber.iter().copied().collect());
                let published = store.publish(account, device, &batch).await.unwrap();
                let expected = match self.phone(user, device) {
                    None => Published::NoDevice,
                    Some(_) if other_identity => Published::OtherIdentity,
                    Some(phone) => {
                        phone.add(ec, kyber);
                        Published::Done(phone.counts())
                    }
                };
                assert_eq!(published, expected);
            }
            Change::Claim { user, devices } => {
                let devices: BTreeSet<DeviceId> = devices.into_iter().map(|nth| self.device(user, nth).1).collect();
                let devices: Vec<DeviceId> = devices.into_iter().collect();
                let (account, _) = self.device(user, 0);
                let bundles = store.claim(account, &devices, true, 0).await.unwrap().outcome;
                let mut bundles = bundles.into_iter();
                for device in devices {
                    if let Some(phone) = self.phone(user, device) {
                        phone.expect_claim(device, &bundles.next().expect("a bundle for each device"));
                    }
                }
                assert_eq!(bundles.next(), None);
            }
            Change::Push { user, nth, token } => {
                let (account, device) = self.device(user, nth);
                let token = token.map(|byte| PushToken::new(Bytes::from(vec![byte; 3])).unwrap());
                let set = store.set_push(account, device, token.as_ref()).await.unwrap().outcome;
                assert_eq!(set, self.phone(user, device).is_some());
                if let Some(phone) = self.phone(user, device) {
                    phone.push = token;
                }
            }
            Change::Consent { user, by, interop, rules } => {
                let (account, by) = self.device(user, by);
                let rules = rules.into_iter().map(|(n, allow)| (format!("p{n}.example").parse().unwrap(), allow));
                let consent = Consent { interop, rules: rules.collect(), ..Consent::default() };
                let may = self.phone(user, by).is_some();
                assert_eq!(store.set_consent(account, by, &consent).await.unwrap().outcome, may);
                if may {
                    self.users.get_mut(&user).unwrap().consent = consent;
                }
            }
            Change::Suspend { suspended } => {
                let status = if suspended { ProviderStatus::Suspended } else { ProviderStatus::Live };
                store.set_provider_status(&provider(1).settings.domain, status).await.unwrap().outcome.unwrap();
                self.suspended = suspended;
            }
            Change::WaitThirdsOfRetirement(thirds) => self.now_ms += thirds * (RETIRED_MS / 3),
        }
    }

    async fn enlist(&mut self, store: &dyn Store, user: u8, phone: u8, other_identity: bool, keys: Vec<u32>) {
        self.enlistments += 1;
        let mut asked = enlistment(user, phone);
        asked.new_account = AccountId::from_bytes([self.enlistments; 16]);
        asked.now_ms = self.now_ms;
        asked.keys = one_time_keys(if other_identity { phone + 100 } else { phone }, keys.clone(), keys.clone());
        let outcome = store.enlist(&asked).await.unwrap().outcome;

        let lives = |known: &User| known.devices.values().any(|device| device.number % 100 == phone);
        let retired = self.retired.get(&(user, phone)).is_some_and(|end| *end > self.now_ms);
        if retired && !self.users.get(&user).is_some_and(lives) {
            assert_eq!(outcome, Enlisted::Retired);
            return;
        }
        let known = self.users.entry(user).or_insert_with(|| User {
            account: asked.new_account,
            devices: BTreeMap::new(),
            freed: Vec::new(),
            consent: Consent::default(),
        });
        let account = known.account;
        let number = if other_identity { phone + 100 } else { phone };
        // The Noise key and the registration id follow from `phone`, the identity from `number`.
        let before = known.devices.iter().find(|(_, device)| device.number % 100 == phone);
        if let Some((id, device)) = before {
            let expected = if device.number == number {
                Enlisted::Before { account, device: DeviceId::new(*id).unwrap() }
            } else {
                Enlisted::OtherKeys
            };
            assert_eq!(outcome, expected);
            return;
        }
        let id = (1..=MAX_DEVICE_ID)
            .find(|id| !known.devices.contains_key(id) && !known.freed.contains(id))
            .unwrap_or_else(|| known.freed[0]);
        known.freed.retain(|freed| *freed != id);
        assert_eq!(outcome, Enlisted::Added { account, device: DeviceId::new(id).unwrap() });
        let spent = BTreeSet::new();
        let device = Phone {
            number,
            enlisted_ms: asked.now_ms,
            push: None,
            ec: keys.clone(),
            kyber: keys,
            spent_ec: spent.clone(),
            spent_kyber: spent,
        };
        known.devices.insert(id, device);
    }

    async fn agrees_with(&self, store: &dyn Store) {
        let status = if self.suspended { ProviderStatus::Suspended } else { ProviderStatus::Live };
        for user in 0..3 {
            let stored = store.record(&Who::Address(address(user))).await.unwrap();
            let expected = self.users.get(&user).map(|known| Record {
                account: known.account,
                address: address(user),
                provider: Provider { status, ..provider(1) }.reference(),
                devices: known.devices.iter().map(|(id, phone)| phone.expected(*id)).collect(),
                consent: known.consent.clone(),
            });
            assert_eq!(stored, expected);
            let Some(known) = self.users.get(&user) else { continue };
            for (id, phone) in &known.devices {
                let counts = store.key_counts(known.account, DeviceId::new(*id).unwrap()).await.unwrap();
                assert_eq!(counts, Some(phone.counts()));
            }
        }
    }

    /// The `nth` device of `user`; ids that nobody has where there is none.
    fn device(&self, user: u8, nth: usize) -> (AccountId, DeviceId) {
        let none = DeviceId::new(MAX_DEVICE_ID).unwrap();
        let Some(known) = self.users.get(&user) else { return (AccountId::from_bytes([250; 16]), none) };
        let device = known.devices.keys().nth(nth).map_or(none, |id| DeviceId::new(*id).unwrap());
        (known.account, device)
    }

    fn phone(&mut self, user: u8, device: DeviceId) -> Option<&mut Phone> {
        self.users.get_mut(&user)?.devices.get_mut(&device.get())
    }
}

impl Phone {
    fn add(&mut self, ec: BTreeSet<u32>, kyber: BTreeSet<u32>) {
        // In the tests a number stands for both the id and the key.
        self.ec
            .extend(ec.into_iter().filter(|n| !self.spent_ec.contains(n) && !self.ec.contains(n)).collect::<Vec<_>>());
        let fresh = kyber.into_iter().filter(|n| !self.spent_kyber.contains(n) && !self.kyber.contains(n));
        self.kyber.extend(fresh.collect::<Vec<_>>());
    }

    fn counts(&self) -> KeyCounts {
        KeyCounts { ec: self.ec.len() as u32, kyber: self.kyber.len() as u32 }
    }

    fn expect_claim(&mut self, device: DeviceId, bundle: &Bundle) {
        let ec = (!self.ec.is_empty()).then(|| self.ec.remove(0));
        let kyber_number = (!self.kyber.is_empty()).then(|| self.kyber.remove(0));
        self.spent_ec.extend(ec);
        self.spent_kyber.extend(kyber_number);
        let expected = Bundle {
            device,
            registration_id: self.expected(device.get()).registration_id,
            identity_key: self.expected(device.get()).identity_key,
            signed: signed(1, super::ec(2_000_000)),
            ec: ec.map(one_time),
            kyber: kyber_number.map_or_else(|| signed(9_999, kyber(3_000_000)), |n| signed(n, kyber(n))),
            left: self.counts(),
            taken: (ec.is_some(), kyber_number.is_some()),
        };
        assert_eq!(bundle, &expected);
    }

    fn expected(&self, id: u32) -> crate::accounts::Device {
        let asked = enlistment(0, self.number % 100);
        crate::accounts::Device {
            id: DeviceId::new(id).unwrap(),
            noise_key: asked.noise_key,
            registration_id: asked.registration_id,
            identity_key: one_time_keys(self.number, vec![], vec![]).identity_key,
            enlisted_ms: self.enlisted_ms,
            push_token: self.push.clone(),
        }
    }
}
