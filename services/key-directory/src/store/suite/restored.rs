//! What holds when a store was put back from a backup: the parts of a test, between which the backend is copied, opened and
//! put back in its own way.

use super::*;

const FOR_BACKUP: [u32; 4] = [1, 2, 3, 4];

/// What is in the backup: a device with four one-time keys of each kind, the first of which has been handed out.
pub(crate) async fn before_the_backup(store: &dyn Store) -> (AccountId, DeviceId) {
    let (account, device) = an_account(store).await;
    store.publish(account, device, &one_time_keys(1, FOR_BACKUP.into(), FOR_BACKUP.into())).await.unwrap();
    assert_eq!(ids(&claim(store, account, device).await), (Some(1), 1));
    (account, device)
}

/// What is lost with what comes after it: two keys are handed out, and another device is enlisted.
pub(crate) async fn after_the_backup(store: &dyn Store, account: AccountId, device: DeviceId) {
    for n in [2, 3] {
        assert_eq!(ids(&claim(store, account, device).await), (Some(n), n));
    }
    let (_, newer) = added(store.enlist(&enlistment(1, 2)).await.unwrap().outcome);
    assert_ne!(newer, device);
}

/// No key is handed out that was in the backup, also if its device publishes it again; new ones are. What else was in the
/// backup is there, what came later is not.
pub(crate) async fn after_the_restore(store: &dyn Store, account: AccountId, device: DeviceId) {
    let record = record(store, account).await;
    assert_eq!(record.devices.iter().map(|one| one.id).collect::<Vec<_>>(), [device]);
    assert_eq!(store.key_counts(account, device).await.unwrap(), Some(KeyCounts::default()), "so logins ask for more");
    let bundle = claim(store, account, device).await;
    assert_eq!((ids(&bundle), bundle.signed.id.get()), ((None, 9_999), 1), "what may be used many times stays");
    let again = store.publish(account, device, &one_time_keys(1, FOR_BACKUP.into(), FOR_BACKUP.into())).await.unwrap();
    assert_eq!(again, Published::Done(KeyCounts::default()));
    store.publish(account, device, &one_time_keys(1, vec![5], vec![5])).await.unwrap();
    assert_eq!(ids(&claim(store, account, device).await), (Some(5), 5));
    assert_eq!(ids(&claim(store, account, device).await), (None, 9_999));
}

/// Where nothing was lost, keys go on being handed out, each once.
pub(crate) async fn after_a_move(store: &dyn Store, account: AccountId, device: DeviceId) {
    assert_eq!(ids(&claim(store, account, device).await), (Some(4), 4));
}

fn ids(bundle: &Bundle) -> (Option<u32>, u32) {
    (bundle.ec.as_ref().map(|key| key.id.get()), bundle.kyber.id.get())
}
