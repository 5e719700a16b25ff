//! What ran, and what came of it: the history of a task or a job.

use std::collections::BTreeMap;
use std::ops::Deref;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::{ContainerName, ServerName, UserName};

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// When it was due, or asked for.
    pub began: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Who asked for it; its schedule without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserName>,
    /// Whether it is in the hands of who asked for it, and ends with them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attached: bool,
    /// Where it runs.
    pub server: ServerName,
    /// In what; one that could not be made has the name all the same.
    pub container: ContainerName,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is under way.
    Running,
    /// It ended with this exit code.
    Exited(i64),
    /// Another run took its place.
    Replaced,
    /// Somebody has ended it.
    Ended,
    /// It could not be run.
    Failed(String),
}

/// How many runs are kept of one thing.
pub const KEPT: u64 = 50;

/// The last runs by number; those without an end are under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Runs(pub BTreeMap<u64, Run>);

impl Deref for Runs {
    type Target = BTreeMap<u64, Run>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Runs {
    /// The runs under way.
    pub fn running(&self) -> impl Iterator<Item = u64> {
        self.0.iter().filter(|(_, run)| run.outcome == Outcome::Running).map(|(number, _)| *number)
    }

    /// Notes a run that begins, and gives its number. The oldest that have ended go.
    pub fn begin(&mut self, run: Run) -> u64 {
        let number = self.0.last_key_value().map_or(1, |(last, _)| last + 1);
        self.0.insert(number, run);
        while self.0.len() as u64 > KEPT {
            let ended = self.0.iter().find(|(_, run)| run.outcome != Outcome::Running);
            let Some(oldest) = ended.map(|(number, _)| *number) else { break };
            self.0.remove(&oldest);
        }
        number
    }

    /// Notes what came of a run; tells whether that was not known yet.
    pub fn end(&mut self, number: u64, outcome: Outcome, now: Timestamp) -> bool {
        let run = self.0.get_mut(&number).filter(|run| run.outcome == Outcome::Running);
        let is_new = run.is_some();
        if let Some(run) = run {
            (run.outcome, run.ended) = (outcome, Some(now));
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-22T{text}Z").parse().unwrap()
    }

    fn run(outcome: Outcome) -> Run {
        let (server, container) = ("hq".parse().unwrap(), "blog.nightly.1.1".parse().unwrap());
        Run { began: at("00:00:00"), ended: None, by: None, attached: false, server, container, outcome }
    }

    #[test]
    fn the_last_runs_are_kept_and_those_under_way() {
        let mut runs = Runs::default();
        runs.begin(run(Outcome::Running));
        for _ in 0..KEPT + 5 {
            let number = runs.begin(run(Outcome::Running));
            runs.end(number, Outcome::Exited(0), at("01:00:00"));
        }
        assert_eq!((runs.len() as u64, runs.running().collect::<Vec<_>>()), (KEPT, vec![1]));
        assert!(runs.end(1, Outcome::Exited(3), at("02:00:00")));
        assert!(!runs.end(1, Outcome::Replaced, at("03:00:00")));
        assert_eq!(runs[&1].outcome, Outcome::Exited(3), "an end is one");
    }
}
