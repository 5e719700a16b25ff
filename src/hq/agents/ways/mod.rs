//! What the containers of each server reach on others: the services of their own stack, at the ports these publish. A
//! server has to know before the containers run; [`act`] sees to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::docker::Network;
use crate::launch::{Identity, Plan, Proc, Step};
use crate::names::{ServerName, StackName};
use crate::network::Net;
use crate::network::wall::Way;

pub mod act;

/// What is known of the stacks that matters here.
#[derive(Debug, Default)]
pub struct Known {
    /// Servers whose networks are known.
    servers: BTreeSet<ServerName>,
    networks: BTreeSet<(ServerName, StackName, Net)>,
    services: BTreeSet<(StackName, Option<ServerName>, SocketAddr)>,
}

impl Known {
    /// A server has these networks, of whatever HQ.
    pub fn server(&mut self, server: &ServerName, networks: &[Network], identity: &Identity) {
        self.servers.insert(server.clone());
        let own = networks.iter().filter_map(|network| identity.stack_of(network));
        self.networks.extend(own.map(|(stack, subnet)| (server.clone(), stack, subnet)));
    }

    /// This should run of a stack.
    pub fn proc(&mut self, stack: &StackName, proc: &Proc) {
        let ports = proc.published.iter().map(|(_, at)| (stack.clone(), proc.home.clone(), *at));
        self.services.extend(ports);
    }

    /// This is about to be made of a stack.
    pub fn plan(&mut self, stack: &StackName, plan: &Plan) {
        plan.procs.values().for_each(|proc| self.proc(stack, proc));
        for step in plan.revocable() {
            if let Step::Network { server, subnet, .. } = step
                && let Ok(subnet) = subnet.parse()
            {
                self.networks.insert((server.clone(), stack.clone(), subnet));
            }
        }
    }

    /// By server; one whose networks are not known is not in it.
    pub fn ways(&self) -> BTreeMap<ServerName, BTreeSet<Way>> {
        let mut ways: BTreeMap<ServerName, BTreeSet<Way>> =
            self.servers.iter().map(|server| (server.clone(), BTreeSet::new())).collect();
        for (server, stack, from) in &self.networks {
            let Some(ways) = ways.get_mut(server) else { continue };
            let own = self.services.iter().filter(|(of, home, _)| of == stack && home.as_ref() != Some(server));
            ways.extend(own.map(|(_, _, to)| Way { from: *from, to: *to }));
        }
        ways
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::{Instruction, Settings};
    use crate::launch::label;
    use crate::launch::plan::plan;
    use crate::launch::sample::{name, settings, world};
    use crate::names::ReleaseNumber;
    use crate::stack::Kind;
    use crate::units::port::Port;

    fn identity(id: &str) -> Identity {
        Identity { id: id.to_owned(), suffix: String::new(), secret: String::new() }
    }

    fn network(hq: &str, stack: &str, subnet: &str) -> Network {
        let labels = [(label::HQ, hq), (label::STACK, stack)].map(|(name, value)| (name.into(), value.into())).into();
        Network { name: format!("quarry-{stack}"), subnet: subnet.to_owned(), labels }
    }

    #[test]
    fn a_launch_shows_the_ways_of_its_containers_before_they_are_there() {
        let ensure = Instruction::Ensure {
            node: name("kv"),
            settings: Box::new(Settings { kind: Kind::Service, ports: vec![Port::tcp(6379)], ..settings() }),
        };
        let deploy = Instruction::Deploy {
            node: name("web"),
            release: ReleaseNumber(1),
            count: 2,
            settings: Box::new(settings()),
        };
        let plan = plan(&[ensure, deploy], &world(&["s1", "s2"])).unwrap();
        let service = &plan.procs[&name::<crate::names::NodeName>("kv")];
        let home = service.home.clone().unwrap();
        let other: ServerName = name(if home.as_str() == "s1" { "s2" } else { "s1" });
        let mut known = Known::default();
        for server in ["s1", "s2"] {
            known.server(&name(server), &[], &identity("x"));
        }
        known.plan(&name("blog"), &plan);
        let ways = known.ways();
        assert_eq!(ways[&home], BTreeSet::new(), "at home it is reached on the stack's own network");
        let to: Vec<SocketAddr> = ways[&other].iter().map(|way| way.to).collect();
        assert_eq!(to, [service.published[0].1]);
    }

    #[test]
    fn no_way_leads_to_another_stack_and_none_from_another_hqs_network() {
        let mut known = Known::default();
        let networks = [
            network("a", "blog", "10.208.0.0/24"),
            network("a", "shop", "10.208.1.0/24"),
            network("b", "blog", "10.208.2.0/24"),
        ];
        known.server(&name("s1"), &networks, &identity("a"));
        let at: SocketAddr = "10.0.0.2:20000".parse().unwrap();
        known.services.insert((name("blog"), Some(name("s2")), at));
        let way = Way { from: "10.208.0.0/24".parse().unwrap(), to: at };
        assert_eq!(known.ways(), BTreeMap::from([(name("s1"), BTreeSet::from([way]))]));
    }
}
