//! Fits a person's Dockerfile to what the engine can do.

use std::collections::BTreeMap;

use super::dockerfile::Dockerfile;
use super::heredoc::{TooNew, lowered};
use crate::names::printable::printable_line;

/// The first engine whose builder knows heredocs by itself.
const HEREDOC_ENGINE: u32 = 23;

/// What the engine has of what a Dockerfile may ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// The image of its `# syntax=` line.
    pub syntax: Syntax,
    /// Heredocs.
    pub knows_heredocs: bool,
}

/// An image that decides how a build goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Syntax {
    /// The engine has it.
    Here,
    /// It would have to be fetched.
    #[default]
    Missing,
    /// It is neither docker's own nor one that the server's owner has named.
    Unknown,
}

/// Whether an engine of this version (`20.10.24`) knows heredocs.
pub fn knows_heredocs(version: &str) -> bool {
    version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= HEREDOC_ENGINE)
}

/// A Dockerfile as the engine gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapted {
    /// Its instructions.
    pub dockerfile: Dockerfile,
    /// Files that cover those of the repository: the Dockerfile itself if it was changed, and what it copies.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What the pusher should know.
    pub said: Vec<String>,
}

/// Fits the Dockerfile at `path` to the engine. A syntax image the engine has decides everything itself; one that it
/// would have to fetch is left out, heredocs it does not know are put into older words.
///
/// # Errors
/// A heredoc that has no older words.
pub fn adapt(path: &str, text: &str, dockerfile: Dockerfile, abilities: Abilities) -> Result<Adapted, TooNew> {
    let mut adapted = Adapted { dockerfile, files: BTreeMap::new(), said: Vec::new() };
    let mut text = text.to_owned();
    // Where one is left out, the next line may be another.
    while let Some((line, syntax)) = adapted.dockerfile.syntax.clone() {
        let why = match abilities.syntax {
            Syntax::Here => return Ok(adapted),
            Syntax::Missing => "that image is not on this server",
            Syntax::Unknown => {
                "that image is not docker's own; who runs this HQ can permit it: /etc/quarry/build/syntaxes"
            }
        };
        adapted.said.push(format!("{path} line {line}: `# syntax={}` is left out, {why}", printable_line(&syntax)));
        let without = |(at, own): (usize, &str)| if at + 1 == line { "#\n".to_owned() } else { format!("{own}\n") };
        text = text.lines().enumerate().map(without).collect();
        adapted.dockerfile = Dockerfile::parse(&text);
        adapted.files.insert(path.to_owned(), text.clone().into_bytes());
    }
    if adapted.dockerfile.has_heredocs() && !abilities.knows_heredocs {
        let older = lowered(&text, &adapted.dockerfile)?;
        adapted.dockerfile = Dockerfile::parse(&older.text);
        adapted.files.extend(older.files);
        adapted.files.insert(path.to_owned(), older.text.into_bytes());
    }
    Ok(adapted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::Builder;

    fn check(text: &str, abilities: Abilities, builder: Builder, changed: Option<&str>) {
        let adapted = adapt("D", text, Dockerfile::parse(text), abilities).unwrap();
        assert_eq!(adapted.dockerfile.builder(), builder, "{text}");
        assert_eq!(adapted.files.get("D").map(|bytes| String::from_utf8_lossy(bytes).into_owned()).as_deref(), changed);
    }

    #[test]
    fn only_what_the_engine_cannot_do_is_changed() {
        let old = Abilities::default();
        let new = Abilities { knows_heredocs: true, syntax: Syntax::Missing };
        let full = Abilities { knows_heredocs: true, syntax: Syntax::Here };
        let unknown = Abilities { knows_heredocs: true, syntax: Syntax::Unknown };
        check("FROM a", old, Builder::Classic, None);
        check("FROM a\nRUN <<E\nx\nE", new, Builder::BuildKit, None);
        check(
            "FROM a\nRUN <<E\nx\nE",
            old,
            Builder::Classic,
            Some("FROM a\nRUN [\"/bin/sh\",\"-c\",\"x\\n\"]\n#\n#\n"),
        );
        check("# syntax=s\nFROM a", full, Builder::BuildKit, None);
        check("# syntax=s\nFROM a", old, Builder::Classic, Some("#\nFROM a\n"));
        check("# syntax=s\nFROM a", unknown, Builder::Classic, Some("#\nFROM a\n"));
        check("#!x\n# syntax=s\n# syntax=t\nFROM a", unknown, Builder::Classic, Some("#!x\n#\n#\nFROM a\n"));
        check("// syntax=s\nFROM a", unknown, Builder::Classic, Some("#\nFROM a\n"));
    }

    #[test]
    fn engines_tell_by_their_version_whether_they_know_heredocs() {
        for (version, expected) in [("20.10.24+dfsg1", false), ("23.0.1", true), ("28.2.2", true), ("dev", false)] {
            assert_eq!(knows_heredocs(version), expected, "{version}");
        }
    }
}
