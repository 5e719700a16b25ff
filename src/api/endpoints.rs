//! What an endpoint is, and which one a request means.

use std::collections::BTreeMap;

use serde_json::Value;

use super::table::ENDPOINTS;
use crate::names::percent::decoded;
use crate::names::{EnvName, NodeName, ServerName, StackName};

/// What is done with what a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// It is looked at.
    Get,
    /// Something is made or done.
    Post,
    /// It is set.
    Put,
    /// It is taken away.
    Delete,
}

impl Method {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
        }
    }

    /// By its word. HEAD asks for what GET does; HTTP leaves the body away.
    fn of(word: &str) -> Option<Self> {
        let all = [Method::Get, Method::Post, Method::Put, Method::Delete];
        all.into_iter().find(|method| method.word() == word || (word == "HEAD" && *method == Method::Get))
    }
}

/// A parameter of the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// What it means.
    pub what: &'static str,
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`, which it is without.
    Flag,
    /// `true`, which it is without, or `false`.
    Unless,
    /// A number from the first to the second.
    Count(u32, u32),
    /// A stack's name.
    Stack,
    /// A node's name.
    Node,
    /// Where a page begins.
    Cursor,
}

/// What a request has to say in its body: the name of its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// There may be one.
    Optional(&'static str),
    /// Without it nothing is known.
    Required(&'static str),
}

/// What an endpoint answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// That HQ is there. Needs no token.
    Pong,
    /// The description of all endpoints.
    Document,
    /// One value of this schema.
    Value(&'static str),
    /// A page of values of this schema; these keys tell them apart.
    List(&'static str, &'static [&'static str]),
    /// What was done, in words.
    Done,
    /// The same, of something that was made.
    Made,
    /// What containers print.
    Lines,
    /// Values of this schema, or a stream of them.
    Events(&'static str),
    /// Text for Prometheus.
    Metrics,
}

/// What a request becomes.
pub type Becomes = fn(&Asked) -> Result<Order, Wrong>;

/// One thing that can be asked for.
pub struct Endpoint {
    /// What is done.
    pub method: Method,
    /// With what: the path, placeholders in braces.
    pub path: &'static str,
    /// In a sentence.
    pub summary: &'static str,
    /// Who may.
    pub right: &'static str,
    /// What the query may say.
    pub parameters: &'static [Parameter],
    /// What the body may say.
    pub body: Body,
    /// What comes back.
    pub answer: Answer,
    /// The command it is; `None` where HQ is not asked.
    pub order: Option<Becomes>,
}

/// What a request says, checked as far as its kinds go.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Asked {
    /// What stands for the placeholders of the path.
    pub path: BTreeMap<&'static str, String>,
    /// The query.
    pub query: BTreeMap<&'static str, String>,
    /// The body; an empty object where there is none.
    pub body: serde_json::Map<String, Value>,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its words.
    pub words: Vec<String>,
    /// Its standard input.
    pub input: Vec<u8>,
    /// The path of what it makes.
    pub makes: Option<String>,
}

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// Its path or query cannot be understood.
    Query(String),
    /// Its body does not say what it should.
    Body(String),
}

/// What a method and a path mean.
pub enum Found {
    /// This, with what stands for its placeholders.
    Endpoint(&'static Endpoint, BTreeMap<&'static str, String>),
    /// The path is known and takes other methods.
    Methods(Vec<Method>),
    /// A name in the path is none.
    Name(Wrong),
    /// Nothing.
    Nothing,
}

/// Finds the endpoint of a method and a path as they came.
pub fn find(method: &str, path: &str) -> Found {
    let mut methods = Vec::new();
    for endpoint in ENDPOINTS {
        let Some(values) = matched(endpoint.path, path) else { continue };
        if Method::of(method) == Some(endpoint.method) {
            return match named(values) {
                Ok(values) => Found::Endpoint(endpoint, values),
                Err(wrong) => Found::Name(wrong),
            };
        }
        methods.push(endpoint.method);
    }
    if methods.is_empty() { Found::Nothing } else { Found::Methods(methods) }
}

/// The placeholders of a template and the segments of a path that stand for them.
fn matched<'a>(template: &'static str, path: &'a str) -> Option<Vec<(&'static str, &'a str)>> {
    let (mut known, mut given) = (template.split('/'), path.split('/'));
    let mut values = Vec::new();
    loop {
        match (known.next(), given.next()) {
            (None, None) => return Some(values),
            (Some(known), Some(given)) => match known.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(name) => values.push((name, given)),
                None if known == given => {}
                None => return None,
            },
            (Some(_), None) | (None, Some(_)) => return None,
        }
    }
}

fn named(values: Vec<(&'static str, &str)>) -> Result<BTreeMap<&'static str, String>, Wrong> {
    let value = |(name, text): (&'static str, &str)| {
        let text = decoded(text).ok_or_else(|| Wrong::Query("the path is not UTF-8 in percent encoding".to_owned()))?;
        let checked = match name {
            "stack" => text.parse::<StackName>().err(),
            "server" => text.parse::<ServerName>().err(),
            "variable" => text.parse::<EnvName>().err(),
            _ => text.parse::<NodeName>().err(),
        };
        checked.map_or(Ok((name, text)), |error| Err(Wrong::Query(error.to_string())))
    };
    values.into_iter().map(value).collect()
}

impl Endpoint {
    /// Its parameters, those of pages with them.
    pub fn all_parameters(&self) -> impl Iterator<Item = &Parameter> {
        let pages: &[Parameter] = if matches!(self.answer, Answer::List(..)) { &PAGES } else { &[] };
        self.parameters.iter().chain(pages)
    }

    /// What it is called in clients made from the description: `getStacksNodes`.
    pub fn id(&self) -> String {
        let words = self.path.split('/').skip(1).filter(|word| *word != "v1");
        let words = words.map(|word| word.trim_matches(['{', '}']).replace(".json", ""));
        let words: Vec<String> = words.map(|word| capital(&word)).collect();
        let alias = if self.path.starts_with("/v1/") { "" } else { "Alias" };
        format!("{}{}{alias}", self.method.word().to_ascii_lowercase(), words.concat())
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The parameters of every list.
const PAGES: [Parameter; 2] = [
    Parameter { name: "limit", kind: Kind::Count(1, 1000), what: "At most so many; 1000 without" },
    Parameter { name: "after", kind: Kind::Cursor, what: "Go on behind this one, as the header `Link` has it" },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> String {
        match find(method, path) {
            Found::Endpoint(endpoint, values) => {
                let values: Vec<String> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("{} {}", endpoint.path, values.join(" ")).trim_end().to_owned()
            }
            Found::Methods(methods) => format!("{:?}", methods.iter().map(|method| method.word()).collect::<Vec<_>>()),
            Found::Name(Wrong::Query(text) | Wrong::Body(text)) => text,
            Found::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn a_path_means_one_endpoint_or_none() {
        assert_eq!(found("GET", "/v1/ping"), "/v1/ping");
        assert_eq!(found("HEAD", "/v1/stacks/blog"), "/v1/stacks/{stack} stack=blog");
        assert_eq!(found("GET", "/v1/stacks/bl%6Fg/nodes"), "/v1/stacks/{stack}/nodes stack=blog");
        assert_eq!(found("DELETE", "/v1/stacks/a/env/B_1"), "/v1/stacks/{stack}/env/{variable} stack=a variable=B_1");
        for nothing in ["/", "", "/v1", "/v1/", "/v1/stacks/", "/v1/stacks/a/b", "/v1/ping/", "v1/ping", "/V1/ping"] {
            let shown = found("GET", nothing);
            assert!(shown == "nothing" || shown.contains("is not a"), "{nothing}: {shown}");
        }
        assert_eq!(found("PATCH", "/v1/stacks"), r#"["GET", "POST"]"#);
    }

    #[test]
    fn names_in_a_path_never_become_options_or_other_paths() {
        for wrong in ["--force", "-x", "..", "%2e%2e", "a%2Fb", "A", "%00", "%zz", "a b", "%ff", "a%20b"] {
            for path in [format!("/v1/stacks/{wrong}"), format!("/v1/servers/{wrong}"), format!("/v1/jobs/{wrong}")] {
                assert!(matches!(find("GET", &path), Found::Name(Wrong::Query(_))), "{path}");
            }
        }
        assert!(matches!(find("DELETE", "/v1/stacks/blog/env/1A"), Found::Name(_)));
    }

    #[test]
    fn every_endpoint_has_a_name_of_its_own_and_a_placeholder_that_is_checked() {
        let mut ids = std::collections::BTreeSet::new();
        for endpoint in ENDPOINTS {
            assert!(ids.insert(endpoint.id()), "{}", endpoint.id());
            for part in endpoint.path.split('/').filter(|part| part.starts_with('{')) {
                assert!(["{stack}", "{server}", "{variable}", "{job}"].contains(&part), "{}", endpoint.path);
            }
        }
    }
}
