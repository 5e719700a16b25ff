//! What HQ counts, as text for Prometheus (the exposition format 0.0.4). [`act`] asks for what containers use.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::agent::vitals::Machine;
use crate::docker::Usage;
use crate::embassy::{EndpointCounts, Health};
use crate::hq::embassies::Lead;
use crate::names::{ContainerName, NodeName, ServerName, StackName, StackNode};
use crate::router::edge::Tally;
use crate::units::{Megabytes, Millis};

pub mod act;

/// What is counted at one moment, as far as somebody may see it.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Which quarry this is.
    pub version: String,
    /// Pushes and commands under way that change something; unknown to who may not see everything.
    pub work: Option<u64>,
    /// How many releases of each stack are kept, and its current one.
    pub stacks: BTreeMap<StackName, (u64, Option<u64>)>,
    /// Those of the grid.
    pub servers: BTreeMap<ServerName, Server>,
    /// Containers that run, by stack, node and server.
    pub running: BTreeMap<(StackName, String, ServerName), u64>,
    /// Containers that should run, by stack and node.
    pub wanted: BTreeMap<(StackName, NodeName), u64>,
    /// Single containers.
    pub containers: Vec<Running>,
    /// The ports that others find through the embassies.
    pub ports: Vec<Lead>,
    /// What each server's router has answered since it started.
    pub answered: BTreeMap<ServerName, Vec<Tally>>,
}

/// A container that runs.
#[derive(Debug, Clone)]
pub struct Running {
    /// Whose.
    pub stack: StackName,
    /// Which node's.
    pub node: String,
    /// On which server.
    pub server: ServerName,
    /// Its name.
    pub container: ContainerName,
    /// Whether it fails its health check.
    pub is_sick: bool,
    /// What it uses, as far as that is told.
    pub usage: Option<Usage>,
}

/// A server's capacity.
#[derive(Debug, Clone)]
pub struct Server {
    /// Whether it takes containers, or has some.
    pub up: bool,
    /// Its memory for containers.
    pub size: Megabytes,
    /// What they were promised of it.
    pub used: Megabytes,
    /// What is left.
    pub free: Megabytes,
    /// What its agent measures; nothing while that is silent.
    pub machine: Option<Machine>,
}

/// The text of these figures.
pub fn text(figures: &Figures) -> String {
    let mut page = Page(String::new());
    page.family("quarry_up", "gauge", "Whether HQ serves.");
    page.sample("quarry_up", &[], 1);
    page.family("quarry_info", "gauge", "Which quarry HQ is.");
    page.sample("quarry_info", &[("version", &figures.version)], 1);
    if let Some(work) = figures.work {
        page.family("quarry_operations", "gauge", "Pushes and commands under way that change something.");
        page.sample("quarry_operations", &[], work);
    }
    page.family("quarry_stacks", "gauge", "Stacks there are.");
    page.sample("quarry_stacks", &[], figures.stacks.len() as u64);
    of_stacks(&mut page, figures);
    of_containers(&mut page, &figures.containers);
    of_servers(&mut page, &figures.servers);
    of_routers(&mut page, &figures.answered);
    of_embassies(&mut page, &figures.ports);
    page.0
}

fn of_stacks(page: &mut Page, figures: &Figures) {
    page.family("quarry_stack_releases", "gauge", "Releases of a stack that are kept.");
    for (stack, (kept, _)) in &figures.stacks {
        page.sample("quarry_stack_releases", &[("stack", stack.as_str())], *kept);
    }
    page.family("quarry_stack_release", "gauge", "The number of a stack's current release.");
    for (stack, (_, current)) in &figures.stacks {
        if let Some(current) = current {
            page.sample("quarry_stack_release", &[("stack", stack.as_str())], *current);
        }
    }
    page.family("quarry_containers_wanted", "gauge", "Containers of a node that should run.");
    for ((stack, node), count) in &figures.wanted {
        page.sample("quarry_containers_wanted", &[("stack", stack.as_str()), ("node", node.as_str())], *count);
    }
    page.family("quarry_containers_running", "gauge", "Containers of a node that run on a server.");
    for ((stack, node, server), count) in &figures.running {
        let labels = [("stack", stack.as_str()), ("node", node), ("server", server.as_str())];
        page.sample("quarry_containers_running", &labels, *count);
    }
}

