//! Procfile: one `name: command` a line, as Heroku and Dokku read it.

use std::collections::BTreeMap;

use crate::names::NodeName;

use super::mistakes::{Mistakes, Notes, shown};
use super::tree::Spot;
use super::{Command, Kind, Node, Source, Stack};

/// Reads the text of the file called `file`; every process runs from `source`.
///
/// `web` is routed, `release` is no process but the release command of `web` (of the first process where there is no
/// `web`), all others are workers.
///
/// # Errors
/// Every line that is none of that.
pub fn parse(file: &str, text: &str, source: &Source) -> Result<Stack, Mistakes> {
    let mut notes = Notes::of(file, Vec::new());
    let mut nodes: BTreeMap<NodeName, Node> = BTreeMap::new();
    let mut order: Vec<NodeName> = Vec::new();
    let mut release = None;
    for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let spot = Spot { line: index + 1, column: 1 };
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let Some((name, command)) = process(line, spot, &mut notes) else { continue };
        if name.as_str() == "release" {
            if release.replace(command).is_some() {
                notes.add(spot, "`release` is already there");
            }
            continue;
        }
        let kind = if name.as_str() == "web" { Kind::Web } else { Kind::Worker };
        // As on Dokku: the lines of a Procfile beside a Dockerfile are what `docker run IMAGE` gets.
        let keeps_entrypoint = matches!(source, Source::Dockerfile(_));
        let node = Node { command: Some(command), keeps_entrypoint, ..Node::new(kind, source.clone()) };
        if nodes.insert(name.clone(), node).is_some() {
            notes.add(spot, format!("`{name}` is already there"));
        }
        order.push(name);
    }
    let web = order.iter().find(|name| name.as_str() == "web");
    if web.is_some() {
        // As on Heroku and Dokku: whoever wants workers beside the web process scales them up.
        for (_, node) in nodes.iter_mut().filter(|(name, _)| name.as_str() != "web") {
            node.first = 0;
        }
    }
    match web.or(order.first()).and_then(|name| nodes.get_mut(name)) {
        Some(node) => node.release = release,
        None => notes.of_file("there is no process in the file: it needs a line such as `web: ./server`"),
    }
    notes.or(Stack { nodes })
}

fn process(line: &str, spot: Spot, notes: &mut Notes<'_>) -> Option<(NodeName, Command)> {
    let Some((name, command)) = line.split_once(':') else {
        notes.add(spot, format!("{} is not `name: command`", shown(line)));
        return None;
    };
    let (name, command) = (name.trim(), command.trim());
    if command.is_empty() || command.contains('\0') {
        notes.add(spot, format!("{} has no command", shown(name)));
        return None;
    }
    let parsed = name.parse().map_err(|error: crate::names::BadName| {
        let lower = name.to_lowercase();
        let better = lower.parse::<NodeName>().is_ok().then_some(lower);
        notes.suggest(spot, error.to_string(), better);
    });
    Some((parsed.ok()?, Command::Shell(command.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&[(&str, Kind, &str)], &str>) {
        let source = Source::Pack(None);
        match (parse("Procfile", text, &source), expected) {
            (Ok(stack), Ok(expected)) => {
                let shell = |node: &Node| match &node.command {
                    Some(Command::Shell(text)) => text.clone(),
                    Some(Command::Words(_)) | None => String::new(),
                };
                let found: Vec<_> =
                    stack.nodes.iter().map(|(name, node)| (name.to_string(), node.kind, shell(node))).collect();
                let expected: Vec<_> =
                    expected.iter().map(|(name, kind, text)| (name.to_string(), *kind, text.to_string())).collect();
                assert_eq!(found, expected);
            }
            (Err(mistakes), Err(expected)) => assert_eq!(mistakes.to_string(), expected),
            (got, expected) => panic!("{got:?} is not {expected:?}"),
        }
    }

    #[test]
    fn each_process_is_a_node_and_web_is_routed() {
        let text = "# processes\n\nweb: gunicorn app:app -b :$PORT\r\nmail-worker:  ./mail: now \n";
        let mail = ("mail-worker", Kind::Worker, "./mail: now");
        check(text, Ok(&[mail, ("web", Kind::Web, "gunicorn app:app -b :$PORT")]));
    }

    #[test]
    fn the_release_line_becomes_the_release_command_of_web_or_of_the_first_process() {
        let release = |text: &str, name: &str| {
            let stack = parse("Procfile", text, &Source::Pack(None)).unwrap();
            stack.nodes[&name.parse::<NodeName>().unwrap()].release.clone()
        };
        let migrate = Some(Command::Shell("migrate".into()));
        assert_eq!(release("a: x\nrelease: migrate\nweb: y", "web"), migrate);
        assert_eq!(release("b: x\na: y\nrelease: migrate", "b"), migrate);
        assert_eq!(release("a: x\nrelease: migrate\nweb: y", "a"), None);
    }

    #[test]
    fn all_mistakes_are_told_with_their_line() {
        check(
            "Web: x\nnonsense\nworker:\na: 1\na: 2\n",
            Err(
                "Procfile:1:1: `Web` is not a node name: lowercase letters, digits, dashes and underscores, starting with \
                 a letter, at most 40 characters; did you mean `web`?\n\
                 Procfile:2:1: `nonsense` is not `name: command`\n\
                 Procfile:3:1: `worker` has no command\n\
                 Procfile:5:1: `a` is already there",
            ),
        );
        check("release: x", Err("Procfile: there is no process in the file: it needs a line such as `web: ./server`"));
    }
}
