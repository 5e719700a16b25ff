//! The little of a Dockerfile that decides how it is built.

use std::collections::BTreeMap;

use crate::docker::Builder;

/// A Dockerfile in its instructions. Nothing is refused here: what cannot be read is left to the builder to refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The reference of a `# syntax=` line, and its line from 1.
    pub syntax: Option<(usize, String)>,
    /// In order.
    pub instructions: Vec<Instruction>,
    /// The first line, from 1, that engines read in different ways, and what is in it.
    pub unclear: Option<(usize, String)>,
}

/// One instruction with its continuation lines and heredocs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Its first line, from 0, and the line after its last one.
    pub lines: (usize, usize),
    /// The word in capitals, such as `RUN`.
    pub word: String,
    /// Its flags, such as `--mount=type=cache,target=/x`, without their quotes.
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
        let Directives { syntax, escape, mut unclear } = directives(text, &lines);
        let mut instructions = Vec::new();
        let mut at = 0;
        while at < lines.len() {
            let begin = at;
            let Some(joined) = logical_line(&lines, &mut at, escape) else { continue };
            let Some(mut instruction) = instruction(&joined) else { continue };
            let odd = lines[begin..at].iter().find_map(|line| odd(line, escape)).or_else(|| instruction.odd());
            unclear = unclear.or_else(|| odd.map(|what| (begin + 1, what)));
            for heredoc in &mut instruction.heredocs {
                heredoc.read(&lines, &mut at);
            }
            instruction.lines = (begin, at);
            instructions.push(instruction);
        }
        Self { syntax, instructions, unclear }
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

    /// Whether a heredoc is in it.
    pub fn has_heredocs(&self) -> bool {
        self.instructions.iter().any(|instruction| !instruction.heredocs.is_empty())
    }
}

/// Texts that one instruction may announce.
const MANY: usize = 32;

impl Instruction {
    /// What `ONBUILD` puts off until somebody builds from the image.
    pub fn put_off(&self) -> Option<Self> {
        let later = instruction(&self.rest).filter(|_| self.word == "ONBUILD")?;
        Some(Self { lines: self.lines, ..later })
    }

    /// What in its heredocs engines may understand in different ways: where one ends decides what is an instruction.
    fn odd(&self) -> Option<String> {
        if self.heredocs.len() > MANY {
            return Some(format!("more than {MANY} texts in one instruction"));
        }
        let plain = |heredoc: &&Heredoc| {
            let written = heredoc.word.split_once("<<").map_or("", |(_, name)| name);
            let written = written.strip_prefix('-').unwrap_or(written);
            let within = |quote: char| written.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
            let name = within('"').or(within('\'')).unwrap_or(written);
            let known = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
            let before = self.rest.split(&heredoc.word).next().unwrap_or_default();
            name == heredoc.name && name.chars().all(known) && !in_braces(before) && quotes(&self.rest).1.is_none()
        };
        let odd = self.heredocs.iter().find(|heredoc| !plain(heredoc))?;
        Some(format!("the end of `{}`", odd.word))
    }

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
            if shown.trim_end_matches('\r') == self.name {
                return;
            }
            self.body.push_str(line);
            self.body.push('\n');
        }
    }
}

/// What a Dockerfile begins with.
#[derive(Default)]
struct Directives {
    syntax: Option<(usize, String)>,
    /// The character that continues a line.
    escape: char,
    unclear: Option<(usize, String)>,
}

/// The `# name=value` lines a Dockerfile may begin with. Newer engines look for the syntax behind `#!`, `//` and in JSON,
/// too; names that they do not know end nothing.
fn directives(text: &str, lines: &[&str]) -> Directives {
    let mut found = Directives { escape: '\\', ..Directives::default() };
    let script = usize::from(lines.first().is_some_and(|line| line.starts_with("#!")));
    for (index, line) in lines.iter().enumerate().skip(script) {
        let comment = line.trim_start_matches('\u{feff}').trim().strip_prefix('#');
        match comment.and_then(named) {
            Some((name, value)) if name == "syntax" => found.syntax = Some((index + 1, value.to_owned())),
            Some((name, "`")) if name == "escape" => found.escape = '`',
            Some(_) => {}
            None => break,
        }
        if script == 1 && found.escape == '`' {
            found.unclear = Some((index + 1, "`escape` below `#!`".to_owned()));
        }
    }
    if found.syntax.is_none() {
        let slashes = lines.iter().enumerate().skip(script);
        let mut slashes = slashes.map_while(|(index, line)| Some((index, named(line.trim().strip_prefix("//")?)?)));
        let said = slashes.find(|(_, (name, _))| name == "syntax");
        found.syntax = said.map(|(index, (_, value))| (index + 1, value.to_owned()));
    }
    if found.syntax.is_none() {
        let json = serde_json::from_str::<BTreeMap<String, serde_json::Value>>(text.trim_start_matches('\u{feff}'));
        found.unclear = found.unclear.or_else(|| json.is_ok().then(|| (1, "JSON".to_owned())));
    }
    found
}

/// The name, in small letters, and the value of a directive.
fn named(comment: &str) -> Option<(String, &str)> {
    let (name, value) = comment.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let is_name =
        name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric());
    (is_name && !value.is_empty()).then(|| (name.to_ascii_lowercase(), value))
}

