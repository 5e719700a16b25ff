//! What one table changes about another.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::table::{Endpoint, Exposed, Ports};
use crate::names::ContainerName;
use crate::units::Millis;
use crate::units::port::Port;

/// An endpoint of a port: another container at the same address is another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whom {
    /// Of which port.
    pub port: Port,
    /// Where it is.
    pub address: SocketAddr,
    /// Which container that is.
    pub container: ContainerName,
}

/// The way from one table to another; each list by port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Ports to listen on.
    pub open: Vec<Port>,
    /// Ports to listen on no longer.
    pub close: Vec<Port>,
    /// Endpoints that get nobody any more, and how long their open connections may stay.
    pub drain: Vec<(Whom, Millis)>,
}

/// From `old` to `new`. An endpoint drains as long as its port says by then, or said last.
pub fn change(old: &Ports, new: &Ports) -> Change {
    let missing = |these: &Ports, there: &Ports| -> Vec<Port> {
        these.keys().filter(|port| !there.contains_key(port)).copied().collect()
    };
    let mut drain = Vec::new();
    for (port, exposed) in old {
        let now = new.get(port);
        let stay: BTreeSet<Whom> = now.into_iter().flat_map(whom).collect();
        let time = now.unwrap_or(exposed).drain;
        drain.extend(whom(exposed).filter(|gone| !stay.contains(gone)).map(|gone| (gone, time)));
    }
    Change { open: missing(new, old), close: missing(old, new), drain }
}

/// The endpoints of a port.
fn whom(exposed: &Exposed) -> impl Iterator<Item = Whom> {
    let port = exposed.port;
    exposed.endpoints.iter().map(move |endpoint| Whom::of(port, endpoint))
}

impl Whom {
    /// The endpoint of a port.
    pub fn of(port: Port, endpoint: &Endpoint) -> Self {
        Self { port, address: endpoint.address, container: endpoint.container.clone() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    use super::*;
    use crate::embassy::table::{Health, Sources};
    use crate::units::Balance;

    /// A port with endpoints of these numbers: the address of one belongs to two containers in turn.
    fn exposed(number: u16, endpoints: &BTreeSet<(u8, u8)>, drain: u64) -> Exposed {
        let made = |(address, container): &(u8, u8)| Endpoint {
            address: SocketAddr::from(([192, 0, 2, *address], 20_000)),
            container: format!("blog.db.1.{container}").parse().unwrap(),
            health: if address % 2 == 0 { Health::Healthy } else { Health::Unhealthy },
        };
        Exposed {
            port: Port::tcp(number),
            endpoints: endpoints.iter().map(made).collect(),
            balance: Balance::RoundRobin,
            from: Sources::Anywhere,
            drain: Millis(drain),
            connect: Millis(100),
        }
    }

    fn ports() -> impl Strategy<Value = Ports> {
        let one = (btree_set((0_u8..4, 0_u8..2), 0..4), 0_u64..3);
        btree_map(1_u16..5, one, 0..4).prop_map(|ports| {
            let made = |(number, (endpoints, drain)): (u16, (BTreeSet<(u8, u8)>, u64))| {
                (Port::tcp(number), exposed(number, &endpoints, drain))
            };
            ports.into_iter().map(made).collect()
        })
    }

    #[test]
    fn an_endpoint_drains_as_its_port_says_last() {
        let both = BTreeSet::from([(1, 0), (2, 0)]);
        let one = BTreeSet::from([(1, 0)]);
        let ports = |exposed: Exposed| Ports::from([(exposed.port, exposed)]);
        let old = ports(exposed(7, &both, 5));
        let less = change(&old, &ports(exposed(7, &one, 9)));
        assert_eq!((less.open, less.close), (vec![], vec![]));
        let told: Vec<(String, Millis)> = less.drain.iter().map(|(w, time)| (w.address.to_string(), *time)).collect();
        assert_eq!(told, [("192.0.2.2:20000".to_owned(), Millis(9))]);
        let none = change(&old, &Ports::new());
        assert_eq!(none.close, [Port::tcp(7)]);
        assert!(none.drain.len() == 2 && none.drain.iter().all(|(_, time)| *time == Millis(5)));
        let another = change(&old, &ports(exposed(7, &BTreeSet::from([(1, 0), (2, 1)]), 5)));
        assert_eq!(another.drain.len(), 1, "another container at the address is another endpoint");
    }

    proptest! {
        #[test]
        fn what_stays_is_not_touched_and_what_goes_is_named(old in ports(), new in ports()) {
            let found = change(&old, &new);
            let all = |ports: &Ports| ports.values().flat_map(whom).collect::<BTreeSet<Whom>>();
            let gone: BTreeSet<Whom> = found.drain.iter().map(|(whom, _)| whom.clone()).collect();
            prop_assert_eq!(&gone, &all(&old).difference(&all(&new)).cloned().collect::<BTreeSet<_>>());
            let mut listened: BTreeSet<Port> = old.keys().copied().collect();
            for port in &found.close { prop_assert!(listened.remove(port)); }
            for port in &found.open { prop_assert!(listened.insert(*port)); }
            prop_assert_eq!(listened, new.keys().copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(change(&new, &new), Change::default());
        }
    }
}
