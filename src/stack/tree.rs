//! YAML text as a tree that knows where each of its parts stands, so that every mistake can be shown at its place.
//!
//! Scalars stay text, as written: `1.10` is not 1.1 and `no` is not false until a key asks for a number or a flag.

use std::collections::BTreeMap;

use granit_parser::{Event, Marker, Options, Parser, ScalarStyle, Span, Tag};

use super::mistakes::Mistake;

/// Values of a tree with its aliases written out. A description of a hundred nodes has some two thousand.
const MOST_NODES: usize = 10_000;

/// A place in a file, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub line: usize,
    pub column: usize,
}

impl From<Marker> for Spot {
    fn from(marker: Marker) -> Self {
        Self { line: marker.line(), column: marker.col() + 1 }
    }
}

/// A value and where it is used: for an alias, the alias.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub spot: Spot,
    pub shape: Shape,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// Nothing written, `~` or `null`.
    Nothing,
    /// A scalar, its escapes and folds resolved.
    Text(String),
    List(Vec<Tree>),
    /// In the order of the file, each key once; merged keys come last.
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: String,
    pub spot: Spot,
    pub value: Tree,
}

impl Tree {
    fn size(&self) -> usize {
        1 + match &self.shape {
            Shape::Nothing | Shape::Text(_) => 0,
            Shape::List(items) => items.iter().map(Tree::size).sum(),
            Shape::Map(entries) => entries.iter().map(|entry| 1 + entry.value.size()).sum(),
        }
    }

    /// What it is, for a message.
    pub(super) fn what(&self) -> &'static str {
        match self.shape {
            Shape::Nothing => "empty",
            Shape::Text(_) => "a single value",
            Shape::List(_) => "a list",
            Shape::Map(_) => "a mapping",
        }
    }
}

/// Reads the one document of a file; `None` when it is empty or broken off by a syntax mistake.
pub(super) fn read(file: &str, text: &str) -> (Option<Tree>, Vec<Mistake>) {
    let mut builder = Builder { file, ..Builder::default() };
    let mut options: Options = granit_parser::options! { block_nesting_limit: 32, flow_nesting_limit: 32 };
    options.set_emit_comments(false);
    options.emit_unresolved_aliases = true;
    for next in Parser::new_from_str_with_options(text, options) {
        let stop = match next {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => {
                let spot = Spot::from(*error.marker());
                match tab_near(text, spot.line) {
                    Some(tab) => builder.mistake(tab, "a tab in the indentation; YAML takes only spaces there"),
                    None => builder.mistake(spot, error.info()),
                }
                Flow::Stop
            }
        };
        if let Flow::Stop = stop {
            return (None, builder.mistakes);
        }
    }
    (builder.root, builder.mistakes)
}

/// A tab in the indentation at `line` or around it: the scanner often stumbles a line before or after.
fn tab_near(text: &str, line: usize) -> Option<Spot> {
    let first = line.saturating_sub(1).max(1);
    (first..=line + 1).zip(text.lines().skip(first - 1)).find_map(|(line, text)| {
        let column = text.len() - text.trim_start_matches(' ').len() + 1;
        text[column - 1..].starts_with('\t').then_some(Spot { line, column })
    })
}

enum Flow {
    Go,
    Stop,
}

/// A list or mapping whose end has not come yet.
struct Open {
    spot: Spot,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Tree>),
    Map { entries: Vec<Entry>, merged: Vec<Tree>, key: Option<Tree> },
}

#[derive(Default)]
struct Builder<'a> {
    file: &'a str,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Tree>,
    nodes: usize,
    documents: usize,
    root: Option<Tree>,
    mistakes: Vec<Mistake>,
}

