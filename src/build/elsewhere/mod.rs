//! What a Dockerfile takes from elsewhere: images, and what `ADD` would fetch. Docker does both itself, where HQ stands
//! and the pusher does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::dockerfile::{Dockerfile, Instruction};
use crate::env::Env;
use crate::names::printable::printable_line;
use crate::names::reference::Reference;

pub mod act;
mod tcp;
mod words;

use words::expanded;

/// So many mistakes are shown.
const SHOWN: usize = 20;

/// What in a Dockerfile is not done here, each with its line from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotDone(Vec<(usize, String)>);

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().take(SHOWN).map(|(line, what)| format!("line {line}: {what}")).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for NotDone {}

/// What a build knows beside its Dockerfile.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// Its arguments.
    pub arguments: &'a Env,
    /// The engine's processor, in docker's words.
    pub architecture: &'a str,
}

/// The images a Dockerfile starts from or copies out of, each once.
///
/// # Errors
/// Every image whose name cannot be known, everything that docker itself would fetch, and what cannot be read for certain.
pub fn images(dockerfile: &Dockerfile, around: Around<'_>) -> Result<Vec<String>, NotDone> {
    let mut wrong = Vec::new();
    if let Some((line, what)) = &dockerfile.unclear {
        wrong.push((*line, format!("{what} means different things to different engines; write it in another way")));
    }
    let mut found = Found { values: platform(around), ..Found::default() };
    for instruction in &dockerfile.instructions {
        found.take(instruction, around.arguments, &mut wrong);
    }
    if wrong.is_empty() { Ok(found.images) } else { Err(NotDone(wrong)) }
}

/// The images that the `ONBUILD` lines of an image name which somebody builds from.
///
/// # Errors
/// As [`images`].
pub fn put_off(triggers: &[String], around: Around<'_>) -> Result<Vec<String>, NotDone> {
    images(&Dockerfile::parse(&triggers.join("\n")), around)
}

/// Whether an image may decide how a build goes: docker's own, and those that the server's owner has named.
pub fn may_decide(syntax: &str, named: &BTreeSet<String>) -> bool {
    let image = Reference::new(syntax);
    image.repository() == "docker.io/docker/dockerfile" || named.iter().any(|name| Reference::new(name) == image)
}

/// What BuildKit says of the platform, as far as it follows from the processor.
fn platform(around: Around<'_>) -> BTreeMap<String, Option<String>> {
    let Around { architecture, arguments } = around;
    let known = |text: String| Some(text).filter(|_| ["amd64", "arm64"].contains(&architecture));
    let values = ["TARGET", "BUILD"].into_iter().flat_map(|side| {
        [
            (format!("{side}OS"), Some("linux".to_owned())),
            (format!("{side}ARCH"), known(architecture.to_owned())),
            (format!("{side}PLATFORM"), known(format!("linux/{architecture}"))),
            (format!("{side}VARIANT"), known(String::new())),
        ]
    });
    let given = |name: &str| name.parse().is_ok_and(|name| arguments.value(&name).is_some());
    values.map(|(name, value)| (name.clone(), value.filter(|_| !given(&name)))).collect()
}

#[derive(Default)]
struct Found {
    images: Vec<String>,
    /// The same, to be looked up.
    known: BTreeSet<String>,
    /// Arguments by their names; those without a value cannot be known here.
    values: BTreeMap<String, Option<String>>,
    stages: BTreeSet<String>,
    /// The stage that is being described: until it is done its name is that of an image.
    stage: Option<String>,
    begun: bool,
}

impl Found {
    fn take(&mut self, instruction: &Instruction, arguments: &Env, wrong: &mut Vec<(usize, String)>) {
        let line = instruction.lines.0 + 1;
        let mut refuse = |what: String| wrong.push((line, what));
        match instruction.word.as_str() {
            // Only arguments before the first stage count in FROM.
            "ARG" if !self.begun => self.arguments(&instruction.rest, arguments),
            "FROM" => self.from(&instruction.rest, &mut refuse),
            "COPY" => {
                let from = instruction.flags.iter().filter_map(|flag| flag.strip_prefix("--from="));
                // A number is a stage's.
                self.images(from.filter(|from| from.parse::<u32>().is_err()), &mut refuse);
            }
            "RUN" => self.images(instruction.flags.iter().filter_map(|flag| mounted(flag)), &mut refuse),
            "ADD" => fetched(&instruction.rest).into_iter().for_each(|source| {
                let source = printable_line(&source);
                refuse(format!(
                    "`ADD {source}` would be fetched by docker itself, from within HQ's own network; fetch it with RUN, \
                     as `RUN curl -fsSLO …` does{}",
                    if source.contains('$') { format!(", or write `./{source}` if it is a path") } else { String::new() }
                ));
            }),
            // Engines refuse one that puts off another.
            "ONBUILD" => {
                if let Some(later) = instruction.put_off().filter(|later| later.word != "ONBUILD") {
                    self.take(&later, arguments, wrong);
                }
            }
            _ => {}
        }
    }

