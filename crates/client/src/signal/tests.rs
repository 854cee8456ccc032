//! Two keyrings over their stores, without a network between them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use causeway_identity::{AccountId, DeviceId};
use causeway_stanza::{EncType, KeyBundle, Signature};
use rand::SeedableRng;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

use super::{Bundle, Keyring, SignalError, enlistment, new_device};
use crate::random::Random;
use crate::store::{Change, DeviceRecord, MemoryStore, Prekey, PrekeyFamily, SignalAddress, Store};

type Sealed = (EncType, bytes::Bytes);

/// A device with its store.
struct Party {
    address: SignalAddress,
    record: DeviceRecord,
    prekeys: Vec<Prekey>,
    store: MemoryStore,
    random: Random,
    now: SystemTime,
}

impl Party {
    async fn new(number: u8) -> Self {
        let mut random: Random = Box::new(StdRng::seed_from_u64(number.into()));
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (record, prekeys) = new_device(Zeroizing::new([number; 32]), now, &mut random).unwrap();
        let store = MemoryStore::new();
        store.commit(prekeys.iter().cloned().map(Change::PutPrekey).collect()).await.unwrap();
        let address = SignalAddress { account: AccountId::from_bytes([number; 16]), device: DeviceId::new(1).unwrap() };
        Self { address, record, prekeys, store, random, now }
    }

    /// What the directory hands out: the one-time keys with this index, or none.
    fn bundle(&self, one_time: Option<usize>) -> KeyBundle {
        let (enlist, _) = enlistment(&self.record, &self.prekeys).unwrap();
        KeyBundle {
            device: self.address.device,
            registration: enlist.registration,
            identity_key: enlist.identity_key,
            signed_prekey: enlist.signed_prekey,
            ec_prekey: one_time.map(|index| enlist.ec_prekeys[index].clone()),
            kyber_prekey: one_time.map_or(enlist.last_resort_kyber, |index| enlist.kyber_prekeys[index].clone()),
        }
    }

    async fn meet(&mut self, other: &Self, bundle: KeyBundle) -> Result<(), SignalError> {
        let mut keyring = Keyring::new(&self.record).unwrap();
        let bundle = Bundle::from(bundle);
        keyring.open_session(&self.store, other.address, &bundle, self.now, &mut self.random).await?;
        self.store.commit(keyring.take_changes().unwrap()).await.unwrap();
        Ok(())
    }

    async fn seal(&mut self, to: &Self, text: &[u8]) -> Sealed {
        let mut keyring = Keyring::new(&self.record).unwrap();
        let sealed = keyring.encrypt(&self.store, to.address, text, self.now, &mut self.random).await.unwrap();
        self.store.commit(keyring.take_changes().unwrap()).await.unwrap();
        sealed
    }

    async fn open(&mut self, from: &Self, (kind, ciphertext): &Sealed) -> Result<Vec<u8>, SignalError> {
        let mut keyring = Keyring::new(&self.record).unwrap();
        let opened = keyring.decrypt(&self.store, from.address, *kind, ciphertext, &mut self.random).await;
        let changes = keyring.take_changes().unwrap();
        assert_eq!(opened.is_err(), changes.is_empty(), "a failure changes nothing, a success something");
        self.store.commit(changes).await.unwrap();
        opened
    }

    async fn has_one_time_keys(&self, index: usize) -> (bool, bool) {
        let bundle = self.bundle(Some(index));
        let ec = self.store.prekey(PrekeyFamily::Ec, bundle.ec_prekey.unwrap().id).await.unwrap();
        let kyber = self.store.prekey(PrekeyFamily::Kyber, bundle.kyber_prekey.id).await.unwrap();
        (ec.is_some(), kyber.is_some())
    }
}

async fn parties() -> (Party, Party) {
    (Party::new(1).await, Party::new(2).await)
}

