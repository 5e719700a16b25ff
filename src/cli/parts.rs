//! Opens what HQ works with: settings, the tree, docker.
//!
//! The tree is in this machine's files or, where the settings name a cluster, in etcd. Either way one process at a time
//! holds the root folder, and on etcd one HQ at a time the epoch.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failure::{Exit, Failure};
use crate::clock::{Clock, SystemClock};
use crate::db::copy::act::is_part;
use crate::db::epoch::act::Reign;
use crate::db::epoch::{EpochError, process};
use crate::db::etcd::Etcd;
use crate::db::files::{Files, Hold};
use crate::db::gate::act::{First, Gate};
use crate::db::{Db, DbError, layout};
use crate::docker::Engine;
use crate::docker::bollard::Docker;
use crate::docker::engines::Engines;
use crate::etc::{self, ENV_KEY, Settings};
use crate::hq::backup::restore::is_mark;
use crate::hq::cluster::act::cluster;
use crate::hq::fleet::HERE;
use crate::hq::{Awake, Parts, identity};
use crate::launch::{Ground, Identity};
use crate::router::edge::Edge;
use crate::seal;
use crate::units::hex::sha256;
use crate::units::random;

/// Where an HQ lives.
#[derive(Debug, Clone, clap::Args)]
pub struct Places {
    /// Quarry's folder: repositories, state, volumes
    #[arg(long, global = true, env = "QUARRY_ROOT", default_value = etc::ROOT, value_name = "FOLDER")]
    pub root: PathBuf,
    /// Quarry's own settings
    #[arg(long, global = true, env = "QUARRY_ETC", default_value = etc::ETC, value_name = "FOLDER")]
    pub etc: PathBuf,
}

impl Places {
    /// The unix socket of the HQ that lives here.
    pub fn socket(&self) -> PathBuf {
        self.root.join("hq.sock")
    }

    /// Whether an HQ lives on this machine.
    pub fn is_here(&self) -> bool {
        self.root.is_dir()
    }

    /// The settings.
    ///
    /// # Errors
    /// Every mistake in them.
    pub fn settings(&self) -> Result<Settings, Failure> {
        etc::files::read(&self.etc).map_err(|error| Failure::of(Exit::Mistake, &error))
    }

    /// The tree in this machine's files, whatever the settings say.
    ///
    /// # Errors
    /// When another process has it open.
    pub fn files(&self) -> Result<Home, HomeError> {
        let db = Arc::new(Files::open(&self.root)?);
        Ok(Home { db, reign: None, _hold: None })
    }

    /// The tree in a cluster, and the right to act on it.
    ///
    /// # Errors
    /// When the cluster does not answer, another process holds the root folder or another HQ the epoch.
    pub async fn etcd(&self, etcd: &etc::etcd::Etcd) -> Result<Home, HomeError> {
        let tree = Etcd::new(&cluster(etcd));
        // Who asks while it is away learns that, whoever else waits for it with the folder in their hands.
        tree.ping().await?;
        let hold = Hold::take(&self.root)?;
        let home = self.claim(tree).await?;
        // Who only reads, between a copy back and the end of etcd's settings, leaves the copy what it is.
        let db = Arc::new(Gate::after(self.mark_elsewhere(&etcd.endpoints), home.db));
        Ok(Home { db, reign: home.reign, _hold: Some(hold) })
    }

    /// Notes beside the files that the state is in a cluster: what they hold of it gets old from now on.
    fn mark_elsewhere(&self, endpoints: &[String]) -> First {
        let (path, text) = (self.root.join(ELSEWHERE), endpoints.join("\n") + "\n");
        Box::new(move || match fs::read_to_string(&path).is_ok_and(|known| known == text) {
            true => Ok(()),
            false => fs::write(&path, &text),
        })
    }

    /// The files hold the state as it is.
    pub fn mark_here(&self) {
        // Where there is no mark it was never elsewhere.
        let _ = fs::remove_file(self.root.join(ELSEWHERE));
    }

