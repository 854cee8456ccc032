//! A device may die at any moment. Here it dies at its commits: just before, or just after, which are the only moments
//! that differ, because nothing leaves a device in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use causeway_identity::{Address, DeviceAddress, MessageId};
use causeway_stanza::EndReason;
use proptest::prelude::*;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::server::{Server, token_for};
use super::world::{Device, address, config};
use crate::store::{
    Change, DeviceRecord, InboxEntry, Outgoing, OutgoingHeader, Peer, Prekey, PrekeyFamily, SignalAddress, UsedBaseKey,
};
use crate::{Client, ClientError, Content, EventKind, MemoryStore, SqliteStore, Store, StoreError};

/// When a device dies.
#[derive(Debug, Clone, Copy)]
struct Death {
    /// At this commit, counted from 0.
    commit: i64,
    /// The commit is on disk.
    after: bool,
}

/// A store that stands for a device's life: it works until its death, and never again.
struct Mortal {
    inner: Arc<dyn Store>,
    /// Closed: that the device is enlisted cannot be written down yet.
    enlisting: watch::Sender<bool>,
    left: AtomicI64,
    after: bool,
    dead: AtomicBool,
}

impl Mortal {
    fn new(inner: Arc<dyn Store>, death: Option<Death>) -> Arc<Self> {
        let left = AtomicI64::new(death.map_or(i64::MAX, |death| death.commit));
        let after = death.is_some_and(|death| death.after);
        Arc::new(Self { inner, enlisting: watch::Sender::new(true), left, after, dead: AtomicBool::new(false) })
    }

    fn alive(&self) -> Result<&dyn Store, StoreError> {
        if self.dead.load(Ordering::SeqCst) { Err(died()) } else { Ok(&*self.inner) }
    }
}

fn died() -> StoreError {
    StoreError::Backend("died".into())
}

#[async_trait]
impl Store for Mortal {
    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.alive()?;
        let enlists = |change: &Change| matches!(change, Change::PutDevice(device) if device.enlisted.is_some());
        if changes.iter().any(enlists) {
            self.enlisting.subscribe().wait_for(|open| *open).await.map_err(|_| died())?;
        }
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return self.inner.commit(changes).await;
        }
        self.dead.store(true, Ordering::SeqCst);
        if self.after {
            self.inner.commit(changes).await?;
        }
        Err(died())
    }
    async fn device(&self) -> Result<Option<DeviceRecord>, StoreError> {
        self.alive()?.device().await
    }
    async fn prekey(&self, family: PrekeyFamily, id: u32) -> Result<Option<Prekey>, StoreError> {
        self.alive()?.prekey(family, id).await
    }
    async fn unpublished_prekeys(&self) -> Result<Vec<Prekey>, StoreError> {
        self.alive()?.unpublished_prekeys().await
    }
    async fn signed_prekey_made_ms(&self) -> Result<Option<u64>, StoreError> {
        self.alive()?.signed_prekey_made_ms().await
    }
    async fn base_key_used(&self, key: &UsedBaseKey) -> Result<bool, StoreError> {
        self.alive()?.base_key_used(key).await
    }
    async fn session(&self, with: SignalAddress) -> Result<Option<Vec<u8>>, StoreError> {
        self.alive()?.session(with).await
    }
    async fn identity(&self, of: SignalAddress) -> Result<Option<Vec<u8>>, StoreError> {
        self.alive()?.identity(of).await
    }
    async fn peer(&self, address: &Address) -> Result<Option<Peer>, StoreError> {
        self.alive()?.peer(address).await
    }
    async fn unfinished(&self, after: u64, limit: usize) -> Result<Vec<OutgoingHeader>, StoreError> {
        self.alive()?.unfinished(after, limit).await
    }
    async fn outgoing(&self, id: MessageId) -> Result<Option<Outgoing>, StoreError> {
        self.alive()?.outgoing(id).await
    }
    async fn sent_to(&self, to: &Address, id_prefix: [u8; 6]) -> Result<Option<Outgoing>, StoreError> {
        self.alive()?.sent_to(to, id_prefix).await
    }
    async fn resends(&self, id: MessageId, device: SignalAddress) -> Result<u32, StoreError> {
        self.alive()?.resends(id, device).await
    }
    async fn seen(&self, from: SignalAddress, id: MessageId) -> Result<Option<bool>, StoreError> {
        self.alive()?.seen(from, id).await
    }
    async fn inbox(&self, after: u64, limit: usize) -> Result<Vec<InboxEntry>, StoreError> {
        self.alive()?.inbox(after, limit).await
    }
    async fn inbox_len(&self) -> Result<usize, StoreError> {
        self.alive()?.inbox_len().await
    }
    async fn last_seqs(&self) -> Result<(u64, u64), StoreError> {
        self.alive()?.last_seqs().await
    }
}

/// What an application wrote down of one device; it outlives the device's deaths.
#[derive(Default)]
struct Diary {
    /// Texts by message, in the order of their first showing.
    shown: Vec<((DeviceAddress, MessageId), String)>,
    /// Messages that must not come again.
    done: BTreeSet<(DeviceAddress, MessageId)>,
    /// Texts that `send` took.
    sent: Vec<String>,
    /// Texts of which it did not say so before the device died.
    unsure: Vec<String>,
}

