//! Environment variables: one ordered map, and the order in which maps cover each other.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{BadName, EnvName};

/// Environment variables by name. `Debug` shows names only: values may be secrets.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Env(BTreeMap<EnvName, String>);

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Env {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one variable, covering an earlier value.
    pub fn set(&mut self, name: EnvName, value: impl Into<String>) {
        self.0.insert(name, value.into());
    }

    /// Sets a variable whose name is written in the program.
    pub fn set_known(&mut self, name: &'static str, value: impl Into<String>) {
        self.set(name.parse().expect("a name written in the program is well formed"), value);
    }

    /// Takes one variable out; whether it was there.
    pub fn remove(&mut self, name: &EnvName) -> bool {
        self.0.remove(name).is_some()
    }

    /// One variable's value.
    pub fn value(&self, name: &EnvName) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All variables, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&EnvName, &str)> {
        self.0.iter().map(|(name, value)| (name, value.as_str()))
    }

    /// Lays `over` on top: its values win.
    pub fn cover(&mut self, over: &Env) {
        self.0.extend(over.0.iter().map(|(name, value)| (name.clone(), value.clone())));
    }

    /// `NAME=value` strings, by name, as docker takes them.
    pub fn pairs(&self) -> Vec<String> {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

impl FromIterator<(EnvName, String)> for Env {
    fn from_iter<T: IntoIterator<Item = (EnvName, String)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// A mistake in a list of variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEnv {
    /// An argument or line without `=`, by its place from 1: it may well be a value that nobody else should see.
    #[error("line {0} has no `=`; write NAME=value")]
    NoEquals(usize),
    /// A name that is none.
    #[error("line {line}")]
    Name {
        /// Line from 1, or the argument's place.
        line: usize,
        /// What is wrong with it.
        source: BadName,
    },
    /// A quote that never ends.
    #[error("the quote opened on line {0} never closes")]
    OpenQuote(usize),
    /// JSON that is not an object of strings, numbers and booleans.
    #[error("the JSON is not one object of NAME: value")]
    Json,
    /// A NUL, which no environment can hold.
    #[error("the value of `{0}` contains a NUL character")]
    Nul(EnvName),
}

/// Reads `NAME=value` arguments; values may hold anything, newlines too, but NUL.
///
/// # Errors
/// The first argument that is none.
pub fn from_arguments<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Env, BadEnv> {
    let mut env = Env::new();
    for (place, argument) in arguments.into_iter().enumerate() {
        let (name, value) = argument.split_once('=').ok_or(BadEnv::NoEquals(place + 1))?;
        let name: EnvName = name.parse().map_err(|source| BadEnv::Name { line: place + 1, source })?;
        set_checked(&mut env, name, value.to_owned())?;
    }
    Ok(env)
}

fn set_checked(env: &mut Env, name: EnvName, value: String) -> Result<(), BadEnv> {
    if value.contains('\0') {
        return Err(BadEnv::Nul(name));
    }
    env.set(name, value);
    Ok(())
}

/// Reads a `.env` file or a JSON object, told apart by its first character.
///
/// The `.env` form: one `NAME=value` a line, an `export ` before it is ignored, `#` starts a comment at the start of a
/// line or after a blank, single quotes take the text as it is, double quotes know `\n \t \r \" \\ \$` and `\u{1b}`, and both may run
/// over several lines.
///
/// # Errors
/// The first mistake, with its line.
pub fn from_text(text: &str) -> Result<Env, BadEnv> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') { from_json(text) } else { from_dotenv(text) }
}

fn from_json(text: &str) -> Result<Env, BadEnv> {
    let object: BTreeMap<String, serde_json::Value> = serde_json::from_str(text).map_err(|_| BadEnv::Json)?;
    let mut env = Env::new();
    for (place, (name, value)) in object.into_iter().enumerate() {
        let name: EnvName = name.parse().map_err(|source| BadEnv::Name { line: place + 1, source })?;
        let value = match value {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            serde_json::Value::Bool(flag) => flag.to_string(),
            serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
                return Err(BadEnv::Json);
            }
        };
        set_checked(&mut env, name, value)?;
    }
    Ok(env)
}

