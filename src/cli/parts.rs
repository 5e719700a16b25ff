//! Opens what HQ works with: settings, the tree, docker.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::failure::{Exit, Failure};
use crate::clock::SystemClock;
use crate::db::files::Files;
use crate::docker::Engine;
use crate::docker::bollard::Docker;
use crate::docker::engines::Engines;
use crate::etc::{self, Settings};
use crate::hq::fleet::HERE;
use crate::hq::{Awake, Parts, identity};
use crate::launch::Ground;
use crate::router::edge::Edge;

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

    /// The tree, docker and the rest, without a router.
    ///
    /// # Errors
    /// When another process has the tree open, the settings are wrong or docker does not answer.
    pub async fn parts(&self) -> Result<Parts, Failure> {
        let settings = self.settings()?;
        let db = Files::open(&self.root)?;
        let engine: Arc<dyn Engine> = Arc::new(Docker::local());
        engine.version().await?;
        let bridge = engine.bridge_address().await?;
        let ports = settings.ports.clone();
        Ok(Parts {
            root: self.root.clone(),
            identity: identity(&self.root, &digest(&self.root)),
            ground: Ground { address: bridge, ports },
            settings,
            db: Arc::new(db),
            engines: Engines::new(HERE.parse().expect("a name written in the program is well formed"), engine),
            edge: None,
            awake: Awake::No,
            clock: Arc::new(SystemClock),
            url_port: String::new(),
        })
    }
}

fn digest(root: &Path) -> String {
    let absolute = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let digest = Sha256::digest(absolute.as_os_str().as_encoded_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

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
