//! The files beside a stack's description that add to it: app.json, CHECKS, project.toml, .buildpacks.

use crate::buildpacks::Repository;
use crate::names::NodeName;

use super::app_json::{self, App, Cron};
use super::mistakes::{Mistake, Mistakes};
use super::project::{self, Project};
use super::{Command, Health, Kind, Node, Overlap, Source, Stack, checks, foreign};

/// What those files ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extras {
    pub app: App,
    pub project: Project,
    /// The check of CHECKS.
    checks: Option<Health>,
    /// How nodes are built that say nothing about it.
    pub buildpacks: Option<Source>,
}

impl Extras {
    /// Reads them.
    ///
    /// # Errors
    /// Every mistake in any of them.
    pub(super) fn read(repository: &Repository) -> Result<Self, Mistakes> {
        let mut mistakes = Vec::new();
        let app = read("app.json", repository, app_json::parse, &mut mistakes).unwrap_or_default();
        let project = read("project.toml", repository, project::parse, &mut mistakes).unwrap_or_default();
        let checks = read("CHECKS", repository, checks::parse, &mut mistakes).flatten();
        let lines = foreign::lines(repository).map_err(|more| mistakes.extend(more.0)).unwrap_or_default();
        let named = [(foreign::FILE, &lines), ("app.json", &app.buildpacks), ("project.toml", &project.buildpacks)];
        let mut buildpacks = None;
        if let Some((file, names)) = named.into_iter().find(|(_, names)| !names.is_empty()) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            match foreign::source(&names, repository) {
                // A list of nothing but formalities leaves it to detection.
                Ok(source) => buildpacks = Some(source).filter(|source| *source != Source::Pack(None)),
                Err(unknown) => {
                    mistakes
                        .push(Mistake { suggestion: unknown.suggestion, ..Mistake::of_file(file, unknown.message) });
                }
            }
        }
        if mistakes.is_empty() {
            Ok(Self { app, project, checks, buildpacks })
        } else {
            Err(Mistakes::sorted(mistakes))
        }
    }

    /// Lays what they ask for under what the stack's own description says, and tells what was taken and what not.
    pub(super) fn apply(&self, stack: &mut Stack) -> Vec<String> {
        let mut said = Vec::new();
        for (file, parts) in [("app.json", self.app.parts()), ("project.toml", self.project.parts())] {
            if !parts.is_empty() {
                said.push(format!("{file}: {}", parts.join(", ")));
            }
        }
        self.form(stack, &mut said);
        self.check(stack, &mut said);
        self.release(stack);
        self.tasks(stack);
        said.extend(self.app.said.iter().chain(&self.project.said).cloned());
        said
    }

    fn form(&self, stack: &mut Stack, said: &mut Vec<String>) {
        for (name, formation) in &self.app.formation {
            let Some(node) = standing(stack, name) else {
                said.push(format!("Warning: app.json: `formation` names `{name}`, which is no process of the stack"));
                continue;
            };
            if node.scale.is_none() && node.kind != Kind::Service {
                node.scale = formation.quantity;
            }
            if node.overlap == Overlap::StopFirst && node.scale.is_some_and(|scale| scale > 1) {
                said.push(format!("Warning: app.json: `{name}` never runs twice, so its quantity is 1"));
                node.scale = Some(1);
            }
            node.size = node.size.or(formation.size);
        }
    }

    fn check(&self, stack: &mut Stack, said: &mut Vec<String>) {
        for (name, health) in &self.app.health {
            let Some(node) = standing(stack, name) else {
                said.push(format!(
                    "Warning: app.json: `healthchecks` names `{name}`, which is no process of the stack"
                ));
                continue;
            };
            if node.kind == Kind::Worker && node.first_port().is_none() && health.probe.asks_first_port() {
                said.push(format!("Warning: app.json: the check of `{name}` asks a port, and it has none"));
                continue;
            }
            node.health = node.health.take().or_else(|| Some(health.clone()));
        }
        let Some(checks) = &self.checks else { return };
        for node in stack.nodes.values_mut().filter(|node| node.kind == Kind::Web && node.health.is_none()) {
            node.health = Some(checks.clone());
            said.push("CHECKS: pages that have to answer".to_owned());
        }
    }

    /// `predeploy` comes before the release command of a Procfile, and instead of none.
    fn release(&self, stack: &mut Stack) {
        let Some(predeploy) = &self.app.predeploy else { return };
        let Some(node) = main(stack).and_then(|name| stack.nodes.get_mut(&name)) else { return };
        node.release = Some(match node.release.take() {
            None => predeploy.clone(),
            Some(release) => both(predeploy, &release),
        });
    }

    fn tasks(&self, stack: &mut Stack) {
        let Some(main) = main(stack) else { return };
        let (source, keeps_entrypoint) = match stack.nodes.get(&main) {
            Some(Node { source: Source::Image(image), .. }) => (Source::Image(image.clone()), true),
            Some(node) => (Source::Node(main.clone()), node.keeps_entrypoint),
            None => return,
        };
        for (Cron { command, schedule }, number) in self.app.cron.iter().zip(1..) {
            let name: NodeName = format!("cron-{number}").parse().expect("`cron-1` is a node name");
            let (command, schedule) = (Some(command.clone()), Some(schedule.clone()));
            let task = Node { command, schedule, keeps_entrypoint, ..Node::new(Kind::Task, source.clone()) };
            stack.nodes.entry(name).or_insert(task);
        }
    }
}

