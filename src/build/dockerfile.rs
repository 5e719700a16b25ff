//! The little of a Dockerfile that decides how it is built.

use std::collections::{BTreeMap, BTreeSet};

use crate::docker::Builder;
use crate::env::Env;

/// A Dockerfile in its instructions. Nothing is refused here: what cannot be read is left to the builder to refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The reference of a `# syntax=` line, and its line from 1.
    pub syntax: Option<(usize, String)>,
    /// In order.
    pub instructions: Vec<Instruction>,
}

/// One instruction with its continuation lines and heredocs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Its first line, from 0, and the line after its last one.
    pub lines: (usize, usize),
    /// The word in capitals, such as `RUN`.
    pub word: String,
    /// Its flags, such as `--mount=type=cache,target=/x`.
    pub flags: Vec<String>,
    /// What follows the flags, continuation lines joined.
    pub rest: String,
    /// The texts its `<<` words announce, in order.
    pub heredocs: Vec<Heredoc>,
}

/// A text between `<<NAME` and `NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word as it is written, such as `<<-"EOF"`.
    pub word: String,
    /// The name that ends it.
    pub name: String,
    /// In quotes: variables in it stay as they are.
    pub quoted: bool,
    /// With a dash: tabs at the start of its lines do not count.
    pub indented: bool,
    /// Its lines, each with its newline.
    pub body: String,
}

impl Dockerfile {
    /// Reads a Dockerfile.
    pub fn parse(text: &str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let (syntax, escape) = directives(&lines);
        let mut instructions = Vec::new();
        let mut at = 0;
        while at < lines.len() {
            let begin = at;
            let Some(joined) = logical_line(&lines, &mut at, escape) else { continue };
            let Some(mut instruction) = instruction(&joined) else { continue };
            for heredoc in &mut instruction.heredocs {
                heredoc.read(&lines, &mut at);
            }
            instruction.lines = (begin, at);
            instructions.push(instruction);
        }
        Self { syntax, instructions }
    }

    /// What in it the classic builder does not know, and its line from 1.
    pub fn beyond_classic(&self) -> Option<(usize, String)> {
        self.instructions.iter().find_map(|instruction| {
            let what = match instruction.heredocs.first() {
                Some(heredoc) => Some(heredoc.word.clone()),
                None => instruction.beyond_classic(),
            };
            what.map(|what| (instruction.lines.0 + 1, what))
        })
    }

    /// The builder it needs: the classic one where that can do it, because it answers sooner when all is cached.
    pub fn builder(&self) -> Builder {
        let buildkit = self.syntax.is_some() || self.beyond_classic().is_some();
        if buildkit { Builder::BuildKit } else { Builder::Classic }
    }

    /// The images it starts from or copies out of, each once; those whose name depends on more than `arguments` and the
    /// defaults of its `ARG` lines are left out.
    pub fn bases(&self, arguments: &Env) -> Vec<String> {
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        let mut stages: BTreeSet<String> = BTreeSet::from(["scratch".to_owned()]);
        let mut bases = Vec::new();
        for (index, instruction) in self.instructions.iter().enumerate() {
            let words = || instruction.rest.split_whitespace();
            let named = match instruction.word.as_str() {
                // Only arguments before the first stage count in FROM.
                "ARG" if !self.instructions[..index].iter().any(|before| before.word == "FROM") => {
                    let (name, default) = instruction.rest.split_once('=').unwrap_or((&instruction.rest, ""));
                    let given = name.parse().ok().and_then(|name| arguments.value(&name));
                    values.insert(name.to_owned(), given.unwrap_or(default.trim_matches(['"', '\''])).to_owned());
                    None
                }
                "FROM" => words().next().and_then(|base| expanded(base, &values)),
                "COPY" | "ADD" => {
                    instruction.flags.iter().find_map(|flag| flag.strip_prefix("--from=")).map(str::to_owned)
                }
                "RUN" => instruction.flags.iter().find_map(|flag| {
                    flag.strip_prefix("--mount=")?
                        .split(',')
                        .find_map(|part| part.strip_prefix("from="))
                        .map(str::to_owned)
                }),
                _ => None,
            };
            let is_image = |name: &String| {
                !stages.contains(&name.to_ascii_lowercase()) && name.parse::<u32>().is_err() && !name.contains('$')
            };
            bases.extend(named.filter(is_image).filter(|name| !bases.contains(name)));
            if let ("FROM", [_, _, stage, ..]) = (instruction.word.as_str(), &words().collect::<Vec<_>>()[..]) {
                stages.insert(stage.to_ascii_lowercase());
            }
        }
        bases
    }

    /// Whether a heredoc is in it.
    pub fn has_heredocs(&self) -> bool {
        self.instructions.iter().any(|instruction| !instruction.heredocs.is_empty())
    }
}

