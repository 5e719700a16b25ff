//! Opens the api's port on every server, and opens it again when a line was down.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::hq::Hq;
use crate::names::ServerName;
use crate::servers::ssh::{Line, LinkError, State};

/// Between two looks whether servers have come or gone.
const LOOK: Duration = Duration::from_secs(1);

/// Before a port that could not be had is asked for again.
const SOON: Duration = Duration::from_secs(2);

/// The same for one that another program seems to have.
const LATER: Duration = Duration::from_secs(60);

/// So many refusals it takes to believe that.
const DENIALS: u32 = 4;

/// One server's port, as long as this lives.
struct Outpost {
    line: Weak<Line>,
    stop: AbortHandle,
}

impl Drop for Outpost {
    fn drop(&mut self) {
        self.stop.abort();
    }
}

impl Hq {
    /// Has the api, which answers at this address, answer on every server, until it is dropped.
    pub async fn keep_outposts(self: Arc<Self>, api: SocketAddr) {
        let api = own(api);
        let mut outposts: BTreeMap<ServerName, Outpost> = BTreeMap::new();
        loop {
            let members = self.members().into_keys();
            let lines: BTreeMap<ServerName, Weak<Line>> = members
                .filter_map(|server| self.lines.of(&server).ok().map(|line| (server, Arc::downgrade(&line))))
                .collect();
            outposts.retain(|server, outpost| lines.get(server).is_some_and(|line| line.ptr_eq(&outpost.line)));
            for (server, line) in lines {
                outposts.entry(server.clone()).or_insert_with(|| {
                    let stop = tokio::spawn(hold(server, line.clone(), api)).abort_handle();
                    Outpost { line, stop }
                });
            }
            sleep(LOOK).await;
        }
    }
}

/// Where HQ itself reaches what listens there.
fn own(api: SocketAddr) -> SocketAddr {
    match api {
        SocketAddr::V4(at) if at.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, at.port()).into(),
        SocketAddr::V6(at) if at.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, at.port()).into(),
        api => api,
    }
}

/// Has the port lead to the api as long as there is a line.
async fn hold(server: ServerName, line: Weak<Line>, api: SocketAddr) {
    let Some(mut state) = line.upgrade().map(|line| line.state()) else { return };
    let mut denials = 0;
    while state.wait_for(|state| *state == State::Up).await.is_ok() {
        let Some(up) = line.upgrade() else { return };
        let opened = up.forward_apart(api.port(), api).await;
        // A line that HQ has let go of must not be kept by waiting for it.
        drop(up);
        match opened {
            Ok(link) => {
                denials = 0;
                link.ended().await;
            }
            Err(error @ LinkError::Denied { .. }) => {
                denials += 1;
                if denials == DENIALS {
                    let port = api.port();
                    tracing::warn!(%server, port, %error, "the api does not answer on a server: the port is taken there");
                }
                sleep(if denials < DENIALS { SOON } else { LATER }).await;
            }
            Err(_) => sleep(SOON).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_reached_at_home() {
        for (api, expected) in
            [("0.0.0.0:8791", "127.0.0.1:8791"), ("[::]:1", "[::1]:1"), ("192.0.2.1:8791", "192.0.2.1:8791")]
        {
            assert_eq!(own(api.parse().unwrap()), expected.parse::<SocketAddr>().unwrap());
        }
    }
}
