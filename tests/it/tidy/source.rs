//! Rust text without what only looks like code, and the paths that `use` lines stand for.

/// One source file.
pub struct Source {
    /// Its path below `src/`.
    pub path: String,
    /// Everything before its unit tests, as written.
    pub written: String,
    /// The same with comments and the insides of literals blanked out; every line and column stays where it was.
    pub code: String,
    /// The whole file, blanked.
    pub whole: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let whole = blank(text);
        let end = tests_begin(&whole);
        Self { path: path.to_owned(), written: text[..end].to_owned(), code: whole[..end].to_owned(), whole }
    }

    /// Folders and file stem: `db`, `files`, `tree`.
    pub fn parts(&self) -> Vec<&str> {
        self.path.trim_end_matches(".rs").split('/').collect()
    }

    /// The module path; `mod.rs` stands for its folder.
    pub fn module(&self) -> Vec<&str> {
        let mut parts = self.parts();
        if matches!(parts.last(), Some(&("mod" | "lib" | "main"))) {
            parts.pop();
        }
        parts
    }

    /// Every path in the code with the line it begins on (from 1), `use` groups taken apart.
    pub fn paths(&self) -> Vec<(usize, String)> {
        let mut paths = Vec::new();
        let (mut rest, mut line) = (self.code.as_str(), 1);
        while let Some(first) = rest.chars().next() {
            let word: usize = rest.chars().take_while(|c| is_word(*c) || *c == ':').map(char::len_utf8).sum();
            let length = match &rest[..word] {
                "" => first.len_utf8(),
                "use" => {
                    let end = rest.find(';').unwrap_or(rest.len());
                    paths.extend(flatten(&rest[word..end]).into_iter().map(|path| (line, path)));
                    end
                }
                path => {
                    paths.push((line, path.trim_matches(':').to_owned()));
                    word
                }
            };
            line += rest[..length].matches('\n').count();
            rest = &rest[length..];
        }
        paths
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The line of a place in a text, from 1.
pub fn line_of(text: &str, place: usize) -> usize {
    text[..place].matches('\n').count() + 1
}

/// Where the unit tests of a file begin.
fn tests_begin(text: &str) -> usize {
    text.find("\n#[cfg(test)]\nmod ").map_or(text.len(), |place| place + 1)
}

/// `a::{b, c::{d, self}}` as `a::b`, `a::c::d`, `a::c`.
pub fn flatten(group: &str) -> Vec<String> {
    let group = group.trim();
    let Some((before, inside)) = group.split_once('{') else {
        let path = group.split(" as ").next().unwrap_or(group);
        return vec![path.trim().trim_end_matches("::self").to_owned()];
    };
    let inside = inside.trim_end().trim_end_matches('}');
    let mut depth = 0;
    let parts = inside.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let parts: Vec<&str> = parts.filter(|part| !part.trim().is_empty()).collect();
    let whole = |part: &str| {
        // The last closing brace belongs to the part it was cut from.
        let open = part.matches('{').count().saturating_sub(part.matches('}').count());
        flatten(&format!("{}{}{}", before.trim(), part.trim(), "}".repeat(open)))
    };
    parts.into_iter().flat_map(whole).map(|path| path.trim_end_matches("::self").to_owned()).collect()
}

/// What the scanner is in.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Code,
    Line,
    /// Nested this deep.
    Block(u32),
    Text,
    /// Ends with a quote and this many `#`.
    Raw(usize),
}

/// The text with comments and literals as blanks; bytes stay bytes, so that places agree.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let (mut state, mut at) = (State::Code, 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let (next, length) = step(state, rest, at > 0 && is_word(bytes[at - 1] as char));
        let kept = state == State::Code && next == State::Code && !rest.starts_with(b"'");
        let piece = &rest[..length.min(rest.len())];
        let blanked = |byte: &u8| if *byte == b'\n' { b'\n' } else { b' ' };
        out.extend(piece.iter().map(|byte| if kept { *byte } else { blanked(byte) }));
        at += piece.len();
        state = next;
    }
    String::from_utf8(out).expect("whole characters are kept or replaced byte by byte")
}