impl Instruction {
    fn beyond_classic(&self) -> Option<String> {
        let flags: &[&str] = match self.word.as_str() {
            "RUN" => &["--mount", "--network", "--security", "--device"],
            "COPY" => &["--link", "--chmod", "--parents", "--exclude"],
            "ADD" => &["--link", "--chmod", "--exclude", "--checksum", "--keep-git-dir", "--unpack"],
            _ => &[],
        };
        let flag = self.flags.iter().find(|flag| flags.contains(&flag.split('=').next().unwrap_or_default()));
        if let Some(flag) = flag {
            return Some(format!("{} {flag}", self.word));
        }
        match self.word.as_str() {
            // Only BuildKit sets these; without them `FROM --platform=$BUILDPLATFORM` is an error.
            "FROM" | "ARG" => {
                ["TARGETPLATFORM", "TARGETARCH", "TARGETOS", "TARGETVARIANT", "BUILDPLATFORM", "BUILDARCH"]
                    .into_iter()
                    .find(|name| self.rest.contains(name) || self.flags.iter().any(|flag| flag.contains(name)))
                    .map(str::to_owned)
            }
            "ADD" => {
                let git = |word: &&str| {
                    word.starts_with("git@")
                        || (word.contains("://") && (word.ends_with(".git") || word.contains(".git#")))
                };
                self.rest.split_whitespace().find(git).map(|source| format!("ADD {source}"))
            }
            _ => None,
        }
    }
}

impl Heredoc {
    /// The heredoc a word announces: digits, `<<`, perhaps a dash, a name perhaps in quotes.
    fn announced(word: &str) -> Option<Self> {
        let after = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
        let (name, indented) = match after.strip_prefix('-') {
            Some(name) => (name, true),
            None => (after, false),
        };
        let bare: String = name.chars().filter(|c| !['"', '\''].contains(c)).collect();
        if bare.is_empty() || bare.contains('<') {
            return None;
        }
        let quoted = bare.len() != name.len();
        Some(Self { word: word.to_owned(), name: bare, quoted, indented, body: String::new() })
    }

    /// Reads its body from the lines at `at`, past the line that ends it.
    fn read(&mut self, lines: &[&str], at: &mut usize) {
        while let Some(line) = lines.get(*at) {
            *at += 1;
            let shown = if self.indented { line.trim_start_matches('\t') } else { line };
            if shown == self.name {
                return;
            }
            self.body.push_str(line);
            self.body.push('\n');
        }
    }
}

/// The `# name=value` lines a Dockerfile may begin with: the syntax, and the character that continues a line.
fn directives(lines: &[&str]) -> (Option<(usize, String)>, char) {
    let (mut syntax, mut escape) = (None, '\\');
    for (index, line) in lines.iter().enumerate() {
        let comment = line.trim_start_matches('\u{feff}').trim().strip_prefix('#');
        let Some((name, value)) = comment.and_then(|text| text.split_once('=')) else { break };
        match (name.trim().to_ascii_lowercase().as_str(), value.trim()) {
            ("syntax", reference) => syntax = Some((index + 1, reference.to_owned())),
            ("escape", "`") => escape = '`',
            ("escape" | "check", _) => {}
            _ => break,
        }
    }
    (syntax, escape)
}

/// The line at `at` with its continuations, comments between them left out; `None` for a comment or an empty line.
fn logical_line(lines: &[&str], at: &mut usize, escape: char) -> Option<String> {
    let mut joined = String::new();
    let mut open = false;
    while let Some(line) = lines.get(*at) {
        *at += 1;
        let trimmed = line.trim();
        if trimmed.starts_with('#') || trimmed.is_empty() {
            if open {
                continue;
            }
            return None;
        }
        match trimmed.strip_suffix(escape) {
            Some(start) => {
                joined.push_str(start);
                joined.push(' ');
                open = true;
            }
            None => {
                joined.push_str(trimmed);
                return Some(joined);
            }
        }
    }
    open.then_some(joined)
}

fn instruction(line: &str) -> Option<Instruction> {
    let (word, mut rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let word = word.trim_start_matches('\u{feff}').to_ascii_uppercase();
    let mut flags = Vec::new();
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            break;
        }
        let (flag, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        flags.push(flag.to_owned());
        rest = after;
    }
    let heredocs = match word.as_str() {
        "RUN" | "COPY" | "ADD" => raw_words(rest).into_iter().filter_map(Heredoc::announced).collect(),
        _ => Vec::new(),
    };
    Some(Instruction { lines: (0, 0), word, flags, rest: rest.trim_end().to_owned(), heredocs })
}

/// A base with its `$NAME` and `${NAME}` put in; `None` where a value is missing or the form is a richer one.
fn expanded(text: &str, values: &BTreeMap<String, String>) -> Option<String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        let (name, behind) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}')?,
            None => after.split_at(after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len())),
        };
        result.push_str(values.get(name).filter(|value| !value.is_empty())?);
        rest = behind;
    }
    result.push_str(rest);
    Some(result)
}