    fn arguments(&mut self, rest: &str, given: &Env) {
        for word in super::dockerfile::raw_words(rest) {
            let (name, default) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let given = name.parse().ok().and_then(|name| given.value(&name)).map(str::to_owned);
            let value = match (given, default) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => expanded(default, &self.values),
                // Engines do not agree on what becomes of a value they have set themselves.
                (None, None) if self.values.contains_key(name) => None,
                (None, None) => Some(String::new()),
            };
            self.values.insert(name.to_owned(), value);
        }
    }

    fn from(&mut self, rest: &str, refuse: &mut impl FnMut(String)) {
        self.begun = true;
        self.stages.extend(self.stage.take());
        let words: Vec<&str> = rest.split_whitespace().collect();
        let base = words.first().copied().unwrap_or_default();
        match expanded(base, &self.values).filter(|name| !name.is_empty()) {
            Some(name) if name == "scratch" => {}
            Some(name) => self.image(name),
            None => refuse(format!(
                "which image `{}` is cannot be known here; write its name, with no more than `$NAME`, `${{NAME}}` and \
                 `${{NAME:-default}}` of an ARG above",
                printable_line(base)
            )),
        }
        self.stage = words.get(2).map(|stage| stage.to_ascii_lowercase());
    }

    fn images<'a>(&mut self, names: impl Iterator<Item = &'a str>, refuse: &mut impl FnMut(String)) {
        for name in names.filter(|name| !name.is_empty()) {
            match name.contains('$') {
                true => refuse(format!("`from={}` takes no variables; name a stage or an image", printable_line(name))),
                false => self.image(name.to_owned()),
            }
        }
    }

    fn image(&mut self, name: String) {
        if !self.stages.contains(&name.to_ascii_lowercase()) && self.known.insert(name.clone()) {
            self.images.push(name);
        }
    }
}

/// What a `--mount` mounts from.
fn mounted(flag: &str) -> Option<&str> {
    let fields = flag.strip_prefix("--mount=")?.split(',').map(|field| field.trim_matches('"'));
    let mut named = fields.filter_map(|field| field.split_once('='));
    named.find(|(name, _)| name.trim().eq_ignore_ascii_case("from")).map(|(_, value)| value)
}

/// The sources of an ADD that docker would fetch, or might.
fn fetched(rest: &str) -> Vec<String> {
    let json = serde_json::from_str::<Vec<String>>(rest).ok();
    // What one reader takes for JSON, another may not: then its escapes say nothing either.
    let hidden = json.is_none() && rest.trim_start().starts_with('[') && rest.contains("\\u");
    let mut words = json.unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
    if hidden {
        return vec![rest.to_owned()];
    }
    words.pop();
    words.into_iter().filter(|word| is_remote(word)).collect()
}

