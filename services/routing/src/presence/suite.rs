//! What every backend keeps.

use causeway_identity::{AccountId, DeviceId};

use super::{Seen, Store, Told};

pub(super) fn account(n: u128) -> AccountId {
    AccountId::from_bytes(n.to_be_bytes())
}

pub(super) fn device(n: u32) -> DeviceId {
    DeviceId::new(n).unwrap()
}

pub(super) fn here(of: u128, id: u32, number: u64, at: &str) -> Told {
    Told { who: (account(of), device(id)), number, at: at.into(), here: true }
}

fn gone(of: u128, id: u32, number: u64, at: &str) -> Told {
    Told { here: false, ..here(of, id, number, at) }
}

pub(super) async fn run(store: &dyn Store) {
    the_greatest_number_counts(store).await;
    only_the_same_session_takes_itself_away(store).await;
    many_are_told_at_once(store).await;
}

async fn sorted(store: &dyn Store, of: u128) -> Vec<Seen> {
    let mut seen = store.look(account(of)).await.unwrap();
    seen.sort_by_key(|seen| seen.device);
    seen
}

fn seen(id: u32, number: u64, at: Option<&str>) -> Seen {
    Seen { device: device(id), number, at: at.map(str::to_owned) }
}

async fn the_greatest_number_counts(store: &dyn Store) {
    assert_eq!(sorted(store, 1).await, []);
    store.tell(&[]).await.unwrap();
    store
        .tell(&[here(1, 1, 5, "one"), here(1, 2, 1_800_000_000_000_000, "http://two.example:7461/a b")])
        .await
        .unwrap();
    store.tell(&[here(1, 1, 4, "late")]).await.unwrap();
    let two = seen(2, 1_800_000_000_000_000, Some("http://two.example:7461/a b"));
    assert_eq!(sorted(store, 1).await, [seen(1, 5, Some("one")), two.clone()]);
    store.tell(&[here(1, 1, 6, "other"), here(1, 2, 1_799_999_999_999_999, "late")]).await.unwrap();
    assert_eq!(sorted(store, 1).await, [seen(1, 6, Some("other")), two]);
    store.tell(&[here(1, 1, 6, "renewed")]).await.unwrap();
    assert_eq!(sorted(store, 1).await[0], seen(1, 6, Some("renewed")));
    assert_eq!(sorted(store, 2).await, []);
}

async fn only_the_same_session_takes_itself_away(store: &dyn Store) {
    store.tell(&[here(3, 1, 5, "one"), here(3, 1, 6, "other"), gone(3, 1, 5, "one")]).await.unwrap();
    assert_eq!(sorted(store, 3).await, [seen(1, 6, Some("other"))]);
    store.tell(&[gone(3, 1, 6, "one")]).await.unwrap();
    assert_eq!(sorted(store, 3).await, [seen(1, 6, Some("other"))], "it has moved");
    store.tell(&[gone(3, 1, 6, "other")]).await.unwrap();
    assert_eq!(sorted(store, 3).await, [seen(1, 6, None)], "its number stays");
    store.tell(&[here(3, 1, 5, "one")]).await.unwrap();
    assert_eq!(sorted(store, 3).await, [seen(1, 6, None)]);
    store.tell(&[here(3, 1, 7, "one"), gone(3, 1, 7, "one"), gone(3, 1, 7, "one")]).await.unwrap();
    assert_eq!(sorted(store, 3).await, [seen(1, 7, None)]);
}

async fn many_are_told_at_once(store: &dyn Store) {
    let all: Vec<Told> = (0..2_000).map(|n| here(100 + n / 4, 1 + (n % 4) as u32, 9, "one")).collect();
    store.tell(&all).await.unwrap();
    for of in [100, 350, 599] {
        assert_eq!(sorted(store, of).await.len(), 4);
    }
}
