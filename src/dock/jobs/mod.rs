//! What docker's client changes: jobs, and what else runs in a container. [`act`] changes it.

use std::collections::BTreeMap;

use crate::hq::runs::Runs;
use crate::launch::{Proc, label};
use crate::names::{ContainerName, NodeName};

pub mod act;

/// What runs in a container, as far as it matters for whoever wants to change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A job that somebody is attached to, by the number of its run.
    Attached(u64),
    /// A job that runs by itself.
    Alone,
    /// A node of a repository, or a service.
    Node,
    /// It runs once, or ran: a task, a command, a job that has ended.
    Once,
}

/// What runs in the container of this name and these labels, which is of the node `node`.
pub fn kind(
    (name, labels): (&ContainerName, &BTreeMap<String, String>),
    node: &NodeName,
    jobs: &BTreeMap<NodeName, Proc>,
    runs: &Runs,
) -> Kind {
    if labels.get(label::ROLE).is_some_and(|role| role == "once") {
        let run = runs.running().find(|number| runs[number].attached && runs[number].container == *name);
        return run.map_or(Kind::Once, Kind::Attached);
    }
    if jobs.contains_key(node) { Kind::Alone } else { Kind::Node }
}

/// Signals that leave a process running, if it is written so.
const HARMLESS: [&str; 5] = ["HUP", "USR1", "USR2", "WINCH", "CONT"];

/// Whether a signal, by name or number, asks a process to end or to stand still.
pub fn ends(signal: &str) -> bool {
    let name = signal.to_uppercase();
    let by_number = [("1", "HUP"), ("10", "USR1"), ("12", "USR2"), ("18", "CONT"), ("28", "WINCH")];
    let name = by_number.iter().find(|(number, _)| *number == name).map_or(name.as_str(), |(_, name)| name);
    !HARMLESS.contains(&name.trim_start_matches("SIG"))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::hq::runs::{Outcome, Run};

    #[test]
    fn what_runs_once_is_a_job_as_long_as_its_run_is_under_way() {
        let (name, node): (ContainerName, NodeName) = ("jobs.probe.1.1".parse().unwrap(), "probe".parse().unwrap());
        let labels = |role: &str| BTreeMap::from([(label::ROLE.to_owned(), role.to_owned())]);
        let mut runs = Runs::default();
        let number = runs.begin(Run {
            began: Timestamp::UNIX_EPOCH,
            ended: None,
            by: None,
            attached: true,
            server: "hq".parse().unwrap(),
            container: name.clone(),
            outcome: Outcome::Running,
        });
        let jobs = BTreeMap::new();
        let kind = |labels: &BTreeMap<String, String>, runs: &Runs| kind((&name, labels), &node, &jobs, runs);
        assert_eq!(kind(&labels("once"), &runs), Kind::Attached(number));
        assert_eq!(kind(&labels("node"), &runs), Kind::Node);
        runs.end(number, Outcome::Exited(0), Timestamp::UNIX_EPOCH);
        assert_eq!(kind(&labels("once"), &runs), Kind::Once);
    }

    #[test]
    fn signals_that_end_are_told_from_those_that_need_not() {
        for harmless in ["HUP", "SIGHUP", "sigusr1", "1", "28"] {
            assert!(!ends(harmless), "{harmless}");
        }
        for ending in ["", "KILL", "SIGKILL", "9", "TERM", "INT", "STOP", "19", "nonsense"] {
            assert!(ends(ending), "{ending}");
        }
    }
}
