//! Opens the ways, and opens them again when a line was down.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::names::ServerName;
use crate::servers::registry::process::Keeper;
use crate::servers::registry::tcp::Gate;
use crate::servers::ssh::{Line, Link, LinkError};

/// How long the server's sshd may need to give back the port of a connection that has broken.
const RELEASE: Duration = Duration::from_secs(10);

/// Between two attempts to have it.
const AGAIN: Duration = Duration::from_millis(500);

/// By server.
#[derive(Default)]
pub(in crate::servers::registry) struct Ways {
    gates: Mutex<BTreeMap<ServerName, Arc<Gate>>>,
    ports: Mutex<BTreeMap<ServerName, Arc<Mutex<Option<Port>>>>>,
}

struct Port {
    number: u16,
    /// As long as it stands, the port leads to the gate.
    link: Weak<Link>,
}

impl Ways {
    /// The server's gate, opened when it is first needed.
    pub(in crate::servers::registry) async fn gate(
        &self,
        server: &ServerName,
        keeper: &Arc<Keeper>,
    ) -> io::Result<Arc<Gate>> {
        let mut gates = self.gates.lock().await;
        if let Some(gate) = gates.get(server) {
            return Ok(gate.clone());
        }
        let gate = Arc::new(Gate::open(keeper.clone()).await?);
        gates.insert(server.clone(), gate.clone());
        Ok(gate)
    }

    /// The port of the server's loopback that leads to `gate`.
    ///
    /// It stays the same, if that can be, when the line has fallen and is back: an engine that is asked twice for one
    /// layer fetches it once, from where it was asked to first, and there goes on with the byte at which it stopped.
    pub(in crate::servers::registry) async fn port(&self, line: &Line, gate: SocketAddr) -> Result<u16, LinkError> {
        let port = self.ports.lock().await.entry(line.server().clone()).or_default().clone();
        let mut port = port.lock().await;
        let link = line.bulk().await?;
        if let Some(known) = &*port
            && known.link.ptr_eq(&Arc::downgrade(&link))
        {
            return Ok(known.number);
        }
        let number = match &*port {
            Some(known) => again(&link, known.number, gate).await?,
            None => link.forward(0, gate).await?,
        };
        *port = Some(Port { number, link: Arc::downgrade(&link) });
        Ok(number)
    }
}

/// The port it was before; another when somebody else has it by now.
async fn again(link: &Link, number: u16, gate: SocketAddr) -> Result<u16, LinkError> {
    let deadline = Instant::now() + RELEASE;
    loop {
        match link.forward(number, gate).await {
            Err(LinkError::Denied { .. }) if Instant::now() < deadline => sleep(AGAIN).await,
            Err(LinkError::Denied { .. }) => return link.forward(0, gate).await,
            ended => return ended,
        }
    }
}
