//! Long lists in pages.

use serde_json::Value;

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// What is on it.
    pub rows: Vec<Value>,
    /// Behind what the next one begins, if there is one.
    pub next: Option<String>,
}

/// At most `limit` rows, those behind the one that `after` names. `keys` tell rows apart.
///
/// # Errors
/// When there is no such row (any more); what to tell then.
pub fn page(rows: Vec<Value>, keys: &[&str], limit: usize, after: Option<&str>) -> Result<Page, String> {
    let start = match after {
        None => 0,
        Some(after) => match rows.iter().position(|row| cursor(row, keys) == after) {
            Some(place) => place + 1,
            None => {
                return Err(format!("there is no `{}` (any more) to go on behind; begin again", after.escape_debug()));
            }
        },
    };
    let more = rows.len() > start + limit;
    let rows: Vec<Value> = rows.into_iter().skip(start).take(limit).collect();
    let next = rows.last().filter(|_| more).map(|row| cursor(row, keys));
    Ok(Page { rows, next })
}

/// What tells a row apart.
fn cursor(row: &Value, keys: &[&str]) -> String {
    let part = |key: &&str| match &row[*key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    keys.iter().map(part).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pages_together_are_the_list() {
        let rows: Vec<Value> = (1..=7).map(|n| json!({"stack": "blog", "number": n})).collect();
        for limit in 1..=8 {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = page(rows.clone(), &["stack", "number"], limit, after.as_deref()).unwrap();
                assert!(!page.rows.is_empty() && page.rows.len() <= limit, "{page:?}");
                seen.extend(page.rows);
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            assert_eq!(seen, rows, "{limit}");
        }
        assert_eq!(page(Vec::new(), &["x"], 5, None), Ok(Page { rows: Vec::new(), next: None }));
        assert!(page(rows, &["number"], 5, Some("8")).is_err());
    }
}
