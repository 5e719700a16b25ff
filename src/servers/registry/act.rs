//! Brings images to servers, and takes away what nobody needs any more.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::RwLock;
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use super::lock::Turns;
use super::parcel::Parcel;
use super::process::Keeper;
use super::ways::act::Ways;
use super::{RegistryError, http};
use crate::docker::architecture::runs;
use crate::docker::{Engine, EngineError, Say};
use crate::names::ImageId;
use crate::servers::ssh::Line;

/// An image that does not move for so long is stuck. Unpacking one large layer on a slow disk takes minutes of silence; a
/// server that is gone is noticed by its line within seconds.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// How often the registry may fall while one image travels: one that falls each time has a reason.
const FALLS: u32 = 3;

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
    ways: Ways,
    /// Two who bring the same image to the same place do it once.
    turns: Turns,
    /// Shared by those who bring images; whoever collects garbage has it alone.
    use_of_store: RwLock<()>,
    /// Something may have been removed since garbage was last collected; at the start nobody knows.
    has_garbage: AtomicBool,
}

impl Registry {
    /// The registry of the HQ in the folder `root`, whose docker is `local`. Nothing is started yet.
    pub fn new(root: &Path, local: Arc<dyn Engine>) -> Self {
        Self {
            local,
            keeper: Arc::new(Keeper::new(folder(root))),
            patience: PATIENCE,
            ways: Ways::default(),
            turns: Turns::default(),
            use_of_store: RwLock::default(),
            has_garbage: AtomicBool::new(true),
        }
    }

    /// The same, which gives up when nothing has moved for `patience`.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The same by another program than Debian's, in a folder that nobody uses yet.
    pub fn with_program(self, program: &Path, root: &Path) -> Self {
        let keeper = Keeper::new(folder(root)).with_program(program.to_owned());
        Self { keeper: Arc::new(keeper), ..self }
    }

    /// Sees to it that a server's docker has `image`, under the same id and names as HQ's. Only layers that it has never
    /// seen travel. Several servers may be supplied at once; none waits for another.
    ///
    /// # Errors
    /// Within seconds when the server is down, and when nothing has moved for some minutes. Engine 20.10 throws away what
    /// has arrived of an image that it could not get whole.
    pub async fn supply(&self, to: &Destination, image: &ImageId, say: Say<'_>) -> Result<Supplied, RegistryError> {
        let parcel = self.parcel(image).await?;
        let journey = Journey { to, parcel: &parcel, say };
        let own = to.engine.architecture().await.map_err(|source| journey.failed(source))?;
        if !runs(&own, &parcel.architecture) {
            let server = to.line.server().clone();
            return Err(RegistryError::Architecture { name: parcel.name, built: parcel.architecture, server, own });
        }
        let _turn = self.turns.take(format!("{} {image}", to.line.server())).await;
        let mut bytes = 0;
        if to.engine.image(image.as_str()).await.map_err(|source| journey.failed(source))?.is_none() {
            let _use = self.use_of_store.read().await;
            bytes = self.send(&journey).await?;
            info!(server = %to.line.server(), image = parcel.name, bytes, "image has been brought to a server");
        }
        journey.name_it().await?;
        Ok(Supplied { bytes })
    }

    async fn parcel(&self, image: &ImageId) -> Result<Parcel, RegistryError> {
        let found = self.local.image(image.as_str()).await;
        let found = found.map_err(|source| RegistryError::Local { image: image.clone(), source })?;
        found.map(Parcel::new).ok_or_else(|| RegistryError::NoImage { image: image.clone() })
    }

    /// Tries again when the registry was lost on the way.
    async fn send(&self, journey: &Journey<'_>) -> Result<u64, RegistryError> {
        let mut falls = 0;
        loop {
            let digest = self.stock(journey.parcel, journey.say).await?;
            let starts = self.keeper.starts();
            match self.bring(journey, &digest).await {
                Err(RegistryError::Pull { .. }) if falls < FALLS && self.was_restarted(starts).await => {
                    falls += 1;
                    debug!(image = journey.parcel.name, "the registry fell while an image travelled");
                }
                other => return other,
            }
        }
    }

