//! The supply seam: what a container needs on its server before docker can make it.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::ssh::LinkError;
use crate::docker::EngineError;
use crate::names::{ImageId, ServerName};

/// Brings to a server what its containers need. Everything may be asked for twice; what is there already costs a look.
#[async_trait]
pub trait Supply: Send + Sync {
    /// The image is on the server, under the names it has here.
    async fn image(&self, server: &ServerName, image: &ImageId) -> Result<(), SupplyError>;

    /// A folder that containers keep data in is on the server.
    async fn make_folder(&self, server: &ServerName, folder: &Path) -> Result<(), SupplyError>;

    /// The folder and everything in it is gone from the server.
    async fn remove_folder(&self, server: &ServerName, folder: &Path) -> Result<(), SupplyError>;
}

/// What could not be brought.
#[derive(Debug, thiserror::Error)]
pub enum SupplyError {
    /// The way to the server.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// One of the two engines.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The local engine did not give the image.
    #[error("docker here does not give the image: {why}")]
    Save {
        /// Its words.
        why: String,
    },
    /// The server's engine did not take the image.
    #[error("docker on `{server}` does not take the image: {why}")]
    Load {
        /// Which server.
        server: ServerName,
        /// Its words.
        why: String,
    },
    /// A folder could not be made or removed.
    #[error("cannot {doing} {} on `{server}`: {why}", folder.display())]
    Folder {
        /// What was tried.
        doing: &'static str,
        /// Which server.
        server: ServerName,
        /// Which folder.
        folder: PathBuf,
        /// The server's words.
        why: String,
    },
}
