//! The deployment of the whole-system tests, which nobody disturbs: for the load and the checker alone.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use causeway_tests::{Deployment as Net, Shape};

use super::providers::Operator;
use super::run::{Environment, FaultCounts};
use super::settings::SETTINGS;
use crate::client::dial::Deployment;

/// `causeway all`, with SQLite.
pub struct Plain {
    net: Net,
    log: PathBuf,
}

impl Plain {
    /// Starts it; its log goes to `folder` in the end.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(folder: &std::path::Path) -> anyhow::Result<Self> {
        Ok(Self { net: Net::start(Shape::One, SETTINGS).await?, log: folder.join("causeway.log") })
    }
}

#[async_trait::async_trait]
impl Environment for Plain {
    fn deployment(&self) -> Deployment {
        let ready = self.net.ready();
        Deployment { edges: vec![ready.edge], name: ready.deployment.clone(), root: ready.root }
    }

    fn operator(&self) -> Operator {
        let ready = self.net.ready();
        let token = self.net.operator_token().unwrap_or_default();
        Operator { url: ready.operator.clone(), token, media: ready.media.clone() }
    }

    async fn disturb(&mut self, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            self.net.assert_alive()?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn fault_counts(&self) -> FaultCounts {
        Box::new(|| (0, 0))
    }

    async fn stores(&mut self) -> anyhow::Result<(Option<u64>, Option<u64>)> {
        std::fs::write(&self.log, self.net.log()).context("keep the log")?;
        Ok((None, None))
    }

    fn logs(&self) -> Vec<PathBuf> {
        vec![self.log.clone()]
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        self.net.terminate().await?;
        Ok(())
    }
}
