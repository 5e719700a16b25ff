//! The environment of one container: who covers whom, and the docker-link variables.

use std::collections::BTreeMap;

use super::{ContainerPlan, Reach};
use crate::env::Env;
use crate::names::{EnvName, NodeName};
use crate::units::port::Port;

/// Composes the environment of a container: etc env, stack env, service links, node env, quarry's own; later wins.
pub fn environment(etc: &Env, stack: &Env, container: &ContainerPlan) -> Env {
    let mut env = etc.clone();
    env.cover(stack);
    env.cover(&links(container));
    env.cover(&container.settings.env);
    if let Some(port) = container.settings.first_port() {
        env.set_known("PORT", port.to_string());
    }
    env.set_known("QUARRY_STACK", container.stack.as_str());
    env.set_known("QUARRY_NODE", container.node.as_str());
    env.set_known("QUARRY_RELEASE", container.release.to_string());
    env.set_known("QUARRY_INDEX", container.index.to_string());
    env
}

/// Variables for every service of the stack and every node linked to. Where there is an embassy they lead there. Without,
/// a service has a fixed address; other nodes are reached by their name on the stack's network, which always means the
/// containers that run.
fn links(container: &ContainerPlan) -> Env {
    let mut targets: BTreeMap<&NodeName, Reach> = BTreeMap::new();
    for (node, ports) in &container.settings.links {
        let ports = ports.iter().map(|port| (*port, port.number)).collect();
        targets.insert(node, Reach { host: node.to_string(), ports });
    }
    for (node, reach) in container.services.iter().filter(|(node, _)| **node != container.node) {
        targets.insert(node, reach.clone());
    }
    let own = targets.into_iter().flat_map(|(node, reach)| link(node.as_str(), &reach));
    let outside = container.outside.iter();
    let outside = outside.flat_map(|(node, reach)| link(&format!("{}-{}", node.stack, node.node), reach));
    // What is the stack's own covers what is called alike.
    outside.chain(own).collect()
}

/// One link in docker's form: `MONGO_PORT`, and for each port `MONGO_PORT_27017_TCP` with `_ADDR _PORT _PROTO`.
fn link(name: &str, reach: &Reach) -> Vec<(EnvName, String)> {
    let prefix = name.to_ascii_uppercase().replace('-', "_");
    let Reach { host, ports } = reach;
    let url = |port: &Port, at: &u16| format!("{}://{host}:{at}", port.transport.word());
    let first = ports.first().map(|(port, at)| (format!("{prefix}_PORT"), url(port, at)));
    let all = ports.iter().flat_map(|(port, at)| {
        let proto = port.transport.word();
        let base = format!("{prefix}_PORT_{}_{}", port.number, proto.to_ascii_uppercase());
        [
            (base.clone(), url(port, at)),
            (format!("{base}_ADDR"), host.clone()),
            (format!("{base}_PORT"), at.to_string()),
            (format!("{base}_PROTO"), proto.to_owned()),
        ]
    });
    let named = |(name, value): (String, String)| {
        (name.parse().expect("a node name in capitals with underscores is a variable name"), value)
    };
    first.into_iter().chain(all).map(named).collect()
}
