//! The names everything is called by, checked once where they enter.
//!
//! A value of one of these types is safe as a file name, a docker label and an nginx word: no separators, no
//! control characters, no leading dot or dash. Nothing downstream escapes them again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use self::printable::{excerpt, is_harmless};

pub mod percent;
mod place;
pub mod printable;
pub mod reach;
pub mod reference;

pub use place::{BadStackNode, StackNode};

/// A name that does not have the shape its type asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {} {what}: {rule}", if what.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" })]
pub struct BadName {
    /// The noun the text was meant to be.
    pub what: &'static str,
    /// The text as it came, shortened and with control characters escaped.
    pub given: String,
    /// What a good one looks like.
    pub rule: &'static str,
}

fn bad(what: &'static str, given: &str, rule: &'static str) -> BadName {
    let given = excerpt(given, 80);
    BadName { what, given, rule }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.to_owned())) } else { Err(bad($what, text, $rule)) }
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

/// Lowercase letters, digits and single inner dashes, 1 to `max` long, starting with a letter.
fn is_label(text: &str, max: usize) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.len() <= max
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

name!(
    /// A deployed repository. At most 40 characters, so that it is a DNS label and fits every docker name.
    StackName,
    "stack name",
    "lowercase letters, digits and dashes, starting with a letter, at most 40 characters",
    |text| is_label(text, 40) && !text.contains("--")
);

name!(
    /// One entry of quarry.yml. At most 40 characters; underscores are allowed inside.
    NodeName,
    "node name",
    "lowercase letters, digits, dashes and underscores, starting with a letter, at most 40 characters",
    |text| is_label(&text.replace('_', "-"), 40)
);

name!(
    /// A machine with docker.
    ServerName,
    "server name",
    "lowercase letters, digits and dashes, starting with a letter, at most 63 characters",
    |text| is_label(text, 63)
);

name!(
    /// A person or machine that owns keys.
    UserName,
    "user name",
    "lowercase letters, digits, dashes, dots and underscores, starting with a letter, at most 63 characters",
    |text| is_label(&text.replace(['_', '.'], "-"), 63)
);

name!(
    /// The name of an SSH key of a user: a file name without its `.pub`.
    KeyName,
    "key name",
    "letters, digits, dashes, dots, `@` and underscores, starting with a letter or digit, at most 100 characters",
    |text| {
        let bytes = text.as_bytes();
        (1..=100).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-._@".contains(b))
    }
);

name!(
    /// What a user calls a token of theirs.
    TokenName,
    "token name",
    "letters, digits, dashes, dots and underscores, starting with a letter or digit, at most 63 characters",
    |text| {
        let bytes = text.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(b))
    }
);

name!(
    /// A folder or file of a repository in its short form; `.` is the repository itself. Joined to a checkout it stays
    /// inside, but for links.
    InnerPath,
    "path within the repository",
    "segments joined by `/`, none empty, `.` or `..`, no control characters",
    |text| {
        let good = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(is_harmless);
        text == "." || text.len() <= 4096 && text.split('/').all(good)
    }
);

name!(
    /// An absolute path inside a container in its short form.
    ContainerPath,
    "path inside the container",
    "segments with a `/` before each, none empty, `.` or `..`, no control characters",
    |text| {
        let good = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(is_harmless);
        text == "/" || text.len() <= 4096 && text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(good))
    }
);

name!(
    /// The name of an environment variable.
    EnvName,
    "environment variable name",
    "letters, digits and underscores, not starting with a digit, at most 200 characters",
    |text| {
        let bytes = text.as_bytes();
        (1..=200).contains(&bytes.len())
            && !bytes[0].is_ascii_digit()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
    }
);

name!(
    /// A domain a web node answers for: lowercase DNS name, or `*.` and one.
    Domain,
    "domain",
    "a lowercase DNS name such as `blog.example.com` or `*.example.com`",
    |text| {
        let rest = text.strip_prefix("*.").unwrap_or(text);
        let label = |label: &str| {
            let bytes = label.as_bytes();
            (1..=63).contains(&bytes.len())
                && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
                && bytes[0] != b'-'
                && bytes[bytes.len() - 1] != b'-'
        };
        (1..=253).contains(&rest.len()) && rest.split('.').all(label)
    }
);

impl Domain {
    /// Whether this is `*.` and a domain.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }
}

name!(
    /// A container's name in docker; quarry chooses it, `<stack>.<node>.<release>.<index>`.
    ContainerName,
    "container name",
    "letters, digits, dashes, dots and underscores, starting with a letter or digit, at most 200 characters",
    |text| {
        let bytes = text.as_bytes();
        (2..=200).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(b))
    }
);

name!(
    /// A docker image's content id, `sha256:` and 64 hexadecimal digits.
    ImageId,
    "image id",
    "`sha256:` and 64 hexadecimal digits",
    |text| text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && is_hex(hex))
);

name!(
    /// A git commit's id, 40 lowercase hexadecimal digits.
    CommitId,
    "commit id",
    "40 lowercase hexadecimal digits",
    |text| text.len() == 40 && is_hex(text)
);

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl CommitId {
    /// The first ten digits, as people read them.
    pub fn short(&self) -> &str {
        &self.0[..10]
    }
}

/// The number of a release within its stack, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReleaseNumber(pub u64);

impl ReleaseNumber {
    /// The number after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for ReleaseNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for ReleaseNumber {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let rule = "a whole number from 1, as `releases` lists them";
        match text.strip_prefix('v').unwrap_or(text).parse() {
            Ok(number @ 1..) => Ok(Self(number)),
            Ok(0) | Err(_) => Err(bad("release number", text, rule)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr>(text: &str, good: bool) {
        assert_eq!(text.parse::<T>().is_ok(), good, "{text:?} as {}", std::any::type_name::<T>());
    }

    #[test]
    fn stack_names_are_dns_labels() {
        for good in ["a", "blog", "blog-2", "x9"] {
            check::<StackName>(good, true);
        }
        for wrong in ["", "-a", "a-", "A", "a_b", "a.b", "../a", "9a", "a--b", "a b", "a\n", "é"] {
            check::<StackName>(wrong, false);
        }
        check::<StackName>(&"a".repeat(40), true);
        check::<StackName>(&"a".repeat(41), false);
    }

    #[test]
    fn domains_are_lowercase_dns_names_with_an_optional_wildcard() {
        for good in ["localhost", "a.b", "*.example.com", "xn--bcher-kva.example", "1.2.3.4"] {
            check::<Domain>(good, true);
        }
        for wrong in ["", "*", "*.", "a..b", "a.", ".a", "a_b.c", "A.b", "*.*.a", "a;b", "a b", "-a.b", "a-.b", "a/b"] {
            check::<Domain>(wrong, false);
        }
    }

    #[test]
    fn environment_names_cannot_inject() {
        for good in ["A", "a_b9", "_X"] {
            check::<EnvName>(good, true);
        }
        for wrong in ["", "9A", "A=B", "A B", "A\nB", "A-B", "A\0"] {
            check::<EnvName>(wrong, false);
        }
    }

    #[test]
    fn a_bad_name_is_shown_escaped_and_short() {
        let error = "\x1b[31m".parse::<StackName>().unwrap_err();
        assert!(!error.to_string().contains('\x1b'));
        let long = "A".repeat(500).parse::<StackName>().unwrap_err();
        assert!(long.given.len() <= 80);
    }
}