fn of_containers(page: &mut Page, containers: &[Running]) {
    fn labels(running: &Running) -> [(&str, &str); 4] {
        let Running { stack, node, server, container, .. } = running;
        [("stack", stack.as_str()), ("node", node), ("server", server.as_str()), ("container", container.as_str())]
    }
    page.family("quarry_container_healthy", "gauge", "Whether a container answers its health check, if it has one.");
    for running in containers {
        page.sample("quarry_container_healthy", &labels(running), (!running.is_sick).into());
    }
    let used = || containers.iter().filter_map(|running| Some((labels(running), running.usage?)));
    page.family("quarry_container_cpu_seconds_total", "counter", "Processor time a container has used.");
    for (labels, usage) in used() {
        page.seconds("quarry_container_cpu_seconds_total", &labels, Millis(usage.cpu / 1_000_000));
    }
    type Figure = fn(&Usage) -> u64;
    let families: [(&str, &str, &str, Figure); 4] = [
        ("quarry_container_memory_bytes", "gauge", "Memory a container uses.", |usage| usage.memory),
        ("quarry_container_memory_limit_bytes", "gauge", "The most it may use.", |usage| usage.limit),
        ("quarry_container_received_bytes_total", "counter", "What came to it over its networks.", |usage| {
            usage.received
        }),
        ("quarry_container_sent_bytes_total", "counter", "What it sent there.", |usage| usage.sent),
    ];
    for (name, kind, what, value) in families {
        page.family(name, kind, what);
        for (labels, usage) in used() {
            page.sample(name, &labels, value(&usage));
        }
    }
}

fn of_routers(page: &mut Page, answered: &BTreeMap<ServerName, Vec<Tally>>) {
    type Figure = fn(&mut Page, &str, &[(&str, &str)], &Tally);
    let families: [(&str, &str, Figure); 2] = [
        (
            "quarry_router_requests_total",
            "Requests that a server's router has answered.",
            |page, name, labels, tally| {
                page.sample(name, labels, tally.requests);
            },
        ),
        ("quarry_router_request_seconds_total", "How long all of them took.", |page, name, labels, tally| {
            page.seconds(name, labels, tally.took);
        }),
    ];
    for (name, what, show) in families {
        page.family(name, "counter", what);
        for (server, tally) in answered.iter().flat_map(|(server, all)| all.iter().map(move |tally| (server, tally))) {
            let class = format!("{}xx", tally.class);
            show(
                page,
                name,
                &[("stack", tally.stack.as_str()), ("server", server.as_str()), ("status", &class)],
                tally,
            );
        }
    }
}

fn of_embassies(page: &mut Page, ports: &[Lead]) {
    type Figure = fn(&Lead) -> u64;
    fn sum(lead: &Lead, of: fn(&EndpointCounts) -> u64) -> u64 {
        lead.counts.iter().flat_map(|port| &port.endpoints).map(of).sum()
    }
    let families: [(&str, &str, &str, Figure); 7] = [
        ("quarry_embassy_healthy", "gauge", "Containers that a port leads to.", |lead| {
            lead.endpoints.iter().filter(|endpoint| endpoint.health == Health::Healthy).count() as u64
        }),
        ("quarry_embassy_connections", "gauge", "Open connections.", |lead| sum(lead, |one| one.open as u64)),
        ("quarry_embassy_connections_total", "counter", "Connections made.", |lead| sum(lead, |one| one.total)),
        ("quarry_embassy_failed_total", "counter", "Containers that did not accept one.", |lead| {
            sum(lead, |one| one.failed)
        }),
        ("quarry_embassy_refused_total", "counter", "Connections of who may not connect.", |lead| {
            lead.counts.iter().map(|port| port.refused).sum()
        }),
        ("quarry_embassy_unserved_total", "counter", "Connections that nobody accepted.", |lead| {
            lead.counts.iter().map(|port| port.unserved).sum()
        }),
        ("quarry_embassy_bytes_total", "counter", "Bytes carried both ways.", |lead| {
            sum(lead, |one| one.received + one.sent)
        }),
    ];
    for (name, kind, what, value) in families {
        page.family(name, kind, what);
        for lead in ports {
            let StackNode { stack, node } = &lead.exposure.node;
            let port = lead.exposure.port.to_string();
            page.sample(name, &[("stack", stack.as_str()), ("node", node.as_str()), ("port", &port)], value(lead));
        }
    }
}

