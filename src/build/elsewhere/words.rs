//! Words of a Dockerfile with variables in them.

use std::collections::BTreeMap;
use std::str::Chars;

/// A word with its quotes taken away and its variables put in; one that has no value is empty, as docker has it. `None`
/// where docker's builders do not agree, and for variables whose value cannot be known.
pub fn expanded(word: &str, values: &BTreeMap<String, Option<String>>) -> Option<String> {
    Word { rest: word.chars(), values, depth: 0 }.text(None)
}

/// Quotes and defaults within one another are read so deep.
const DEEPEST: usize = 16;

/// No name of an image is longer; values of values would grow without end.
const LONGEST: usize = 4096;

struct Word<'a> {
    rest: Chars<'a>,
    values: &'a BTreeMap<String, Option<String>>,
    depth: usize,
}

impl Word<'_> {
    /// What comes before `end`, or all.
    fn text(&mut self, end: Option<char>) -> Option<String> {
        self.depth += 1;
        let text = if self.depth > DEEPEST { None } else { self.before(end) };
        self.depth -= 1;
        text
    }

    fn before(&mut self, end: Option<char>) -> Option<String> {
        let mut text = String::new();
        while let Some(c) = self.rest.next() {
            match c {
                c if Some(c) == end => return Some(text),
                '\\' | '`' => return None,
                '\'' if end == Some('"') => return None,
                '\'' => text.push_str(&self.until_quote()?),
                '"' => text.push_str(&self.text(Some('"'))?),
                '$' => text.push_str(&self.variable()?),
                c => text.push(c),
            }
            if text.len() > LONGEST {
                return None;
            }
        }
        end.is_none().then_some(text)
    }

    fn until_quote(&mut self) -> Option<String> {
        let (inner, rest) = self.rest.as_str().split_once('\'')?;
        self.rest = rest.chars();
        Some(inner.to_owned())
    }

    fn variable(&mut self) -> Option<String> {
        let braces = self.rest.as_str().strip_prefix('{').map(str::chars);
        if let Some(inside) = &braces {
            self.rest = inside.clone();
        }
        let value = self.value()?;
        if braces.is_none() {
            return Some(value);
        }
        match self.rest.next()? {
            '}' => Some(value),
            ':' => match self.rest.next()? {
                '-' => self.text(Some('}')).map(|default| if value.is_empty() { default } else { value }),
                '+' => self.text(Some('}')).map(|other| if value.is_empty() { value } else { other }),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value of the name that comes next.
    fn value(&mut self) -> Option<String> {
        let text = self.rest.as_str();
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        self.rest = rest.chars();
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        self.values.get(name).cloned().unwrap_or_else(|| Some(String::new()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> BTreeMap<String, Option<String>> {
        let values = [("A", Some("a")), ("E", Some("")), ("U", None)];
        values.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).into()
    }

    #[test]
    fn variables_are_put_in_and_what_is_understood_in_two_ways_is_not() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(expanded(text, &values()).as_deref(), expected, "{text}");
        };
        check("x", Some("x"));
        check("x$A.y${A}z", Some("xa.yaz"));
        check("$A_b$NONE", Some(""));
        check("${E:-d}${A:-d}${NONE:-${A}}${A:+b}${E:+b}", Some("daab"));
        check("\"$A\"'$A'", Some("a$A"));
        check(&"${NONE:-".repeat(100_000), None);
        check(&"$A".repeat(100_000), None);
        for wrong in ["$U", "${U:-x}", "a\\b", "'x", "\"x", "${A", "${A:?x}", "${A-x}", "$1", "$$", "$", "a`", "\"'\""]
        {
            check(wrong, None);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[$A{}:\\-'\" é]{0,20}") {
            let _ = expanded(&text, &values());
        }
    }
}
