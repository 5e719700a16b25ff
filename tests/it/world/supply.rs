//! What containers need on another server, as one HQ brings it there.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use quarry::docker::{Engine, EngineError};
use quarry::names::{ImageId, ServerName};
use quarry::servers::supply::{Supply, SupplyError};

use super::World;
use super::life::Life;
use super::machine::{Docker, Machine};

/// Carries images from HQ's own engine to the others.
pub struct Carrier {
    pub world: Arc<World>,
    pub life: Arc<Life>,
}

impl Carrier {
    fn engine(&self, server: &ServerName) -> Result<Docker, EngineError> {
        let machine = self.world.seated(server).ok_or_else(|| EngineError::NoServer { server: server.clone() })?;
        Ok(self.docker(machine))
    }

    fn docker(&self, machine: Arc<Machine>) -> Docker {
        Docker { world: self.world.clone(), life: self.life.clone(), machine }
    }
}

#[async_trait]
impl Supply for Carrier {
    async fn image(&self, server: &ServerName, image: &ImageId) -> Result<(), SupplyError> {
        let (here, there) = (self.docker(self.world.own()), self.engine(server)?);
        if there.image(image.as_str()).await?.is_none() {
            let found = here.image(image.as_str()).await?;
            let found = found.ok_or_else(|| EngineError::NotFound { what: format!("image `{image}`") })?;
            there.load(found).await?;
        }
        let tags = here.image(image.as_str()).await?.map(|image| image.tags).unwrap_or_default();
        for tag in tags.iter().filter(|tag| tag.starts_with("quarry/")) {
            there.tag(image.as_str(), tag).await?;
        }
        Ok(())
    }

    async fn make_folder(&self, server: &ServerName, _folder: &Path) -> Result<(), SupplyError> {
        Ok(self.engine(server)?.version().await.map(drop)?)
    }

    async fn remove_folder(&self, server: &ServerName, _folder: &Path) -> Result<(), SupplyError> {
        Ok(self.engine(server)?.version().await.map(drop)?)
    }
}
