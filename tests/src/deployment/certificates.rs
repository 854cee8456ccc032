//! Certificates of a deployment whose services speak over mutual TLS, made as an operator makes them.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use causeway_runtime::clock::SystemClock;
use causeway_runtime::grpc::Transport;
use causeway_runtime::tls::{Role, Tls, TlsConfig};
use tokio::process::Command;

use super::{Deployment, Process};
use crate::binary::program;

impl Deployment {
    /// Gives each process the certificate of its role.
    pub(super) async fn certify(&mut self) -> anyhow::Result<()> {
        self.renew_certificates().await?;
        for replica in self.replicas() {
            let config = self.tls_config(role(replica.process)?);
            for (field, file) in [
                ("server.tls.certificate_file", &config.certificate_file),
                ("server.tls.key_file", &config.key_file),
                ("server.tls.ca_file", &config.ca_file),
            ] {
                self.set(replica, field, format!("{:?}", file.to_string_lossy()));
            }
            self.set(replica, "server.tls.reload_interval_ms", "100".to_owned());
        }
        Ok(())
    }

    /// Puts new certificates, of the same authority, in the place of those that there are, all at once as Kubernetes does.
    ///
    /// # Errors
    /// They cannot be made.
    pub async fn renew_certificates(&self) -> anyhow::Result<()> {
        let (home, domain) = (self.certificates(), &self.ready.deployment);
        let authority = home.join("ca");
        if !authority.exists() {
            causewayctl(&["new-tls-ca", text(&authority)?, "--trust-domain", domain]).await?;
        }
        let versions = (1..).map(|version| home.join(format!("version-{version}")));
        let folder = versions.into_iter().find(|folder| !folder.exists()).context("a folder")?;
        for role in Role::ALL {
            let (authority, to) = (text(&authority)?, folder.join(role.name()));
            let made = ["new-tls-certificate", "--ca", authority, "--trust-domain", domain, "--role", role.name()];
            causewayctl(&[&made[..], &["--name", "localhost", text(&to)?]].concat()).await?;
        }
        let draft = home.join("draft");
        symlink(&folder, &draft).and_then(|()| std::fs::rename(&draft, home.join("current"))).context("replace")
    }

    /// How a process with a certificate of this role speaks with those of the deployment.
    ///
    /// # Errors
    /// Its services speak in plain text.
    pub fn transport_of(&self, role: Role) -> anyhow::Result<Transport> {
        let tls = Tls::load(self.tls_config(role), &self.ready.deployment, role, Arc::new(SystemClock))?;
        Ok(Transport::Mutual(tls))
    }

    /// How an operator's tool speaks with the deployment.
    pub(super) fn operator_transport(&self) -> anyhow::Result<Transport> {
        // The first start has no certificates yet.
        let secured = self.ready.operator.starts_with("https://");
        if secured { self.transport_of(Role::OperatorTool) } else { Ok(Transport::Plain) }
    }

    fn certificates(&self) -> PathBuf {
        self.folder.path().join("tls")
    }

    /// The files of a process with this role.
    pub fn tls_config(&self, role: Role) -> TlsConfig {
        let folder = self.certificates().join("current").join(role.name());
        TlsConfig {
            certificate_file: folder.join("tls.crt"),
            key_file: folder.join("tls.key"),
            ca_file: folder.join("ca.crt"),
            ..TlsConfig::default()
        }
    }
}

fn role(process: Process) -> anyhow::Result<Role> {
    Role::named(process.subcommand()).context("a process of one role")
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path in UTF-8")
}

async fn causewayctl(arguments: &[&str]) -> anyhow::Result<()> {
    let program = tokio::task::spawn_blocking(|| program("causewayctl")).await??;
    let done = Command::new(program).arg("keys").args(arguments).output().await.context("causewayctl keys")?;
    anyhow::ensure!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
