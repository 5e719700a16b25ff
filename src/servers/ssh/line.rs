//! A server's connections, kept alive.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use super::backoff::Backoff;
use super::link::Link;
use super::{Address, HostKey, LinkError, Login, OPEN, Tunnel};
use crate::docker::{Lane, Pipe, Wire};
use crate::names::ServerName;
use crate::units::random;

/// Where the engine listens on a server.
const ENGINE: &str = "/var/run/docker.sock";

/// Handshakes at once for readers: sshd refuses some from ten on.
const HANDSHAKES: usize = 4;

/// After a refusal, which only a person can mend, and which servers count.
const REFUSED: Duration = Duration::from_secs(30);

/// How a server's line stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The first attempt is under way.
    Connecting,
    /// It works.
    Up,
    /// It does not, and is tried again and again.
    Down {
        /// When it was lost, or first tried in vain.
        since: Instant,
        /// Why the last attempt failed.
        why: String,
    },
}

/// The connections to one server: one for calls, which is opened again whenever it falls, one for bulk while it is
/// needed, and one for each reader who may stop reading. All of them fall with the first. Dropping it ends them.
///
/// Why readers have their own: the library takes in whatever a server sends on a channel, and a channel whose reader
/// pauses would hold up all others of its connection.
pub struct Line {
    shared: Arc<Shared>,
    keeper: AbortHandle,
}

struct Shared {
    server: ServerName,
    address: Address,
    login: Login,
    host_key: HostKey,
    state: watch::Sender<State>,
    calls: watch::Sender<Option<Arc<Link>>>,
    bulk: Mutex<Option<Arc<Link>>>,
    handshakes: Semaphore,
}

impl Line {
    /// Begins to connect. `server` is its name in messages.
    pub fn open(server: ServerName, address: Address, login: Login, host_key: HostKey) -> Self {
        let shared = Arc::new(Shared {
            server,
            address,
            login,
            host_key,
            state: watch::Sender::new(State::Connecting),
            calls: watch::Sender::new(None),
            bulk: Mutex::default(),
            handshakes: Semaphore::new(HANDSHAKES),
        });
        let keeper = tokio::spawn(shared.clone().keep()).abort_handle();
        Self { shared, keeper }
    }

    /// The server's name.
    pub fn server(&self) -> &ServerName {
        &self.shared.server
    }

    /// Follows how it stands.
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    /// The connection for calls and short commands.
    ///
    /// # Errors
    /// At once when the line is down, and within 5 s while it is first tried.
    pub async fn link(&self) -> Result<Arc<Link>, LinkError> {
        self.shared.link().await
    }

    /// The connection for what is large: images, and commands with long input.
    ///
    /// # Errors
    /// As [`Line::link`]; within 10 s when it must be opened first.
    pub async fn bulk(&self) -> Result<Arc<Link>, LinkError> {
        self.shared.bulk().await
    }

    /// Connects to a unix socket on the server.
    ///
    /// # Errors
    /// As [`Line::link`], or nothing listens there.
    pub async fn socket(&self, path: &str, lane: Lane) -> Result<Tunnel, LinkError> {
        let link = match lane {
            Lane::Call => self.link().await?,
            Lane::Bulk => self.bulk().await?,
            Lane::Reader => self.shared.reader().await?,
        };
        link.open_socket(path).await
    }

    /// Hands connections to `port` of the server's own loopback (0: any) to `target`, which HQ reaches, over the
    /// connection for bulk. The answer is the port, and the connection, as long as which it holds: ask again before
    /// each use.
    ///
    /// # Errors
    /// As [`Line::bulk`] and [`Link::forward`].
    pub async fn forward(&self, port: u16, target: SocketAddr) -> Result<(u16, Arc<Link>), LinkError> {
        let link = self.bulk().await?;
        Ok((link.forward(port, target).await?, link))
    }

