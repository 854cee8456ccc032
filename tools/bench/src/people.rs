//! Accounts and their devices.

mod enlist;
mod keys;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use causeway_identity::{Address, DeviceId};
use causeway_noise::StaticKey;
use causeway_stanza::{ClientHello, Encoding, RegistrationId, Text, Token};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use tokio::runtime::Runtime;

use crate::deployment::provider::Provider;
use crate::wire::causeway::Login;

pub(crate) use self::enlist::enlist;
pub(crate) use self::keys::Keys;

/// A device.
pub(crate) struct Device {
    /// Its account's address.
    pub(crate) address: Address,
    /// Its edge.
    edge: SocketAddr,
    key: Arc<StaticKey>,
    token: String,
    /// It sets its account's consent.
    first: bool,
    /// Whether its one-time keys are to be claimed.
    supplied: bool,
    id: Option<DeviceId>,
    registration: RegistrationId,
}

/// What devices are to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'n> {
    /// What their names begin with.
    pub(crate) name: &'n str,
    /// How many accounts, which are at the two providers in turn, beginning with this one.
    pub(crate) accounts: usize,
    /// Devices of each.
    pub(crate) devices: usize,
    /// The provider of the first account: 0 is the operator's own.
    pub(crate) provider: usize,
    /// With a full supply of one-time keys.
    pub(crate) supplied: bool,
}

impl Device {
    /// What it logs in with.
    pub(crate) fn login(&self) -> anyhow::Result<Login> {
        let hello = ClientHello {
            token: Token::try_from(self.token.as_str()).ok().context("a token")?,
            device: self.id,
            encoding: Encoding::Binary,
            agent: Text::lossy("causeway-bench"),
            forwarded: None,
        };
        Ok(Login { edge: self.edge, key: Arc::clone(&self.key), hello: hello.encode().into() })
    }

    /// Its id and registration.
    pub(crate) fn named(&self) -> anyhow::Result<(DeviceId, RegistrationId)> {
        Ok((self.id.context("the device is not enlisted")?, self.registration))
    }
}

/// Makes devices that are not enlisted yet, those of one account one after the other.
pub(crate) fn make(
    wanted: Wanted<'_>,
    providers: &[Provider],
    edges: &[SocketAddr],
    keys: &Keys,
    runtime: &Runtime,
) -> anyhow::Result<Vec<Device>> {
    let mut devices = Vec::with_capacity(wanted.accounts * wanted.devices);
    for account in 0..wanted.accounts {
        let provider = &providers[(wanted.provider + account) % providers.len()];
        let user = format!("{}{account}", wanted.name);
        for device in 0..wanted.devices {
            let key = StaticKey::generate(&mut OsRng.unwrap_err());
            let token = runtime.block_on(provider.token(&user, key.public()))?;
            devices.push(Device {
                address: provider.address(&user)?,
                edge: edges[devices.len() % edges.len()],
                key: Arc::new(key),
                token,
                first: device == 0,
                supplied: wanted.supplied,
                id: None,
                registration: keys.registration(),
            });
        }
    }
    Ok(devices)
}