/// The state after the next piece of text, and how long that is.
fn step(state: State, rest: &[u8], in_word: bool) -> (State, usize) {
    match state {
        State::Code if rest.starts_with(b"//") => (State::Line, 2),
        State::Code if rest.starts_with(b"/*") => (State::Block(1), 2),
        State::Code if rest.starts_with(b"\"") => (State::Text, 1),
        State::Code if rest.starts_with(b"'") => (State::Code, character(rest)),
        State::Code if !in_word => match raw(rest) {
            Some((hashes, length)) => (State::Raw(hashes), length),
            None => (State::Code, 1),
        },
        State::Code => (State::Code, 1),
        State::Line => (if rest[0] == b'\n' { State::Code } else { State::Line }, 1),
        State::Block(1) if rest.starts_with(b"*/") => (State::Code, 2),
        State::Block(depth) if rest.starts_with(b"*/") => (State::Block(depth - 1), 2),
        State::Block(depth) if rest.starts_with(b"/*") => (State::Block(depth + 1), 2),
        State::Block(depth) => (State::Block(depth), 1),
        State::Text if rest.starts_with(b"\\") => (State::Text, 2),
        State::Text => (if rest[0] == b'"' { State::Code } else { State::Text }, 1),
        State::Raw(hashes) => {
            let ends = rest[0] == b'"' && rest[1..].iter().take(hashes).filter(|byte| **byte == b'#').count() == hashes;
            if ends { (State::Code, 1 + hashes) } else { (State::Raw(hashes), 1) }
        }
    }
}

/// The length of a character literal, or of the quote of a lifetime.
fn character(rest: &[u8]) -> usize {
    match rest {
        [_, b'\\', _, more @ ..] => 4 + more.iter().position(|byte| *byte == b'\'').unwrap_or(0),
        [_, first, ..] => {
            let length = match first {
                0xf0.. => 4,
                0xe0.. => 3,
                0xc0.. => 2,
                _ => 1,
            };
            if rest.get(1 + length) == Some(&b'\'') { 2 + length } else { 1 }
        }
        _ => 1,
    }
}

/// How many `#` a raw string that begins here has, and how long its opening is.
fn raw(rest: &[u8]) -> Option<(usize, usize)> {
    let prefix = if rest.starts_with(b"br") { 2 } else { usize::from(rest.starts_with(b"r")) };
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    (prefix > 0 && rest.get(prefix + hashes) == Some(&b'"')).then_some((hashes, prefix + hashes + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_in_place() {
        for (text, expected) in [
            ("a // std::fs\nb", "a           \nb"),
            ("a /* x /* y */ z */ b", "a                   b"),
            (r#"f("std::fs \" {", 'x', '\'', '{')"#, "f(              ,    ,     ,    )"),
            ("r#\"a \" b\"# + r\"c\" + for\"x\"", "           +      + for   "),
            ("fn f<'a>(x: &'a str) {}", "fn f< a>(x: & a str) {}"),
            ("'é' + '\\u{e9}' + b'\\n'", "     +          + b    "),
        ] {
            let blanked = blank(text);
            assert_eq!(blanked.len(), text.len(), "{text}");
            assert_eq!(blanked.trim_end(), expected.trim_end(), "{text}");
        }
    }

    #[test]
    fn use_groups_are_taken_apart() {
        let source = Source::new(
            "a.rs",
            "use std::{fs, io::{self, Read}};\nuse crate::b as c;\n\nfn f() { crate::d::e() }\n\n#[cfg(test)]\nmod tests {\n    use x::y;\n}\n",
        );
        let paths: Vec<(usize, String)> = source.paths().into_iter().filter(|(_, path)| path.contains("::")).collect();
        let expected = [(1, "std::fs"), (1, "std::io"), (1, "std::io::Read"), (2, "crate::b"), (4, "crate::d::e")];
        assert_eq!(paths, expected.map(|(line, path)| (line, path.to_owned())));
    }
}
