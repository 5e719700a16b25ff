//! The text of queries: parameters checked against what an endpoint takes.

use std::collections::BTreeMap;

use super::endpoints::{Endpoint, Kind, Parameter, Wrong};
use crate::names::percent::decoded;
use crate::names::{NodeName, StackName};

/// The longest cursor, in bytes.
const LONGEST: usize = 300;

/// The parameters in a query.
///
/// # Errors
/// The first that is unknown, given twice, or not of its kind.
pub fn read(endpoint: &'static Endpoint, query: &str) -> Result<BTreeMap<&'static str, String>, Wrong> {
    let mut values = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
        let texts = decoded(&name.replace('+', " ")).zip(decoded(&value.replace('+', " ")));
        let (name, value) =
            texts.ok_or_else(|| Wrong::Query("the query is not UTF-8 in percent encoding".to_owned()))?;
        let parameter = endpoint.all_parameters().find(|parameter| parameter.name == name);
        let parameter = parameter.ok_or_else(|| unknown(endpoint, &name))?;
        check(parameter, &value)?;
        if values.insert(parameter.name, value).is_some() {
            return Err(Wrong::Query(format!("`{}` is given twice", parameter.name)));
        }
    }
    Ok(values)
}

fn unknown(endpoint: &Endpoint, name: &str) -> Wrong {
    let known: Vec<&str> = endpoint.all_parameters().map(|parameter| parameter.name).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Wrong::Query(format!("there is no parameter `{}` here; there are: {known}", name.escape_debug()))
}

fn check(parameter: &Parameter, value: &str) -> Result<(), Wrong> {
    let name = parameter.name;
    let wrong = |what: String| Err(Wrong::Query(format!("`{name}` is {what}")));
    match parameter.kind {
        Kind::Flag | Kind::Unless if ["true", "false"].contains(&value) => Ok(()),
        Kind::Flag | Kind::Unless => wrong("`true` or `false`".to_owned()),
        Kind::Count(least, most) => match value.parse::<u32>() {
            Ok(number) if (least..=most).contains(&number) => Ok(()),
            Ok(_) | Err(_) => wrong(format!("a number from {least} to {most}")),
        },
        Kind::Stack => value.parse::<StackName>().map(drop).map_err(|error| Wrong::Query(error.to_string())),
        Kind::Node => value.parse::<NodeName>().map(drop).map_err(|error| Wrong::Query(error.to_string())),
        Kind::Cursor if (1..=LONGEST).contains(&value.len()) => Ok(()),
        Kind::Cursor => wrong(format!("what the header `Link` of the page before says, at most {LONGEST} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::endpoints::{Found, find};

    fn of(path: &str, query: &str) -> Result<BTreeMap<&'static str, String>, Wrong> {
        match find("GET", path) {
            Found::Endpoint(endpoint, _) => read(endpoint, query),
            Found::Methods(_) | Found::Name(_) | Found::Nothing => panic!("{path} is no endpoint"),
        }
    }

    #[test]
    fn a_query_says_what_its_endpoint_takes() {
        let values = of("/v1/stacks/blog/logs", "follow=true&lines=5&node=web").unwrap();
        let expected = [("follow", "true"), ("lines", "5"), ("node", "web")];
        assert_eq!(values, expected.map(|(name, value)| (name, value.to_owned())).into());
        assert_eq!(of("/v1/stacks/blog/logs", "follow").unwrap()["follow"], "true");
        assert_eq!(of("/v1/stacks", "after=a%2Fb&&").unwrap()["after"], "a/b");
        for wrong in ["x=1", "follow=yes", "lines=-1", "lines=", "node=--all", "lines=1&lines=2", "%zz=1", "node=%ff"] {
            assert!(matches!(of("/v1/stacks/blog/logs", wrong), Err(Wrong::Query(_))), "{wrong}");
        }
        let Err(Wrong::Query(text)) = of("/v1/ping", "a=1") else { panic!("it was taken") };
        assert_eq!(text, "there is no parameter `a` here; there are: none");
    }
}
