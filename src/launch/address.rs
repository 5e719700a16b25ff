//! Choosing ports, subnets and addresses, lowest free first, so that the same world gives the same answer.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use super::Ground;
use crate::names::{NodeName, ServerName};

/// Nothing is left to hand out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// All ports are in use.
    #[error("every port from {0} to {1} is in use; scale something down or widen `port-range` in quarry's settings")]
    Ports(u16, u16),
    /// All subnets are in use.
    #[error("every subnet of {0} is in use; destroy a stack or widen `subnets` in quarry's settings")]
    Subnets(String),
    /// A server takes no more containers of a stack.
    #[error(
        "`{node}` finds no place on {server}: the stack's network {subnet} there holds {holds} containers, those that a \
         launch replaces included; scale something down, or add a server"
    )]
    Containers {
        /// Which node's container is one too many.
        node: NodeName,
        /// Where.
        server: ServerName,
        /// The stack's subnet there.
        subnet: String,
        /// How many it holds.
        holds: u32,
    },
    /// A stack's network has no place for one more service.
    #[error("the stack's network {0} has no free address for a service")]
    Addresses(String),
}

/// The lowest free port, which is then taken.
///
/// # Errors
/// [`Exhausted::Ports`] with the range.
pub fn port(ground: &Ground, taken: &mut BTreeSet<u16>) -> Result<SocketAddr, Exhausted> {
    let (first, last) = (*ground.ports.start(), *ground.ports.end());
    let free = (first..=last).find(|port| !taken.contains(port)).ok_or(Exhausted::Ports(first, last))?;
    taken.insert(free);
    Ok(SocketAddr::new(ground.address, free))
}

/// The widest subnets that leave a server 256 of them, from /23 to /26: half of the addresses are for containers, and
/// while a launch replaces a hundred it needs two hundred.
fn subnet_bits(pool_bits: u32) -> u32 {
    (pool_bits + 8).clamp(23, 26)
}

/// The lowest free subnet of `pool` (such as `10.208.0.0/12`), given those in use, of whatever size.
///
/// # Errors
/// [`Exhausted::Subnets`] with the pool, also when the pool is not a network.
pub fn subnet(pool: &str, taken: &BTreeSet<String>) -> Result<String, Exhausted> {
    let exhausted = || Exhausted::Subnets(pool.to_owned());
    let (base, pool_bits) = network(pool).filter(|(_, bits)| *bits <= 26).ok_or_else(exhausted)?;
    let bits = subnet_bits(pool_bits);
    let size = 1_u32 << (32 - bits);
    let taken: Vec<(u32, u32)> = taken.iter().filter_map(|text| network(text)).map(range).collect();
    let (first, last) = range((base, pool_bits));
    (first..=last - (size - 1))
        .step_by(size as usize)
        .find(|start| taken.iter().all(|(low, high)| start + (size - 1) < *low || start > high))
        .map(|start| format!("{}/{bits}", Ipv4Addr::from(start)))
        .ok_or_else(exhausted)
}

/// The lowest free fixed address of a stack's subnet. Fixed ones lie in its lower half, the engine's own choice in
/// the upper one, so that a stopped service finds its address free again.
///
/// # Errors
/// [`Exhausted::Addresses`] with the subnet.
pub fn fixed(subnet: &str, taken: &BTreeSet<Ipv4Addr>) -> Result<Ipv4Addr, Exhausted> {
    let exhausted = || Exhausted::Addresses(subnet.to_owned());
    let (first, last) = network(subnet).map(range).ok_or_else(exhausted)?;
    (first + 2..=first + (last - first) / 2)
        .map(Ipv4Addr::from)
        .find(|address| !taken.contains(address))
        .ok_or_else(exhausted)
}

/// How many containers get an address by the engine's own choice: the upper half of the subnet, but for its last one.
pub fn holds(subnet: &str) -> u32 {
    network(subnet).map(range).map_or(u32::MAX, |(first, last)| (last - first) / 2)
}

fn network(text: &str) -> Option<(u32, u32)> {
    let (address, bits) = text.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let bits: u32 = bits.parse().ok().filter(|bits| (1..=32).contains(bits))?;
    Some((u32::from(address), bits))
}

fn range((base, bits): (u32, u32)) -> (u32, u32) {
    let size = 1u32 << (32 - bits);
    let first = base & !(size - 1);
    (first, first + (size - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_handed_out_lowest_first_until_none_is_left() {
        let ground = Ground { address: Ipv4Addr::LOCALHOST.into(), ports: 20_000..=20_001 };
        let mut taken = BTreeSet::from([20_000]);
        assert_eq!(port(&ground, &mut taken).unwrap().port(), 20_001);
        assert_eq!(port(&ground, &mut taken), Err(Exhausted::Ports(20_000, 20_001)));
    }

    #[test]
    fn subnets_never_overlap_one_in_use_whatever_its_size() {
        let taken = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        assert_eq!(subnet("10.208.0.0/12", &taken(&[])).unwrap(), "10.208.0.0/23");
        // Those of an earlier time are smaller.
        assert_eq!(subnet("10.208.0.0/12", &taken(&["10.208.0.0/26"])).unwrap(), "10.208.2.0/23");
        assert_eq!(subnet("10.208.0.0/12", &taken(&["10.208.2.128/25", "10.208.0.0/23"])).unwrap(), "10.208.4.0/23");
        assert_eq!(subnet("10.208.0.0/12", &taken(&["10.0.0.0/8"])), Err(Exhausted::Subnets("10.208.0.0/12".into())));
        assert_eq!(subnet("10.1.0.0/26", &taken(&[])).unwrap(), "10.1.0.0/26");
        assert!(subnet("10.1.0.0/27", &taken(&[])).is_err());
    }

    #[test]
    fn a_small_pool_is_cut_smaller_so_that_it_is_enough_for_many_stacks() {
        let check = |pool: &str, expected: &str, containers: u32| {
            let subnet = subnet(pool, &BTreeSet::new()).unwrap();
            assert_eq!((subnet.as_str(), holds(&subnet)), (expected, containers), "{pool}");
        };
        check("10.208.0.0/12", "10.208.0.0/23", 255);
        check("10.208.0.0/16", "10.208.0.0/24", 127);
        check("10.208.0.0/20", "10.208.0.0/26", 31);
    }

    #[test]
    fn fixed_addresses_stay_in_the_lower_half() {
        let check = |subnet: &str, from: [u8; 4], to: [u8; 4], expected: usize| {
            let mut taken = BTreeSet::new();
            while let Ok(address) = fixed(subnet, &taken) {
                assert!(address >= Ipv4Addr::from(from) && address <= Ipv4Addr::from(to), "{address}");
                taken.insert(address);
            }
            assert_eq!(taken.len(), expected, "{subnet}");
        };
        check("10.208.0.64/26", [10, 208, 0, 66], [10, 208, 0, 95], 30);
        check("10.208.2.0/23", [10, 208, 2, 2], [10, 208, 2, 255], 254);
    }
}
