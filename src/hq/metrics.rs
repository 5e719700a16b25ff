//! What HQ counts, as text for Prometheus (the exposition format 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::names::{NodeName, ServerName, StackName};
use crate::units::Megabytes;

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
    of_servers(&mut page, &figures.servers);
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
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, what: &str) {
        self.line(&format!("# HELP {name} {what}\n# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> = labels.iter().map(|(name, text)| format!("{name}=\"{}\"", escaped(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.line(&format!("{name}{labels} {value}"));
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

    #[test]
    fn every_figure_is_a_line_below_what_it_means() {
        let (stack, server): (StackName, ServerName) = ("blog".parse().unwrap(), "hq".parse().unwrap());
        let known = Server { up: true, size: Megabytes(100), used: Megabytes(60), free: Megabytes(40) };
        let figures = Figures {
            version: "0.1".to_owned(),
            work: Some(2),
            stacks: [(stack.clone(), (3, Some(7)))].into(),
            servers: [(server.clone(), known)].into(),
            running: [((stack.clone(), "web".to_owned(), server), 2)].into(),
            wanted: [((stack, "web".parse().unwrap()), 2)].into(),
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