#[tokio::test]
async fn a_session_is_opened_with_one_time_keys_that_are_then_gone() {
    let (mut ada, mut bo) = parties().await;
    let bundle = bo.bundle(Some(3));
    ada.meet(&bo, bundle).await.unwrap();
    let first = ada.seal(&bo, b"one").await;
    assert_eq!(first.0, EncType::Prekey);
    assert_eq!(bo.has_one_time_keys(3).await, (true, true));
    assert_eq!(bo.open(&ada, &first).await.unwrap(), b"one");
    assert_eq!(bo.has_one_time_keys(3).await, (false, false));
    assert_eq!(bo.has_one_time_keys(4).await, (true, true));
    let answer = bo.seal(&ada, b"two").await;
    assert_eq!(answer.0, EncType::Whisper);
    assert_eq!(ada.open(&bo, &answer).await.unwrap(), b"two");
    assert_eq!(ada.seal(&bo, b"three").await.0, EncType::Whisper, "the answer has confirmed the session");
}

#[tokio::test]
async fn messages_are_read_in_any_order_and_once() {
    let (mut ada, mut bo) = parties().await;
    let bundle = bo.bundle(Some(0));
    ada.meet(&bo, bundle).await.unwrap();
    let hello = ada.seal(&bo, b"hello").await;
    bo.open(&ada, &hello).await.unwrap();
    let answer = bo.seal(&ada, b"hallo").await;
    ada.open(&bo, &answer).await.unwrap();
    let mut sealed = Vec::new();
    for n in 0..20_u8 {
        sealed.push(ada.seal(&bo, &[n]).await);
    }
    for n in [19, 0, 7, 3, 18, 1] {
        assert_eq!(bo.open(&ada, &sealed[n]).await.unwrap(), [u8::try_from(n).unwrap()]);
        assert!(bo.open(&ada, &sealed[n]).await.is_err(), "a second time");
    }
    assert_eq!(bo.open(&ada, &sealed[2]).await.unwrap(), [2]);
}

#[tokio::test]
async fn a_damaged_message_leaves_the_session_as_it_was() {
    let (mut ada, mut bo) = parties().await;
    let bundle = bo.bundle(Some(0));
    ada.meet(&bo, bundle).await.unwrap();
    for text in [[1; 160], [2; 160]] {
        let whole = ada.seal(&bo, &text).await;
        // Within the ciphertext; what only opens a session is not looked at again once it is open.
        for at in [150, 200] {
            let mut damaged = whole.1.to_vec();
            damaged[at] ^= 0x10;
            assert!(bo.open(&ada, &(whole.0, damaged.into())).await.is_err());
        }
        assert_eq!(bo.open(&ada, &whole).await.unwrap(), text);
    }
}

#[tokio::test]
async fn a_message_under_the_last_resort_key_cannot_be_replayed() {
    let (mut ada, mut bo) = parties().await;
    let bundle = bo.bundle(None);
    ada.meet(&bo, bundle).await.unwrap();
    let sealed = ada.seal(&bo, b"once").await;
    assert_eq!(bo.open(&ada, &sealed).await.unwrap(), b"once");
    // Even if the session is lost, which would otherwise recognise it.
    let empty = libsignal_protocol::SessionRecord::new_fresh().serialize().unwrap();
    bo.store.commit(vec![Change::PutSession(ada.address, empty)]).await.unwrap();
    assert!(bo.open(&ada, &sealed).await.is_err());
    // The last-resort key still serves others.
    let mut cy = Party::new(3).await;
    let bundle = bo.bundle(None);
    cy.meet(&bo, bundle).await.unwrap();
    let sealed = cy.seal(&bo, b"another").await;
    assert_eq!(bo.open(&cy, &sealed).await.unwrap(), b"another");
}

