//! Logins (XX) with one token, one after the other: each ends the session before. The client's half counts, too.

use super::messages::Client;
use crate::deployment::{Deployment, People, block_on};

/// Logs in `count` times.
pub(super) fn log_in(count: u32) -> anyhow::Result<()> {
    block_on(async {
        let deployment = Deployment::start(10).await?;
        let edge = deployment.edge().await?;
        let mut before = None;
        for _ in 0..count {
            before = Some(Client::log_in(&edge, People::ADA).await?);
        }
        drop(before);
        Ok(())
    })
}