    /// Refuses files that have got old: an HQ on them would take back what was done since.
    fn check_here(&self) -> Result<(), HomeError> {
        let mark = self.root.join(ELSEWHERE);
        match fs::read_to_string(&mark) {
            Ok(text) => {
                let place = text.lines().collect::<Vec<_>>().join(", ");
                Err(HomeError::Elsewhere { place, endpoints: self.etc.join("etcd/endpoints"), mark })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(HomeError::Root { path: mark, source }),
        }
    }

    /// The tree in the cluster that the settings name, for one who holds the root folder already.
    ///
    /// # Errors
    /// When they name none, it does not answer, or another HQ has the epoch.
    pub async fn cluster(&self, settings: &Settings) -> Result<Home, HomeError> {
        match &settings.etcd {
            Some(etcd) => self.claim(Etcd::new(&cluster(etcd))).await,
            None => Err(HomeError::NoCluster { endpoints: self.etc.join("etcd/endpoints") }),
        }
    }

    async fn claim(&self, tree: Etcd) -> Result<Home, HomeError> {
        let claimant = process::claimant(&self.root, SystemClock.now())
            .map_err(|source| HomeError::Root { path: self.root.clone(), source })?;
        let db: Arc<dyn Db> = Arc::new(tree);
        let reign = Reign::begin(db.clone(), claimant).await?;
        Ok(Home { db, reign: Some(reign), _hold: None })
    }

    /// The tree where the settings say it is.
    ///
    /// # Errors
    /// As [`Places::files`] and [`Places::etcd`].
    pub async fn home(&self, settings: &Settings) -> Result<Home, HomeError> {
        let home = self.any_home(settings).await?;
        match is_part(&*home.db).await {
            Ok(false) => Ok(home),
            Ok(true) => {
                let mark = home.db.read(&layout::copying()).await;
                home.close().await;
                let restored = mark.is_ok_and(|mark| mark.is_some_and(|mark| is_mark(&mark.value)));
                Err(if restored { HomeError::Restored } else { HomeError::Part })
            }
            Err(error) => {
                home.close().await;
                Err(error.into())
            }
        }
    }

    async fn any_home(&self, settings: &Settings) -> Result<Home, HomeError> {
        match &settings.etcd {
            Some(etcd) => self.etcd(etcd).await,
            None => {
                let files = self.files()?;
                // While this waited for its turn at the files, the state may have moved.
                match self.settings().ok().and_then(|settings| settings.etcd) {
                    Some(etcd) => {
                        drop(files);
                        self.etcd(&etcd).await
                    }
                    None => self.check_here().map(|()| files),
                }
            }
        }
    }

    /// The tree as [`Places::home`]; while its cluster does not answer this waits.
    ///
    /// # Errors
    /// When it answers and may not be used.
    pub async fn home_when_up(&self, settings: &Settings) -> Result<Home, HomeError> {
        let patience = Instant::now() + COMMAND;
        loop {
            match self.home(settings).await {
                Err(HomeError::State(error) | HomeError::Epoch(EpochError::Home(error))) if error.is_away() => {
                    tracing::warn!(%error, "HQ waits for its state");
                    tokio::time::sleep(AGAIN).await;
                }
                // A command that found no HQ has the state in its hands for a moment.
                Err(HomeError::State(DbError::InUse { .. })) if Instant::now() < patience => {
                    tokio::time::sleep(SOON).await;
                }
                other => return other,
            }
        }
    }

    /// The file with the key of all variables.
    pub fn env_key(&self) -> PathBuf {
        self.etc.join(ENV_KEY)
    }

    /// Which HQ lives here. Whoever asks holds the root.
    ///
    /// # Errors
    /// When what the names of images are marked with cannot be read or made.
    pub fn identity(&self) -> Result<Identity, HomeError> {
        Ok(identity(&self.root, &digest(&self.root), secret(&self.root)?))
    }

    /// Docker and the rest around a tree, without a router. `key` is the file with the key of all variables.
    ///
    /// # Errors
    /// When docker does not answer, or there is no key.
    pub async fn parts(&self, settings: Settings, db: Arc<dyn Db>, key: &Path) -> Result<Parts, Failure> {
        let seal = seal::files::open_or_create(key).map_err(|error| Failure::of(Exit::Refused, &error))?;
        let engine: Arc<dyn Engine> = Arc::new(Docker::local());
        engine.version().await?;
        let bridge = engine.bridge_address().await?;
        let ports = settings.ports.clone();
        Ok(Parts {
            root: self.root.clone(),
            identity: self.identity()?,
            ground: Ground { address: bridge, ports },
            settings,
            db,
            seal: Arc::new(seal),
            engines: Engines::new(HERE.parse().expect("a name written in the program is well formed"), engine),
            edge: None,
            awake: Awake::No,
            clock: Arc::new(SystemClock),
            url_port: String::new(),
        })
    }
}

/// Pause between two tries to open a tree whose cluster is away.
const AGAIN: Duration = Duration::from_secs(2);

/// In the root folder: where the state is while it is not in the files beside it.
const ELSEWHERE: &str = "hq.elsewhere";

/// How long `serve` waits for whoever else has the tree open: a command, or another HQ.
const COMMAND: Duration = Duration::from_secs(3);

/// Pause between two looks whether it is done.
const SOON: Duration = Duration::from_millis(50);

/// An open tree, and what keeps others from it for as long as this is there.
pub struct Home {
    /// The tree.
    pub db: Arc<dyn Db>,
    reign: Option<Reign>,
    _hold: Option<Hold>,
}

impl Home {
    /// Waits until another HQ has taken over, if ever.
    pub async fn lost(&mut self) -> EpochError {
        match &mut self.reign {
            Some(reign) => reign.lost().await,
            None => std::future::pending().await,
        }
    }

