//! `restore`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::failure::{Exit, Failure};
use super::parts::Places;
use crate::docker::Engine;
use crate::docker::bollard::Docker;
use crate::hq::HqError;
use crate::hq::backup::restore::Home;
use crate::hq::backup::restore::act::{Restore as Work, clear, finish, look, name};
use crate::hq::backup::{BackupError, Manifest};
use crate::hq::progress::{phase, took};

/// Make an HQ of a backup, on a machine without one
///
/// The root folder and the settings of this machine have to be empty. A restore that was cut off is opened by nobody
/// and can be run again. Stop the HQ that the backup is of first: two of them must not act on the same servers.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// What `quarry backup` wrote
    file: PathBuf,
    /// The state is still in the etcd that the settings name, and newer there: only the rest is restored
    #[arg(long)]
    etcd: bool,
}

impl Restore {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is an HQ already, or the backup cannot be read; nobody opens what is there then.
    pub async fn run(self, places: &Places) -> Result<(), Failure> {
        let began = Instant::now();
        let manifest = look(&self.file)?;
        let engine: Arc<dyn Engine> = Arc::new(Docker::local());
        if !manifest.images.is_empty() {
            engine.version().await?;
        }
        let files = places.files()?;
        // Whole from here on: sites are told by it.
        let root = places.root.canonicalize().map_err(|source| file(&places.root, source))?;
        clear(&root, &*files.db).await?;
        let of = format!("{} of {}", manifest.hostname, manifest.created.strftime("%Y-%m-%d %H:%M UTC"));
        eprintln!("{}", phase(&format!("Restoring {of}, {} stacks", manifest.stacks.len())));
        let home = if self.etcd { Home::Etcd } else { Home::Files };
        let (db, etc) = (&*files.db, places.etc.as_path());
        let work = Work { file: &self.file, root: &root, etc, db, engine: engine.clone(), home };
        let identity = || places.identity().map_err(std::io::Error::other);
        let restored = work.run(&manifest, &identity, &|line| eprintln!("{line}")).await?;
        name(&*engine, &restored).await?;
        finish(&root, db).await?;
        eprintln!("{}", phase(&format!("Restored after {}", took(began.elapsed()))));
        eprintln!("{}", advice(&manifest, home));
        Ok(())
    }
}

fn file(path: &std::path::Path, source: std::io::Error) -> Failure {
    Failure::new(Exit::Refused, format!("cannot use {}: {source}", path.display()))
}

/// What is left to do.
fn advice(manifest: &Manifest, home: Home) -> String {
    let mut lines = vec!["start it: quarry serve".to_owned()];
    if manifest.images.is_empty() && !manifest.stacks.is_empty() {
        lines.push("it came without images: HQ builds each stack again when it serves".to_owned());
    }
    if !manifest.volumes {
        lines.push("it came without volumes: stacks that keep any on this machine begin with empty ones".to_owned());
    }
    match home {
        Home::Files if manifest.home == "etcd" => {
            lines.push("the state is in files from now on; settings of etcd are put aside".to_owned());
        }
        Home::Files | Home::Etcd => {}
    }
    lines.iter().map(|line| format!("       {line}")).collect::<Vec<_>>().join("\n")
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        HqError::from(error).into()
    }
}
