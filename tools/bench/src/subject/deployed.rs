//! Causeway, deployed.

use tokio::runtime::Runtime;

use super::{Pair, Subject};
use crate::deployment::{Deployment, Kind, Plan, Store, Watched};
use crate::holders;
use crate::people::{self, Device, Keys, Wanted};
use crate::report::progress;
use crate::wire::causeway::{Causeway, Login, Net, Template};

/// A deployment, and people on it.
pub(crate) struct Deployed<'s> {
    deployment: Deployment,
    net: Net,
    name: String,
    kind: Kind,
    store: Store,
    keys: &'s Keys,
    runtime: &'s Runtime,
}

impl<'s> Deployed<'s> {
    /// Starts one.
    pub(crate) fn start(plan: &Plan, keys: &'s Keys, runtime: &'s Runtime) -> anyhow::Result<Self> {
        let store = if plan.store == Store::Sqlite { "SQLite" } else { "PostgreSQL" };
        let kind = match plan.kind {
            Kind::All => "causeway all",
            Kind::Split => "separate processes with mutual TLS",
        };
        let deployment = Deployment::start(plan, runtime)?;
        let net = deployment.net();
        let name = format!("{kind}, {store}");
        Ok(Self { deployment, net, name, kind: plan.kind, store: plan.store, keys, runtime })
    }

    /// Makes and enlists people.
    pub(crate) fn enlist(&mut self, wanted: Wanted<'_>) -> anyhow::Result<Vec<Device>> {
        progress::line(&format!("{}: enlisting {}", self.name, wanted.accounts * wanted.devices));
        let (providers, edges) = (self.deployment.providers(), self.deployment.edges());
        let mut devices = people::make(wanted, providers, edges, self.keys, self.runtime)?;
        people::enlist(&mut self.net, &mut devices, self.keys)?;
        Ok(devices)
    }

    /// Senders and recipients of these names, who are at different providers.
    pub(crate) fn cast(
        &mut self,
        [sender, recipient]: [&str; 2],
        accounts: usize,
        devices: usize,
        body: usize,
    ) -> anyhow::Result<Vec<Pair<Causeway>>> {
        let wanted = Wanted { name: sender, accounts, devices: 1, provider: 0, supplied: false };
        let senders = self.enlist(wanted)?;
        let recipients = self.enlist(Wanted { name: recipient, devices, provider: 1, ..wanted })?;
        let pairs = senders.iter().zip(recipients.chunks(devices)).map(|(sender, to)| {
            let named = to.iter().map(Device::named).collect::<anyhow::Result<Vec<_>>>()?;
            let message = Template::new(&to[0].address, &named, body)?;
            Ok(Pair { sender: sender.login()?, recipients: logins(to)?, message })
        });
        pairs.collect()
    }
}

/// What devices log in with.
pub(crate) fn logins<'d>(devices: impl IntoIterator<Item = &'d Device>) -> anyhow::Result<Vec<Login>> {
    devices.into_iter().map(Device::login).collect()
}

impl Subject for Deployed<'_> {
    type Wire = Causeway;

    fn name(&self) -> &str {
        &self.name
    }

    fn ours(&self) -> Option<(bool, Store)> {
        Some((self.kind == Kind::All, self.store))
    }

    fn net(&self) -> &Net {
        &self.net
    }

    fn watched(&self) -> Vec<Watched> {
        self.deployment.watched()
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.deployment.check()
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.deployment.kill()
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        self.deployment.stop()
    }

    fn start_again(&mut self) -> anyhow::Result<()> {
        self.deployment.start_again()
    }

    fn users(&mut self, count: usize) -> anyhow::Result<Vec<Login>> {
        let wanted = Wanted { name: "user", accounts: count, devices: 1, provider: 0, supplied: false };
        logins(&self.enlist(wanted)?)
    }

    fn orders(&self, logins: &[Login]) -> anyhow::Result<Vec<String>> {
        holders::orders(&self.net, logins)
    }

    fn pairs(&mut self, count: usize, body: usize, _present: bool) -> anyhow::Result<Vec<Pair<Causeway>>> {
        self.cast(["sender", "recipient"], count, 1, body)
    }
}