    /// Lets the next one in at once.
    pub async fn close(self) {
        if let Some(reign) = self.reign {
            reign.end().await;
        }
    }
}

/// Why a tree was not opened.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The tree.
    #[error(transparent)]
    State(#[from] DbError),
    /// Another HQ.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// The settings name no cluster.
    #[error("no etcd is known; write its addresses into {}, one a line", endpoints.display())]
    NoCluster {
        /// Where they belong.
        endpoints: PathBuf,
    },
    /// The files have got old.
    #[error(
        "HQ's state went to etcd at {place}, which {} names no more; write it there again, and to have the state in files \
         from now on copy it with `quarry db copy --from etcd --to files --replace` before; without {} HQ takes the files \
         as they were when it left them", endpoints.display(), mark.display()
    )]
    Elsewhere {
        /// Where it went.
        place: String,
        /// The setting that should say so.
        endpoints: PathBuf,
        /// What says that it went.
        mark: PathBuf,
    },
    /// A copy was cut off.
    #[error("HQ's state is only a part here, because `quarry db copy` was cut off; copy it again with --replace")]
    Part,
    /// A restore was cut off.
    #[error("HQ's state is only a part here, because `quarry restore` was cut off; run it again")]
    Restored,
    /// The root folder.
    #[error("cannot use {}", path.display())]
    Root {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        match error {
            HomeError::State(error) => Self::from(error),
            error @ (HomeError::NoCluster { .. }
            | HomeError::Elsewhere { .. }
            | HomeError::Part
            | HomeError::Restored) => Self::of(Exit::Mistake, &error),
            error => Self::of(Exit::Refused, &error),
        }
    }
}

fn digest(root: &Path) -> String {
    let absolute = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    sha256(absolute.as_os_str().as_encoded_bytes())
}

/// What the names of images are marked with, from a file of the root that is made when there is none. Whoever asks holds
/// the root.
fn secret(root: &Path) -> Result<String, HomeError> {
    let path = root.join(SECRET);
    let wrong = |source| HomeError::Root { path: path.clone(), source };
    match fs::read_to_string(&path) {
        // Half of one is none.
        Ok(text) if text.trim().len() == 2 * SECRET_BYTES => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(wrong(error)),
        Ok(_) | Err(_) => {}
    }
    let secret = random::hex::<SECRET_BYTES>();
    let mut file =
        fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&path).map_err(wrong)?;
    file.write_all(format!("{secret}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)?;
    Ok(secret)
}

/// In the root folder: what the names of images are marked with.
const SECRET: &str = "image_secret";
const SECRET_BYTES: usize = 32;

/// Adds a router that listens here.
pub fn with_edge(mut parts: Parts, edge: Arc<dyn Edge>, listen: SocketAddr) -> Parts {
    parts.edge = Some(edge);
    parts.awake = Awake::Yes;
    parts.url_port = match listen.port() {
        80 => String::new(),
        port => format!(":{port}"),
    };
    parts
}
