//! What an SSH client asks for: the exec string becomes a git service or the words of a command.
//!
//! The words are split as a shell would, but nothing is ever expanded or run by one.

use crate::hq::door::Service;
use crate::names::printable::excerpt;
use crate::names::{BadName, StackName};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Git's side of a push or a clone.
    Git(Service, StackName),
    /// A command of quarry by its words; none asks for help.
    Command(Vec<String>),
}

/// An exec string that is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadExec {
    /// Not UTF-8, or with a NUL in it.
    #[error("the command is not text")]
    NotText,
    /// A quote that never ends.
    #[error("a quote in the command never closes")]
    OpenQuote,
    /// Git with other than one plain path.
    #[error("git asks for one repository, such as `quarry@…:blog`")]
    GitArguments,
    /// A path that is no stack.
    #[error("there can be no such repository")]
    Path(#[source] BadName),
    /// A service of git that is not offered.
    #[error("`git {0}` is not offered here; git can push, fetch and clone")]
    GitService(String),
}

/// Reads an exec string.
///
/// `git-receive-pack 'blog.git'`, `git receive-pack '/blog'` and `git-upload-pack blog` are git's; a path is a stack's
/// name with an optional `/` or `~/` before and `.git` or `/` behind. Everything else is a command.
///
/// # Errors
/// [`BadExec`], whose text and causes are fit for the client.
pub fn parse(exec: &[u8]) -> Result<Request, BadExec> {
    let text = std::str::from_utf8(exec).map_err(|_| BadExec::NotText)?;
    let mut words = words(text)?;
    let first = words.first().map(String::as_str).unwrap_or_default();
    let service = match first.strip_prefix("git-") {
        Some(service) => service.to_owned(),
        None if first == "git" && words.len() > 1 => words.remove(1),
        None => return Ok(Request::Command(words)),
    };
    let service = match service.as_str() {
        "receive-pack" => Service::Receive,
        "upload-pack" => Service::Upload,
        _ => return Err(BadExec::GitService(excerpt(&service, 40))),
    };
    match &words[1..] {
        [path] if !path.starts_with('-') => Ok(Request::Git(service, stack(path)?)),
        _ => Err(BadExec::GitArguments),
    }
}

fn stack(path: &str) -> Result<StackName, BadExec> {
    let name = path.strip_prefix("~/").or_else(|| path.strip_prefix('/')).unwrap_or(path);
    let name = name.strip_suffix('/').unwrap_or(name);
    name.strip_suffix(".git").unwrap_or(name).parse().map_err(BadExec::Path)
}

/// Splits text into words by the shell's rules for blanks, `'…'`, `"…"` and `\`. Any other character stands for itself.
///
/// # Errors
/// [`BadExec::OpenQuote`] when a quote (or a backslash at the end) is left open, [`BadExec::NotText`] for a NUL.
pub fn words(text: &str) -> Result<Vec<String>, BadExec> {
    if text.contains('\0') {
        return Err(BadExec::NotText);
    }
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(BadExec::OpenQuote)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(chars.next().ok_or(BadExec::OpenQuote)?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), BadExec> {
    loop {
        match chars.next().ok_or(BadExec::OpenQuote)? {
            '"' => return Ok(()),
            '\\' => match chars.next().ok_or(BadExec::OpenQuote)? {
                c @ ('"' | '\\' | '$' | '`') => word.push(c),
                c => word.extend(['\\', c]),
            },
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::servers::ssh::quote;

    fn git(exec: &str, service: Service, stack: &str) {
        assert_eq!(parse(exec.as_bytes()), Ok(Request::Git(service, stack.parse().unwrap())), "{exec}");
    }

    #[test]
    fn every_client_s_way_to_name_a_repository_is_understood() {
        for path in ["'blog'", "blog", "'blog.git'", "'/blog'", "'/blog.git'", "'~/blog'", "\"blog/\"", "'/blog.git/'"]
        {
            git(&format!("git-receive-pack {path}"), Service::Receive, "blog");
            git(&format!("git upload-pack {path}"), Service::Upload, "blog");
        }
    }

    #[test]
    fn nothing_but_one_plain_stack_name_reaches_git() {
        let long = "a".repeat(300);
        for path in [
            "",
            "''",
            "'../blog'",
            "'a/b'",
            "'//blog'",
            "'/home/quarry/stacks/blog'",
            "'--upload-pack=touch x'",
            "-h",
            "blog other",
            "--strict blog",
            "'blog;id'",
            "'$(id)'",
            "'blog\n'",
            "'.git'",
            "'Blog'",
            &long,
        ] {
            for program in ["git-receive-pack", "git upload-pack"] {
                let exec = format!("{program} {path}");
                assert!(matches!(parse(exec.as_bytes()), Err(BadExec::GitArguments | BadExec::Path(_))), "{exec}");
            }
        }
        for exec in ["git-upload-archive 'blog'", "git-shell x", "git gc", "git-"] {
            assert!(matches!(parse(exec.as_bytes()), Err(BadExec::GitService(_))), "{exec}");
        }
    }

    #[test]
    fn words_are_split_as_by_a_shell_that_expands_nothing() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(
                parse(text.as_bytes()),
                Ok(Request::Command(expected.iter().map(ToString::to_string).collect()))
            );
        };
        check("", &[]);
        check("  ps   blog\t--json\n", &["ps", "blog", "--json"]);
        check(r#"run blog sh -c 'echo "$HOME" | wc'"#, &["run", "blog", "sh", "-c", r#"echo "$HOME" | wc"#]);
        check(r#"env set blog A="x \"y\" \n \$Z" B=a\ b ''"#, &["env", "set", "blog", r#"A=x "y" \n $Z"#, "B=a b", ""]);
        check("git", &["git"]);
        for open in ["'a", "\"a", "a\\", "\"a\\"] {
            assert_eq!(parse(open.as_bytes()), Err(BadExec::OpenQuote), "{open}");
        }
        for binary in [&b"ps \xff"[..], b"ps\0"] {
            assert_eq!(parse(binary), Err(BadExec::NotText));
        }
    }

    proptest! {
        #[test]
        fn quoted_words_come_back_as_they_were(given in proptest::collection::vec("[^\0]{0,12}", 0..6)) {
            prop_assert_eq!(words(&quote(given.iter().map(String::as_str))), Ok(given));
        }

        #[test]
        fn no_input_breaks_the_parser(exec in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&exec);
        }
    }
}
