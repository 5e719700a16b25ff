//! Jobs: processes that are run by name and image, without a push. A job that runs by itself is a node of its stack
//! from then on: a statement of intent in `proc`, which the reconciler makes come true. Somebody is attached to another
//! one, in whose hands it ends. [`act`] runs them.

use std::collections::BTreeSet;

use crate::docker::Log;
use crate::grid::Filter;
use crate::instruction::Instruction;
use crate::launch::Proc;
use crate::launch::record::Release;
use crate::names::{NodeName, StackName};
use crate::stack::job::Job;

pub mod act;

/// In whose name jobs run that name no stack.
const STACK: &str = "jobs";

/// Why a job is not run or found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// Its name is taken.
    #[error("`{stack}` has a node `{name}` already; end it first (jobs kill {stack}/{name}), or choose another name")]
    Taken {
        /// Whose.
        stack: StackName,
        /// Which.
        name: NodeName,
    },
    /// No such job.
    #[error("`{stack}` has no job `{name}`; it has: {known}")]
    None {
        /// Whose.
        stack: StackName,
        /// What was asked for.
        name: NodeName,
        /// Those there are.
        known: String,
    },
    /// It is a node of the repository's.
    #[error("`{name}` is a node of the repository of `{stack}`; `scale {stack} {name}=0` lets it rest")]
    Node {
        /// Whose.
        stack: StackName,
        /// Which.
        name: NodeName,
    },
    /// Nobody has a place for jobs yet.
    #[error(
        "jobs run in the name of a stack: name one of yours with --stack, or ask an operator for the right to deploy \
         `{STACK}`"
    )]
    NoStack,
}

/// What somebody who is attached to a job has of it, besides its output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hold {
    /// A terminal.
    pub tty: bool,
    /// Its standard input.
    pub stdin: bool,
    /// What it prints. Where that is kept, its container stays when it has ended, until somebody takes it away.
    pub output: Log,
    /// Words in the place of the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
}

/// The stack of jobs that name none.
pub fn common_stack() -> StackName {
    STACK.parse().expect("a name written in the program is well formed")
}

/// Of what should run of a stack, what no push has asked for.
pub fn jobs<'a>(procs: &'a [Proc], current: &Release) -> impl Iterator<Item = &'a Proc> {
    let pushed: BTreeSet<NodeName> = current.instructions.iter().filter_map(Instruction::launches).cloned().collect();
    procs.iter().filter(move |proc| !pushed.contains(&proc.node))
}

/// The jobs that a push of these instructions ends: those that do not survive one.
pub fn endings(procs: &[Proc], current: &Release, pushed: &[Instruction]) -> Vec<Instruction> {
    let goes = |proc: &&Proc| !proc.settings.is_static && pushed.iter().all(|one| one.launches() != Some(&proc.node));
    let scale = |proc: &Proc| Instruction::Scale { node: proc.node.clone(), count: 0 };
    jobs(procs, current).filter(goes).map(scale).collect()
}

/// The job on the servers that will do: its filter, and the one it names.
pub fn on_its_server(job: Job) -> Job {
    let Some(server) = &job.server else { return job };
    let filter = &job.node.filter;
    let words = filter.required().map(str::to_owned).chain(filter.excluded().map(|word| format!("!{word}")));
    // A server's name has the shape of a tag.
    let filter = Filter::new(words.chain([server.to_string()])).unwrap_or_else(|_| filter.clone());
    Job { node: crate::stack::Node { filter, ..job.node }, ..job }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::Settings;
    use crate::launch::record::Cause;
    use crate::launch::sample::{name, settings, world};
    use crate::names::ReleaseNumber;
    use crate::stack::job::parse;

    fn proc(node: &str, is_static: bool) -> Proc {
        let world = world(&["hq"]);
        world.proc(&name(node), 1, ReleaseNumber(1), 1, &Settings { is_static, ..settings() })
    }

    fn release(nodes: &[&str]) -> Release {
        let deploy = |node: &&str| Instruction::Deploy {
            node: name(node),
            release: ReleaseNumber(1),
            count: 1,
            settings: Box::new(settings()),
        };
        Release {
            number: ReleaseNumber(1),
            cause: Cause::Launch,
            commit: None,
            subject: String::new(),
            env_version: 1,
            instructions: nodes.iter().map(deploy).collect(),
            user: name("ann"),
            created: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_push_ends_the_jobs_that_do_not_survive_one() {
        let procs = [proc("web", false), proc("import", false), proc("mongo", true), proc("worker", false)];
        let current = release(&["web"]);
        let found: Vec<&str> = jobs(&procs, &current).map(|proc| proc.node.as_str()).collect();
        assert_eq!(found, ["import", "mongo", "worker"]);
        let pushed = release(&["web", "worker"]).instructions;
        let expected = Instruction::Scale { node: name("import"), count: 0 };
        assert_eq!(endings(&procs, &current, &pushed), [expected], "the node of the push takes over `worker`");
    }

    #[test]
    fn a_server_that_is_named_is_the_only_one_that_will_do() {
        let job = on_its_server(parse("job", "{image: a, server: s1, filter: [ssd, '!eu']}", &[]).unwrap());
        let tags = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        let accepts = |server: &str, words| job.node.filter.accepts(&name(server), &tags(words));
        assert!(accepts("s1", &["ssd"]) && !accepts("s2", &["ssd"]) && !accepts("s1", &["ssd", "eu"]));
    }
}