impl Builder<'_> {
    fn mistake(&mut self, spot: Spot, message: impl Into<String>) {
        self.mistakes.push(Mistake::at(self.file, spot.line, spot.column, message));
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Flow {
        let spot = Spot::from(span.start);
        let tag_spot = span.tag_start().map_or(spot, Spot::from);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.mistake(spot, "a second document; everything belongs into one, without `---` between");
                    return Flow::Stop;
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.check_tag(tag.as_deref(), tag_spot);
                let shape = match (style, &*text) {
                    (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Shape::Nothing,
                    _ => Shape::Text(text.into_owned()),
                };
                return self.value(Tree { spot, shape }, anchor);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), tag_spot);
                self.open.push(Open { spot, anchor, inside: Inside::List(Vec::new()) });
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), tag_spot);
                let inside = Inside::Map { entries: Vec::new(), merged: Vec::new(), key: None };
                self.open.push(Open { spot, anchor, inside });
            }
            Event::SequenceEnd | Event::MappingEnd => return self.close(),
            Event::Alias(anchor) => {
                let Some(target) = self.anchors.get(&anchor) else {
                    self.mistake(spot, "an alias inside of what it stands for");
                    return Flow::Stop;
                };
                // Aliases are what makes a small file large: the whole of what they stand for counts each time.
                self.nodes += target.size();
                if self.nodes > MOST_NODES {
                    return self.too_many(spot);
                }
                let tree = Tree { spot, shape: target.shape.clone() };
                return self.value(tree, 0);
            }
            Event::UnresolvedAlias(name) => {
                let message =
                    format!("there is no `&{name}` before this alias (a value that starts with `*` needs quotes)");
                self.mistake(spot, message);
                return self.value(Tree { spot, shape: Shape::Nothing }, 0);
            }
            _ => {}
        }
        Flow::Go
    }

    fn too_many(&mut self, spot: Spot) -> Flow {
        self.mistake(spot, format!("more than {MOST_NODES} values, aliases written out"));
        Flow::Stop
    }

    fn check_tag(&mut self, tag: Option<&Tag>, spot: Spot) {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            self.mistake(spot, format!("the YAML tag `{}` means nothing here", tag.original()));
        }
    }

    fn close(&mut self) -> Flow {
        let Some(Open { spot, anchor, inside }) = self.open.pop() else { return Flow::Go };
        let shape = match inside {
            Inside::List(items) => Shape::List(items),
            Inside::Map { mut entries, merged, key: _ } => {
                for tree in merged {
                    self.merge(&mut entries, tree);
                }
                Shape::Map(entries)
            }
        };
        self.value(Tree { spot, shape }, anchor)
    }

    /// Lays the mapping (or list of mappings, the first winning) of a `<<` under the keys already there.
    fn merge(&mut self, entries: &mut Vec<Entry>, tree: Tree) {
        match tree.shape {
            Shape::Map(more) => {
                for entry in more {
                    if !entries.iter().any(|known| known.key == entry.key) {
                        entries.push(entry);
                    }
                }
            }
            Shape::List(maps) => maps.into_iter().for_each(|map| self.merge(entries, map)),
            Shape::Nothing | Shape::Text(_) => self.mistake(tree.spot, "`<<` takes a mapping or a list of mappings"),
        }
    }

    /// Puts a finished value where it belongs.
    fn value(&mut self, tree: Tree, anchor: usize) -> Flow {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return self.too_many(tree.spot);
        }
        if anchor != 0 {
            self.anchors.insert(anchor, tree.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(tree);
            return Flow::Go;
        };
        match &mut open.inside {
            Inside::List(items) => items.push(tree),
            Inside::Map { entries, merged, key } => match key.take() {
                None => *key = Some(tree),
                Some(Tree { spot, shape: Shape::Text(key) }) if key == "<<" => merged.push(Tree { spot, ..tree }),
                Some(Tree { spot, shape: Shape::Text(key) }) => {
                    match entries.iter().find(|known| known.key == key).map(|known| known.spot.line) {
                        Some(line) => self.mistake(spot, format!("`{key}` is already there, on line {line}")),
                        None => entries.push(Entry { key, spot, value: tree }),
                    }
                }
                Some(Tree { spot, shape: Shape::Nothing | Shape::List(_) | Shape::Map(_) }) => {
                    self.mistake(spot, "a key must be a word");
                }
            },
        }
        Flow::Go
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(tree: &Tree) -> String {
        match &tree.shape {
            Shape::Nothing => "~".into(),
            Shape::Text(text) => text.clone(),
            Shape::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
            Shape::Map(entries) => {
                let entries: Vec<_> = entries.iter().map(|e| format!("{}={}", e.key, shown(&e.value))).collect();
                format!("{{{}}}", entries.join(" "))
            }
        }
    }

    fn check(text: &str, expected: &str, mistakes: &[&str]) {
        let (tree, found) = read("f", text);
        assert_eq!(tree.as_ref().map(shown).unwrap_or_default(), expected, "{text}");
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), mistakes, "{text}");
    }

    #[test]
    fn scalars_stay_as_written() {
        check("a: 1.10\nb: no\nc: '~'\nd: ~\ne: 0x1F\nf: |\n  x\n  y\n", "{a=1.10 b=no c=~ d=~ e=0x1F f=x\ny\n}", &[]);
    }

    #[test]
    fn merge_keys_lie_under_the_keys_of_the_mapping() {
        check("a: &a {x: 1, y: 1}\nb: {<<: *a, y: 2}\n", "{a={x=1 y=1} b={y=2 x=1}}", &[]);
        check("a: &a {x: 1}\nb: &b {x: 2, z: 3}\nc: {<<: [*a, *b]}", "{a={x=1} b={x=2 z=3} c={x=1 z=3}}", &[]);
        check("b: {<<: 1}", "{b={}}", &["f:1:5: `<<` takes a mapping or a list of mappings"]);
    }

    #[test]
    fn mistakes_of_the_syntax_have_their_place() {
        check("a: 1\nb: 2\na: 3\n", "{a=1 b=2}", &["f:3:1: `a` is already there, on line 1"]);
        check(
            "a: *b\n",
            "{a=~}",
            &["f:1:4: there is no `&b` before this alias (a value that starts with `*` needs quotes)"],
        );
        check("a: !env X\n", "{a=X}", &["f:1:4: the YAML tag `!env` means nothing here"]);
        check("[a]: 1\n", "{}", &["f:1:1: a key must be a word"]);
        check(
            "a: 1\n---\nb: 1\n",
            "",
            &["f:2:1: a second document; everything belongs into one, without `---` between"],
        );
        check("", "", &[]);
    }

    #[test]
    fn an_alias_bomb_is_refused_early() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let below = vec![format!("*a{}", level - 1); 9].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        let (tree, mistakes) = read("f", &text);
        assert!(tree.is_none());
        assert!(mistakes[0].to_string().contains("more than 10000 values"), "{mistakes:?}");
    }
}
