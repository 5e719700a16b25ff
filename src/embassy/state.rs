//! What all threads of an embassy share of its ports and endpoints: who is where, and what has happened so far.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use serde::{Deserialize, Serialize};

use super::choose::{Candidate, Standing, choose};
use super::table::{Exposed, Health, Sources};
use crate::names::ContainerName;
use crate::units::Balance;
use crate::units::net::Net;
use crate::units::port::{Port, Transport};

/// No moment: of something that does not happen.
pub const NEVER: u64 = u64::MAX;

/// A moment: milliseconds since the embassy began.
pub type Moment = u64;

/// The ports as a thread knows them.
pub type Entries = HashMap<u32, Arc<Entry>>;

/// A port.
#[derive(Debug)]
pub struct Entry {
    /// Which.
    pub port: Port,
    /// How long an endpoint may take to accept, in milliseconds.
    pub connect: u64,
    /// What it has counted.
    pub tally: Arc<PortTally>,
    /// Where clients come in. Threads use it where they hold the entries: so it closes when it leaves them.
    pub socket: Arc<OwnedFd>,
    balance: Balance,
    allowed: Allowed,
    endpoints: Vec<(Health, Arc<Backend>)>,
}

/// What is counted for a port, whatever becomes of its endpoints.
#[derive(Debug, Default)]
pub struct PortTally {
    turn: AtomicUsize,
    /// Connections and datagrams from where nobody may connect.
    pub refused: AtomicU64,
    /// Connections no endpoint accepted, and datagrams none could be sent.
    pub unserved: AtomicU64,
}

/// An endpoint of a port.
#[derive(Debug)]
pub struct Backend {
    /// Where it is.
    pub address: SocketAddr,
    /// Whose address that is.
    pub container: ContainerName,
    /// Open connections or flows, those that are being made included.
    pub open: AtomicUsize,
    /// All that were made.
    pub total: AtomicU64,
    /// Attempts that came to nothing.
    pub failed: AtomicU64,
    /// Bytes by which side they came from: clients, and the endpoint.
    pub bytes: [AtomicU64; 2],
    /// Others go first until then.
    pub rests_until: AtomicU64,
    /// Its open connections end then; `NEVER` for one that is in the table.
    pub ends_at: AtomicU64,
}

/// A port's number among the entries.
pub fn id(port: Port) -> u32 {
    let above = match port.transport {
        Transport::Tcp => 0,
        Transport::Udp => 1 << 16,
    };
    u32::from(port.number) | above
}

/// The port with this number.
pub fn port(id: u32) -> Port {
    let number = id as u16;
    if id >> 16 == 0 { Port::tcp(number) } else { Port::udp(number) }
}

impl Backend {
    /// One that is in the table.
    pub fn new(address: SocketAddr, container: ContainerName) -> Self {
        Self {
            address,
            container,
            open: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            bytes: [const { AtomicU64::new(0) }; 2],
            rests_until: AtomicU64::new(0),
            ends_at: AtomicU64::new(NEVER),
        }
    }

    /// Whether it was taken out of the table.
    pub fn is_leaving(&self) -> bool {
        self.ends_at.load(Relaxed) != NEVER
    }
}

impl Entry {
    /// A port as a table has it. `endpoints` are the table's, in its order.
    pub fn new(exposed: &Exposed, tally: Arc<PortTally>, socket: Arc<OwnedFd>, endpoints: Vec<Arc<Backend>>) -> Self {
        Self {
            port: exposed.port,
            connect: exposed.connect.0,
            tally,
            socket,
            balance: exposed.balance,
            allowed: Allowed::new(&exposed.from),
            endpoints: exposed.endpoints.iter().map(|endpoint| endpoint.health).zip(endpoints).collect(),
        }
    }

    /// Whether clients of this address may connect.
    pub fn allows(&self, from: IpAddr) -> bool {
        self.allowed.contains(from)
    }

