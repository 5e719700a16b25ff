//! What the embassy of each server is told: every port of the cluster, whom it leads to, and who may connect there. All of
//! it follows from what should run, what runs, and who links to whom; [`act`] finds that out and tells it.

use std::collections::{BTreeMap, BTreeSet};

use crate::docker::{Container, Network, State};
use crate::embassy::{Endpoint, Exposed, Health, PortCounts, Sources, Table};
use crate::instruction::Settings;
use crate::launch::exchange::{Exposure, published};
use crate::launch::journal::{Journal, Phase};
use crate::launch::{Identity, Proc, Step, label};
use crate::names::{ContainerName, NodeName, ServerName, StackName, StackNode};
use crate::network::Net;
use crate::units::Millis;
use crate::units::port::Port;

pub mod act;

/// How long one container may take to accept a connection before another one is tried.
const CONNECT: Millis = Millis::seconds(2);

/// All that is known when the tables are written.
#[derive(Debug, Default)]
pub struct Known {
    /// Whose each number is.
    pub numbers: BTreeMap<Exposure, u16>,
    /// What should run.
    pub stacks: BTreeMap<StackName, Course>,
    /// What runs.
    pub servers: BTreeMap<ServerName, Seen>,
}

/// The numbers of the cluster's ports.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Those whose owner is known.
    pub of: BTreeMap<Exposure, u16>,
    /// All of them: a damaged one is a person's to mend, and nobody else's meanwhile.
    pub taken: BTreeSet<u16>,
}

/// A port, and where it leads.
#[derive(Debug, Clone)]
pub struct Lead {
    /// Whose.
    pub exposure: Exposure,
    /// Its number.
    pub number: u16,
    /// Whom it leads to.
    pub endpoints: Vec<Endpoint>,
    /// Stacks that link to it from outside.
    pub linked_by: BTreeSet<StackName>,
    /// What the embassies have counted that answer.
    pub counts: Vec<PortCounts>,
}

/// What should run of one stack, and what is on its way.
#[derive(Debug, Default)]
pub struct Course {
    /// What counts.
    pub procs: BTreeMap<NodeName, Proc>,
    /// What will count once the operation under way is committed.
    next: BTreeMap<NodeName, Proc>,
    /// Made by that operation.
    coming: BTreeSet<ContainerName>,
    /// On their way out.
    going: BTreeSet<ContainerName>,
}

/// What is known of one server.
#[derive(Debug, Default)]
pub struct Seen {
    /// Its containers, of whatever HQ.
    pub containers: Vec<Container>,
    /// Whether it is heard: what is not heard may not answer.
    pub is_heard: bool,
    /// Those of its containers that fail their health check.
    pub sick: BTreeSet<ContainerName>,
    /// The networks of stacks there.
    pub networks: BTreeSet<(StackName, Net)>,
}

impl Course {
    /// From a stack's journal. What is not committed does not count yet.
    pub fn follow(&mut self, journal: &Journal) {
        self.going.extend(journal.going().into_iter().map(|(_, name)| name.clone()));
        let Some(active) = &journal.active else { return };
        match active.phase {
            Phase::Building | Phase::Before(_) => {
                self.next.clone_from(&active.plan.procs);
                let made = active.plan.revocable().filter_map(Step::makes);
                self.coming.extend(made.map(|container| container.name.clone()));
            }
            Phase::Committed => {
                for proc in active.plan.procs.values() {
                    self.procs.insert(proc.node.clone(), proc.clone());
                }
                self.procs.retain(|node, _| !active.plan.ended.contains(node));
                let retired = active.plan.retire.iter().filter_map(Step::removed);
                self.going.extend(retired.map(|(_, name)| name.clone()));
            }
            Phase::Destroying => self.procs.clear(),
        }
    }

    /// Every stack's node that one of this stack's nodes links to, or is about to.
    fn links(&self) -> impl Iterator<Item = &StackNode> {
        self.procs.values().chain(self.next.values()).flat_map(|proc| &proc.settings.outside)
    }
}

