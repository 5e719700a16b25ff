//! Which container a person means.

use super::trouble::Trouble;
use crate::hq::fleet::Seen;
use crate::hq::jobs::common_stack;
use crate::launch::label;

/// The fewest digits of an id that are looked for.
const SHORTEST: usize = 1;

/// The container of this id, this name, this `[STACK/]NODE`, or whose id begins so; among those that somebody may see.
///
/// Of a node's containers the one that runs is meant, and the first of several.
///
/// # Errors
/// When there is none, or an id's beginning is several containers'.
pub fn find<'a>(reference: &str, seen: &'a [Seen]) -> Result<&'a Seen, Trouble> {
    let plain = reference.trim_start_matches('/');
    let exact = |one: &&Seen| one.container.id == plain || one.container.name.as_str() == plain;
    if let Some(one) = seen.iter().find(exact) {
        return Ok(one);
    }
    if let Some(one) = of_node(plain, seen) {
        return Ok(one);
    }
    let is_hex = plain.len() >= SHORTEST && plain.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut begun = seen.iter().filter(|one| is_hex && one.container.id.starts_with(plain));
    match (begun.next(), begun.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            Err(Trouble::bad(format!("the id {plain} is the beginning of several; write more of it")))
        }
        (None, _) => Err(Trouble::missing("container", reference)),
    }
}

/// `[STACK/]NODE`; without a stack a job's of no stack, or the only one of that name.
fn of_node<'a>(text: &str, seen: &'a [Seen]) -> Option<&'a Seen> {
    let text_of = |one: &Seen, name: &str| one.container.labels.get(name).cloned().unwrap_or_default();
    let of = |stack: Option<&str>, node: &str| -> Vec<&'a Seen> {
        let mut found: Vec<&Seen> = seen
            .iter()
            .filter(|one| text_of(one, label::NODE) == node)
            .filter(|one| stack.is_none_or(|stack| text_of(one, label::STACK) == stack))
            .collect();
        found.sort_by_key(|one| (one.container.state != crate::docker::State::Running, one.container.name.clone()));
        found
    };
    match text.split_once('/') {
        Some((stack, node)) => of(Some(stack), node).first().copied(),
        None => of(Some(common_stack().as_str()), text).first().copied().or_else(|| {
            let all = of(None, text);
            let first = *all.first()?;
            all.iter().all(|one| text_of(one, label::STACK) == text_of(first, label::STACK)).then_some(first)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::{Container, State};

    fn seen(id: &str, name: &str, state: State) -> Seen {
        let parts: Vec<&str> = name.split('.').collect();
        let labels = [(label::STACK, parts[0]), (label::NODE, parts[1])];
        Seen {
            server: "hq".parse().unwrap(),
            container: Container {
                id: id.to_owned(),
                name: name.parse().unwrap(),
                image: String::new(),
                labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
                state,
                addresses: Default::default(),
                created: 0,
            },
        }
    }

    #[test]
    fn a_container_is_meant_by_id_name_node_or_the_beginning_of_its_id() {
        let all = [
            seen("abc1", "blog.web.1.1", State::Exited(0)),
            seen("abd2", "blog.web.1.2", State::Running),
            seen("0e", "jobs.db.1.1", State::Running),
            seen("ff", "shop.db.1.1", State::Running),
            seen("f0", "shop.only.1.1", State::Running),
        ];
        let check = |reference: &str, expected: &str| {
            let found = find(reference, &all).map(|one| one.container.id.as_str());
            assert_eq!(
                found.unwrap_or_else(|trouble| panic!("{reference}: {}", trouble.message)),
                expected,
                "{reference}"
            );
        };
        check("abc1", "abc1");
        check("/blog.web.1.1", "abc1");
        check("blog/web", "abd2");
        check("db", "0e");
        check("shop/db", "ff");
        check("only", "f0");
        check("abc", "abc1");
        for (wrong, status) in [("ab", 400), ("web.1", 404), ("", 404), ("none", 404), ("blog/none", 404), ("/", 404)] {
            assert_eq!(find(wrong, &all).unwrap_err().status, status, "{wrong}");
        }
    }
}
