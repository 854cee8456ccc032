//! The Signal protocol, over records that are loaded before and written after: nothing here waits, and nothing is on
//! disk before the caller has committed what [`Keyring::take_changes`] gives out (docs/protocol.md, section 8).

mod keyring;
mod prekeys;
mod retry;
#[cfg(test)]
mod tests;

pub(crate) use keyring::Keyring;
pub(crate) use prekeys::{BATCH, Bundle, Published, enlistment, new_device, one_time_keys, publication, signed_keys};
pub(crate) use retry::{RetryRequest, ask_again};

use causeway_identity::DeviceId;
use libsignal_protocol::{ProtocolAddress, SignalProtocolError};

use crate::store::{SignalAddress, StoreError};

/// Why keys did not do what was asked of them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignalError {
    /// The local store failed: nothing can go on.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// The peer's keys or ciphertext are not acceptable, or the keys for it are not here.
    #[error("signal: {0}")]
    Signal(#[from] SignalProtocolError),
    /// Not a device that Signal can name.
    #[error("the device id does not fit Signal's range")]
    Device,
}

/// How libsignal names a device: the account id as 32 hex digits, and the device id.
pub(crate) fn protocol_address(address: SignalAddress) -> Result<ProtocolAddress, SignalError> {
    let device = u8::try_from(address.device.get()).ok().and_then(|id| libsignal_protocol::DeviceId::new(id).ok());
    Ok(ProtocolAddress::new(address.account.to_string(), device.ok_or(SignalError::Device)?))
}

/// The other way, for addresses that [`protocol_address`] made.
fn signal_address(address: &ProtocolAddress) -> Result<SignalAddress, SignalProtocolError> {
    let device = u32::from(address.device_id());
    let parts = || Some((address.name().parse().ok()?, DeviceId::new(device).ok()?));
    let invalid = || SignalProtocolError::InvalidProtocolAddress { name: address.name().to_owned(), device_id: device };
    parts().map(|(account, device)| SignalAddress { account, device }).ok_or_else(invalid)
}