/// The line at `at` with its continuations, comments between them left out; `None` for a comment or an empty line. As the
/// engine does, it joins them without a blank: `AD\` and `D x` is `ADD x`.
fn logical_line(lines: &[&str], at: &mut usize, escape: char) -> Option<String> {
    let mut joined = String::new();
    let mut open = false;
    while let Some(line) = lines.get(*at) {
        *at += 1;
        let trimmed = line.trim_start_matches('\u{feff}').trim();
        if trimmed.starts_with('#') || trimmed.is_empty() {
            if open {
                continue;
            }
            return None;
        }
        let line = if open { line } else { line.trim_start_matches('\u{feff}').trim_start() };
        match continued(line, escape) {
            Some(start) => {
                joined.push_str(start);
                open = true;
            }
            None => {
                joined.push_str(line);
                return Some(joined);
            }
        }
    }
    open.then_some(joined)
}

/// A line that the next one continues, without what says so.
fn continued(line: &str, escape: char) -> Option<&str> {
    line.trim_end_matches([' ', '\t']).strip_suffix(escape)
}

/// What in a line engines read in different ways.
fn odd(line: &str, escape: char) -> Option<String> {
    let twice = continued(line, escape).is_some_and(|rest| rest.ends_with(escape));
    if twice {
        return Some(format!("`{escape}{escape}` at the end of the line"));
    }
    line.contains('\r').then(|| "a carriage return within the line".to_owned())
}

fn instruction(line: &str) -> Option<Instruction> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let word = word.to_ascii_uppercase();
    let (flags, rest) = flags(rest);
    let announces = |word: &str| ["RUN", "COPY", "ADD"].contains(&word);
    let later = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    let heredocs = match announces(&word) || word == "ONBUILD" && announces(&later) {
        true => raw_words(rest).into_iter().filter_map(Heredoc::announced).collect(),
        false => Vec::new(),
    };
    Some(Instruction { lines: (0, 0), word, flags, rest: rest.trim_end().to_owned(), heredocs })
}

/// The flags that a line begins with, and the rest of it. Quotes and backslashes in them mean what they do in a shell.
fn flags(line: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = line.trim_start();
    while rest.starts_with("--") {
        let (mut flag, mut quote, mut chars) = (String::new(), None, rest.char_indices());
        let end = loop {
            match (chars.next(), quote) {
                (None, _) => break rest.len(),
                (Some((at, c)), None) if c.is_whitespace() => break at,
                (Some((_, '\\')), _) => flag.extend(chars.next().map(|(_, c)| c)),
                (Some((_, c)), Some(open)) if c == open => quote = None,
                (Some((_, c @ ('"' | '\''))), None) => quote = Some(c),
                (Some((_, c)), _) => flag.push(c),
            }
        };
        rest = rest[end..].trim_start();
        if flag == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest)
}

/// Whether a `${` is opened in it and not closed.
fn in_braces(text: &str) -> bool {
    let depth = |depth: usize, (at, c): (usize, char)| match c {
        '{' if text[..at].ends_with('$') => depth + 1,
        '}' => depth.saturating_sub(1),
        _ => depth,
    };
    text.char_indices().fold(0, depth) > 0
}

/// Words with their quotes: what is quoted is part of one word.
pub(super) fn raw_words(text: &str) -> Vec<&str> {
    quotes(text).0
}

/// Words with their quotes, and the quote that stays open.
fn quotes(text: &str) -> (Vec<&str>, Option<char>) {
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
    (words, quote)
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
    fn lines_are_joined_and_flags_are_read_as_the_engine_does() {
        let first = |text: &str| Dockerfile::parse(text).instructions.remove(0);
        let check = |text: &str, word: &str, flags: &[&str], rest: &str| {
            let found = first(text);
            assert_eq!((found.word.as_str(), found.rest.as_str()), (word, rest), "{text}");
            assert_eq!(found.flags, flags, "{text}");
        };
        check("FR\\\nOM 04\\  \n# note\n\n  \ndf", "FROM", &[], "04df");
        check("AD\\\nD  http:\\\n//h /x", "ADD", &[], "http://h /x");
        check("COPY --fr\\om=a --\"chown\"='1 2' -- --x y", "COPY", &["--from=a", "--chown=1 2"], "--x y");
        check("COPY --from=a", "COPY", &["--from=a"], "");
        assert_eq!(first("ONBUILD add --chown=1 a b").put_off().unwrap().word, "ADD");
        assert!(first("RUN add a b").put_off().is_none());
        assert_eq!(Dockerfile::parse("FROM a\nONBUILD RUN <<A\nRUN <<B\nA\nADD x y\nB").instructions.len(), 4);
    }

    #[test]
    fn what_engines_read_in_different_ways_is_told() {
        let check = |text: &str, line: Option<usize>| {
            assert_eq!(Dockerfile::parse(text).unclear.map(|(line, _)| line), line, "{text}");
        };
        check("FROM a\nRUN echo \\\\\nADD http://h /x", Some(2));
        check("FROM a\nRUN x \\\r\r\nADD http://h /x", Some(2));
        check("#!/bin/x\n# escape=`\nFROM a", Some(2));
        check("{\"syntax\": \"x\"}", Some(1));
        for odd in ["<<\"A", "x ${X:- <<A }", "<<'A'B", "<<A\\B", "<<$A"] {
            check(&format!("FROM a\nRUN {odd}\nA"), Some(2));
        }
        check("FROM a\nRUN x <<'A' 3<<-\"B-1.txt\" > ${X}\nA\nB-1.txt\nRUN echo \\\n y", None);
        check("FROM a\r\nRUN b \\\r\n c\r\n", None);
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
        assert_eq!(syntax("# hello=1\n# syntax=x\nFROM a"), Some((2, "x".to_owned())));
        assert_eq!(syntax("#!/usr/bin/x\n# syntax=x\nFROM a"), Some((2, "x".to_owned())));
        assert_eq!(syntax("// escape=`\n// syntax=x\nFROM a"), Some((2, "x".to_owned())));
        assert_eq!(syntax("# escape=`\n// syntax=x\nFROM a"), None);
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