impl Seen {
    /// These networks are there, of whatever HQ.
    pub fn note_networks(&mut self, networks: &[Network], identity: &Identity) {
        self.networks.extend(networks.iter().filter_map(|network| identity.stack_of(network)));
    }
}

impl Known {
    /// The table of each server. They differ in who may connect.
    pub fn tables(&self) -> BTreeMap<ServerName, Table> {
        let mut linking: BTreeMap<&StackNode, BTreeSet<&StackName>> = BTreeMap::new();
        for (stack, course) in &self.stacks {
            for node in course.links() {
                linking.entry(node).or_default().insert(stack);
            }
        }
        let leads: Vec<(u16, &Exposure, Vec<Endpoint>)> =
            self.numbers.iter().map(|(exposure, number)| (*number, exposure, self.endpoints(exposure))).collect();
        let nobody = BTreeSet::new();
        let table = |seen: &Seen| {
            let ports = leads.iter().map(|(number, exposure, endpoints)| {
                let linking = linking.get(&exposure.node).unwrap_or(&nobody);
                let may = |stack: &StackName| *stack == exposure.node.stack || linking.contains(stack);
                let nets = seen.networks.iter().filter(|(stack, _)| may(stack)).map(|(_, net)| *net);
                let settings = self.settings(exposure);
                Exposed {
                    port: Port { number: *number, ..exposure.port },
                    endpoints: endpoints.clone(),
                    balance: settings.map(|settings| settings.balance).unwrap_or_default(),
                    from: Sources::Only(nets.collect()),
                    drain: settings.map_or(crate::stack::GRACE, |settings| settings.grace),
                    connect: CONNECT,
                }
            });
            Table { ports: ports.collect() }
        };
        self.servers.iter().map(|(server, seen)| (server.clone(), table(seen))).collect()
    }

    /// Every port, by whose it is, without what was counted.
    pub fn leads(&self) -> Vec<Lead> {
        let links = |stack: &StackName, to: &StackNode| self.stacks[stack].links().any(|node| node == to);
        let lead = |(exposure, number): (&Exposure, &u16)| Lead {
            exposure: exposure.clone(),
            number: *number,
            endpoints: self.endpoints(exposure),
            linked_by: self.stacks.keys().filter(|stack| links(stack, &exposure.node)).cloned().collect(),
            counts: Vec::new(),
        };
        self.numbers.iter().map(lead).collect()
    }

    /// The containers that a port leads to: those of the release that counts, all from the same instant on. While there
    /// are none of those, the ones that are about to come: what is launched together may need each other to come up.
    fn endpoints(&self, exposure: &Exposure) -> Vec<Endpoint> {
        let Some(course) = self.stacks.get(&exposure.node.stack) else { return Vec::new() };
        let node = &exposure.node.node;
        let counts = |proc: &Proc, container: &Container| {
            let release = container.labels.get(label::RELEASE).map(String::as_str);
            release == Some(proc.release.to_string().as_str()) && !course.going.contains(&container.name)
        };
        let found = course.procs.get(node).map(|proc| {
            self.containers(exposure, |container| counts(proc, container) && !course.coming.contains(&container.name))
        });
        match found {
            Some(found) if !found.is_empty() => found,
            Some(_) | None => self.containers(exposure, |container| course.coming.contains(&container.name)),
        }
    }

    fn containers(&self, exposure: &Exposure, counts: impl Fn(&Container) -> bool) -> Vec<Endpoint> {
        let (stack, node) = (exposure.node.stack.as_str(), exposure.node.node.as_str());
        let is = |container: &Container, name: &str, value: &str| {
            container.labels.get(name).is_some_and(|label| label == value)
        };
        let mut found: BTreeMap<_, Endpoint> = BTreeMap::new();
        for seen in self.servers.values() {
            let own = seen.containers.iter().filter(|container| {
                is(container, label::STACK, stack)
                    && is(container, label::NODE, node)
                    && !is(container, label::ROLE, "once")
                    && counts(container)
            });
            for container in own {
                let health = match container.state {
                    State::Running if seen.is_heard && !seen.sick.contains(&container.name) => Health::Healthy,
                    State::Running | State::Restarting | State::Paused => Health::Unhealthy,
                    State::Created | State::Exited(_) | State::Dead => continue,
                };
                let at = published(container).into_iter().find(|(port, _)| *port == exposure.port);
                if let Some((_, address)) = at {
                    // Docker gives a port to one container only: of two that claim it, one has not left yet.
                    let new = Endpoint { address, container: container.name.clone(), health };
                    let kept = found.entry(address).or_insert_with(|| new.clone());
                    if kept.health == Health::Unhealthy {
                        *kept = new;
                    }
                }
            }
        }
        found.into_values().collect()
    }

