//! `healthchecks` of app.json: what a process has to show before it is routed.

use std::collections::BTreeMap;

use crate::names::NodeName;
use crate::units::Millis;

use super::app_json::{found, list, object, process};
use super::checks::tries;
use super::keys::Found;
use super::mistakes::Notes;
use super::tree::{Shape, Tree};
use super::values;
use super::{Health, Page, Probe};

/// What Dokku takes where nothing is written: attempts, and seconds.
const ATTEMPTS: u32 = 3;
const WAIT: u32 = 5;
const TIMEOUT: u32 = 5;

/// When a check is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    Startup,
    Readiness,
    Liveness,
}

const WHEN: [(&str, When); 3] =
    [("startup", When::Startup), ("readiness", When::Readiness), ("liveness", When::Liveness)];

/// One check.
struct Check {
    when: When,
    probe: Probe,
    attempts: u32,
    wait: u32,
    timeout: u32,
    delay: u32,
}

/// The checks of each process, as one: what has to hold before a container counts as up. Those for the start count; a
/// process without any is asked those for readiness, which say the same. Nothing is asked of a container that is up.
pub(super) fn read(
    key: Found<'_>,
    file: &str,
    said: &mut Vec<String>,
    notes: &mut Notes<'_>,
) -> BTreeMap<NodeName, Health> {
    let mut all = BTreeMap::new();
    for entry in object(key, notes) {
        let Some(name) = process(entry, notes) else { continue };
        let checks: Vec<Check> =
            list(found(entry), notes).iter().filter_map(|item| check(item, file, said, notes)).collect();
        let first = checks.iter().map(|check| check.when).min();
        let left: Vec<&Check> = checks.iter().filter(|check| Some(check.when) != first).collect();
        if first == Some(When::Liveness) || left.iter().any(|check| check.when == When::Liveness) {
            let line = entry.spot.line;
            said.push(format!("Warning: {file}:{line} liveness checks are not asked; what ends is started again"));
        }
        let asked: Vec<Check> =
            checks.into_iter().filter(|check| Some(check.when) == first && check.when != When::Liveness).collect();
        all.extend(together(asked).map(|health| (name, health)));
    }
    all
}

/// Several checks as one, which gives each of them its time.
fn together(checks: Vec<Check>) -> Option<Health> {
    let one = |check: &Check| tries(check.probe.clone(), check.attempts, check.wait, check.timeout, check.delay);
    let healths: Vec<Health> = checks.iter().map(one).collect();
    Some(Health {
        interval: healths.iter().map(|health| health.interval).min()?,
        timeout: healths.iter().map(|health| health.timeout).max()?,
        retries: 1,
        start: healths.iter().map(|health| health.start).max()?,
        lasting: false,
        probe: Probe::all(healths.into_iter().map(|health| health.probe).collect())?,
    })
}

/// Everything that may stand in a check.
#[derive(Default)]
struct Draft {
    page: Option<Page>,
    others: Vec<Probe>,
    content: Option<String>,
    headers: BTreeMap<String, String>,
    port: Option<u16>,
    listening: bool,
    uptime: u32,
}

fn check(item: &Tree, file: &str, said: &mut Vec<String>, notes: &mut Notes<'_>) -> Option<Check> {
    let mut check = Check {
        when: When::Startup,
        probe: Probe::Listening,
        attempts: ATTEMPTS,
        wait: WAIT,
        timeout: TIMEOUT,
        delay: 0,
    };
    let mut draft = Draft::default();
    for entry in object(Found { written: "healthchecks", spot: item.spot, value: item }, notes) {
        let key = found(entry);
        let mut seconds = |least: u32, usual: u32| values::number(key, least, 3600, notes).unwrap_or(usual);
        match entry.key.as_str() {
            "attempts" => check.attempts = seconds(1, ATTEMPTS),
            "wait" => check.wait = seconds(0, WAIT),
            "timeout" => check.timeout = seconds(0, TIMEOUT),
            "initialDelay" => check.delay = seconds(0, 0),
            "uptime" => draft.uptime = seconds(0, 0),
            "type" if entry.value.what() == "empty" => {}
            "type" => check.when = values::choice(key, &WHEN, notes).unwrap_or(When::Startup),
            "warn" | "onFailure" => {
                said.push(format!("Warning: {file}:{} `{}` of a check is passed over", entry.spot.line, entry.key));
            }
            _ => asked(key, &mut draft, notes),
        }
    }
    check.probe = probe(draft, item, notes)?;
    if let Probe::Uptime(up) = check.probe {
        // It has its own time, whatever the number of tries is.
        (check.attempts, check.wait, check.delay) = (1, 1, (up.0 / 1000) as u32);
    }
    Some(check)
}

