//! What every backend keeps.

use causeway_identity::{DeviceId, NoiseKey, ProviderId};

use super::{SpendError, Spending, SpentTokens};

pub(super) const NOW_S: u64 = 1_800_000_000;

pub(super) fn key(first: u8) -> NoiseKey {
    let mut bytes = [7; 32];
    bytes[0] = first;
    NoiseKey::new(bytes).unwrap()
}

pub(super) fn spending(jti: &str) -> Spending<'_> {
    Spending {
        provider: ProviderId::from_bytes([1; 16]),
        jti,
        expires_s: NOW_S + 60,
        key: key(1),
        device: DeviceId::new(1).ok(),
    }
}

/// Runs all, each with a fresh store with room for ten.
pub(super) async fn run<T: SpentTokens>(fresh: impl Fn() -> T) {
    the_same_device_comes_back_with_its_token_and_nobody_else(&fresh()).await;
    a_client_enlists_and_returns_but_does_not_enlist_again_once_it_was_a_device(&fresh()).await;
    a_burnt_token_opens_nothing(&fresh()).await;
    to_check_spends_nothing(&fresh()).await;
}

async fn the_same_device_comes_back_with_its_token_and_nobody_else(spent: &dyn SpentTokens) {
    let own = spending("a");
    assert_eq!(spent.check(&own, NOW_S).await, Ok(()));
    assert_eq!(spent.spend(&own, NOW_S).await, Ok(()));
    assert_eq!(spent.spend(&own, NOW_S).await, Ok(()));
    let other_key = Spending { key: key(2), ..own };
    assert_eq!(spent.check(&other_key, NOW_S).await, Err(SpendError::Replayed));
    assert_eq!(spent.spend(&other_key, NOW_S).await, Err(SpendError::Replayed));
    let other_device = Spending { device: DeviceId::new(2).ok(), ..own };
    assert_eq!(spent.check(&other_device, NOW_S).await, Err(SpendError::Replayed));
    assert_eq!(spent.spend(&other_device, NOW_S).await, Err(SpendError::Replayed));
    let other_provider = Spending { provider: ProviderId::from_bytes([2; 16]), ..other_key };
    assert_eq!(spent.spend(&other_provider, NOW_S).await, Ok(()));
    // Names are the provider's: any text.
    let odd = spending("a:\0\u{e9}{b}\r\n");
    assert_eq!(spent.spend(&odd, NOW_S).await, Ok(()));
    assert_eq!(spent.spend(&Spending { key: key(2), ..odd }, NOW_S).await, Err(SpendError::Replayed));
}

async fn a_client_enlists_and_returns_but_does_not_enlist_again_once_it_was_a_device(spent: &dyn SpentTokens) {
    let fresh = Spending { device: None, ..spending("b") };
    let device = spending("b");
    assert_eq!(spent.spend(&fresh, NOW_S).await, Ok(()));
    assert_eq!(spent.spend(&fresh, NOW_S).await, Ok(()), "its answer was lost");
    assert_eq!(spent.spend(&device, NOW_S).await, Ok(()));
    assert_eq!(spent.check(&fresh, NOW_S).await, Err(SpendError::Replayed));
    assert_eq!(spent.spend(&fresh, NOW_S).await, Err(SpendError::Replayed));
    assert_eq!(spent.spend(&device, NOW_S).await, Ok(()));
}

async fn a_burnt_token_opens_nothing(spent: &dyn SpentTokens) {
    let own = spending("c");
    spent.spend(&own, NOW_S).await.unwrap();
    spent.burn(own.provider, own.jti, own.expires_s, NOW_S);
    assert_eq!(spent.check(&own, NOW_S).await, Err(SpendError::Replayed));
    assert_eq!(spent.spend(&own, NOW_S).await, Err(SpendError::Replayed));
}

async fn to_check_spends_nothing(spent: &dyn SpentTokens) {
    assert_eq!(spent.check(&spending("d"), NOW_S).await, Ok(()));
    assert_eq!(spent.spend(&Spending { key: key(2), ..spending("d") }, NOW_S).await, Ok(()));
}