    /// Whether its first endpoint is reached by IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.endpoints.first().is_some_and(|(_, backend)| backend.address.is_ipv6())
    }

    /// Chooses an endpoint that was not tried and counts the connection there; `candidates` is room to think.
    pub fn take(&self, tried: &[Arc<Backend>], now: Moment, candidates: &mut Vec<Candidate>) -> Option<Arc<Backend>> {
        loop {
            candidates.clear();
            candidates.extend(self.endpoints.iter().map(|(health, backend)| {
                let standing = if tried.iter().any(|one| Arc::ptr_eq(one, backend)) {
                    Standing::Tried
                } else if backend.rests_until.load(Relaxed) > now {
                    Standing::Resting
                } else {
                    Standing::Ready
                };
                Candidate { health: *health, standing, open: backend.open.load(Relaxed) }
            }));
            let turn = self.tally.turn.fetch_add(1, Relaxed);
            let place = choose(self.balance, turn, candidates)?;
            let (backend, seen) = (&self.endpoints[place].1, candidates[place].open);
            match self.balance {
                Balance::RoundRobin => drop(backend.open.fetch_add(1, Relaxed)),
                // Two threads that both saw the same least one would both go there.
                Balance::LeastConnections => {
                    if backend.open.compare_exchange(seen, seen + 1, Relaxed, Relaxed).is_err() {
                        continue;
                    }
                }
            }
            return Some(backend.clone());
        }
    }
}

/// Who may connect, quickly found.
#[derive(Debug)]
enum Allowed {
    Everybody,
    /// Ordered, and which lengths of prefixes there are among them.
    These(Vec<Net>, Vec<u8>),
}

impl Allowed {
    fn new(sources: &Sources) -> Self {
        match sources {
            Sources::Anywhere => Self::Everybody,
            Sources::Only(nets) => {
                let mut lengths: Vec<u8> = nets.iter().map(Net::bits).collect();
                lengths.sort_unstable();
                lengths.dedup();
                Self::These(nets.iter().copied().collect(), lengths)
            }
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self {
            Self::Everybody => true,
            Self::These(nets, lengths) => {
                lengths.iter().any(|bits| nets.binary_search(&Net::new(address, *bits)).is_ok())
            }
        }
    }
}

/// What a port has counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounts {
    /// Which.
    pub port: Port,
    /// Connections (datagrams) from where nobody may connect.
    pub refused: u64,
    /// Connections that no endpoint accepted (datagrams that none could be sent).
    pub unserved: u64,
    /// Those in the table and those that still drain, by address.
    pub endpoints: Vec<EndpointCounts>,
}

/// What an endpoint of a port has counted since it came into the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointCounts {
    /// Where it is.
    pub address: SocketAddr,
    /// Whose address that is.
    pub container: ContainerName,
    /// Open connections (flows), those that are being made included.
    pub open: usize,
    /// All that were made.
    pub total: u64,
    /// Attempts that came to nothing.
    pub failed: u64,
    /// Bytes that clients sent it.
    pub received: u64,
    /// Bytes that it sent.
    pub sent: u64,
}

impl Backend {
    /// What it has counted so far.
    pub fn counts(&self) -> EndpointCounts {
        EndpointCounts {
            address: self.address,
            container: self.container.clone(),
            open: self.open.load(Relaxed),
            total: self.total.load(Relaxed),
            failed: self.failed.load(Relaxed),
            received: self.bytes[0].load(Relaxed),
            sent: self.bytes[1].load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    fn net() -> impl Strategy<Value = Net> {
        let four = (any::<[u8; 4]>(), 1_u8..=32).prop_map(|(address, bits)| Net::new(IpAddr::from(address), bits));
        let near = (0_u8..4, 20_u8..=32).prop_map(|(last, bits)| Net::new(IpAddr::from([10, 0, last, last]), bits));
        let six = (any::<[u8; 16]>(), 1_u8..=128).prop_map(|(address, bits)| Net::new(IpAddr::from(address), bits));
        prop_oneof![four, near, six]
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        let near = (0_u8..4, 0_u8..4).prop_map(|(third, last)| IpAddr::from([10, 0, third, last]));
        prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from), near]
    }

    proptest! {
        #[test]
        fn an_address_may_connect_when_it_is_in_one_of_the_nets(nets in btree_set(net(), 0..9), from in address()) {
            let allowed = Allowed::new(&Sources::Only(nets.clone()));
            prop_assert_eq!(allowed.contains(from), nets.iter().any(|net| net.contains(from.to_canonical())));
        }
    }

    #[test]
    fn nobody_may_connect_where_nothing_is_said_and_ipv4_is_ipv4_however_it_is_written() {
        let allows = |sources: &Sources, from: &str| Allowed::new(sources).contains(from.parse().unwrap());
        assert!(!allows(&Sources::default(), "192.0.2.7"));
        assert!(allows(&Sources::Anywhere, "192.0.2.7"));
        let one = Sources::Only(["192.0.2.0/24".parse().unwrap()].into());
        assert!(allows(&one, "::ffff:192.0.2.7"));
        assert!(!allows(&one, "198.51.100.7"));
    }
}
