//! Which servers a container may run on: a list of tags that all must be there, `!tag` for one that must not.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::ServerName;
use crate::names::printable::excerpt;

/// A word of a filter that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is not a tag: lowercase letters, digits and `-_.=`, starting with a letter or digit, at most 63 \
     characters; `!` before it excludes"
)]
pub struct BadTag {
    /// The word as it came, shortened and with control characters escaped.
    pub given: String,
}

/// Tags that a server must have and tags that it must not have. A server's name counts as a tag of its own.
///
/// The order and repetition of words do not matter: two filters that say the same are equal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Filter(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Term {
    Has(String),
    Lacks(String),
}

impl Filter {
    /// Reads words such as `ssd` and `!eu`.
    ///
    /// # Errors
    /// The first word that is no tag.
    pub fn new<Word: AsRef<str>>(words: impl IntoIterator<Item = Word>) -> Result<Self, BadTag> {
        let term = |word: Word| match word.as_ref().strip_prefix('!') {
            Some(word) => tag(word).map(Term::Lacks),
            None => tag(word.as_ref()).map(Term::Has),
        };
        let mut terms = words.into_iter().map(term).collect::<Result<Vec<_>, _>>()?;
        terms.sort();
        terms.dedup();
        Ok(Self(terms))
    }

    /// Whether any server will do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many words it has: the more, the fewer servers are left.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a server with this name and these tags will do.
    pub fn accepts(&self, server: &ServerName, tags: &BTreeSet<String>) -> bool {
        let has = |word: &str| word == server.as_str() || tags.contains(word);
        self.0.iter().all(|term| match term {
            Term::Has(word) => has(word),
            Term::Lacks(word) => !has(word),
        })
    }

    /// Whether a server that has these tags and no name yet will do.
    pub fn accepts_unnamed(&self, tags: &BTreeSet<String>) -> bool {
        self.0.iter().all(|term| match term {
            Term::Has(word) => tags.contains(word),
            Term::Lacks(word) => !tags.contains(word),
        })
    }

    /// The tags that must be there, sorted.
    pub fn required(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|term| match term {
            Term::Has(word) => Some(word.as_str()),
            Term::Lacks(_) => None,
        })
    }

    /// The tags that must not be there, sorted.
    pub fn excluded(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|term| match term {
            Term::Has(_) => None,
            Term::Lacks(word) => Some(word.as_str()),
        })
    }
}

/// Checks a tag of a server or a filter.
///
/// # Errors
/// When it has another shape than the message says.
pub fn tag(text: &str) -> Result<String, BadTag> {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.=".contains(&b);
    let bytes = text.as_bytes();
    let starts = bytes.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if starts && bytes.len() <= 63 && bytes.iter().copied().all(inside) {
        return Ok(text.to_owned());
    }
    Err(BadTag { given: excerpt(text, 80) })
}

impl TryFrom<Vec<String>> for Filter {
    type Error = BadTag;
    fn try_from(words: Vec<String>) -> Result<Self, BadTag> {
        Self::new(words)
    }
}

impl From<Filter> for Vec<String> {
    fn from(filter: Filter) -> Self {
        filter.0.iter().map(Term::to_string).collect()
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Term::Has(word) => f.write_str(word),
            Term::Lacks(word) => write!(f, "!{word}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str], tags: &[&str], expected: bool) {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let filter = Filter::new(words).unwrap();
        assert_eq!(filter.accepts(&"s1".parse().unwrap(), &tags), expected, "{words:?} on s1 with {tags:?}");
    }

    #[test]
    fn all_tags_must_be_there_and_no_excluded_one() {
        check(&[], &[], true);
        check(&["ssd"], &["eu", "ssd"], true);
        check(&["ssd", "eu"], &["ssd"], false);
        check(&["ssd", "!eu"], &["ssd"], true);
        check(&["ssd", "!eu"], &["eu", "ssd"], false);
    }

    #[test]
    fn a_servers_name_is_a_tag_of_its_own() {
        check(&["s1"], &[], true);
        check(&["s2"], &[], false);
        check(&["!s1"], &[], false);
        check(&["!s2"], &[], true);
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        assert_eq!(Filter::new(["b", "!a", "b"]).unwrap(), Filter::new(["!a", "b"]).unwrap());
        let text = serde_json::to_string(&Filter::new(["!a", "b"]).unwrap()).unwrap();
        assert_eq!(text, r#"["b","!a"]"#);
        assert_eq!(serde_json::from_str::<Filter>(&text).unwrap(), Filter::new(["!a", "b"]).unwrap());
    }

    #[test]
    fn words_that_are_no_tags_are_refused() {
        for wrong in ["", "!", "!!a", "A", "a b", "-a", "a/b", "a\x1b"] {
            let error = Filter::new([wrong]).unwrap_err();
            assert!(!error.to_string().contains('\x1b'), "{wrong:?}");
        }
        for good in ["ssd", "9", "rack=7", "a.b_c-d", "!x"] {
            Filter::new([good]).unwrap();
        }
    }
}