    /// As [`Line::forward`], over a connection of its own: those who come may stop reading.
    ///
    /// # Errors
    /// As [`Line::link`] and [`Link::forward`]. Where the port was refused, a connection that HQ has lost and the server
    /// has not may hold it; it is stirred, so that the next try may find the port free.
    pub async fn forward_apart(&self, port: u16, target: SocketAddr) -> Result<Arc<Link>, LinkError> {
        let link = self.shared.reader().await?;
        let forwarded = link.forward(port, target).await;
        if matches!(forwarded, Err(LinkError::Denied { .. })) {
            link.stir(port).await;
        }
        forwarded.map(|_| link)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.keeper.abort();
        if let Some(link) = self.shared.calls.borrow().as_ref() {
            link.end("HQ has let go of the server");
        }
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({}, {})", self.shared.server, self.shared.address)
    }
}

impl Shared {
    /// Connects, waits for the end, and begins anew.
    async fn keep(self: Arc<Self>) {
        let mut backoff = Backoff::new();
        loop {
            let mut lived = Duration::ZERO;
            let mut wait = None;
            let why = match Link::connect(&self.address, &self.login, &self.host_key).await {
                Ok(link) => {
                    let since = Instant::now();
                    let link = Arc::new(link);
                    self.calls.send_replace(Some(link.clone()));
                    self.state.send_replace(State::Up);
                    info!(server = %self.server, address = %self.address, "server is connected");
                    let why = link.ended().await;
                    self.calls.send_replace(None);
                    lived = since.elapsed();
                    why
                }
                Err(error) => {
                    wait = matches!(error, LinkError::HostKey { .. } | LinkError::Refused { .. }).then_some(REFUSED);
                    told(&error)
                }
            };
            self.fell(why);
            tokio::time::sleep(wait.unwrap_or_else(|| backoff.next(lived, chance()))).await;
        }
    }

    /// Notes that there is no connection; since when does not change while attempts fail.
    fn fell(&self, why: String) {
        self.state.send_modify(|state| {
            let since = match state {
                State::Down { since, .. } => *since,
                State::Connecting | State::Up => {
                    warn!(server = %self.server, address = %self.address, why, "server is down");
                    Instant::now()
                }
            };
            *state = State::Down { since, why };
        });
    }

    async fn link(&self) -> Result<Arc<Link>, LinkError> {
        let mut states = self.state.subscribe();
        let decided = timeout(OPEN, states.wait_for(|state| *state != State::Connecting)).await.is_ok();
        if let Some(link) = self.calls.borrow().clone() {
            return Ok(link);
        }
        let address = self.address.clone();
        match states.borrow().clone() {
            State::Down { why, .. } => Err(LinkError::Down { address, why }),
            State::Connecting | State::Up if !decided => {
                Err(LinkError::Late { address, doing: "let HQ in".to_owned(), limit: OPEN })
            }
            // It fell between the two looks.
            State::Connecting | State::Up => Err(LinkError::Down { address, why: "it has just fallen".to_owned() }),
        }
    }

    async fn bulk(&self) -> Result<Arc<Link>, LinkError> {
        let calls = self.link().await?;
        let mut bulk = self.bulk.lock().await;
        match &*bulk {
            Some(link) if link.stands() => Ok(link.clone()),
            Some(_) | None => {
                let link = Arc::new(calls.twin(&self.login, &self.host_key).await?);
                *bulk = Some(link.clone());
                Ok(link)
            }
        }
    }

    async fn reader(&self) -> Result<Arc<Link>, LinkError> {
        let calls = self.link().await?;
        let _turn = self.handshakes.acquire().await;
        Ok(Arc::new(calls.twin(&self.login, &self.host_key).await?))
    }
}

#[async_trait]
impl Wire for Line {
    fn engine(&self) -> String {
        format!("docker on `{}` ({})", self.shared.server, self.shared.address.host)
    }

    async fn open(&self, lane: Lane) -> io::Result<Box<dyn Pipe>> {
        match self.socket(ENGINE, lane).await {
            Ok(tunnel) => Ok(Box::new(tunnel)),
            Err(error) => Err(io::Error::new(io::ErrorKind::NotConnected, error)),
        }
    }
}

/// An error with its causes, for those who ask why.
fn told(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// From 0 to 1.
fn chance() -> f64 {
    f64::from(u32::from_le_bytes(random::bytes())) / f64::from(u32::MAX)
}
