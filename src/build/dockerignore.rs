//! `.dockerignore`: which files of a repository stay out of a build.
//!
//! The rules are docker's: one pattern a line, `#` begins a comment line, `*` and `?` stay within a folder, `**` does
//! not, `[a-z]` is a class, `\` takes the next character as it is, `!` brings back what an earlier line took away, and
//! the last line that matches a path or one of its folders decides.

/// A pattern that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of {file}: `{pattern}` is not a pattern")]
pub struct BadPattern {
    /// The file it is in.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// The line's text.
    pub pattern: String,
}

/// The rules of one file. Without any, nothing is ignored but git's own folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    tokens: Vec<Token>,
    /// A line with `!`.
    brings_back: bool,
    /// The folders its pattern names before its first wildcard, such as `docs/api`.
    fixed: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`
    One,
    /// `*`
    Star,
    /// `**/`: any folders, or none.
    Folders,
    /// `**` at the end: anything.
    Rest,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// What an ignored folder means for the files in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes along.
    Sent,
    /// It stays out, and everything below it.
    Ignored,
    /// It stays out, but a `!` rule may bring back something below it.
    Partly,
}

impl Ignore {
    /// Reads the rules. `file` is only for the error.
    ///
    /// # Errors
    /// The first pattern with an open class or nothing after its `!`.
    pub fn parse(file: &str, text: &str) -> Result<Self, BadPattern> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let bad = || BadPattern { file: file.to_owned(), line: index + 1, pattern: line.to_owned() };
            let line = line.trim();
            let (pattern, brings_back) = match line.strip_prefix('!') {
                Some(rest) => (rest.trim(), true),
                None => (line, false),
            };
            if pattern.is_empty() {
                if brings_back {
                    return Err(bad());
                }
                continue;
            }
            let pattern = cleaned(pattern);
            // Docker ignores the pattern `.`, which would be everything.
            if pattern != "." {
                rules.push(Rule { tokens: tokens(&pattern).ok_or_else(bad)?, brings_back, fixed: fixed(&pattern) });
            }
        }
        Ok(Self { rules })
    }

    /// What becomes of `path`, relative with `/`. Every folder on the way to it counts.
    pub fn verdict(&self, path: &str) -> Verdict {
        if path.split('/').any(|part| part == ".git") {
            return Verdict::Ignored;
        }
        let decisive = self.rules.iter().rev().find(|rule| rule.matches_or_above(path));
        if decisive.is_none_or(|rule| rule.brings_back) {
            return Verdict::Sent;
        }
        if self.rules.iter().any(|rule| rule.brings_back && rule.may_match_below(path)) {
            Verdict::Partly
        } else {
            Verdict::Ignored
        }
    }
}

impl Rule {
    fn matches_or_above(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        ends.into_iter().any(|end| matches(&self.tokens, &path[..end]))
    }

    fn may_match_below(&self, folder: &str) -> bool {
        let below = |longer: &str, shorter: &str| {
            shorter.is_empty()
                || longer.strip_prefix(shorter).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        below(&self.fixed, folder) || below(folder, &self.fixed)
    }
}

/// The pattern without `.`, `..` and doubled or outer slashes, as Go's `path.Clean` leaves it.
fn cleaned(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

fn fixed(pattern: &str) -> String {
    let parts = pattern.split('/').take_while(|part| !part.contains(['*', '?', '[', '\\']));
    parts.collect::<Vec<_>>().join("/")
}

/// `None` for a class without end or with nothing in it.
fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                while chars.next_if_eq(&'*').is_some() {}
                chars.next_if_eq(&'/');
                if chars.peek().is_none() { Token::Rest } else { Token::Folders }
            }
            '*' => Token::Star,
            '?' => Token::One,
            '\\' => Token::Literal(chars.next()?),
            '[' => class(&mut chars)?,
            c => Token::Literal(c),
        });
    }
    Some(tokens)
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match chars.next()? {
            ']' if !ranges.is_empty() => return Some(Token::Class { negated, ranges }),
            ']' => return None,
            '\\' => chars.next()?,
            c => c,
        };
        let high = if chars.next_if_eq(&'-').is_some() {
            match chars.next()? {
                ']' => return None,
                '\\' => chars.next()?,
                c => c,
            }
        } else {
            low
        };
        if low > high {
            return None;
        }
        ranges.push((low, high));
    }
}

/// Whether the whole of `path` matches. All ways are followed at once, so no pattern takes long.
fn matches(tokens: &[Token], path: &str) -> bool {
    let chars: Vec<char> = path.chars().collect();
    // `reached[i]`: the tokens so far can end before character i.
    let mut reached = vec![false; chars.len() + 1];
    reached[0] = true;
    for token in tokens {
        let mut next = vec![false; chars.len() + 1];
        let mut open = false;
        for at in 0..=chars.len() {
            match token {
                Token::Star => {
                    open |= reached[at];
                    next[at] = open;
                    open &= chars.get(at).is_some_and(|c| *c != '/');
                }
                Token::Rest => {
                    open |= reached[at];
                    next[at] = open;
                }
                Token::Folders => {
                    next[at] = reached[at] || (open && at > 0 && chars[at - 1] == '/');
                    open |= reached[at];
                }
                Token::Literal(_) | Token::One | Token::Class { .. } => {
                    if let (true, Some(c)) = (reached[at], chars.get(at)) {
                        next[at + 1] = token.takes(*c);
                    }
                }
            }
        }
        reached = next;
    }
    reached[chars.len()]
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Token::Literal(literal) => *literal == c,
            Token::One => c != '/',
            Token::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
            Token::Star | Token::Folders | Token::Rest => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(rules: &str, ignored: &[&str], sent: &[&str]) {
        let ignore = Ignore::parse(".dockerignore", rules).unwrap();
        for path in ignored {
            assert_ne!(ignore.verdict(path), Verdict::Sent, "{path:?} by {rules:?}");
        }
        for path in sent {
            assert_eq!(ignore.verdict(path), Verdict::Sent, "{path:?} by {rules:?}");
        }
    }

    #[test]
    fn dockers_documented_examples_hold() {
        check(
            "# comment\n*/temp*\n*/*/temp*\ntemp?\n",
            &["somedir/temporary.txt", "somedir/temp", "somedir/subdir/temporary.txt", "tempa", "tempb"],
            &["temp", "temporary.txt", "a/b/c/temp", "somedir/subdir/sub/temporary.txt", "# comment"],
        );
        check("**/*.go", &["a.go", "a/b.go", "a/b/c.go"], &["a.god", "go"]);
        check("*.md\n!README.md", &["a.md"], &["README.md", "a/b.md"]);
        check("*.md\n!README*.md\nREADME-secret.md", &["a.md", "README-secret.md"], &["README.md", "README-x.md"]);
        check("*.md\nREADME-secret.md\n!README*.md", &["a.md"], &["README.md", "README-secret.md"]);
    }

    #[test]
    fn patterns_match_as_in_docker() {
        check("node_modules", &["node_modules", "node_modules/a/b.js"], &["web/node_modules", "node_modules2"]);
        check("**/node_modules", &["node_modules/a", "web/node_modules/b"], &["web/node_modulesx"]);
        check("/foo/bar\n", &["foo/bar", "foo/bar/x"], &["bar", "foo", "a/foo/bar"]);
        check("./a//b/../c/", &["a/c"], &["a/b", "c"]);
        check("  padded  ", &["padded"], &[]);
        check("a/**", &["a/b", "a/b/c"], &["a", "ab"]);
        check("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["ab", "a/xb"]);
        check("**", &["a", "a/b"], &[]);
        check("[a-c]x[^0-9]", &["axq", "cxz"], &["dxq", "ax1", "ax"]);
        check("\\*x\n\\!y\n\\#z", &["*x", "!y", "#z"], &["ax", "y"]);
        check("a.b$", &["a.b$"], &["axb$", "a.b"]);
        check("\u{feff}first\r\nsecond\r\n", &["first", "second"], &[]);
        check(".\n/\n", &[], &["a"]);
        check("é?", &["éa", "éé"], &["é", "éaa"]);
    }

    #[test]
    fn the_last_line_that_matches_decides() {
        check("dir\n!dir/keep\ndir/keep/not", &["dir/a", "dir/keep/not"], &["dir/keep", "dir/keep/yes"]);
        check("*\n!src\n!**/*.md", &["a", "x/a"], &["src/a", "a.md", "x/y.md"]);
        check("!a\na", &["a"], &[]);
    }

    #[test]
    fn a_folder_is_left_unread_only_when_nothing_below_it_can_come_back() {
        let verdict = |rules: &str, path: &str| Ignore::parse("i", rules).unwrap().verdict(path);
        assert_eq!(verdict("dir\n!dir/a/b", "dir"), Verdict::Partly);
        assert_eq!(verdict("dir\n!dir/a/b", "dir/a"), Verdict::Partly);
        assert_eq!(verdict("dir\n!dir/a/b", "dir/x"), Verdict::Ignored);
        assert_eq!(verdict("dir\n!dirt/a", "dir"), Verdict::Ignored);
        assert_eq!(verdict("dir\n!**/b", "dir"), Verdict::Partly);
    }

    #[test]
    fn git_stays_out_whatever_the_rules_say() {
        check("!.git\n", &[".git", ".git/config", "sub/.git"], &[".gitignore", "a.git"]);
    }

    #[test]
    fn a_bad_pattern_is_named_with_its_line() {
        for (text, line) in [("a\n[", 2), ("!", 1), ("[]", 1), ("a\\", 1), ("[b-a]", 1), ("[a-]", 1)] {
            let bad = Ignore::parse(".dockerignore", text).unwrap_err();
            assert_eq!(bad.line, line, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_and_no_path_makes_it_panic(text in ".{0,200}", path in "[ab*./é]{0,40}") {
            if let Ok(ignore) = Ignore::parse("i", &text) {
                let _ = ignore.verdict(&path);
            }
        }

        #[test]
        fn an_escaped_path_matches_itself_alone(path in "[ab*?\\[\\]\\\\]{1,20}") {
            let pattern: String = path.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert!(matches(&tokens(&pattern).unwrap(), &path));
            let longer = format!("{path}x");
            prop_assert!(!matches(&tokens(&pattern).unwrap(), &longer));
        }
    }
}
