//! Where the processes of a deployment listen, and how they find each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Context as _;
use causeway_test_servers::{Port, Postgres, Redis};

use super::{Deployment, Process, Replica, Shape};
use crate::front::Front;
use crate::store::Store;

impl Deployment {
    /// Settles all of it for a deployment of more than one process.
    pub(super) async fn take_places(&mut self) -> anyhow::Result<()> {
        for replica in self.replicas() {
            for field in listeners(replica.process) {
                // Where clients and operators come to is known already if there is one of it.
                if self.shape.has_stores() || field.starts_with("server.") && *field != "server.operator_listen" {
                    let port = Port::claim()?;
                    self.set(replica, field, format!("\"{}\"", port.address()));
                    self.ports.push(port);
                }
            }
        }
        for (process, field, urls) in [
            (Process::KeyDirectory, "server.directory_listen", "server.directory_urls"),
            (Process::Routing, "server.routing_listen", "server.routing_urls"),
            (Process::MediaRelay, "server.media_listen", "server.media_urls"),
        ] {
            let addresses: Vec<_> =
                self.addresses(process, field)?.iter().map(|one| format!("\"{}\"", self.url(*one))).collect();
            self.settings.insert(urls.to_owned(), format!("[{}]", addresses.join(", ")));
        }
        if self.shape == Shape::ReplicasApart {
            let directories = self.addresses(Process::KeyDirectory, "server.directory_listen")?;
            for replica in self.replicas() {
                let directory = directories[usize::from(replica.process == Process::Edge)];
                self.set(replica, "server.directory_urls", format!("[\"http://{directory}\"]"));
            }
        }
        if self.shape.has_tls() {
            self.certify().await?;
        }
        if self.shape.has_stores() {
            self.start_stores().await?;
            self.put_fronts().await?;
            for replica in self.replicas().into_iter().filter(|replica| replica.process == Process::Routing) {
                let url = format!("\"{}\"", self.url(self.address(replica, "server.routing_listen")?));
                self.set(replica, "routing.advertise_url", url);
                self.set(replica, "routing.name", format!("\"{replica}\""));
            }
        }
        Ok(())
    }

    async fn start_stores(&mut self) -> anyhow::Result<()> {
        let (postgres, url, redis) = tokio::task::spawn_blocking(|| {
            let postgres = Postgres::start()?;
            let url = postgres.create_database()?;
            anyhow::Ok((postgres, url, Redis::start()?))
        })
        .await??;
        // Each process knows of its own section only: one without the rest of it would be refused.
        for replica in self.replicas() {
            let (section, on_postgres) = match replica.process {
                Process::All => continue,
                Process::KeyDirectory => ("directory", true),
                Process::Routing => ("routing", true),
                Process::MediaRelay => ("media", false),
                Process::Edge => ("edge", false),
            };
            self.set(replica, &format!("{section}.redis.addresses"), format!("[\"127.0.0.1:{}\"]", redis.port()));
            if on_postgres {
                self.set(replica, &format!("{section}.store"), "\"postgres\"".to_owned());
                self.set(replica, &format!("{section}.postgres.url"), format!("\"{url}\""));
                // This server never outlives the machine that it runs on.
                self.set(replica, &format!("{section}.postgres.allow_unsafe_durability"), "true".to_owned());
            }
        }
        self.postgres = Some(Store::new(postgres));
        self.redis = Some(Store::new(redis));
        Ok(())
    }

    /// One address for all replicas of what clients and operators come to.
    async fn put_fronts(&mut self) -> anyhow::Result<()> {
        self.ready.edge = self.put_front(Process::Edge, "edge.listen").await?;
        self.ready.websocket = self.put_front(Process::Edge, "edge.websocket_listen").await?;
        self.ready.media = format!("http://{}", self.put_front(Process::MediaRelay, "media.listen").await?);
        let operator = self.put_front(Process::KeyDirectory, "server.operator_listen").await?;
        self.ready.operator = self.url(operator);
        self.settings.insert("media.public_base".to_owned(), format!("\"{}\"", self.ready.media));
        Ok(())
    }

    async fn put_front(&mut self, process: Process, field: &str) -> anyhow::Result<SocketAddr> {
        let front = Front::start(self.addresses(process, field)?).await?;
        let address = front.address();
        self.fronts.push(front);
        Ok(address)
    }

    /// How a service that listens there is called by the others.
    fn url(&self, address: SocketAddr) -> String {
        if self.shape.has_tls() { format!("https://localhost:{}", address.port()) } else { format!("http://{address}") }
    }

    /// How the first process of this kind is called by other services.
    ///
    /// # Errors
    /// It serves no others.
    pub fn url_of(&self, process: Process) -> anyhow::Result<String> {
        let field = match process {
            Process::KeyDirectory => "server.directory_listen",
            Process::Routing => "server.routing_listen",
            Process::MediaRelay => "server.media_listen",
            Process::All | Process::Edge => anyhow::bail!("it serves clients only"),
        };
        Ok(self.url(self.address(process.into(), field)?))
    }

    /// Where a process answers probes: `http://host:port`.
    ///
    /// # Errors
    /// Nowhere: there is one process, and no setting says so.
    pub fn health_url(&self, replica: Replica) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.address(replica, "server.health_listen")?))
    }

    /// The configuration file of a process.
    pub fn config_file(&self, replica: Replica) -> std::path::PathBuf {
        self.folder.path().join(format!("{replica}.toml"))
    }

    /// All settings of a process.
    pub(super) fn settings_of(&self, replica: Replica) -> BTreeMap<String, String> {
        let mut settings = self.settings.clone();
        settings.extend(self.own.get(&replica).cloned().unwrap_or_default());
        settings
    }

    /// Where a process listens.
    pub(super) fn address(&self, replica: Replica, field: &str) -> anyhow::Result<SocketAddr> {
        let own = self.own.get(&replica).and_then(|settings| settings.get(field));
        let address = own.or_else(|| self.settings.get(field)).with_context(|| format!("{replica} has no {field}"))?;
        Ok(address.trim_matches('"').parse()?)
    }

    fn addresses(&self, process: Process, field: &str) -> anyhow::Result<Vec<SocketAddr>> {
        let replicas = self.replicas().into_iter().filter(|replica| replica.process == process);
        replicas.map(|replica| self.address(replica, field)).collect()
    }

    pub(super) fn set(&mut self, replica: Replica, field: &str, value: String) {
        self.own.entry(replica).or_default().insert(field.to_owned(), value);
    }
}

fn listeners(process: Process) -> &'static [&'static str] {
    match process {
        Process::All => &[],
        Process::KeyDirectory => &["server.health_listen", "server.directory_listen", "server.operator_listen"],
        Process::Routing => &["server.health_listen", "server.routing_listen"],
        Process::MediaRelay => &["server.health_listen", "server.media_listen", "media.listen"],
        Process::Edge => &["server.health_listen", "edge.listen", "edge.websocket_listen"],
    }
}
