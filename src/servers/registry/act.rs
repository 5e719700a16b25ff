//! Brings images to servers, and takes away what nobody needs any more.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use super::lock::Turns;
use super::process::Keeper;
use super::tcp::Gate;
use super::{ImageName, RegistryError, http, tag};
use crate::docker::architecture::runs;
use crate::docker::engines::Engines;
use crate::docker::{Engine, EngineError, Image, Say};
use crate::names::{ImageId, ServerName, StackName};
use crate::servers::ssh::{Line, Link};

/// An image that does not move for so long is stuck. Unpacking one large layer on a slow disk takes minutes of silence; a
/// server that is gone is noticed by its line within seconds.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Between two looks whether it has moved.
const LOOK: Duration = Duration::from_millis(500);

/// A server that an image is for.
#[derive(Clone)]
pub struct Destination {
    /// The way to it.
    pub line: Arc<Line>,
    /// Its docker.
    pub engine: Arc<dyn Engine>,
}

/// What was done for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supplied {
    /// Bytes that travelled to it; 0 when its docker had the image.
    pub bytes: u64,
}

/// HQ's registry, and the way from there to the servers.
pub struct Registry {
    local: Arc<dyn Engine>,
    keeper: Arc<Keeper>,
    patience: Duration,
    /// Two who bring the same image to the same place do it once.
    turns: Turns,
    /// Shared by those who bring images; whoever collects garbage has it alone.
    use_of_store: RwLock<()>,
    /// Something was removed since garbage was last collected.
    has_garbage: AtomicBool,
}

impl Registry {
    /// The registry of the HQ in the folder `root`, whose docker is `local`. Nothing is started yet.
    pub fn new(root: &Path, local: Arc<dyn Engine>) -> Self {
        Self {
            local,
            keeper: Arc::new(Keeper::new(root.join("registry"))),
            patience: PATIENCE,
            turns: Turns::default(),
            use_of_store: RwLock::default(),
            has_garbage: AtomicBool::new(false),
        }
    }

    /// The same, which gives up when nothing has moved for `patience`.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Sees to it that a server's docker has `image`, under the same id and by this name. Only layers that it has never
    /// seen travel. Several servers may be supplied at once; none waits for another.
    ///
    /// # Errors
    /// Within seconds when the server is down, and when nothing has moved for some minutes. What has arrived by then
    /// stays there for the next attempt.
    pub async fn supply(
        &self,
        to: &Destination,
        name: &ImageName,
        image: &ImageId,
        say: Say<'_>,
    ) -> Result<Supplied, RegistryError> {
        let server = to.line.server();
        let held = self.own(name, image).await?;
        let failed = |source| pull_failed(name, server, source);
        let own = to.engine.architecture().await.map_err(failed)?;
        if !runs(&own, &held.architecture) {
            let (name, server) = (name.clone(), server.clone());
            return Err(RegistryError::Architecture { name, built: held.architecture, server, own });
        }
        let _turn = self.turns.take(format!("{server} {image}")).await;
        let mut bytes = 0;
        if to.engine.image(image.as_str()).await.map_err(failed)?.is_none() {
            let _use = self.use_of_store.read().await;
            bytes = self.send(to, name, image, say).await?;
            info!(%server, %name, bytes, "image has been brought to a server");
        }
        to.engine.tag(image.as_str(), &name.to_string()).await.map_err(failed)?;
        Ok(Supplied { bytes })
    }

    /// What HQ's docker knows of an image.
    async fn own(&self, name: &ImageName, image: &ImageId) -> Result<Image, RegistryError> {
        let found = self.local.image(image.as_str()).await;
        let found = found.map_err(|source| RegistryError::Local { name: name.clone(), source })?;
        found.ok_or_else(|| RegistryError::NoImage { name: name.clone() })
    }

    /// Tries again when the registry was lost on the way.
    async fn send(
        &self,
        to: &Destination,
        name: &ImageName,
        image: &ImageId,
        say: Say<'_>,
    ) -> Result<u64, RegistryError> {
        loop {
            let digest = self.stock(name, image, say).await?;
            let starts = self.keeper.starts();
            match self.bring(to, name, image, &digest, say).await {
                Err(RegistryError::Pull { .. }) if self.was_restarted(starts).await => {
                    debug!(%name, "the registry fell while an image travelled");
                }
                other => return other,
            }
        }
    }

    async fn was_restarted(&self, starts: u64) -> bool {
        self.keeper.address().await.is_ok() && self.keeper.starts() != starts
    }

