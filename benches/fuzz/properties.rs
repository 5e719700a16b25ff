//! What must hold of everything that is read, whatever it is read from.

use quarry::buildpacks::{self, PackRequest, Repository};
use quarry::names::printable::is_harmless;
use quarry::stack::{Described, Source, describe};

/// What a person is shown commands no terminal.
pub fn harmless(shown: &str) {
    assert!(shown.chars().all(|c| is_harmless(c) || c == '\n'), "{shown:?} commands a terminal");
}

/// One line that a person is shown.
pub fn harmless_line(shown: &str) {
    assert!(shown.chars().all(is_harmless), "{shown:?} commands a terminal");
}

/// Reads a repository's description: either mistakes that can be shown, or a stack that holds nothing it must not.
pub fn described(repository: &Repository) {
    match describe(repository) {
        Ok(described) => {
            described.said.iter().for_each(|line| harmless_line(line));
            holds_nothing_evil(&described);
            packed(&described, repository);
        }
        Err(mistakes) => {
            assert!(!mistakes.0.is_empty(), "refused without a reason");
            mistakes.0.iter().for_each(|mistake| harmless_line(&mistake.to_string()));
        }
    }
}

fn holds_nothing_evil(described: &Described) {
    let json = serde_json::to_string(&described.stack).unwrap();
    assert_eq!(serde_json::from_str::<quarry::stack::Stack>(&json).unwrap(), described.stack, "{json}");
    for node in described.stack.nodes.values() {
        for domain in &node.domains {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-*".contains(c);
            assert!(domain.as_str().chars().all(plain), "{domain:?}");
        }
        let paths = node.volumes.iter().map(|path| path.as_str());
        paths.chain(node.cwd.as_deref()).for_each(|path| {
            assert!(path.starts_with('/') && !path.split('/').any(|part| part == ".."), "{path:?}");
            harmless_line(path);
        });
        let inner = [&node.document_root, &node.ssl_cert, &node.ssl_key].into_iter().flatten();
        inner.for_each(|path| stays_inside(path.as_str()));
        if let Source::Dockerfile(path) = &node.source {
            stays_inside(path);
        }
        for (name, value) in node.env.iter() {
            assert!(!name.as_str().contains(['=', '\0', '\n']) && !value.contains('\0'), "{name:?}={value:?}");
        }
        let words = node.command.iter().flat_map(|command| command.words()).chain(node.args.clone());
        words.for_each(|word| assert!(!word.contains('\0'), "a NUL in {word:?}"));
    }
}

fn stays_inside(path: &str) {
    assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".."), "{path:?} leads out");
}

/// What the packs write of a repository is Dockerfiles of their own instructions, and lines that can be shown.
fn packed(described: &Described, repository: &Repository) {
    let Some(pack) = buildpacks::detect(repository) else { return };
    for node in described.stack.nodes.values() {
        let request = PackRequest { install: &node.install, ..PackRequest::default() };
        let Ok(rendered) = buildpacks::render(pack, repository, &request) else { return };
        rendered.said.iter().for_each(|line| harmless_line(line));
        let known = ["ARG ", "FROM ", "RUN ", "ENV ", "WORKDIR ", "COPY ", "USER ", "CMD ", "STOPSIGNAL "];
        let joined = rendered.dockerfile.replace("\\\n", "");
        let foreign = joined
            .split(['\n', '\r'])
            .find(|line| !line.is_empty() && !known.iter().any(|word| line.starts_with(word)));
        assert_eq!(foreign, None, "{}", rendered.dockerfile);
    }
}