    async fn was_restarted(&self, starts: u64) -> bool {
        self.keeper.address().await.is_ok() && self.keeper.starts() != starts
    }

    /// Puts an image into the registry unless it is there, and tells its manifest's digest.
    async fn stock(&self, parcel: &Parcel, say: Say<'_>) -> Result<String, RegistryError> {
        let Parcel { repository, name, .. } = parcel;
        let failed = |source| RegistryError::Push { name: name.clone(), source };
        let _turn = self.turns.take(format!("{repository} {}", parcel.id)).await;
        let mut falls = 0;
        loop {
            let address = self.keeper.address().await?;
            if let Some(digest) = http::digest(address, repository, parcel.tag()).await? {
                return Ok(digest);
            }
            let starts = self.keeper.starts();
            let reference = format!("{address}/{repository}:{}", parcel.tag());
            let pushed = tokio::select! {
                pushed = self.push(&reference, parcel, say) => pushed,
                error = self.keeper.watch() => return Err(error),
            };
            match pushed {
                Err(_) if falls < FALLS && self.was_restarted(starts).await => falls += 1,
                Err(source) => return Err(failed(source)),
                Ok(()) => {
                    let digest = http::digest(self.keeper.address().await?, repository, parcel.tag()).await?;
                    let missing = || failed(EngineError::NotFound { what: format!("{name} in HQ's registry") });
                    return digest.ok_or_else(missing);
                }
            }
        }
    }

    /// Under a name that is there only meanwhile. An image that has no other would go with it, and gets its own first.
    async fn push(&self, reference: &str, parcel: &Parcel, say: Say<'_>) -> Result<(), EngineError> {
        let found = self.local.image(parcel.id.as_str()).await?;
        if found.is_some_and(|image| image.tags.is_empty()) {
            for tag in &parcel.tags {
                self.local.tag(parcel.id.as_str(), tag).await?;
            }
        }
        self.local.tag(parcel.id.as_str(), reference).await?;
        let pushed = self.local.push(reference, say).await;
        self.local.remove_image(reference).await?;
        pushed
    }

    /// Lets a server fetch an image; how many bytes that took.
    async fn bring(&self, journey: &Journey<'_>, digest: &str) -> Result<u64, RegistryError> {
        let Journey { to, parcel, say } = journey;
        let server = to.line.server();
        let gate = self.ways.gate(server, &self.keeper).await;
        let gate = gate.map_err(|source| RegistryError::Gate { server: server.clone(), source })?;
        let ticket = gate.ticket(parcel.repository.clone());
        let port = self.ways.port(&to.line, gate.address()).await;
        let port = port.map_err(|source| RegistryError::Way { server: server.clone(), source: source.into() })?;
        let reference = format!("127.0.0.1:{port}/{}@{digest}", parcel.repository);
        let lines = AtomicU64::new(0);
        let heard = |line: &str| {
            lines.fetch_add(1, Ordering::Relaxed);
            say(line);
        };
        let moved = || (ticket.passed(), lines.load(Ordering::Relaxed));
        tokio::select! {
            pulled = to.engine.pull(&reference, &heard) => pulled.map_err(|source| journey.failed(source))?,
            error = self.keeper.watch() => return Err(error),
            () = stand_still(moved, self.patience) => {
                let (name, server) = (parcel.name.clone(), server.clone());
                return Err(RegistryError::Stuck { name, server, limit: self.patience });
            }
        }
        journey.arrive(&reference).await?;
        Ok(ticket.passed())
    }