/// Whether a source is an address, or becomes one by the values of its variables.
fn is_remote(source: &str) -> bool {
    let plain: String = source.chars().filter(|c| !['"', '\'', '\\', '`', '[', ','].contains(c)).collect();
    let begin = plain.split('$').next().unwrap_or_default();
    // A path's first part holds neither a scheme nor a user.
    let is_path = begin.split_once('/').is_some_and(|(first, _)| !first.contains([':', '@']));
    if is_path {
        return false;
    }
    let user = plain.split_once('@').is_some_and(|(user, host)| host.contains(':') && !user.contains('/'));
    plain.contains('$') || plain.contains("://") || user
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::from_arguments;

    fn found(text: &str) -> Result<Vec<String>, NotDone> {
        let arguments = from_arguments(["V=2", "EMPTY="]).unwrap();
        images(&Dockerfile::parse(text), Around { arguments: &arguments, architecture: "arm64" })
    }

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(found(text).unwrap_or_else(|wrong| panic!("{text}: {wrong}")), expected, "{text}");
    }

    fn refused(text: &str, line: usize, said: &str) {
        let told = found(text).expect_err(text).to_string();
        assert!(told.starts_with(&format!("line {line}: ")) && told.contains(said), "{text}: {told}");
    }

    #[test]
    fn the_images_a_build_starts_from_are_found() {
        check("FROM --platform=x a:1 AS One\nFROM one\nFROM scratch\nCOPY --from=0 x y", &["a:1"]);
        check(
            "ARG V=1\nARG N=\"node\"\nFROM ${N}:$V-slim\nFROM a:${W:-3}\nFROM b${EMPTY}",
            &["node:2-slim", "a:3", "b"],
        );
        check("FROM a\nCOPY --from=b/c x y\nRUN --mount=type=bind,from=d,target=/x y\nFROM a", &["a", "b/c", "d"]);
        check("FROM a AS x-arm64\nFROM x-$TARGETARCH\nFROM 'b'", &["a", "b"]);
        check("ARG A=1 B=b:$A\nFROM $B", &["b:1"]);
        // A number is a stage's only where one is copied from; all mounts count, in whatever letters.
        check("FROM 04", &["04"]);
        check("FROM a\nRUN --mount=from=b --mount=type=bind,\\\"FROM=c\\\" x", &["a", "b", "c"]);
        check("ONBUILD COPY --from=a x y\nFROM 0\\\n4df", &["a", "04df"]);
    }

    #[test]
    fn a_stage_s_name_is_an_image_s_until_the_stage_is_done() {
        check("FROM a AS dead\nCOPY --from=dead x y\nFROM b\nCOPY --from=DEAD x y", &["a", "dead", "b"]);
        check("FROM later\nFROM b AS later", &["later", "b"]);
    }

    #[test]
    fn what_cannot_be_known_is_refused() {
        for base in ["$UNKNOWN", "a\\b", "${V:?x}", "$$", "${EMPTY}", ""] {
            refused(&format!("# x\nFROM {base}"), 2, "cannot be known here");
        }
        refused("ARG TARGETARCH\nFROM a-$TARGETARCH", 2, "cannot be known here");
        refused("FROM a\nCOPY --from=$V x y", 2, "takes no variables");
        refused("FROM a\nRUN --mount=from=$V y", 2, "takes no variables");
        refused("FROM a\nRUN b \\\\\nFROM c", 2, "different engines");
    }

    #[test]
    fn what_docker_would_fetch_itself_is_refused() {
        for source in [
            "http://169.254.169.254/latest",
            "--checksum=x https://a/b",
            "git@github.com:a/b.git",
            "me@10.0.0.1:x",
            "ssh://git@h/x",
            "\"http\"://h",
            "http:\\/\\/h",
            "$URL",
            "${A}b",
            "http:/$X",
            "x http://h",
        ] {
            refused(&format!("FROM a\nADD {source} /x"), 2, "would be fetched by docker itself");
            refused(&format!("FROM a\nRUN x\nONBUILD ADD {source} /x"), 3, "RUN curl");
        }
        refused("FROM a\nADD [\"http:\\u002f\\u002fh\", \"/x\"]", 2, "would be fetched");
        refused("FROM a\nADD [\"\\ud800\", \"http:\\u002f\\u002fh\", \"/x\"]", 2, "would be fetched");
        refused("FROM a\nADD http:\\\n//h /x", 2, "would be fetched");
        refused("FROM a\nADD $JAR /x", 2, "`./$JAR`");
        for plain in [
            "a b",
            "./$JAR /x",
            "build/app-${V}.jar $HOME",
            "a@b c",
            "[\"a b\", \"/x\"]",
            "github.com/a/b /x",
            "./http://x y",
        ] {
            check(&format!("FROM a\nADD {plain}"), &["a"]);
        }
        check("FROM a\nADD <<E /x\nhttp://h\nE\nCOPY $X /y", &["a"]);
        check(&format!("FROM a\n{}RUN x", "ONBUILD ".repeat(100_000)), &["a"]);
        let around = Around { arguments: &Env::new(), architecture: "amd64" };
        assert!(put_off(&["ADD http://h /x".to_owned()], around).is_err());
        assert_eq!(put_off(&["RUN x".to_owned(), "COPY --from=b x y".to_owned()], around).unwrap(), ["b"]);
    }

    #[test]
    fn docker_s_own_syntax_and_those_of_the_owner_decide() {
        let named = ["ghcr.io/team/syntax:1".to_owned()].into();
        for (syntax, expected) in [
            ("docker/dockerfile:1", true),
            ("docker.io/docker/dockerfile:1-labs", true),
            ("ghcr.io/team/syntax:1", true),
            ("ghcr.io/team/syntax:2", false),
            ("evil/docker/dockerfile:1", false),
            ("10.0.0.1/docker/dockerfile:1", false),
            ("04df", false),
        ] {
            assert_eq!(may_decide(syntax, &named), expected, "{syntax}");
        }
    }
}
