//! Carries the collection out. Nothing here may fail an operation: what cannot go now goes the next time.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{Budget, ENDED, Room, Surplus, Then, are_scattered, is_begun, stray_files, surplus, unused_env};
use crate::db::{DbError, Guard, layout};
use crate::docker::{EngineError, State};
use crate::hq::doctor::act::disk_used;
use crate::hq::fleet::Seen;
use crate::hq::git::GitError;
use crate::hq::git::packs::{Packs, put_together};
use crate::hq::tasks::Diary;
use crate::hq::{Hq, HqError};
use crate::instruction::Instruction;
use crate::launch::files::remove_folder;
use crate::launch::label;
use crate::launch::record::Release;
use crate::names::{ReleaseNumber, StackName};
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
        self.collect_stack(stack, self.room().await, Then::Take).await.map(drop)
    }

    /// What could be done without of a stack of which the caller holds the turn.
    async fn collect_stack(&self, stack: &StackName, room: Room, then: Then) -> Result<Vec<Surplus>, HqError> {
        let releases = self.releases(stack).await?;
        let budget = Budget::of(&self.settings, room, self.clock.now());
        let dropped = surplus(&releases, &budget);
        let kept = &releases[dropped.len()..];
        let needed = self.needed(stack, kept).await?;
        let release = |release: &&Release| Surplus::Release { stack: stack.clone(), release: release.number };
        let mut found: Vec<Surplus> = dropped.iter().map(release).collect();
        if then == Then::Take {
            for release in &dropped {
                self.drop_release(stack, release, &needed).await?;
            }
            self.collect_env(stack, kept).await?;
            self.collect_far(stack, &needed).await?;
        }
        found.extend(self.collect_images(stack, (kept, &dropped), needed, (room, then)).await?);
        found.extend(self.collect_files(stack, (kept, &dropped), room, then).await?);
        found.extend(self.collect_packs(stack, then).await);
        Ok(found)
    }

    /// Packs of the stack's repositories that are put together. Not while a backup reads them one by one.
    async fn collect_packs(&self, stack: &StackName, then: Then) -> Vec<Surplus> {
        let Ok(_alone) = self.packs.try_write() else { return Vec::new() };
        let (root, stack, now) = (self.root.clone(), stack.clone(), self.clock.now());
        let work = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            for repository in ["repo.git", "modules.git"] {
                let path = format!("stacks/{stack}/{repository}");
                match gather(&root.join(&path), now, then) {
                    Ok(Some(count)) => found.push(Surplus::Packs { path, count }),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%stack, error = ?error, "packs are not put together for now"),
                }
            }
            found
        });
        work.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// The images that kept releases launch and that nodes have, whether a container of theirs runs or not.
    async fn needed(&self, stack: &StackName, kept: &[Release]) -> Result<BTreeSet<String>, DbError> {
        let mut needed: BTreeSet<String> = kept.iter().flat_map(images).collect();
        needed.extend(self.procs(stack).await?.iter().map(|proc| proc.settings.image.to_string()));
        Ok(needed)
    }

    /// Images on HQ's machine of releases that never came to serve, or whose record is gone.
    async fn collect_images(
        &self,
        stack: &StackName,
        (kept, dropped): (&[Release], &[&Release]),
        mut needed: BTreeSet<String>,
        (room, then): (Room, Then),
    ) -> Result<Vec<Surplus>, HqError> {
        // Those of a release that goes are told with it.
        needed.extend(dropped.iter().flat_map(|release| images(release)));
        let folder = format!("quarry/{stack}");
        let (engine, server) = (self.engines().local(), self.engines().here());
        let mut found = Vec::new();
        for image in engine.images(&folder).await?.into_iter().filter(|image| !needed.contains(image.id.as_str())) {
            let own = |tag: &&String| tag.starts_with(&format!("{folder}/")) && self.launcher.identity.has_made(tag);
            for tag in image.tags.iter().filter(own).filter(|tag| room == Room::Scarce || !is_begun(tag, kept.last())) {
                if then == Then::Take {
                    self.gone(engine.remove_image(tag).await)?;
                }
                found.push(Surplus::Image { server: server.clone(), image: tag.clone() });
            }
        }
        Ok(found)
    }

    /// Sites and tarballs of releases that are gone; where room is scarce the checkout too.
    async fn collect_files(
        &self,
        stack: &StackName,
        (kept, dropped): (&[Release], &[&Release]),
        room: Room,
        then: Then,
    ) -> Result<Vec<Surplus>, HqError> {
        let known: BTreeSet<ReleaseNumber> =
            kept.iter().chain(dropped.iter().copied()).map(|release| release.number).collect();
        let (root, stack) = (self.root.clone(), stack.clone());
        let work = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            for folder in [format!("sites/{stack}"), format!("stacks/{stack}/build")] {
                for name in stray_files(&names(&root.join(&folder))?, &known) {
                    let path = format!("{folder}/{name}");
                    take(&root.join(&path), then)?;
                    found.push(Surplus::Files { path });
                }
            }
            let checkout = root.join(format!("stacks/{stack}/src"));
            if room == Room::Scarce && checkout.is_dir() {
                take(&checkout, then)?;
                found.push(Surplus::Checkout { stack });
            }
            Ok(found)
        });
        let done = work.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        done.map_err(|source| HqError::File { path: self.root.display().to_string(), source })
    }

    /// Everything that could be done without, which is taken away or told. Stacks that are busy are left for the next
    /// time.
    ///
    /// # Errors
    /// What cannot be listed.
    pub async fn sweep(&self, then: Then) -> Result<Vec<Surplus>, HqError> {
        let room = self.room().await;
        let mut found = Vec::new();
        for stack in self.known_stacks().await? {
            let Some(_turn) = self.try_turn(&stack, "the collection of old releases") else { continue };
            match self.collect_stack(&stack, room, then).await {
                Ok(more) => found.extend(more),
                Err(error) => tracing::warn!(%stack, error = ?error, "old releases could not be collected"),
            }
        }
        found.extend(self.collect_runs(then).await?);
        let days = SignedDuration::from_hours(24 * i64::from(self.settings.gc.events));
        let oldest = self.clock.now().checked_sub(days).unwrap_or(Timestamp::MIN).to_zoned(TimeZone::UTC).date();
        found.extend(self.old_events(oldest, then).await?.into_iter().map(|day| Surplus::Events { day }));
        if then == Then::Take {
            let keep = if room == Room::Scarce { 0 } else { self.settings.gc.cache.bytes() };
            let bytes = self.engines().local().trim_build_cache(keep).await?;
            found.extend((bytes > 0).then_some(Surplus::Cache { bytes }));
        }
        Ok(found)
    }

    /// Containers that ran once, have ended and are in nobody's books.
    async fn collect_runs(&self, then: Then) -> Result<Vec<Surplus>, HqError> {
        let mut known = BTreeSet::new();
        for stack in self.known_stacks().await? {
            let journal = self.book(&stack).await?.read().await;
            known.extend(journal.going().into_iter().map(|(_, container)| container.clone()));
            let tasks = self.tasks(&stack).await?;
            let running =
                |diary: &Diary| diary.runs.running().map(|number| diary.runs[&number].container.clone()).collect();
            known.extend(tasks.values().flat_map(|(_, diary)| -> Vec<_> { running(diary) }));
        }
        let before = self.clock.now().checked_sub(ENDED).map_or(0, Timestamp::as_second);
        let mut found = Vec::new();
        for Seen { server, container } in self.containers().await? {
            let text = |name: &str| container.labels.get(name).map(String::as_str);
            let own = text(label::HQ) == Some(&self.launcher.identity.id) && text(label::ROLE) == Some("once");
            let over = matches!(container.state, State::Exited(_) | State::Created | State::Dead);
            if !own || !over || container.created > before || known.contains(&container.name) {
                continue;
            }
            if then == Then::Take {
                self.engines().of(&server)?.remove(&container.name).await?;
            }
            found.push(Surplus::Container { server, container: container.name });
        }
        Ok(found)
    }

    /// Whether the disks of HQ's files and of docker's have room.
    pub async fn room(&self) -> Room {
        let mut folders = vec![self.root.clone()];
        folders.extend(self.engines().local().surroundings().await.map(|around| around.folder));
        for folder in folders {
            if disk_used(&folder).await.is_some_and(|used| used >= self.settings.gc.disk.into()) {
                return Room::Scarce;
            }
        }
        Room::Enough
    }

    /// Takes away what no kept release needs from the servers that answer; from the others the next time.
    async fn collect_far(&self, stack: &StackName, needed: &BTreeSet<String>) -> Result<(), HqError> {
        let far = self.engines().all().into_iter().filter(|(server, _)| server != self.engines().here());
        for (server, engine) in far.filter(|(server, _)| self.remembered(server).is_none()) {
            if let Err(error) = self.launcher.remove_images(&*engine, stack, needed).await {
                tracing::debug!(%stack, %server, %error, "old images stay for now");
            }
        }
        Ok(())
    }

    /// The record goes first: what is left of a release without one is known as stray, however HQ ends.
    async fn drop_release(
        &self,
        stack: &StackName,
        release: &Release,
        needed: &BTreeSet<String>,
    ) -> Result<(), HqError> {
        tracing::debug!(%stack, release = %release.number, "dropping a release");
        self.db.delete(&layout::release(stack, release.number), Guard::Any).await?;
        self.unpin_number(stack, release.number).await;
        let tag = self.launcher.identity.tag(stack, release.number);
        for instruction in &release.instructions {
            let (Some(node), Some(settings)) = (instruction.launches(), instruction.settings()) else { continue };
            // Later releases with other variables have the image and give it no name: this one may be its last, and goes
            // with the image.
            if !needed.contains(settings.image.as_str()) {
                self.gone(self.engines().local().remove_image(&format!("quarry/{stack}/{node}:{tag}")).await)?;
            }
        }
        let tarball = self.stack_folder(stack).join("build").join(format!("{}.tar.gz", release.number));
        let sites = self.sites_folder(stack, release.number);
        let removed = tokio::task::spawn_blocking(move || {
            let _ = std::fs::remove_file(tarball);
            remove_folder(&sites)
        });
        if let Ok(Err(error)) = removed.await {
            tracing::warn!(%stack, %error, "a release's site stays");
        }
        Ok(())
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
            match self.sweep(Then::Take).await {
                Ok(found) if found.is_empty() => {}
                Ok(found) => tracing::info!(count = found.len(), "what could be done without is gone"),
                Err(error) => tracing::warn!(error = ?error, "what could be done without stays for now"),
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

/// What is in a folder; one that is not there holds nothing.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn take(path: &Path, then: Then) -> io::Result<()> {
    match then {
        Then::Tell => Ok(()),
        Then::Take if path.is_dir() => remove_folder(path),
        Then::Take => fs::remove_file(path),
    }
}

/// Puts the packs of a repository together where that is due; how many there were.
fn gather(path: &Path, now: Timestamp, then: Then) -> Result<Option<usize>, GitError> {
    let packs = Packs::of(path)?;
    if !are_scattered(&packs, now) {
        return Ok(None);
    }
    if then == Then::Take {
        put_together(path, &packs)?;
    }
    Ok(Some(packs.count))
}

/// The images a release launches.
fn images(release: &Release) -> BTreeSet<String> {
    let settings = release.instructions.iter().filter_map(Instruction::settings);
    settings.map(|settings| settings.image.to_string()).collect()
}
