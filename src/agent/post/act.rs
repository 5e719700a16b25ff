//! Holds the embassy of a server: from the configuration it has its address, from HQ's pushes its ports.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::agent::{AgentError, files};
use crate::embassy::act::Settings;
use crate::embassy::{Embassy, EmbassyError, Legacy, PortCounts, Table};
use crate::network::files::machine;
use crate::network::ip;

/// No change takes longer, when nothing hangs.
const CHANGE: Duration = Duration::from_secs(5);

/// The embassy, while the server has one.
pub struct Post {
    folder: PathBuf,
    stand: Mutex<Option<Stand>>,
    /// What the program before this one has left, until there is an embassy again.
    legacy: Mutex<Option<Legacy>>,
    /// Held while it changes.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Stand {
    address: IpAddr,
    embassy: Arc<Embassy>,
    /// Ports that it could not open.
    lacks: Option<String>,
}

impl Post {
    /// With what the folder remembers, and what the program before this one has left.
    pub fn new(folder: &Path, legacy: Option<Legacy>) -> Self {
        let (stand, changing) = Default::default();
        Self { folder: folder.to_owned(), stand, legacy: Mutex::new(legacy), changing }
    }

    /// Has the embassy listen at this address, or nowhere, with the ports it was told last. Each time again: somebody may
    /// have taken the address away, or what held a port may have gone.
    ///
    /// # Errors
    /// What keeps it from it.
    pub async fn stand_at(&self, address: Option<IpAddr>) -> Result<(), String> {
        let _alone = self.changing.lock().await;
        if address.is_none() {
            drop(self.legacy().take());
        }
        if let Some(old) = self.take_unless(address) {
            let former = old.address;
            // Its threads end, with all their connections.
            spawn_blocking(move || drop(old)).await.map_err(|panic| panic.to_string())?;
            ip::take(former).await.map_err(|error| error.to_string())?;
        }
        let Some(address) = address else { return Ok(()) };
        ip::give(address).await.map_err(|error| error.to_string())?;
        match self.stand() {
            Some(Stand { lacks: None, .. }) => return Ok(()),
            Some(_) => {}
            None => {
                if let Err(error) = machine::spare_files() {
                    tracing::warn!(%error, "the embassy carries fewer connections than it could");
                }
                if let Err(error) = spawn_blocking(machine::spare_ports).await.unwrap_or_else(|panic| Err(panic.into()))
                {
                    tracing::warn!(%error, "the embassy makes fewer connections a second than it could");
                }
                let legacy = self.legacy().take().filter(|legacy| legacy.address == address);
                let embassy = spawn_blocking(move || match legacy {
                    Some(legacy) => Embassy::go_on(legacy, Settings::default()),
                    None => Embassy::start(address),
                })
                .await;
                let embassy = embassy.map_err(|panic| panic.to_string())?.map_err(|error| error.to_string())?;
                self.put(Stand { address, embassy: Arc::new(embassy), lacks: None });
            }
        }
        let folder = self.folder.clone();
        let kept = spawn_blocking(move || files::kept::<Table>(&folder)).await;
        match kept.unwrap_or_else(|panic| Err(std::io::Error::other(panic))) {
            Ok(Some(table)) => self.set(table).await,
            Ok(None) => Ok(()),
            Err(error) => Err(format!("what the embassy was told last is damaged; it waits to be told again: {error}")),
        }
    }

    /// Has its ports be these, and has them on the disk when it returns.
    ///
    /// # Errors
    /// [`AgentError::Embassy`]: there is none yet, or it lacks some ports. [`AgentError::Disk`]: it has them until it
    /// begins anew.
    pub async fn expose(&self, table: Table) -> Result<(), AgentError> {
        let _alone = self.changing.lock().await;
        // Whoever leaves does not wait for the disk.
        let set = match self.stand() {
            Some(_) => self.set(table.clone()).await,
            None => Err("no embassy stands on the server".to_owned()),
        };
        let folder = self.folder.clone();
        let kept = spawn_blocking(move || files::keep(&folder, &table)).await;
        let kept = kept.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
        kept.map_err(|error| AgentError::Disk(format!("cannot keep the embassy's ports: {error}")))?;
        set.map_err(AgentError::Embassy)
    }

    /// Ends the embassy, and leaves its ports and connections to the program that replaces this one.
    pub async fn leave(&self) -> Option<Legacy> {
        // A change that hangs does not hold it up.
        let _alone = timeout(CHANGE, self.changing.lock()).await;
        match self.stand() {
            Some(stand) => spawn_blocking(move || stand.embassy.leave()).await.ok(),
            None => self.legacy().take(),
        }
    }

    /// What its ports have counted.
    pub fn counts(&self) -> Vec<PortCounts> {
        self.stand().map(|stand| stand.embassy.counts()).unwrap_or_default()
    }

    /// How many connections are open through it to an address.
    pub fn open(&self, peer: SocketAddr) -> u64 {
        let counts = self.counts();
        let there = counts.iter().flat_map(|port| &port.endpoints).filter(|endpoint| endpoint.address == peer);
        there.map(|endpoint| endpoint.open as u64).sum()
    }

    async fn set(&self, table: Table) -> Result<(), String> {
        let Some(stand) = self.stand() else { return Ok(()) };
        let embassy = stand.embassy.clone();
        let set = spawn_blocking(move || embassy.set(&table)).await.map_err(|panic| panic.to_string())?;
        let told = set.as_ref().err().map(ToString::to_string);
        let lacks = told.clone().filter(|_| matches!(set, Err(EmbassyError::Ports(_))));
        self.put(Stand { lacks, ..stand });
        told.map_or(Ok(()), Err)
    }

    /// Takes the embassy that stands elsewhere than at `address`.
    fn take_unless(&self, address: Option<IpAddr>) -> Option<Stand> {
        let mut stand = self.stand.lock().unwrap_or_else(PoisonError::into_inner);
        stand.take_if(|stand| Some(stand.address) != address)
    }

    fn legacy(&self) -> MutexGuard<'_, Option<Legacy>> {
        self.legacy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stand(&self) -> Option<Stand> {
        self.stand.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, stand: Stand) {
        *self.stand.lock().unwrap_or_else(PoisonError::into_inner) = Some(stand);
    }
}