/// A device, its application, and its deaths.
struct Life {
    local: &'static str,
    store: Arc<dyn Store>,
    deaths: Vec<Death>,
    to: Address,
    texts: Vec<String>,
    diary: Arc<Mutex<Diary>>,
    written: watch::Sender<()>,
}

impl Life {
    fn new(
        (local, to): (&'static str, &str),
        texts: usize,
        store: Arc<dyn Store>,
        deaths: Vec<Death>,
        written: &watch::Sender<()>,
    ) -> Self {
        let texts = (0..texts).map(|n| format!("{local} {n}")).rev().collect();
        Self { local, store, deaths, to: address(to), texts, diary: Arc::default(), written: written.clone() }
    }

    async fn live(mut self, server: Server, mut over: watch::Receiver<bool>) {
        self.deaths.reverse();
        loop {
            let store = Mortal::new(self.store.clone(), self.deaths.pop());
            let local = address(self.local);
            let source = move |_| {
                let token = token_for(&local, 1, 4_000_000_000);
                async move { Ok(token) }
            };
            let Ok((client, mut events)) = Client::open(config(&server, self.local), store, Arc::new(source)).await
            else {
                continue;
            };
            let reading = async {
                while let Some(event) = events.next().await {
                    if let EventKind::Message(message) = &event.kind {
                        let key = (message.from.clone(), message.id);
                        {
                            let mut diary = self.diary.lock().unwrap();
                            assert!(!diary.done.contains(&key), "{} was shown a message again", self.local);
                            if !diary.shown.iter().any(|(known, _)| *known == key) {
                                diary.shown.push((key.clone(), message.content.as_text().unwrap().to_owned()));
                            }
                        }
                        self.written.send_replace(());
                        if event.done().await.is_ok() {
                            self.diary.lock().unwrap().done.insert(key);
                        }
                    }
                }
            };
            let texts = &mut self.texts;
            let writing = async {
                while client.enlist().await.is_err() {
                    if matches!(client.consent().await, Err(ClientError::Ended(_))) {
                        return;
                    }
                }
                // Before that, nobody is there.
                let devices = |state: &super::server::State| {
                    state.accounts.values().map(|account| account.devices.len()).sum::<usize>()
                };
                server.until(|state| devices(state) == 3).await;
                while let Some(text) = texts.pop() {
                    // It may be taken without this being heard of.
                    self.diary.lock().unwrap().unsure.push(text.clone());
                    if client.send(&self.to, Content::text(text.clone())).await.is_err() {
                        return;
                    }
                    let mut diary = self.diary.lock().unwrap();
                    diary.unsure.retain(|unsure| *unsure != text);
                    diary.sent.push(text);
                }
                self.written.send_replace(());
                std::future::pending::<()>().await;
            };
            let finished = tokio::select! {
                () = reading => false,
                () = writing => false,
                ended = over.wait_for(|over| *over) => ended.is_ok(),
            };
            if finished {
                client.shutdown().await;
                return;
            }
        }
    }
}

/// Two devices of Bo and one of Ada live through their deaths; everything that was taken arrives, once, in order.
async fn lives(deaths: [Vec<Death>; 3]) {
    let store = || Arc::new(MemoryStore::new()) as Arc<dyn Store>;
    lives_on([store(), store(), store()], deaths).await;
}

async fn lives_on([x, y, z]: [Arc<dyn Store>; 3], deaths: [Vec<Death>; 3]) {
    let server = Server::start().await;
    let (written, mut changes) = watch::channel(());
    let (over, ended) = watch::channel(false);
    let [a, b, c] = deaths;
    let lives = [
        Life::new(("ada", "bo"), 6, x, a, &written),
        Life::new(("bo", "ada"), 6, y, b, &written),
        Life::new(("bo", "ada"), 0, z, c, &written),
    ];
    let diaries: Vec<_> = lives.iter().map(|life| (life.local, Arc::clone(&life.diary))).collect();
    let mut tasks: JoinSet<()> = lives.map(|life| life.live(server.clone(), ended.clone())).into_iter().collect();
    let told = |diaries: &[(&str, Arc<Mutex<Diary>>)]| {
        let mut texts = BTreeMap::new();
        for (local, diary) in diaries {
            let diary = diary.lock().unwrap();
            let entry: &mut (Vec<String>, Vec<String>) = texts.entry((*local).to_owned()).or_default();
            entry.0.extend(diary.sent.clone());
            entry.1.extend(diary.unsure.clone());
        }
        texts
    };
    let complete = || {
        let told = told(&diaries);
        let written = told.values().map(|(sent, unsure)| sent.len() + unsure.len()).sum::<usize>() == 12;
        written
            && diaries.iter().all(|(local, diary)| {
                let from = if *local == "ada" { "bo" } else { "ada" };
                let shown: BTreeSet<_> = diary.lock().unwrap().shown.iter().map(|(_, text)| text.clone()).collect();
                told[from].0.last().is_none_or(|last| shown.contains(last))
            })
    };
    let waiting = async {
        while !complete() {
            changes.changed().await.unwrap();
        }
    };
    let waiting = async {
        tokio::select! {
            () = waiting => {}
            // Nobody's life is over by itself: this is how it fails at once, and says why.
            Some(ended) = tasks.join_next() => panic!("a life is over: {ended:?}"),
        }
    };
    if tokio::time::timeout(Duration::from_secs(90), waiting).await.is_err() {
        let shown: Vec<_> = diaries.iter().map(|(_, diary)| diary.lock().unwrap().shown.clone()).collect();
        panic!("not all arrives: told {:?}, shown {shown:?}, server {:?}", told(&diaries), server.state().mailboxes());
    }
    over.send_replace(true);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let told = told(&diaries);
    for (local, diary) in &diaries {
        let from = if *local == "ada" { "bo" } else { "ada" };
        let (sent, unsure) = &told[from];
        let shown: Vec<_> = diary.lock().unwrap().shown.iter().map(|(_, text)| text.clone()).collect();
        let unique: BTreeSet<_> = shown.iter().collect();
        assert_eq!(unique.len(), shown.len(), "nothing twice: {shown:?}");
        assert!(shown.iter().all(|text| sent.contains(text) || unsure.contains(text)), "{shown:?}");
        let number = |text: &String| text.split(' ').nth(1).unwrap().parse::<u32>().unwrap();
        assert!(shown.is_sorted_by_key(number), "in order: {shown:?}");
        let missing: Vec<_> = sent.iter().filter(|text| !unique.contains(text)).collect();
        assert!(missing.is_empty(), "nothing lost: {missing:?}");
    }
    assert_eq!(server.state().stats.bad_acks, 0);
}

#[tokio::test]
async fn a_device_that_never_dies() {
    lives(Default::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_may_die_at_any_commit() {
    for commit in 0..14 {
        for after in [false, true] {
            lives([vec![Death { commit, after }], vec![], vec![]]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_may_die_at_any_commit() {
    for commit in 0..14 {
        for after in [false, true] {
            lives([vec![], vec![Death { commit, after }], vec![Death { commit: commit + 1, after: !after }]]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_survives_as_well() {
    let folder = tempfile::tempdir().unwrap();
    for commit in 2..8 {
        let store = async |name: &str| {
            let path = folder.path().join(format!("{name}{commit}"));
            Arc::new(SqliteStore::open(path).await.unwrap()) as Arc<dyn Store>
        };
        let stores = [store("ada").await, store("phone").await, store("tablet").await];
        let deaths = |commit: i64| vec![Death { commit, after: true }, Death { commit: commit + 1, after: false }];
        lives_on(stores, [deaths(commit), deaths(commit + 1), deaths(commit)]).await;
    }
}

fn deaths() -> impl Strategy<Value = Vec<Death>> {
    let death = (0..12_i64, any::<bool>()).prop_map(|(commit, after)| Death { commit, after });
    proptest::collection::vec(death, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn lives_full_of_deaths_lose_and_repeat_nothing(deaths in [deaths(), deaths(), deaths()]) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(lives(deaths));
    }
}

#[tokio::test]
async fn a_message_that_was_not_confirmed_comes_again_and_one_that_was_does_not() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let mut bo = Device::new(&server, "bo").await;
    ada.tell(bo.address(), "one").await;
    ada.tell(bo.address(), "two").await;
    assert_eq!(bo.hear().await, "one");
    let unconfirmed = bo.next_event(|kind| matches!(kind, EventKind::Message(_)).then_some(())).await;
    assert!(unconfirmed.is_kept());
    let mut bo = bo.restart().await;
    assert!(unconfirmed.done().await.is_err(), "its client is gone");
    assert_eq!(bo.hear().await, "two");
    bo.hears_nothing_but(&ada, "three").await;
}

/// The connection is lost just when the server has enlisted the device, and is back before that is on disk: as the device, or
/// nothing would come.
#[tokio::test]
async fn a_connection_that_ends_while_the_device_is_being_enlisted_comes_back_as_that_device() {
    let server = Server::start().await;
    let ada = Device::new(&server, "ada").await;
    let store = Mortal::new(Arc::new(MemoryStore::new()), None);
    store.enlisting.send_replace(false);
    let mut bo = Device::open(config(&server, "bo"), store.clone()).await;
    let enlisting = async { bo.client.enlist().await.unwrap() };
    let losing = async {
        let here = |(of, _, here, _): &(String, _, bool, _)| *here && of.starts_with("bo@");
        server.until(|state| state.mailboxes().iter().any(here)).await;
        let logins = server.state().stats.logins;
        server.end(&address("bo"), Some(EndReason::Draining));
        server.until(|state| state.stats.logins > logins).await;
        store.enlisting.send_replace(true);
    };
    tokio::join!(enlisting, losing);
    ada.tell(bo.address(), "are you there?").await;
    assert_eq!(bo.hear().await, "are you there?");
}
