//! The ports a router listens at, and who else has them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Nginx;
use crate::router::edge::EdgeError;
use crate::router::process::{self, Holder, Process};

impl Nginx {
    /// Waits for the ports that processes of an earlier nginx are about to let go.
    pub(super) async fn ports_are_free(&self, leaving: &[Process]) -> Result<(), EdgeError> {
        let deadline = Instant::now() + Duration::from_secs(3);
        while let Some(address) = self.held(leaving)? {
            if Instant::now() > deadline {
                return Err(EdgeError::Start { message: format!("cannot listen at {address}: it is in use") });
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// The first address that `ours` hold, or somebody who cannot be seen; an error names anybody else.
    pub(super) fn held(&self, ours: &[Process]) -> Result<Option<SocketAddr>, EdgeError> {
        let mut held = None;
        for address in self.listen.all() {
            let Err(problem) = TcpListener::bind(address) else { continue };
            let start = |why: String| EdgeError::Start { message: format!("cannot listen at {address}: {why}") };
            if problem.kind() != io::ErrorKind::AddrInUse {
                return Err(start(problem.to_string()));
            }
            match process::holder(*address) {
                Some(Holder { pid, name }) if ours.iter().all(|process| process.pid != pid) => {
                    return Err(start(format!("{name} (process {pid}) has the port")));
                }
                Some(_) | None => held = held.or(Some(*address)),
            }
        }
        Ok(held)
    }
}
