//! What containers need on another server, as one HQ brings it there.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use quarry::docker::Engine;
use quarry::names::{ImageId, ServerName};
use quarry::servers::supply::{Supply, SupplyError};

use super::machine::Docker;

/// Carries images from HQ's own engine to the others.
pub struct Carrier {
    /// HQ's own first.
    pub engines: Vec<Arc<Docker>>,
}

impl Carrier {
    fn engine(&self, server: &ServerName) -> &Arc<Docker> {
        self.engines.iter().find(|engine| engine.machine.name == *server).unwrap()
    }
}

#[async_trait]
impl Supply for Carrier {
    async fn image(&self, server: &ServerName, image: &ImageId) -> Result<(), SupplyError> {
        let (here, there) = (&self.engines[0], self.engine(server));
        if there.image(image.as_str()).await?.is_none() {
            let found = here.image(image.as_str()).await?;
            let found = found.ok_or_else(|| SupplyError::Save { why: format!("there is no image {image}") })?;
            there.load(found).await?;
        }
        let tags = here.image(image.as_str()).await?.map(|image| image.tags).unwrap_or_default();
        for tag in tags.iter().filter(|tag| tag.starts_with("quarry/")) {
            there.tag(image.as_str(), tag).await?;
        }
        Ok(())
    }

    async fn make_folder(&self, server: &ServerName, _folder: &Path) -> Result<(), SupplyError> {
        Ok(self.engine(server).version().await.map(drop)?)
    }

    async fn remove_folder(&self, server: &ServerName, _folder: &Path) -> Result<(), SupplyError> {
        Ok(self.engine(server).version().await.map(drop)?)
    }
}
