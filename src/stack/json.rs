//! JSON text as a tree that knows where each of its parts stands, the same tree that quarry.yml becomes.
//!
//! serde_json judges the syntax; what follows only walks text that it has accepted.

use super::mistakes::Mistake;
use super::tree::{Entry, Shape, Spot, Tree};

/// Reads the text of the file called `file`. Of a key that is there twice the last one counts, as JSON's readers have it.
///
/// # Errors
/// The first mistake of the syntax, with its place.
pub(super) fn read(file: &str, text: &str) -> Result<Tree, Mistake> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
        let (line, column) = (error.line().max(1), error.column().max(1));
        let place = format!(" at line {} column {}", error.line(), error.column());
        return Err(Mistake::at(file, line, column, error.to_string().replace(&place, "")));
    }
    Ok(Walk { text, at: 0, line: 1, column: 1 }.value())
}

/// A place in text that is known to be JSON.
struct Walk<'t> {
    text: &'t str,
    at: usize,
    line: usize,
    column: usize,
}

impl<'t> Walk<'t> {
    fn spot(&self) -> Spot {
        Spot { line: self.line, column: self.column }
    }

    fn next(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn step(&mut self) {
        let Some(c) = self.next() else { return };
        self.at += c.len_utf8();
        match c {
            '\n' => (self.line, self.column) = (self.line + 1, 1),
            _ => self.column += 1,
        }
    }

    fn blanks(&mut self) {
        while self.next().is_some_and(char::is_whitespace) {
            self.step();
        }
    }

    fn value(&mut self) -> Tree {
        self.blanks();
        let spot = self.spot();
        let shape = match self.next() {
            Some('{') => Shape::Map(self.map()),
            Some('[') => Shape::List(self.list()),
            Some('"') => Shape::Text(self.string()),
            Some(_) | None => match self.bare() {
                "null" => Shape::Nothing,
                word => Shape::Text(word.to_owned()),
            },
        };
        Tree { spot, shape }
    }

    /// What stands between the bracket here and the one that ends it, piece by piece.
    fn pieces(&mut self, end: char, mut piece: impl FnMut(&mut Self)) {
        self.step();
        loop {
            self.blanks();
            match self.next() {
                None => return,
                Some(',') => self.step(),
                Some(c) if c == end => return self.step(),
                Some(_) => piece(self),
            }
        }
    }

    fn list(&mut self) -> Vec<Tree> {
        let mut items = Vec::new();
        self.pieces(']', |walk| items.push(walk.value()));
        items
    }

    fn map(&mut self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        self.pieces('}', |walk| {
            let spot = walk.spot();
            let key = walk.string();
            walk.blanks();
            walk.step();
            let value = walk.value();
            entries.retain(|entry| entry.key != key);
            entries.push(Entry { key, spot, value });
        });
        entries
    }

    fn string(&mut self) -> String {
        let begin = self.at;
        self.step();
        while let Some(c) = self.next() {
            self.step();
            match c {
                '"' => break,
                '\\' => self.step(),
                _ => {}
            }
        }
        serde_json::from_str(&self.text[begin..self.at]).unwrap_or_default()
    }

    fn bare(&mut self) -> &'t str {
        let begin = self.at;
        while self.next().is_some_and(|c| !c.is_whitespace() && !matches!(c, ',' | ']' | '}')) {
            self.step();
        }
        // Nothing stands still, not even what cannot come.
        if self.at == begin {
            self.step();
        }
        &self.text[begin..self.at]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The tree without its places, as JSON; scalars are text in both.
    fn plain(tree: &Tree) -> Value {
        match &tree.shape {
            Shape::Nothing => Value::Null,
            Shape::Text(text) => Value::String(text.clone()),
            Shape::List(items) => items.iter().map(plain).collect(),
            Shape::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), plain(&entry.value))).collect(),
        }
    }

    fn texts(value: Value) -> Value {
        match value {
            Value::Bool(flag) => Value::String(flag.to_string()),
            Value::Number(number) => Value::String(number.to_string()),
            Value::Array(items) => items.into_iter().map(texts).collect(),
            Value::Object(map) => map.into_iter().map(|(key, value)| (key, texts(value))).collect(),
            Value::Null | Value::String(_) => value,
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from_iter),
                proptest::collection::btree_map(any::<String>(), inner, 0..6).prop_map(Value::from_iter),
            ]
        })
    }

    #[test]
    fn each_value_stands_where_it_stands() {
        let tree = read("f", "{\n  \"a\": [1, \"é\\n\"],\n\t\"b\": null, \"a\": true\n}").unwrap();
        let Shape::Map(entries) = &tree.shape else { panic!("{tree:?}") };
        let found: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.spot, entry.value.spot)).collect();
        let spot = |line, column| Spot { line, column };
        assert_eq!(found, [("b", spot(3, 2), spot(3, 7)), ("a", spot(3, 13), spot(3, 18))]);
    }

    #[test]
    fn a_mistake_of_the_syntax_has_its_place() {
        for (text, expected) in [
            ("{\n  \"a\": 1,\n}", "f:3:1: trailing comma"),
            ("", "f:1:1: EOF while parsing a value"),
            ("{\"a\": 'x'}", "f:1:7: expected value"),
        ] {
            assert_eq!(read("f", text).unwrap_err().to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn the_tree_is_what_serde_json_reads(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            prop_assert_eq!(plain(&read("f", &text).unwrap()), texts(value));
        }

        #[test]
        fn no_text_is_too_much(text in any::<String>(), joined in "[\\[\\]{}\",:\\\\a1 \n]{0,60}") {
            let _ = read("f", &text);
            let _ = read("f", &joined);
        }
    }
}