/// The keys that say what is asked; others are passed over, as Dokku does.
fn asked(key: Found<'_>, draft: &mut Draft, notes: &mut Notes<'_>) {
    match (key.written, &key.value.shape) {
        ("path", Shape::Text(path)) => draft.page = Some(Page::of(path)),
        ("command", Shape::List(_) | Shape::Text(_)) => {
            draft.others.extend(values::command(key, notes).map(Probe::Command));
        }
        ("content", Shape::Text(text)) => draft.content = Some(text.clone()).filter(|text| !text.is_empty()),
        ("port", _) => {
            let port = values::word(key, notes).and_then(|word| values::tcp_port("port", word, notes));
            draft.port = port;
        }
        ("listening", _) => draft.listening = values::flag(key, notes).unwrap_or(false),
        ("httpHeaders", _) => {
            for item in list(key, notes) {
                let text = |name: &str| match &item.shape {
                    Shape::Map(entries) => entries.iter().find_map(|entry| match &entry.value.shape {
                        Shape::Text(text) if entry.key == name => Some(text.clone()),
                        _ => None,
                    }),
                    Shape::Nothing | Shape::Text(_) | Shape::List(_) => None,
                };
                match (text("name"), text("value")) {
                    (Some(name), Some(value)) => drop(draft.headers.insert(name, value)),
                    (_, _) => notes.add(item.spot, "a header has a `name` and a `value`"),
                }
            }
        }
        ("scheme", Shape::Text(scheme)) if scheme.eq_ignore_ascii_case("https") => {
            notes.add(key.value.spot, "a check asks by HTTP; quarry ends TLS before the container");
        }
        (_, _) => {}
    }
}

fn probe(draft: Draft, item: &Tree, notes: &mut Notes<'_>) -> Option<Probe> {
    let Draft { page, mut others, content, headers, port, listening, uptime } = draft;
    if listening {
        others.push(port.map_or(Probe::Listening, Probe::Tcp));
    }
    if uptime > 0 {
        others.push(Probe::Uptime(Millis::seconds(u64::from(uptime))));
    }
    let page = match page {
        // Where nothing else is asked the first page is.
        None if others.is_empty() || content.is_some() => Some(Page::of("/")),
        page => page,
    };
    if let Some(page) = page {
        let page = Page { content, headers, port, ..page };
        if !page.is_sound() {
            notes.add(item.spot, "a check asks for a path such as `/health`, with headers of plain text");
            return None;
        }
        others.push(page.probe());
    }
    Probe::all(others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::Command;
    use crate::stack::app_json;

    fn checked(checks: &str) -> (Option<Health>, Vec<String>) {
        let text = format!(r#"{{"healthchecks": {{"web": [{checks}]}}}}"#);
        let app = app_json::parse("app.json", &text).unwrap();
        (app.health.into_values().next(), app.said)
    }

    #[test]
    fn each_kind_of_check_becomes_its_question() {
        let check = |checks: &str, expected: Probe| assert_eq!(checked(checks).0.unwrap().probe, expected, "{checks}");
        check(r#"{"type": "startup", "path": "/up"}"#, Probe::Http("/up".into()));
        check("{}", Probe::Http("/".into()));
        check(r#"{"uptime": 3}"#, Probe::Uptime(Millis::seconds(3)));
        check(r#"{"listening": true}"#, Probe::Listening);
        check(r#"{"listening": true, "port": 9000}"#, Probe::Tcp(9000));
        check(r#"{"command": ["./ok", "-x"]}"#, Probe::Command(Command::Words(vec!["./ok".into(), "-x".into()])));
        let page = Page {
            content: Some("Hello".into()),
            headers: BTreeMap::from([("X-A".into(), "b".into())]),
            ..Page::of("/a")
        };
        let full = r#"{"path": "/a", "content": "Hello", "httpHeaders": [{"name": "X-A", "value": "b"}]}"#;
        check(full, Probe::Page(Box::new(page)));
        let both = vec![Probe::Http("/a".into()), Probe::Http("/b".into())];
        check(r#"{"path": "/a"}, {"path": "/b", "name": "second", "description": "x"}"#, Probe::All(both));
    }

    #[test]
    fn a_container_has_the_time_that_the_tries_would_take() {
        let (health, _) = checked(r#"{"path": "/", "attempts": 4, "wait": 10, "timeout": 2, "initialDelay": 7}"#);
        let health = health.unwrap();
        assert_eq!((health.start, health.timeout), (Millis::seconds(47), Millis::seconds(2)));
    }

    #[test]
    fn checks_for_the_start_come_before_those_for_readiness_and_liveness_is_said() {
        let (health, said) = checked(r#"{"type": "liveness", "path": "/l"}, {"type": "readiness", "path": "/r"}"#);
        assert_eq!(health.unwrap().probe, Probe::Http("/r".into()));
        assert!(said[0].contains("liveness"), "{said:?}");
        let (health, said) = checked(r#"{"type": "readiness", "path": "/r"}, {"type": "startup", "path": "/s"}"#);
        assert_eq!((health.unwrap().probe, said.len()), (Probe::Http("/s".into()), 0));
        assert_eq!(checked(r#"{"type": "liveness", "path": "/l"}"#).0, None);
    }
}
