//! `serve`: HQ itself. `hook`: what git calls inside its repositories.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::door::HqDoor;
use super::failure::{Exit, Failure};
use super::parts::{Places, with_edge};
use crate::etc;
use crate::hq::push::{Paths, Pushes};
use crate::hq::{Hq, git, socket, ssh};
use crate::names::UserName;
use crate::router::edge::Edge;
use crate::router::nginx::Nginx;
use crate::servers::ssh::KeyPair;

/// Run HQ
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Where pushes and commands come in by SSH
    #[arg(long, env = "QUARRY_SSH", default_value = "0.0.0.0:2222", value_name = "ADDRESS:PORT")]
    ssh: SocketAddr,
    /// Where the router answers
    #[arg(long, env = "QUARRY_HTTP", default_value = "0.0.0.0:80", value_name = "ADDRESS:PORT")]
    http: SocketAddr,
}

/// What git calls
#[derive(Debug, clap::Args)]
pub struct Hook {
    /// The hook's name
    name: String,
}

/// How callers by socket are called: whoever may open it owns the machine.
const ROOT_USER: &str = "root";

impl Serve {
    /// Runs until SIGTERM or SIGINT. Launches under way are left to their journals, containers and router run on.
    ///
    /// # Errors
    /// When something HQ needs is missing or its addresses are taken.
    pub async fn run(self, places: &Places) -> Result<(), Failure> {
        let began = std::time::Instant::now();
        let end = Signals::new()?;
        let mut parts = places.parts().await?;
        let root = canonical(&places.root)?;
        parts.root = root.clone();
        let nginx = Arc::new(Nginx::new(&root, vec![self.http]));
        let came = nginx.start_or_adopt().await.map_err(|error| Failure::of(Exit::Refused, &error))?;
        tracing::info!(?came, http = %self.http, "the router serves");
        let hq = Hq::new(with_edge(parts, nginx.clone() as Arc<dyn Edge>, self.http));
        hq.recover().await?;
        let stop = CancellationToken::new();
        tokio::spawn(async move { nginx.watch().await });
        let address = self.open_doors(places, &root, hq.clone(), stop.clone()).await?;
        tracing::info!(ssh = %address, took = ?began.elapsed(), "HQ is ready");
        tokio::spawn(hq.reconcile());
        ready(address, self.http).await;
        end.wait().await;
        tracing::info!("HQ stops; what runs runs on");
        stop.cancel();
        Ok(())
    }

    async fn open_doors(
        &self,
        places: &Places,
        root: &Path,
        hq: Arc<Hq>,
        stop: CancellationToken,
    ) -> Result<SocketAddr, Failure> {
        let refused = |error: &dyn std::error::Error| Failure::of(Exit::Refused, error);
        let file = |path: &Path, source: std::io::Error| {
            Failure::new(Exit::Refused, format!("cannot use {}: {source}", path.display()))
        };
        let program = std::env::current_exe().map_err(|source| file(Path::new("quarry"), source))?;
        git::install_hooks(&root.join("hooks")).map_err(|error| refused(&error))?;
        let door = HqDoor::open(hq.clone()).await?;
        let pushes = Arc::new(Pushes::default());
        let paths = Paths { socket: root.join("hq.sock"), program };
        let key = KeyPair::open_or_create(&places.etc.join(etc::HOST_KEY)).map_err(|error| refused(&error))?;
        let listener = TcpListener::bind(self.ssh).await.map_err(|source| {
            Failure::new(
                Exit::Refused,
                format!("cannot listen on {} for SSH: {source}; choose another with --ssh", self.ssh),
            )
        })?;
        let address = listener.local_addr().unwrap_or(self.ssh);
        let server = ssh::Server::new(key, ssh::Limits::default(), paths.clone(), door.clone(), pushes.clone());
        tokio::spawn(Arc::new(server).serve(listener, stop.clone()));
        let socket = socket::listen(&paths.socket).map_err(|error| refused(&error))?;
        let user: UserName = ROOT_USER.parse().expect("`root` is a user name");
        tokio::spawn(socket::serve(socket, door, pushes, user, stop));
        Ok(address)
    }
}

fn canonical(root: &Path) -> Result<PathBuf, Failure> {
    root.canonicalize()
        .map_err(|source| Failure::new(Exit::Refused, format!("cannot use {}: {source}", root.display())))
}

/// One line on standard output for whoever started HQ; its end may be closed.
async fn ready(ssh: SocketAddr, http: SocketAddr) {
    use tokio::io::AsyncWriteExt;
    let mut out = tokio::io::stdout();
    let line = format!("ready: ssh {ssh} http {http}\n");
    let _ = out.write_all(line.as_bytes()).await;
    let _ = out.flush().await;
}

/// The signals that end HQ. They are caught from the first moment, so that an early one ends it in order too.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let refused = |source: std::io::Error| Failure::new(Exit::Bug, format!("cannot wait for signals: {source}"));
        let term = signal(SignalKind::terminate()).map_err(refused)?;
        let int = signal(SignalKind::interrupt()).map_err(refused)?;
        Ok(Self { term, int })
    }

    async fn wait(mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
