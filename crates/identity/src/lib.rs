//! Who somebody is: addresses, ids, keys that name somebody, tokens and server certificates. Pure: no I/O, no clock;
//! time comes in as an argument.
//!
//! User-visible addresses are personal data: [`Address`] and [`DeviceAddress`] print as `<address>` under `Debug`, so
//! that they cannot slip into a log; `as_str` and `to_string` of [`Address`] are for the wire and for people.

mod address;
pub mod certificate;
mod ed25519;
mod ids;
mod noise_key;
pub mod token;

pub use address::{Address, AddressError, DeviceAddress, Domain};
pub use certificate::{CertificateError, RootKey, RootKeyError, RootPublicKey, ServerCertificate, Validity};
pub use ids::{AccountId, DeviceId, IdError, MessageId, ProviderId, SessionId};
pub use noise_key::{NoiseKey, NoiseKeyError};
pub use token::{Expected, KeySet, KeySetError, TokenError, TokenHead, Verified};
