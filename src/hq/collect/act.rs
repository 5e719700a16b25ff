//! Carries the collection out. Nothing here may fail an operation: what cannot go now goes the next time.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{surplus, unused_env};
use crate::db::{DbError, Guard, layout};
use crate::docker::EngineError;
use crate::hq::{Hq, HqError};
use crate::instruction::Instruction;
use crate::launch::files::remove_folder;
use crate::launch::record::Release;
use crate::names::StackName;
use crate::servers::registry::remove_stale;

/// Between two collections of what other places still hold.
const PERIOD: Duration = Duration::from_secs(10 * 60);

impl Hq {
    /// Drops what is beyond the budget of a stack that is at rest; busy ones are left for the next time.
    pub async fn collect(&self, stack: &StackName) {
        let Some(_turn) = self.try_turn(stack, "the collection of old releases") else { return };
        if let Err(error) = self.try_collect(stack).await {
            tracing::warn!(%stack, error = ?error, "old releases could not be collected");
        }
    }

    async fn try_collect(&self, stack: &StackName) -> Result<(), HqError> {
        let releases = self.releases(stack).await?;
        let dropped = surplus(&releases, self.settings.releases_kept as usize);
        for release in &dropped {
            self.drop_release(stack, release, &releases[dropped.len()..]).await?;
        }
        self.collect_env(stack, &releases[dropped.len()..]).await?;
        self.collect_far(stack, &releases[dropped.len()..]).await?;
        Ok(())
    }

    /// Takes away what no kept release needs from the servers that answer; from the others the next time.
    async fn collect_far(&self, stack: &StackName, kept: &[Release]) -> Result<(), HqError> {
        let mut needed: BTreeSet<String> = kept.iter().flat_map(images).collect();
        needed.extend(self.procs(stack).await?.iter().map(|proc| proc.settings.image.to_string()));
        let far = self.engines().all().into_iter().filter(|(server, _)| server != self.engines().here());
        for (server, engine) in far.filter(|(server, _)| self.remembered(server).is_none()) {
            if let Err(error) = self.launcher.remove_images(&*engine, stack, &needed).await {
                tracing::debug!(%stack, %server, %error, "old images stay for now");
            }
        }
        Ok(())
    }

    async fn drop_release(&self, stack: &StackName, release: &Release, kept: &[Release]) -> Result<(), HqError> {
        let needed: BTreeSet<String> = kept.iter().flat_map(images).collect();
        let tag = self.launcher.identity.tag(stack, release.number);
        for node in release.instructions.iter().filter_map(Instruction::launches) {
            self.gone(self.engines().local().remove_image(&format!("quarry/{stack}/{node}:{tag}")).await)?;
        }
        tracing::debug!(%stack, release = %release.number, needed = needed.len(), "dropping a release");
        self.unpin_number(stack, release.number).await;
        let tarball = self.stack_folder(stack).join("build").join(format!("{}.tar.gz", release.number));
        let sites = self.sites_folder(stack, release.number);
        let removed = tokio::task::spawn_blocking(move || {
            let _ = std::fs::remove_file(tarball);
            remove_folder(&sites)
        });
        if let Ok(Err(error)) = removed.await {
            tracing::warn!(%stack, %error, "a release's site stays");
        }
        Ok(self.db.delete(&layout::release(stack, release.number), Guard::Any).await?)
    }

    /// Collects what is left of images elsewhere than in HQ's docker, until the process ends.
    pub async fn keep_collecting(self: std::sync::Arc<Self>) {
        loop {
            tokio::time::sleep(PERIOD).await;
            if let Err(error) = self.registry.sweep().await {
                tracing::warn!(error = ?error, "HQ's registry could not be swept");
            }
            match self.known_stacks().await {
                Ok(stacks) => self.collect_elsewhere(&stacks).await,
                Err(error) => tracing::warn!(%error, "the stacks cannot be listed"),
            }
        }
    }

    async fn collect_elsewhere(&self, stacks: &BTreeSet<StackName>) {
        let others = self.engines().all().into_iter().filter(|(server, _)| server != self.engines().here());
        for (server, engine) in others {
            for stack in stacks {
                let own = |tag: &str| self.launcher.identity.has_made(tag);
                let removed = remove_stale(&*engine, self.engines().local(), &format!("quarry/{stack}"), own).await;
                if let Err(error) = removed {
                    tracing::debug!(%server, %error, "old images stay on a server for now");
                    break;
                }
            }
        }
    }

    /// An image that something else still uses is none of ours to force away.
    fn gone(&self, removed: Result<(), EngineError>) -> Result<(), HqError> {
        match removed {
            Err(EngineError::Conflict { .. } | EngineError::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn collect_env(&self, stack: &StackName, kept: &[Release]) -> Result<(), DbError> {
        let entries = layout::all(&*self.db, &layout::env_versions_prefix(stack)).await?;
        let number = |text: &str| text.strip_suffix(".json").and_then(|text| text.parse().ok());
        let all: Vec<u64> = entries.iter().filter_map(|entry| number(entry.key.last())).collect();
        let running = self.procs(stack).await?.iter().map(|proc| proc.env_version).collect();
        for version in unused_env(&all, kept, &running) {
            self.db.delete(&layout::env_version(stack, version), Guard::Any).await?;
        }
        Ok(())
    }

    /// Removes the files of a stack that is being destroyed: repository, checkout, tarballs, sites and volumes.
    ///
    /// # Errors
    /// The folder that cannot be removed.
    pub async fn remove_folders(&self, stack: &StackName) -> Result<(), HqError> {
        let folders = [
            self.stack_folder(stack).join("repo.git"),
            self.stack_folder(stack).join("src"),
            self.stack_folder(stack).join("logs"),
            self.stack_folder(stack).join("build"),
            self.root.join("sites").join(stack.as_str()),
            self.root.join("volumes").join(stack.as_str()),
        ];
        for folder in folders {
            let path = folder.display().to_string();
            let removed = tokio::task::spawn_blocking(move || remove_folder(&folder)).await;
            let removed = removed.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
            removed.map_err(|source| HqError::File { path, source })?;
        }
        Ok(())
    }
}

/// The images a release launches.
fn images(release: &Release) -> BTreeSet<String> {
    let settings = release.instructions.iter().filter_map(Instruction::settings);
    settings.map(|settings| settings.image.to_string()).collect()
}
