//! How a new container shows that it came up.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Proc, Role, Step, exchange};
use crate::docker::Restart;
use crate::names::{ContainerName, ServerName};
use crate::stack::{Health, Overlap};
use crate::units::Millis;
use crate::units::port::Port;

pub mod act;
pub mod http;

/// How a new container shows that it came up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// The node's own health check.
    Health(Health),
    /// It lives for [`SETTLE`], and its routed port takes connections within [`LISTEN`].
    Listens,
    /// It lives for [`SETTLE`].
    Settles,
}

/// A container without a health check must live this long.
pub const SETTLE: Millis = Millis::seconds(3);
/// A web container must listen within this.
pub const LISTEN: Millis = Millis::seconds(60);
/// A new service may take this long until its port takes connections; then the launch goes on without it.
pub const SERVICE_LISTEN: Millis = Millis::seconds(30);

/// The step that waits for a container of a node, of which this is routed and these ports are published.
pub fn awaiting(
    server: &ServerName,
    name: &ContainerName,
    proc: &Proc,
    published: Option<SocketAddr>,
    exposed: &[(Port, SocketAddr)],
) -> Step {
    // A service may well listen elsewhere than its image says.
    let check = match (&proc.settings.health, published, proc.address) {
        (Some(health), _, _) => Check::Health(health.clone()),
        (None, Some(_), None) => Check::Listens,
        (None, None, _) | (None, Some(_), Some(_)) => Check::Settles,
    };
    // From another server only what is published is reached.
    let published =
        published.or_else(|| exchange::connected(exposed).chain(exchange::connected(&proc.published)).next());
    Step::Await {
        server: server.clone(),
        container: name.clone(),
        node: proc.node.clone(),
        check,
        port: proc.settings.first_port(),
        published,
        exposed: exposed.to_vec(),
        role: if proc.address.is_some() { Role::Service } else { Role::Node },
        restart: match (proc.address, proc.settings.overlap) {
            (Some(_), _) | (None, Overlap::StartFirst) => Restart::UnlessStopped,
            (None, Overlap::StopFirst) => Restart::No,
        },
    }
}