    /// How a node runs, or will once it has been launched.
    fn settings(&self, exposure: &Exposure) -> Option<&Settings> {
        let course = self.stacks.get(&exposure.node.stack)?;
        let node = &exposure.node.node;
        course.procs.get(node).or_else(|| course.next.get(node)).map(|proc| &proc.settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::exchange::label_text;
    use crate::launch::journal::Operation;
    use crate::launch::sample::{name, settings};
    use crate::launch::{Plan, Role};
    use crate::names::ReleaseNumber;

    fn proc(node: &str, release: u64, outside: &[&str]) -> Proc {
        let outside = outside.iter().map(|to| name(to)).collect();
        Proc {
            node: name(node),
            count: 1,
            release: ReleaseNumber(release),
            env_version: 1,
            settings: Settings { ports: vec![Port::tcp(80)], outside, ..settings() },
            address: None,
            home: None,
            published: Vec::new(),
        }
    }

    /// `stack.node.release.index`, published at the port of 10.0.0.1.
    fn container(text: &str, port: u16) -> Container {
        let parts: Vec<&str> = text.split('.').collect();
        let at = label_text(&[(Port::tcp(80), format!("10.0.0.1:{port}").parse().unwrap())]);
        let labels = [
            (label::STACK, parts[0]),
            (label::NODE, parts[1]),
            (label::RELEASE, parts[2]),
            (label::ROLE, Role::Node.word()),
            (label::EXPOSED, &at),
        ];
        Container {
            id: String::new(),
            name: name(text),
            image: String::new(),
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            state: State::Running,
            addresses: BTreeMap::new(),
            created: 0,
        }
    }

    fn course(procs: &[Proc]) -> Course {
        Course { procs: procs.iter().map(|proc| (proc.node.clone(), proc.clone())).collect(), ..Course::default() }
    }

    fn known(containers: &[Container]) -> Known {
        let number = Exposure { node: name("blog/api"), port: Port::tcp(80) };
        let networks = [("blog", "10.208.0.0/26"), ("shop", "10.208.0.64/26"), ("other", "10.208.0.128/26")];
        let networks = networks.map(|(stack, net)| (name(stack), net.parse().unwrap())).into();
        let seen = Seen { containers: containers.to_vec(), is_heard: true, sick: BTreeSet::new(), networks };
        Known {
            numbers: [(number, 10_000)].into(),
            stacks: BTreeMap::from([
                (name("blog"), course(&[proc("api", 2, &[])])),
                (name("shop"), course(&[proc("web", 1, &["blog/api"])])),
            ]),
            servers: BTreeMap::from([(name("s1"), seen), (name("s2"), Seen::default())]),
        }
    }

    /// The endpoints of the only port, as `name` or `name?` where it is not healthy.
    fn led_to(known: &Known) -> Vec<String> {
        let tables = known.tables();
        assert!(
            tables.values().all(|table| table.ports[0].endpoints == tables.values().next().unwrap().ports[0].endpoints)
        );
        let endpoints = &tables.values().next().unwrap().ports[0].endpoints;
        let mark = |endpoint: &Endpoint| if endpoint.health == Health::Healthy { "" } else { "?" };
        endpoints.iter().map(|endpoint| format!("{}{}", endpoint.container, mark(endpoint))).collect()
    }

    fn underway(phase: Phase, plan: Plan) -> Journal {
        let operation = Operation {
            verb: "deploy".into(),
            release: None,
            pinned: None,
            branch: None,
            plan,
            phase,
            env_version: None,
            front: None,
            after: false,
        };
        Journal { active: Some(operation), ..Journal::default() }
    }

    #[test]
    fn a_port_leads_to_the_release_that_counts_and_only_who_links_may_connect() {
        let known = known(&[container("blog.api.2.1", 1), container("blog.api.1.1", 2), container("shop.api.2.1", 3)]);
        assert_eq!(led_to(&known), ["blog.api.2.1"]);
        let tables = known.tables();
        let from = |server: &str| tables[&name::<ServerName>(server)].ports[0].from.clone();
        let nets = ["10.208.0.0/26", "10.208.0.64/26"].map(|net| net.parse().unwrap());
        assert_eq!(from("s1"), Sources::Only(nets.into()));
        assert_eq!(from("s2"), Sources::Only(BTreeSet::new()));
    }

    #[test]
    fn what_stands_still_or_is_not_heard_counts_less_and_what_has_ended_not_at_all() {
        let [mut paused, mut ended] = [container("blog.api.2.1", 1), container("blog.api.2.2", 2)];
        (paused.state, ended.state) = (State::Paused, State::Exited(0));
        assert_eq!(led_to(&known(&[paused, ended, container("blog.api.2.3", 3)])), ["blog.api.2.1?", "blog.api.2.3"]);
        let mut known = known(&[container("blog.api.2.1", 1), container("blog.api.2.2", 2)]);
        known.servers.get_mut(&name::<ServerName>("s1")).unwrap().sick.insert(name("blog.api.2.2"));
        assert_eq!(led_to(&known), ["blog.api.2.1", "blog.api.2.2?"]);
        known.servers.values_mut().for_each(|seen| seen.is_heard = false);
        assert_eq!(led_to(&known), ["blog.api.2.1?", "blog.api.2.2?"]);
    }

    #[test]
    fn a_release_switches_with_its_commit_and_one_that_is_the_first_is_found_while_it_comes() {
        use crate::instruction::Instruction;
        use crate::launch::plan::plan;
        use crate::launch::sample::world;
        let deploy = |release| Instruction::Deploy {
            node: name("api"),
            release: ReleaseNumber(release),
            count: 1,
            settings: Box::new(Settings { ports: vec![Port::tcp(80)], ..settings() }),
        };
        let mut next = plan(&[deploy(3)], &world(&["s1"])).unwrap();
        let new = container("blog.api.3.1", 3);
        next.retire.push(Step::Remove { server: name("s1"), container: name("blog.api.2.1"), grace: Millis(1) });
        let both = [container("blog.api.2.1", 1), new];
        let at = |phase: Phase| {
            let mut known = known(&both);
            known.stacks.get_mut(&name::<StackName>("blog")).unwrap().follow(&underway(phase, next.clone()));
            led_to(&known)
        };
        assert_eq!(at(Phase::Before(9)), ["blog.api.2.1"]);
        assert_eq!(at(Phase::Committed), ["blog.api.3.1"]);

        let mut first = known(&both[1..]);
        first.stacks.insert(name("blog"), Course::default());
        assert_eq!(led_to(&first), Vec::<String>::new(), "nobody knows it");
        first.stacks.get_mut(&name::<StackName>("blog")).unwrap().follow(&underway(Phase::Before(9), next));
        assert_eq!(led_to(&first), ["blog.api.3.1"]);
    }

    #[test]
    fn what_is_on_its_way_out_gets_nobody_new() {
        let mut known = known(&[container("blog.api.2.1", 1), container("blog.api.2.2", 2)]);
        let remove = Step::Remove { server: name("s1"), container: name("blog.api.2.2"), grace: Millis(1) };
        let journal = Journal { retiring: vec![remove], ..Journal::default() };
        known.stacks.get_mut(&name::<StackName>("blog")).unwrap().follow(&journal);
        assert_eq!(led_to(&known), ["blog.api.2.1"]);
    }
}
