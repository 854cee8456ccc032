//! What most scenarios begin with.

use crate::{Deployment, Device, Kind, Program, Provider, Settings, Shape};

/// A deployment, its home provider, and one other.
pub struct World {
    /// The operator's side.
    pub net: Deployment,
    /// The operator's own messenger.
    pub home: Provider,
    /// Somebody else's.
    pub birdy: Provider,
}

impl World {
    /// Starts all three.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_as(Shape::One, &[]).await
    }

    /// Starts all three, the deployment with further settings.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start_with(settings: Settings<'_>) -> anyhow::Result<Self> {
        Self::start_as(Shape::One, settings).await
    }

    /// Starts all three, the deployment in this shape and with further settings.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start_as(shape: Shape, settings: Settings<'_>) -> anyhow::Result<Self> {
        Self::start_with_program(Program::Present, shape, settings).await
    }

    /// Starts all three, the deployment in this shape, with further settings, and with processes that run this program.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start_with_program(program: Program, shape: Shape, settings: Settings<'_>) -> anyhow::Result<Self> {
        let net = Deployment::start_with(program, shape, settings).await?;
        let home = Provider::start(&net, "home.example", Kind::Home).await?;
        let birdy = Provider::start(&net, "birdy.example", Kind::ThirdParty).await?;
        Ok(Self { net, home, birdy })
    }

    /// A device of a user of the other provider, opted in.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn at_birdy(&self, user: &str) -> anyhow::Result<Device> {
        Device::opted_in(&self.net, &self.birdy, user).await
    }

    /// A device of a user of the home provider, opted in.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn at_home(&self, user: &str) -> anyhow::Result<Device> {
        Device::opted_in(&self.net, &self.home, user).await
    }
}
