//! What an embassy leaves to its successor when the program is replaced: its ports and connections go on, and no client
//! and no endpoint notices.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::names::ContainerName;
use crate::units::Millis;
use crate::units::port::Port;

/// All of it. `F` is an open file; nothing where the files travel beside it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Legacy<F = OwnedFd> {
    /// Where the embassy stands.
    pub address: IpAddr,
    /// The sockets that clients come in by. Those who come meanwhile wait there.
    pub ports: BTreeMap<Port, F>,
    /// Everybody who is in. Flows of datagrams are none: the next datagram begins another one.
    pub connections: Vec<Left<F>>,
}

/// A connection.
#[derive(Debug, Serialize, Deserialize)]
pub struct Left<F = OwnedFd> {
    /// By which port it came.
    pub port: Port,
    /// The client's side.
    pub client: F,
    /// The endpoint's side; `None` while none has accepted.
    pub reached: Option<Reached<F>>,
}

/// An endpoint that has accepted.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reached<F = OwnedFd> {
    /// Its side.
    pub socket: F,
    /// Where it is.
    pub address: SocketAddr,
    /// Whose address that is.
    pub container: ContainerName,
    /// How long the connection may stay where the endpoint is in the successor's table no more.
    pub stays: Millis,
    /// From the client and from the endpoint.
    pub ways: [Way; 2],
}

/// How far one direction is.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// What the other side has not taken yet.
    pub rest: Vec<u8>,
    /// The end was read and passed on.
    pub is_over: bool,
}

impl<F> Legacy<F> {
    /// The same with other files, in the order of the fields; what has lost one of its own is left out.
    pub fn map<G>(self, mut file: impl FnMut(F) -> Option<G>) -> Legacy<G> {
        let mut ports = BTreeMap::new();
        for (port, socket) in self.ports {
            ports.extend(file(socket).map(|socket| (port, socket)));
        }
        let connections = self.connections.into_iter().filter_map(|left| left.map(&mut file)).collect();
        Legacy { address: self.address, ports, connections }
    }
}

impl<F> Left<F> {
    fn map<G>(self, file: &mut impl FnMut(F) -> Option<G>) -> Option<Left<G>> {
        // Both are taken before either is missed: what comes after them has its place by theirs.
        let client = file(self.client);
        let reached = self.reached.map(|reached| {
            let Reached { socket, address, container, stays, ways } = reached;
            file(socket).map(|socket| Reached { socket, address, container, stays, ways })
        });
        Some(Left {
            port: self.port,
            client: client?,
            reached: reached.map_or(Some(None), |reached| reached.map(Some))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(port: u16, client: u32, endpoint: Option<u32>) -> Left<u32> {
        let reached = endpoint.map(|socket| Reached {
            socket,
            address: "192.0.2.1:80".parse().unwrap(),
            container: "blog.db.1.1".parse().unwrap(),
            stays: Millis(7),
            ways: Default::default(),
        });
        Left { port: Port::tcp(port), client, reached }
    }

    #[test]
    fn files_go_and_come_back_in_the_same_order_and_who_lost_one_is_left_out() {
        let made = || Legacy {
            address: "10.0.0.1".parse().unwrap(),
            ports: [(Port::tcp(1), 10), (Port::udp(1), 11)].into(),
            connections: vec![left(1, 12, Some(13)), left(1, 14, None), left(1, 15, Some(16))],
        };
        let mut gone = Vec::new();
        let bare = made().map(|file| {
            gone.push(file);
            Some(())
        });
        assert_eq!(gone, [10, 11, 12, 13, 14, 15, 16]);
        let read: Legacy<()> = serde_json::from_str(&serde_json::to_string(&bare).unwrap()).unwrap();
        let mut files = gone.into_iter().take(6);
        let back = read.map(|()| files.next());
        assert_eq!(back.ports, made().ports);
        let told: Vec<(u32, Option<u32>)> =
            back.connections.iter().map(|left| (left.client, left.reached.as_ref().map(|one| one.socket))).collect();
        assert_eq!(told, [(12, Some(13)), (14, None)]);
    }
}