    /// Puts an image into the registry unless it is there, and tells its manifest's digest.
    async fn stock(&self, name: &ImageName, image: &ImageId, say: Say<'_>) -> Result<String, RegistryError> {
        let repository = name.repository();
        let _turn = self.turns.take(format!("{repository} {image}")).await;
        loop {
            let address = self.keeper.address().await?;
            if let Some(digest) = http::digest(address, &repository, tag(image)).await? {
                return Ok(digest);
            }
            let starts = self.keeper.starts();
            let pushed = tokio::select! {
                pushed = self.push(&format!("{address}/{repository}:{}", tag(image)), name, image, say) => pushed,
                error = self.keeper.watch() => return Err(error),
            };
            match pushed {
                Err(_) if self.was_restarted(starts).await => {}
                Err(source) => return Err(RegistryError::Push { name: name.clone(), source }),
                Ok(()) => {
                    let digest = http::digest(self.keeper.address().await?, &repository, tag(image)).await?;
                    let missing = || EngineError::NotFound { what: format!("image `{name}` in HQ's registry") };
                    return digest.ok_or_else(|| RegistryError::Push { name: name.clone(), source: missing() });
                }
            }
        }
    }

    /// Under a name that is there only meanwhile. An image that has no other would go with it, and gets its own first.
    async fn push(&self, reference: &str, name: &ImageName, image: &ImageId, say: Say<'_>) -> Result<(), EngineError> {
        let named = self.local.image(image.as_str()).await?.is_some_and(|image| !image.tags.is_empty());
        if !named {
            self.local.tag(image.as_str(), &name.to_string()).await?;
        }
        self.local.tag(image.as_str(), reference).await?;
        let pushed = self.local.push(reference, say).await;
        self.local.remove_image(reference).await?;
        pushed
    }

    /// Lets a server fetch an image; how many bytes that took.
    async fn bring(
        &self,
        to: &Destination,
        name: &ImageName,
        image: &ImageId,
        digest: &str,
        say: Say<'_>,
    ) -> Result<u64, RegistryError> {
        let server = to.line.server();
        let failed = |source| pull_failed(name, server, source);
        let way = self.open_way(to, name).await?;
        let reference = format!("127.0.0.1:{}/{}@{digest}", way.port, name.repository());
        let lines = AtomicU64::new(0);
        let heard = |line: &str| {
            lines.fetch_add(1, Ordering::Relaxed);
            say(line);
        };
        let moved = || (way.gate.passed(), lines.load(Ordering::Relaxed));
        tokio::select! {
            pulled = to.engine.pull(&reference, &heard) => pulled.map_err(failed)?,
            error = self.keeper.watch() => return Err(error),
            () = stand_still(moved, self.patience) => {
                let (name, server) = (name.clone(), server.clone());
                return Err(RegistryError::Stuck { name, server, limit: self.patience });
            }
        }
        let arrived = to.engine.image(&reference).await.map_err(failed)?.map(|image| image.id);
        if arrived.as_ref() == Some(image) {
            to.engine.tag(image.as_str(), &name.to_string()).await.map_err(failed)?;
        }
        to.engine.remove_image(&reference).await.map_err(failed)?;
        if arrived.as_ref() == Some(image) {
            return Ok(way.gate.passed());
        }
        let found = arrived.map_or_else(|| "none".to_owned(), |id| id.to_string());
        Err(RegistryError::Differs { name: name.clone(), server: server.clone(), expected: image.clone(), found })
    }

    async fn open_way(&self, to: &Destination, name: &ImageName) -> Result<Way, RegistryError> {
        let server = to.line.server();
        let gate = Gate::open(self.keeper.clone(), name.repository()).await;
        let gate = gate.map_err(|source| RegistryError::Gate { server: server.clone(), source })?;
        let forward = to.line.forward(0, gate.address()).await;
        let (port, link) = forward.map_err(|source| RegistryError::Way { server: server.clone(), source })?;
        Ok(Way { gate, port, link })
    }

