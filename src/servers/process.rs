//! Supplies servers by programs: `docker save` here into `docker load` there, `mkdir` and `rm` there.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::process::Command;

use super::Lines;
use super::ssh::Done;
use super::supply::{Supply, SupplyError};
use crate::docker::engines::Engines;
use crate::names::{ImageId, ServerName};

/// How long one image may take.
const IMAGE: Duration = Duration::from_secs(30 * 60);

/// How long a small command may take.
const COMMAND: Duration = Duration::from_secs(60);

/// Programs of any user inside the container may write to it; the folders above are their owner's alone.
const MAKE: &str = r#"[ -d "$1" ] || { umask 077 && mkdir -p -- "$1" && chmod 0777 -- "$1"; }"#;

/// Images whole and by name, over the lines.
pub struct Programs {
    engines: Engines,
    lines: Lines,
}

impl Programs {
    /// Between these engines, over these lines.
    pub fn new(engines: Engines, lines: Lines) -> Self {
        Self { engines, lines }
    }

    async fn stream(&self, server: &ServerName, image: &ImageId) -> Result<(), SupplyError> {
        let link = self.lines.of(server)?.bulk().await?;
        let failed = |error: std::io::Error| SupplyError::Save { why: error.to_string() };
        let mut save = Command::new("docker");
        save.args(["save", image.as_str()]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut save = save.kill_on_drop(true).spawn().map_err(failed)?;
        let output = save.stdout.take().expect("its output was asked for");
        let loaded = link.exec(&["docker", "load", "--quiet"], output, IMAGE).await?;
        let saved = save.wait_with_output().await.map_err(failed)?;
        if !saved.status.success() {
            return Err(SupplyError::Save { why: last_line(&saved.stderr) });
        }
        match loaded.code {
            0 => Ok(()),
            _ => Err(SupplyError::Load { server: server.clone(), why: last_line(&loaded.stderr) }),
        }
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
        let there = self.engines.of(server)?;
        if there.image(image.as_str()).await?.is_none() {
            self.stream(server, image).await?;
        }
        // By their names old images are found and removed when their release is.
        let tags = self.engines.local().image(image.as_str()).await?.map(|image| image.tags).unwrap_or_default();
        for tag in tags.iter().filter(|tag| tag.starts_with("quarry/")) {
            there.tag(image.as_str(), tag).await?;
        }
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
