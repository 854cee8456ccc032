//! What a limiter's keys are called in Redis: digests, which have one length and tell whoever looks nothing.

use aws_lc_rs::digest::{SHA256, digest};
use causeway_identity::{AccountId, Address, DeviceId, ProviderId};

/// A key of a limiter.
pub(super) trait Named: Send + Sync + 'static {
    /// Adds bytes that no other key of the same type has.
    fn write(&self, bytes: &mut Vec<u8>);
}

/// Under which the key of a provider is counted: 32 hex digits.
pub(super) fn of<K: Named>((provider, key): &(ProviderId, K)) -> String {
    let mut bytes = provider.as_bytes().to_vec();
    key.write(&mut bytes);
    digest(&SHA256, &bytes).as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Named for () {
    fn write(&self, _: &mut Vec<u8>) {}
}

impl Named for Address {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_str().as_bytes());
    }
}

impl Named for AccountId {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_bytes());
    }
}

impl Named for (AccountId, DeviceId) {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.0.write(bytes);
        bytes.extend_from_slice(&self.1.get().to_be_bytes());
    }
}

impl Named for (Address, AccountId) {
    fn write(&self, bytes: &mut Vec<u8>) {
        // The one of fixed length first.
        self.1.write(bytes);
        self.0.write(bytes);
    }
}

#[cfg(test)]
impl Named for u8 {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(*self);
    }
}

#[cfg(test)]
impl Named for i32 {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_keys_apart_and_nothing_else() {
        let (provider, ada) = (ProviderId::from_bytes([1; 16]), "ada@birdy.example".parse::<Address>().unwrap());
        let name = of(&(provider, ada.clone()));
        assert_eq!(name.len(), 32);
        assert_ne!(name, of(&(ProviderId::from_bytes([2; 16]), ada.clone())));
        assert_ne!(name, of(&(provider, "bo@birdy.example".parse::<Address>().unwrap())));
        let account = AccountId::from_bytes([3; 16]);
        assert_ne!(of(&(provider, (ada, account))), of(&(provider, account)));
    }
}