    /// Forgets an image that no kept release needs; gone is success. Its layers go with the next [`Registry::sweep`].
    ///
    /// # Errors
    /// When the registry fails.
    pub async fn forget(&self, name: &ImageName, image: &ImageId) -> Result<(), RegistryError> {
        if !self.keeper.is_used() {
            return Ok(());
        }
        let _use = self.use_of_store.read().await;
        let (address, repository) = (self.keeper.address().await?, name.repository());
        if let Some(digest) = http::digest(address, &repository, tag(image)).await? {
            http::delete(address, &repository, &digest).await?;
            self.has_garbage.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Forgets all images of a stack that is destroyed; gone is success.
    ///
    /// # Errors
    /// The folder that cannot be removed.
    pub async fn forget_stack(&self, stack: &StackName) -> Result<(), RegistryError> {
        let _use = self.use_of_store.read().await;
        if self.keeper.remove_repositories(stack)? {
            self.has_garbage.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Removes what no image needs any more, unless something travels; then it is left for the next time. Images that
    /// are to be sent meanwhile wait for the end, some seconds.
    ///
    /// # Errors
    /// When the registry's program fails.
    pub async fn sweep(&self) -> Result<(), RegistryError> {
        let Ok(_alone) = self.use_of_store.try_write() else { return Ok(()) };
        if !self.has_garbage.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let swept = self.keeper.collect_garbage().await;
        if swept.is_err() {
            self.has_garbage.store(true, Ordering::Relaxed);
        }
        swept
    }
}

/// Takes an image's name away on every server, and the image where that was its last one; the servers on which that
/// failed, with the reason. Images in use stay.
pub async fn remove_everywhere(engines: &Engines, name: &ImageName) -> Vec<(ServerName, EngineError)> {
    let name = name.to_string();
    let removals = engines.all().into_iter().map(|(server, engine)| {
        let name = &name;
        async move {
            match engine.remove_image(name).await {
                Ok(()) | Err(EngineError::Conflict { .. } | EngineError::NotFound { .. }) => None,
                Err(error) => Some((server, error)),
            }
        }
    });
    join_all(removals).await.into_iter().flatten().collect()
}

/// Takes away every name that `is_unwanted` among the images of a stack on one server: what is left of releases that
/// were dropped while it was away, or of a stack that is destroyed. Images in use stay.
///
/// # Errors
/// When its docker fails.
pub async fn remove_unwanted(
    engine: &dyn Engine,
    stack: &StackName,
    is_unwanted: impl Fn(&str) -> bool + Send + Sync,
) -> Result<(), EngineError> {
    let folder = format!("quarry/{stack}");
    for image in engine.images(&folder).await? {
        let own = image.tags.iter().filter(|tag| tag.starts_with(&format!("{folder}/")) && is_unwanted(tag));
        for tag in own {
            match engine.remove_image(tag).await {
                Ok(()) | Err(EngineError::Conflict { .. } | EngineError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn pull_failed(name: &ImageName, server: &ServerName, source: EngineError) -> RegistryError {
    RegistryError::Pull { name: name.clone(), server: server.clone(), source }
}

/// A port of a server's loopback that leads to the gate. Dropping it closes both ends.
struct Way {
    gate: Gate,
    port: u16,
    link: Arc<Link>,
}

impl Drop for Way {
    fn drop(&mut self) {
        let (link, port) = (self.link.clone(), self.port);
        // A connection that is lost has taken the port with it.
        tokio::spawn(async move { link.stop_forward(port).await.ok() });
    }
}

/// Returns when `moved` has been the same for `patience`.
async fn stand_still<T: PartialEq>(moved: impl Fn() -> T, patience: Duration) {
    let (mut last, mut since) = (moved(), Instant::now());
    while since.elapsed() < patience {
        sleep(LOOK.min(patience)).await;
        let now = moved();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::docker::fake::Fake;

    #[tokio::test(start_paused = true)]
    async fn only_standing_still_counts_and_not_the_whole_time() {
        let (looks, began) = (Cell::new(0_u32), Instant::now());
        // It moves for the first hundred looks, which is 50 s.
        let moved = || {
            looks.set(looks.get() + 1);
            looks.get().min(100)
        };
        stand_still(moved, Duration::from_secs(10)).await;
        let lasted = began.elapsed();
        assert!((Duration::from_secs(59)..Duration::from_secs(61)).contains(&lasted), "{lasted:?}");
    }

    #[tokio::test]
    async fn a_name_goes_from_every_server_that_answers_and_the_others_are_told() {
        let [hq, one, two] = [(); 3].map(|()| Arc::new(Fake::new()));
        let engines = Engines::new("hq".parse().unwrap(), hq.clone());
        engines.add("s1".parse().unwrap(), one.clone());
        engines.add("s2".parse().unwrap(), two.clone());
        let name = ImageName { stack: "blog".parse().unwrap(), node: "web".parse().unwrap(), tag: "3".to_owned() };
        for fake in [&hq, &one, &two] {
            fake.add_image("quarry/blog/web:3");
        }
        one.go_away(true);
        let failed: Vec<String> =
            remove_everywhere(&engines, &name).await.into_iter().map(|(server, _)| server.to_string()).collect();
        assert_eq!(failed, ["s1"]);
        assert_eq!(hq.image("quarry/blog/web:3").await.unwrap(), None);
        assert_eq!(two.image("quarry/blog/web:3").await.unwrap(), None);
        one.go_away(false);
        one.add_image("quarry/blog/web:4");
        remove_unwanted(&*one, &"blog".parse().unwrap(), |tag| tag.ends_with(":3")).await.unwrap();
        assert_eq!(one.image("quarry/blog/web:3").await.unwrap(), None);
        assert!(one.image("quarry/blog/web:4").await.unwrap().is_some());
    }
}
