//! The ports of every stack's nodes at the embassy: one number each for the whole cluster, handed out once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::Reach;
use crate::docker::Container;
use crate::instruction::Settings;
use crate::launch::label;
use crate::names::StackNode;
use crate::units::port::Port;

/// A port that a node exposes; `embassy/ports/<number>.json` says whose a number is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exposure {
    /// Whose.
    pub node: StackNode,
    /// The port inside its containers.
    pub port: Port,
}

/// All numbers that are handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Where the embassy of every server listens.
    pub address: IpAddr,
    /// By whose they are.
    pub numbers: BTreeMap<Exposure, u16>,
}

impl Exchange {
    /// Where a node is reached; `None` when it exposes nothing, or nothing is known of it.
    pub fn reach(&self, node: &StackNode) -> Option<Reach> {
        let own = self.numbers.iter().filter(|(exposure, _)| exposure.node == *node);
        let ports: Vec<(Port, u16)> = own.map(|(exposure, number)| (exposure.port, *number)).collect();
        (!ports.is_empty()).then(|| Reach { host: self.address.to_string(), ports })
    }

    /// The nodes of a stack that are reached.
    pub fn nodes<'a>(&'a self, stack: &'a crate::names::StackName) -> BTreeSet<&'a StackNode> {
        self.numbers.keys().map(|exposure| &exposure.node).filter(|node| node.stack == *stack).collect()
    }
}

/// What a node exposes.
pub fn exposures<'a>(node: &'a StackNode, settings: &'a Settings) -> impl Iterator<Item = Exposure> + 'a {
    settings.ports.iter().map(|port| Exposure { node: node.clone(), port: *port })
}

/// The lowest number that nobody has.
pub fn free(taken: &BTreeSet<u16>, range: RangeInclusive<u16>) -> Option<u16> {
    range.into_iter().find(|number| !taken.contains(number))
}

/// The name by which a node is found inside containers.
pub fn host_name(node: &StackNode) -> String {
    format!("{}.{}.quarry", node.node, node.stack)
}

/// What a container is labelled with, for the ports it publishes: `80=10.0.0.2:20000`, with blanks between them.
pub fn label_text(published: &[(Port, SocketAddr)]) -> String {
    let each = published.iter().map(|(port, at)| format!("{port}={at}"));
    each.collect::<Vec<_>>().join(" ")
}

/// Where a container's ports are reached on its server, as its label has it.
pub fn published(container: &Container) -> Vec<(Port, SocketAddr)> {
    let text = container.labels.get(label::EXPOSED).map(String::as_str).unwrap_or_default();
    let read = |pair: &str| {
        let (port, at) = pair.split_once('=')?;
        Some((port.parse().ok()?, at.parse().ok()?))
    };
    text.split_whitespace().filter_map(read).collect()
}

/// Of published ports, where those of TCP are.
pub fn connected(published: &[(Port, SocketAddr)]) -> impl Iterator<Item = SocketAddr> {
    published.iter().filter(|(port, _)| port.connected().is_some()).map(|(_, at)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_handed_out_lowest_first_until_none_is_left() {
        assert_eq!(free(&BTreeSet::new(), 10_000..=10_001), Some(10_000));
        assert_eq!(free(&BTreeSet::from([10_000]), 10_000..=10_001), Some(10_001));
        assert_eq!(free(&BTreeSet::from([10_000, 10_001]), 10_000..=10_001), None);
    }

    #[test]
    fn a_node_is_reached_at_its_numbers_and_one_without_ports_nowhere() {
        let exposure = |node: &str, port| Exposure { node: node.parse().unwrap(), port: Port::tcp(port) };
        let numbers = [(exposure("shared/mongo", 27017), 10_004), (exposure("shared/mongo", 28017), 10_002)];
        let exchange = Exchange { address: "169.254.87.91".parse().unwrap(), numbers: numbers.into() };
        let reach = exchange.reach(&"shared/mongo".parse().unwrap()).unwrap();
        assert_eq!(
            (reach.host.as_str(), reach.ports),
            ("169.254.87.91", vec![(Port::tcp(27017), 10_004), (Port::tcp(28017), 10_002)])
        );
        assert_eq!(exchange.reach(&"shared/web".parse().unwrap()), None);
    }
}
