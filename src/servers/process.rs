//! Supplies servers: images by HQ's registry, folders by programs there, `mkdir` and `rm`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Lines;
use super::registry::{Destination, Registry};
use super::ssh::Done;
use super::supply::{Supply, SupplyError};
use crate::docker::engines::Engines;
use crate::names::{ImageId, ServerName};

/// How long a small command may take.
const COMMAND: Duration = Duration::from_secs(60);

/// Programs of any user inside the container may write to it; the folders above are their owner's alone.
const MAKE: &str = r#"[ -d "$1" ] || { umask 077 && mkdir -p -- "$1" && chmod 0777 -- "$1"; }"#;

/// Over the lines.
pub struct Programs {
    registry: Arc<Registry>,
    engines: Engines,
    lines: Lines,
}

impl Programs {
    /// From this registry to these engines, over these lines.
    pub fn new(registry: Arc<Registry>, engines: Engines, lines: Lines) -> Self {
        Self { registry, engines, lines }
    }

    async fn command(&self, server: &ServerName, words: &[&str]) -> Result<Done, SupplyError> {
        Ok(self.lines.of(server)?.link().await?.exec(words, tokio::io::empty(), COMMAND).await?)
    }

    async fn on_folder(
        &self,
        server: &ServerName,
        folder: &Path,
        doing: &'static str,
        script: &str,
    ) -> Result<(), SupplyError> {
        let failed = |why| SupplyError::Folder { doing, server: server.clone(), folder: folder.to_owned(), why };
        let path = folder.to_str().ok_or_else(|| failed("its name is not UTF-8".to_owned()))?;
        let done = self.command(server, &["sh", "-c", script, "sh", path]).await?;
        if done.code == 0 { Ok(()) } else { Err(failed(last_line(&done.stderr))) }
    }
}

#[async_trait]
impl Supply for Programs {
    async fn image(&self, server: &ServerName, image: &ImageId) -> Result<(), SupplyError> {
        let to = Destination { line: self.lines.of(server)?, engine: self.engines.of(server)? };
        self.registry.supply(&to, image, &|_| {}).await?;
        Ok(())
    }

    async fn make_folder(&self, server: &ServerName, folder: &Path) -> Result<(), SupplyError> {
        self.on_folder(server, folder, "make", MAKE).await
    }

    async fn remove_folder(&self, server: &ServerName, folder: &Path) -> Result<(), SupplyError> {
        self.on_folder(server, folder, "remove", "rm -rf -- \"$1\"").await
    }
}

fn last_line(output: &[u8]) -> String {
    String::from_utf8_lossy(output).trim().lines().next_back().unwrap_or("it gives no reason").to_owned()
}