/// Words with their quotes: what is quoted is part of one word.
pub(super) fn raw_words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut begin, mut quote) = (None, None);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, quote) {
            (c, None) if c.is_whitespace() => words.extend(begin.take().map(|begin| &text[begin..at])),
            (c, open) => {
                begin.get_or_insert(at);
                match (c, open) {
                    ('\\', Some('"') | None) => drop(chars.next()),
                    (c, Some(open)) if c == open => quote = None,
                    ('"' | '\'', None) => quote = Some(c),
                    _ => {}
                }
            }
        }
    }
    words.extend(begin.map(|begin| &text[begin..]));
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, beyond: Option<(usize, &str)>) {
        let found = Dockerfile::parse(text).beyond_classic();
        assert_eq!(found.as_ref().map(|(line, what)| (*line, what.as_str())), beyond, "{text}");
    }

    #[test]
    fn what_needs_buildkit_is_found() {
        check("FROM a\nRUN --mount=type=cache,target=/x make", Some((2, "RUN --mount=type=cache,target=/x")));
        check("FROM a\n# note\nrun \\\n  --network=none \\\n  make", Some((3, "RUN --network=none")));
        check("FROM a\nCOPY --chown=1 --chmod=755 a b", Some((2, "COPY --chmod=755")));
        check("FROM a\nCOPY --link . .", Some((2, "COPY --link")));
        check("FROM a\nRUN <<EOF\nx\nEOF", Some((2, "<<EOF")));
        check("FROM --platform=$BUILDPLATFORM a", Some((1, "BUILDPLATFORM")));
        check("FROM a\nARG TARGETARCH", Some((2, "TARGETARCH")));
        check("FROM a\nADD https://example.com/x.git /x", Some((2, "ADD https://example.com/x.git")));
    }

    #[test]
    fn what_the_classic_builder_can_do_stays_with_it() {
        for text in [
            "FROM a AS b\nCOPY --from=b --chown=1:1 x y\nADD https://example.com/x.tar.gz /",
            "FROM a\nRUN echo \"--mount <<EOF\" && test $((1<<2)) -eq 4 && cat <<< x && make --network",
            "FROM a\nRUN cat x # <<\nHEALTHCHECK --interval=5s CMD true",
            "",
            "FROM a\nRUN echo '<<EOF'",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn the_images_a_build_starts_from_are_found() {
        let bases = |text: &str| Dockerfile::parse(text).bases(&crate::env::from_arguments(["V=2"]).unwrap());
        assert_eq!(bases("FROM --platform=x a:1 AS One\nFROM one\nFROM scratch\nCOPY --from=0 x y"), ["a:1"]);
        assert_eq!(bases("ARG V=1\nARG N=\"node\"\nFROM ${N}:$V-slim\nFROM $UNKNOWN\nFROM a:${V:-3}"), ["node:2-slim"]);
        assert_eq!(
            bases("FROM a\nCOPY --from=b/c x y\nRUN --mount=type=bind,from=d,target=/x y\nFROM a"),
            ["a", "b/c", "d"]
        );
    }

    #[test]
    fn the_text_of_a_heredoc_is_no_instruction() {
        let dockerfile = Dockerfile::parse("FROM a\nCOPY <<-'A' <<B /d/\n\tRUN --mount=x y\n\tA\nb\nB\nCMD x\n");
        let words: Vec<_> = dockerfile.instructions.iter().map(|one| one.word.as_str()).collect();
        assert_eq!(words, ["FROM", "COPY", "CMD"]);
        let [a, b] = &dockerfile.instructions[1].heredocs[..] else { panic!("two heredocs") };
        assert_eq!((a.name.as_str(), a.quoted, a.indented, a.body.as_str()), ("A", true, true, "\tRUN --mount=x y\n"));
        assert_eq!((b.name.as_str(), b.quoted, b.indented, b.body.as_str()), ("B", false, false, "b\n"));
        assert_eq!(dockerfile.instructions[1].lines, (1, 6));
    }

    #[test]
    fn directives_are_read_only_at_the_top() {
        let syntax = |text: &str| Dockerfile::parse(text).syntax;
        assert_eq!(syntax("#syntax = docker/dockerfile:1 \nFROM a"), Some((1, "docker/dockerfile:1".to_owned())));
        assert_eq!(syntax("# escape=`\n# syntax=x\nFROM a"), Some((2, "x".to_owned())));
        assert_eq!(syntax("# hello\n# syntax=x\nFROM a"), None);
        check("# escape=`\nFROM a\nRUN a `\n --mount", None);
        assert_eq!(Dockerfile::parse("# escape=`\nFROM a\nRUN a `\n b\nRUN c").instructions.len(), 3);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([A-Z]{2,4}|<<-?[A-Z]|[ \\\\\"'\n#=é-]){0,40}") {
            let _ = Dockerfile::parse(&text).beyond_classic();
        }
    }
}