#[tokio::test]
async fn both_may_begin_at_once() {
    let (mut ada, mut bo) = parties().await;
    let (of_ada, of_bo) = (ada.bundle(Some(0)), bo.bundle(Some(0)));
    ada.meet(&bo, of_bo).await.unwrap();
    bo.meet(&ada, of_ada).await.unwrap();
    for _ in 0..3 {
        let (there, back) = (ada.seal(&bo, b"there").await, bo.seal(&ada, b"back").await);
        assert_eq!(bo.open(&ada, &there).await.unwrap(), b"there");
        assert_eq!(ada.open(&bo, &back).await.unwrap(), b"back");
    }
}

#[tokio::test]
async fn unfit_bundles_open_no_session() {
    let (mut ada, bo) = parties().await;
    let bundle = bo.bundle(Some(0));
    let forged = Signature::try_from(vec![7; 64]).unwrap();
    let mut wrong_signed = bundle.clone();
    wrong_signed.signed_prekey.signature = forged.clone();
    let mut wrong_kyber = bundle.clone();
    wrong_kyber.kyber_prekey.signature = forged;
    let mut other_identity = bundle.clone();
    other_identity.identity_key = ada.bundle(None).identity_key;
    let mut short_kyber = bundle.clone();
    short_kyber.kyber_prekey.public_key = causeway_stanza::PublicKey::try_from(vec![8; 1568]).unwrap();
    let mut no_identity = bundle.clone();
    no_identity.identity_key = causeway_stanza::PublicKey::try_from(vec![5; 32]).unwrap();
    for bundle in [wrong_signed, wrong_kyber, other_identity, short_kyber, no_identity] {
        assert!(ada.meet(&bo, bundle).await.is_err());
        assert_eq!(ada.store.session(bo.address).await.unwrap(), None);
        assert_eq!(ada.store.identity(bo.address).await.unwrap(), None);
    }
    ada.meet(&bo, bundle).await.unwrap();
}

#[tokio::test]
async fn another_identity_is_noticed_when_sending_and_when_receiving() {
    let (mut ada, bo) = parties().await;
    let mut other = Party::new(4).await;
    other.address = bo.address;
    let (bundle, new) = (bo.bundle(Some(0)), other.bundle(Some(0)));
    ada.meet(&bo, bundle).await.unwrap();
    let mut keyring = Keyring::new(&ada.record).unwrap();
    let new = Bundle::from(new);
    keyring.open_session(&ada.store, other.address, &new, ada.now, &mut ada.random).await.unwrap();
    assert_eq!(keyring.take_identity_events().len(), 1);

    let of_ada = ada.bundle(Some(1));
    other.meet(&ada, of_ada).await.unwrap();
    let sealed = other.seal(&ada, b"it is me").await;
    let mut keyring = Keyring::new(&ada.record).unwrap();
    let opened = keyring.decrypt(&ada.store, bo.address, sealed.0, &sealed.1, &mut ada.random).await;
    assert_eq!(opened.unwrap(), b"it is me");
    assert_eq!(keyring.take_identity_events().len(), 1);
}

#[tokio::test]
async fn a_session_that_was_never_answered_is_not_used_for_ever() {
    let (mut ada, bo) = parties().await;
    let bundle = bo.bundle(Some(0));
    ada.meet(&bo, bundle).await.unwrap();
    let mut keyring = Keyring::new(&ada.record).unwrap();
    assert!(keyring.can_encrypt(&ada.store, bo.address, ada.now).await.unwrap());
    let later = ada.now + Duration::from_secs(31 * 24 * 3600);
    assert!(!keyring.can_encrypt(&ada.store, bo.address, later).await.unwrap());
}

#[tokio::test]
async fn garbage_is_an_error_of_whatever_kind() {
    let (ada, mut bo) = parties().await;
    for kind in [EncType::Prekey, EncType::Whisper, EncType::SenderKey, EncType::Plaintext] {
        for garbage in [&[][..], &[0x33], &[0x44; 10], &[0xff; 3000], &[0x33; 300]] {
            let garbage = bytes::Bytes::copy_from_slice(garbage);
            assert!(bo.open(&ada, &(kind, garbage)).await.is_err());
        }
    }
}