fn of_servers(page: &mut Page, servers: &BTreeMap<ServerName, Server>) {
    if servers.is_empty() {
        return;
    }
    type Figure = fn(&Server) -> u64;
    let families: [(&str, &str, Figure); 4] = [
        ("quarry_server_up", "Whether a server answers.", |server| server.up.into()),
        ("quarry_server_size_bytes", "A server's memory for containers.", |server| server.size.bytes()),
        ("quarry_server_used_bytes", "What containers were promised of it.", |server| server.used.bytes()),
        ("quarry_server_free_bytes", "What is left of it.", |server| server.free.bytes()),
    ];
    for (name, what, value) in families {
        page.family(name, "gauge", what);
        for (server, known) in servers {
            page.sample(name, &[("server", server.as_str())], value(known));
        }
    }
    type Measure = fn(&Machine) -> u64;
    let measured: [(&str, &str, Measure); 6] = [
        ("quarry_machine_uptime_seconds", "Since a server's last start.", |machine| machine.uptime),
        ("quarry_machine_load1_percent", "Processes that want to run, in hundredths.", |machine| machine.load.into()),
        ("quarry_machine_memory_bytes", "A server's memory.", |machine| machine.memory.total.bytes()),
        ("quarry_machine_memory_free_bytes", "What programs can have of it.", |machine| machine.memory.free.bytes()),
        ("quarry_machine_disk_bytes", "The disk docker's data is on.", |machine| machine.disk.total.bytes()),
        ("quarry_machine_disk_free_bytes", "What is free of it.", |machine| machine.disk.free.bytes()),
    ];
    page.family("quarry_agent_up", "gauge", "Whether a server's agent is heard.");
    for (server, known) in servers {
        page.sample("quarry_agent_up", &[("server", server.as_str())], known.machine.is_some().into());
    }
    for (name, what, value) in measured {
        page.family(name, "gauge", what);
        for (server, machine) in servers.iter().filter_map(|(server, known)| Some((server, known.machine.as_ref()?))) {
            page.sample(name, &[("server", server.as_str())], value(machine));
        }
    }
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, what: &str) {
        self.line(&format!("# HELP {name} {what}\n# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.write(name, labels, &value.to_string());
    }

    fn write(&mut self, name: &str, labels: &[(&str, &str)], value: &str) {
        let labels: Vec<String> = labels.iter().map(|(name, text)| format!("{name}=\"{}\"", escaped(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.line(&format!("{name}{labels} {value}"));
    }

    fn seconds(&mut self, name: &str, labels: &[(&str, &str)], time: Millis) {
        let Millis(time) = time;
        self.write(name, labels, &format!("{}.{:03}", time / 1000, time % 1000));
    }

    fn line(&mut self, text: &str) {
        writeln!(self.0, "{text}").expect("writing into memory succeeds");
    }
}

/// A label's value as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::vitals::Space;
    use crate::embassy::PortCounts;
    use crate::launch::exchange::Exposure;
    use crate::units::port::Port;

    #[test]
    fn every_figure_is_a_line_below_what_it_means() {
        let (stack, server): (StackName, ServerName) = ("blog".parse().unwrap(), "hq".parse().unwrap());
        let memory = Space { total: Megabytes(2000), free: Megabytes(1000) };
        let machine = Some(Machine { load: 150, memory, ..Machine::default() });
        let known = Server { up: true, size: Megabytes(100), used: Megabytes(60), free: Megabytes(40), machine };
        let tally = Tally { stack: stack.clone(), class: 2, requests: 5, took: Millis(1042) };
        let sick = Running {
            stack: stack.clone(),
            node: "web".to_owned(),
            server: server.clone(),
            container: "blog.web.7.1".parse().unwrap(),
            is_sick: true,
            usage: Some(Usage { cpu: 2_042_000_000, memory: 70, limit: 100, received: 1, sent: 2 }),
        };
        let node = StackNode { stack: stack.clone(), node: "api".parse().unwrap() };
        let lead = Lead {
            exposure: Exposure { node, port: Port::udp(53) },
            number: 10_000,
            endpoints: Vec::new(),
            linked_by: Default::default(),
            counts: vec![PortCounts { port: Port::udp(10_000), refused: 3, unserved: 1, endpoints: Vec::new() }],
        };
        let figures = Figures {
            version: "0.1".to_owned(),
            work: Some(2),
            stacks: [(stack.clone(), (3, Some(7)))].into(),
            servers: [(server.clone(), known)].into(),
            running: [((stack.clone(), "web".to_owned(), server.clone()), 2)].into(),
            wanted: [((stack, "web".parse().unwrap()), 2)].into(),
            containers: vec![sick],
            ports: vec![lead],
            answered: [(server, vec![tally])].into(),
        };
        let text = text(&figures);
        for line in [
            "quarry_up 1",
            "quarry_info{version=\"0.1\"} 1",
            "quarry_operations 2",
            "quarry_stacks 1",
            "quarry_stack_releases{stack=\"blog\"} 3",
            "quarry_stack_release{stack=\"blog\"} 7",
            "quarry_containers_wanted{stack=\"blog\",node=\"web\"} 2",
            "quarry_containers_running{stack=\"blog\",node=\"web\",server=\"hq\"} 2",
            "quarry_server_up{server=\"hq\"} 1",
            "quarry_server_free_bytes{server=\"hq\"} 41943040",
            "quarry_container_healthy{stack=\"blog\",node=\"web\",server=\"hq\",container=\"blog.web.7.1\"} 0",
            "quarry_container_memory_bytes{stack=\"blog\",node=\"web\",server=\"hq\",container=\"blog.web.7.1\"} 70",
            "quarry_container_cpu_seconds_total{stack=\"blog\",node=\"web\",server=\"hq\",container=\"blog.web.7.1\"} 2.042",
            "quarry_agent_up{server=\"hq\"} 1",
            "quarry_machine_load1_percent{server=\"hq\"} 150",
            "quarry_machine_memory_free_bytes{server=\"hq\"} 1048576000",
            "quarry_router_requests_total{stack=\"blog\",server=\"hq\",status=\"2xx\"} 5",
            "quarry_router_request_seconds_total{stack=\"blog\",server=\"hq\",status=\"2xx\"} 1.042",
            "quarry_embassy_refused_total{stack=\"blog\",node=\"api\",port=\"53/udp\"} 3",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
        let mut known = "";
        for line in text.lines() {
            match line.strip_prefix("# ") {
                Some(comment) => known = comment.split(' ').nth(1).unwrap(),
                None => assert_eq!(line.split(['{', ' ']).next(), Some(known), "{line}"),
            }
        }
    }

    #[test]
    fn who_may_not_see_everything_is_shown_no_servers() {
        let text = text(&Figures::default());
        assert!(!text.contains("quarry_server"), "{text}");
        assert!(!text.contains("quarry_operations"), "{text}");
    }

    #[test]
    fn no_text_breaks_out_of_its_label() {
        let mut page = Page(String::new());
        page.sample("x", &[("l", "a\"b\\c\nd")], 1);
        assert_eq!(page.0, "x{l=\"a\\\"b\\\\c\\nd\"} 1\n");
    }
}