    /// Removes every image that HQ's docker no longer has, with the layers that no other needs; unless something
    /// travels: then it is left for the next time. What is to be sent meanwhile waits for the end, some seconds.
    ///
    /// # Errors
    /// When HQ's docker or the registry's program fails.
    pub async fn sweep(&self) -> Result<(), RegistryError> {
        let Ok(_alone) = self.use_of_store.try_write() else { return Ok(()) };
        for (repository, tag) in self.keeper.kept()? {
            // Nothing else gives it names.
            let Ok(image) = format!("sha256:{tag}").parse::<ImageId>() else { continue };
            let found = self.local.image(image.as_str()).await;
            if found.map_err(|source| RegistryError::Local { image, source })?.is_none() {
                self.keeper.forget(&repository, &tag)?;
                self.has_garbage.store(true, Ordering::Relaxed);
            }
        }
        if !self.keeper.is_used() || !self.has_garbage.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let swept = self.keeper.collect_garbage().await;
        if swept.is_err() {
            self.has_garbage.store(true, Ordering::Relaxed);
        }
        swept
    }
}

/// Ends the registry of the HQ in the folder `root`, if one runs. It starts again when something is to travel.
pub async fn end(root: &Path) {
    Keeper::new(folder(root)).end_all().await;
}

fn folder(root: &Path) -> PathBuf {
    root.join("registry")
}

/// One image and one server.
struct Journey<'a> {
    to: &'a Destination,
    parcel: &'a Parcel,
    say: Say<'a>,
}

impl Journey<'_> {
    fn failed(&self, source: EngineError) -> RegistryError {
        RegistryError::Pull { name: self.parcel.name.clone(), server: self.to.line.server().clone(), source }
    }

    /// By their names old images are found and removed when their release is.
    async fn name_it(&self) -> Result<(), RegistryError> {
        for tag in &self.parcel.tags {
            self.to.engine.tag(self.parcel.id.as_str(), tag).await.map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    /// Takes the name away under which it has been fetched, once it has its own.
    async fn arrive(&self, reference: &str) -> Result<(), RegistryError> {
        let engine = &self.to.engine;
        let arrived = engine.image(reference).await.map_err(|source| self.failed(source))?.map(|image| image.id);
        let expected = &self.parcel.id;
        if arrived.as_ref() == Some(expected) {
            self.name_it().await?;
        }
        engine.remove_image(reference).await.map_err(|source| self.failed(source))?;
        if arrived.as_ref() == Some(expected) {
            return Ok(());
        }
        let (name, server) = (self.parcel.name.clone(), self.to.line.server().clone());
        let found = arrived.map_or_else(|| "none".to_owned(), |id| id.to_string());
        Err(RegistryError::Differs { name, server, expected: expected.clone(), found })
    }
}

/// Takes away the names in a `folder`, such as `quarry/blog`, of a server's `engine` that HQ's docker no longer has, of
/// those that are this HQ's by `is_own`, and each image with its last name: what is left of releases that were dropped,
/// also while the server was away. Images in use stay.
///
/// # Errors
/// When one of the two dockers fails.
pub async fn remove_stale(
    engine: &dyn Engine,
    local: &dyn Engine,
    folder: &str,
    is_own: impl Fn(&str) -> bool + Send + Sync,
) -> Result<(), EngineError> {
    for image in engine.images(folder).await? {
        for tag in image.tags.iter().filter(|tag| is_own(tag)) {
            if local.image(tag).await?.is_some() {
                continue;
            }
            match engine.remove_image(tag).await {
                Ok(()) | Err(EngineError::Conflict { .. } | EngineError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
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
    async fn a_server_loses_the_names_that_hq_no_longer_has_and_no_others() {
        let (hq, server) = (Fake::new(), Fake::new());
        for tag in ["quarry/blog/web:3", "quarry/blog/web:4", "quarry/blog/web:3-other", "quarry/shop/web:3"] {
            server.add_image(tag);
        }
        hq.add_image("quarry/blog/web:4");
        let remove = || remove_stale(&server, &hq, "quarry/blog", |tag| !tag.ends_with("-other"));
        hq.go_away(true);
        remove().await.unwrap_err();
        assert!(server.image("quarry/blog/web:3").await.unwrap().is_some());
        hq.go_away(false);
        remove().await.unwrap();
        assert_eq!(server.image("quarry/blog/web:3").await.unwrap(), None);
        for tag in ["quarry/blog/web:4", "quarry/blog/web:3-other", "quarry/shop/web:3"] {
            assert!(server.image(tag).await.unwrap().is_some(), "{tag}");
        }
    }
}
