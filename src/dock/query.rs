//! What stands behind the question mark: parameters, and docker's filters among them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::trouble::Trouble;
use crate::names::percent::{decoded, encoded};

/// The parameters of a request, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

/// What is looked for, by the filter's name; every value of a filter is given as the person wrote it.
pub type Filters = BTreeMap<String, Vec<String>>;

impl Query {
    /// Reads them; what is no percent encoding stands for itself.
    pub fn read(text: &str) -> Self {
        let part = |text: &str| decoded(&text.replace('+', " ")).unwrap_or_else(|| text.to_owned());
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (part(name), part(value))
                })
                .collect(),
        )
    }

    /// The last value of this name.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Whether it is said, as docker reads truth.
    pub fn says(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| !["", "0", "no", "false", "none"].contains(&value.to_lowercase().as_str()))
    }

    /// A number; `None` for what is none.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }

    /// The filters: JSON of lists, or of mappings to `true`.
    ///
    /// # Errors
    /// When it is not that.
    pub fn filters(&self) -> Result<Filters, Trouble> {
        let text = self.text("filters").unwrap_or_default();
        let wrong = || Trouble::bad("the filters are no JSON of lists");
        let Value::Object(given) = (match text {
            "" => json!({}),
            text => serde_json::from_str(text).map_err(|_| wrong())?,
        }) else {
            return Err(wrong());
        };
        let mut filters = Filters::new();
        for (name, values) in given {
            let values = match values {
                Value::Object(values) => {
                    values.into_iter().filter(|(_, on)| *on == true).map(|(value, _)| value).collect()
                }
                Value::Array(values) => {
                    let texts = values.iter().map(|value| value.as_str().map(str::to_owned));
                    texts.collect::<Option<_>>().ok_or_else(wrong)?
                }
                _ => return Err(wrong()),
            };
            filters.insert(name, values);
        }
        Ok(filters)
    }

    /// Those of these names, as they stand in a request, with a `?` before where there are any.
    pub fn only(&self, names: &[&str]) -> String {
        let kept = self.0.iter().filter(|(name, _)| names.contains(&name.as_str()));
        asked(kept.map(|(name, value)| (name.as_str(), value.clone())))
    }
}

/// Parameters as they stand in a request, with a `?` before where there are any.
pub fn asked<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let pairs: Vec<String> =
        pairs.into_iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(&value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Filters as an engine reads them.
pub fn written(filters: &Filters) -> String {
    let values =
        |values: &Vec<String>| -> BTreeMap<String, bool> { values.iter().map(|v| (v.clone(), true)).collect() };
    json!(filters.iter().map(|(name, given)| (name.clone(), values(given))).collect::<BTreeMap<_, _>>()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_docker_reads_them() {
        let query = Query::read("all=1&limit=5&name=%2Fa+b&size=false&tail=all&bare");
        assert!(query.says("all") && !query.says("size") && !query.says("bare") && !query.says("other"));
        assert_eq!((query.number("limit"), query.number("tail")), (Some(5), None));
        assert_eq!(query.text("name"), Some("/a b"));
        assert_eq!(query.only(&["name", "limit"]), "?limit=5&name=%2Fa%20b");
        assert_eq!(query.only(&["none"]), "");
    }

    #[test]
    fn filters_come_as_lists_or_as_mappings_and_go_as_mappings() {
        let check = |text: &str| Query(vec![("filters".to_owned(), text.to_owned())]).filters();
        let expected: Filters = [("label".to_owned(), vec!["a=b".to_owned(), "c".to_owned()])].into();
        assert_eq!(check(r#"{"label":{"a=b":true,"c":true,"d":false}}"#), Ok(expected.clone()));
        assert_eq!(check(r#"{"label":["a=b","c"]}"#), Ok(expected.clone()));
        assert_eq!(check(&written(&expected)), Ok(expected));
        assert_eq!(check(""), Ok(Filters::new()));
        for wrong in ["[]", "{", r#"{"label":1}"#, r#"{"label":[1]}"#] {
            assert_eq!(check(wrong).unwrap_err().status, 400, "{wrong}");
        }
    }
}