/// Reads one of the files, when it is there.
fn read<T>(
    file: &str,
    repository: &Repository,
    parse: impl Fn(&str, &str) -> Result<T, Mistakes>,
    mistakes: &mut Vec<Mistake>,
) -> Option<T> {
    if let Some(reason) = repository.unreadable.get(file) {
        mistakes.push(Mistake::of_file(file, format!("the file {reason}")));
    }
    parse(file, repository.text(file)?).map_err(|more| mistakes.extend(more.0)).ok()
}

/// A node of which containers stand.
fn standing<'s>(stack: &'s mut Stack, name: &NodeName) -> Option<&'s mut Node> {
    stack.nodes.get_mut(name).filter(|node| node.runs())
}

/// The node in whose image commands of the whole stack run: `web`, else the first that is deployed.
fn main(stack: &Stack) -> Option<NodeName> {
    let deployed = |node: &Node| matches!(node.kind, Kind::Web | Kind::Worker);
    let mut names = stack.nodes.iter().filter(|(_, node)| deployed(node)).map(|(name, _)| name);
    names.clone().find(|name| name.as_str() == "web").or_else(|| names.next()).cloned()
}

/// One after the other, the second only when the first has succeeded.
fn both(first: &Command, second: &Command) -> Command {
    let text = |command: &Command| match command {
        Command::Shell(text) => text.clone(),
        Command::Words(words) => {
            let quoted = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
            quoted.collect::<Vec<_>>().join(" ")
        }
    };
    Command::Shell(format!("( {}\n) && ( {}\n)", text(first), text(second)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::{Probe, describe};
    use crate::units::Megabytes;

    fn described(files: &[(&str, &str)]) -> crate::stack::Described {
        describe(&Repository::of(files.iter().copied())).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    fn node<'s>(stack: &'s Stack, name: &str) -> &'s Node {
        &stack.nodes[&name.parse::<NodeName>().unwrap()]
    }

    #[test]
    fn quarry_yml_wins_where_both_say_something() {
        let app = r#"{"formation": {"web": {"quantity": 5, "memory": "64mb"}, "api": {"quantity": 2}, "ghost": {}},
                      "healthchecks": {"web": [{"path": "/app"}], "api": [{"uptime": 2}]},
                      "scripts": {"predeploy": "./migrate"}}"#;
        let yml =
            "web: {dockerfile: FROM a, scale: 1, health: /yml}\napi: {type: worker, dockerfile: FROM a, size: 32mb}\n";
        let Described { stack, said, .. } = described(&[("app.json", app), ("quarry.yml", yml)]);
        let (web, api) = (node(&stack, "web"), node(&stack, "api"));
        assert_eq!((web.scale, web.size), (Some(1), Some(Megabytes(64))));
        assert_eq!(web.health.as_ref().unwrap().probe, Probe::Http("/yml".into()));
        assert_eq!((api.scale, api.size), (Some(2), Some(Megabytes(32))));
        assert_eq!(web.release, Some(Command::Shell("./migrate".into())));
        assert_eq!(said[..2], ["quarry.yml: api, web", "app.json: formation, healthchecks, scripts"]);
        assert!(said[2].contains("`ghost`"), "{said:?}");
    }

    use crate::stack::Described;

    #[test]
    fn what_comes_before_a_deploy_runs_before_the_release_line() {
        let app = r#"{"scripts": {"dokku": {"predeploy": "a; b"}}}"#;
        let files = [("app.json", app), ("Procfile", "web: x\nrelease: c"), ("Dockerfile", "FROM a")];
        let stack = described(&files).stack;
        assert_eq!(node(&stack, "web").release, Some(Command::Shell("( a; b\n) && ( c\n)".into())));
    }

    #[test]
    fn tasks_run_in_the_image_of_web_and_are_never_deployed() {
        let app =
            r#"{"cron": [{"command": "./a", "schedule": "@daily"}, {"command": "./b", "schedule": "0 0 * * *"}]}"#;
        let stack = described(&[("app.json", app), ("Procfile", "w: x\nweb: y"), ("Dockerfile", "FROM a")]).stack;
        for (name, command) in [("cron-1", "./a"), ("cron-2", "./b")] {
            let task = node(&stack, name);
            assert_eq!((task.kind, &task.source), (Kind::Task, &Source::Node("web".parse().unwrap())));
            assert_eq!(task.command, Some(Command::Shell(command.into())));
        }
    }

    #[test]
    fn checks_are_asked_of_web_unless_app_json_has_its_own() {
        let check = |app: &str, expected: &str| {
            let files = [("CHECKS", "/checks"), ("app.json", app), ("Dockerfile", "FROM a")];
            let stack = described(&files).stack;
            let health = node(&stack, "web").health.clone().unwrap();
            assert!(format!("{:?}", health.probe).contains(expected), "{health:?}");
        };
        check("{}", "/checks");
        check(r#"{"healthchecks": {"web": [{"path": "/app"}]}}"#, "/app");
    }

    #[test]
    fn mistakes_of_all_files_are_told_together() {
        let files =
            [("app.json", "{\"env\": 1}"), ("CHECKS", "x"), ("project.toml", "["), ("Procfile", "web: x\nnonsense")];
        let mistakes = describe(&Repository::of(files)).unwrap_err().to_string();
        let starts: Vec<&str> = mistakes.lines().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(starts, ["CHECKS", "Procfile", "app.json", "project.toml"], "{mistakes}");
    }

    #[test]
    fn named_buildpacks_come_before_a_dockerfile() {
        let files = [
            ("app.json", r#"{"buildpacks": [{"url": "heroku/python"}]}"#),
            ("Dockerfile", "FROM a"),
            ("requirements.txt", ""),
            ("Procfile", "web: x"),
        ];
        assert_eq!(node(&described(&files).stack, "web").source, Source::Pack(Some("python".into())));
        let files = [("app.json", r#"{"buildpacks": [{"url": "heroku/cobol2/x"}]}"#), ("Dockerfile", "FROM a")];
        assert!(
            describe(&Repository::of(files)).unwrap_err().to_string().starts_with("app.json: `buildpack` is one of")
        );
    }
}