fn from_dotenv(text: &str) -> Result<Env, BadEnv> {
    let mut env = Env::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, rest) = line.split_once('=').ok_or(BadEnv::NoEquals(index + 1))?;
        let name: EnvName = name.trim_end().parse().map_err(|source| BadEnv::Name { line: index + 1, source })?;
        let rest = rest.trim_start();
        let value = match rest.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                quoted(quote, &rest[1..], lines.by_ref().map(|(_, line)| line)).ok_or(BadEnv::OpenQuote(index + 1))?
            }
            Some(_) | None => bare(rest),
        };
        set_checked(&mut env, name, value)?;
    }
    Ok(env)
}

/// The text up to the closing quote, reading further lines as needed; `None` when it never closes.
fn quoted<'a>(quote: char, first: &'a str, more: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut value = String::new();
    let mut lines = std::iter::once(first).chain(more);
    loop {
        let mut chars = lines.next()?.chars();
        while let Some(c) = chars.next() {
            match c {
                c if c == quote => return Some(value),
                '\\' if quote == '"' => match chars.next() {
                    Some('n') => value.push('\n'),
                    Some('t') => value.push('\t'),
                    Some('r') => value.push('\r'),
                    Some(c @ ('"' | '\\' | '$')) => value.push(c),
                    Some('u') if chars.as_str().starts_with('{') => value.push_str(&numbered(&mut chars)),
                    Some(other) => value.extend(['\\', other]),
                    None => value.push('\\'),
                },
                c => value.push(c),
            }
        }
        value.push('\n');
    }
}

/// The character that is written by its number, `\u{1b}` with its first two characters taken; the text as it is when there
/// is none.
fn numbered(chars: &mut std::str::Chars<'_>) -> String {
    let character = |rest: &str| {
        let (number, after) = rest.strip_prefix('{')?.split_once('}')?;
        let is_number = (1..=6).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u32::from_str_radix(number, 16).ok().filter(|_| is_number)?;
        Some((char::from_u32(number).filter(|c| *c != '\0')?, rest.len() - after.len()))
    };
    match character(chars.as_str()) {
        Some((character, length)) => {
            chars.by_ref().take(length).for_each(drop);
            character.to_string()
        }
        None => "\\u".to_owned(),
    }
}

fn bare(rest: &str) -> String {
    let end = rest.find(" #").or_else(|| rest.find("\t#")).unwrap_or(rest.len());
    rest[..end].trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(from_text(text).map(|env| env.pairs()), Ok(expected.iter().map(ToString::to_string).collect()));
    }

    #[test]
    fn dotenv_quotes_comments_and_many_lines_are_read() {
        check("A=1\n# no\nexport B = two # x\nC='a #b'\n", &["A=1", "B=two", "C=a #b"]);
        check("K=\"-----BEGIN\nline\n-----END\"\nZ=9", &["K=-----BEGIN\nline\n-----END", "Z=9"]);
        check("A=\"x\\ny\\\"\"\nE=", &["A=x\ny\"", "E="]);
        check("A=\"\\u{1b}[m\\u{e9}\\u\\u{}\\u{0}\\u{110000}\"", &["A=\u{1b}[mé\\u\\u{}\\u{0}\\u{110000}"]);
        check("{\"A\": \"1\", \"N\": 2, \"T\": true}", &["A=1", "N=2", "T=true"]);
    }

    #[test]
    fn mistakes_name_their_line() {
        assert_eq!(from_text("A=1\nnonsense"), Err(BadEnv::NoEquals(2)));
        let secret = from_text(&format!("\x1b{}", "s3cret".repeat(9))).unwrap_err().to_string();
        assert!(secret.len() < 90 && !secret.contains('\x1b'), "{secret}");
        assert_eq!(from_text("A=\"open"), Err(BadEnv::OpenQuote(1)));
        assert!(matches!(from_text("A=1\n1B=2"), Err(BadEnv::Name { line: 2, .. })));
        assert_eq!(from_text("{\"A\": []}"), Err(BadEnv::Json));
        assert!(matches!(from_arguments(["A=a\0b"]), Err(BadEnv::Nul(_))));
    }

    #[test]
    fn values_never_show_in_debug() {
        let env = from_arguments(["SECRET=hunter2"]).unwrap();
        assert!(!format!("{env:?}").contains("hunter2"));
    }
}
