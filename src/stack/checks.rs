//! CHECKS: the pages a web process has to answer before it is routed, as Dokku read them.

use crate::units::Millis;

use super::mistakes::{Mistakes, Notes, shown};
use super::tree::Spot;
use super::{Health, Page, Probe};

/// What Dokku takes where the file names nothing else.
const WAIT: u32 = 5;
const TIMEOUT: u32 = 30;
const ATTEMPTS: u32 = 5;

/// Reads the text of the file called `file`: lines `NAME=number`, and lines with a path and the text that its page has
/// to contain. `None` when it asks for nothing.
///
/// # Errors
/// Every line that is none of that.
pub(super) fn parse(file: &str, text: &str) -> Result<Option<Health>, Mistakes> {
    let mut notes = Notes::of(file, Vec::new());
    let (mut wait, mut timeout, mut attempts) = (WAIT, TIMEOUT, ATTEMPTS);
    let mut pages = Vec::new();
    for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let (line, spot) = (line.trim(), Spot { line: index + 1, column: 1 });
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match setting(line) {
            Some((name, value)) => {
                let Some(number) = number(value) else {
                    notes.add(spot, format!("`{name}` is a whole number from 1 to 3600, not {}", shown(value)));
                    continue;
                };
                match name {
                    "WAIT" => wait = number,
                    "TIMEOUT" => timeout = number,
                    _ => attempts = number,
                }
            }
            None => match page(line) {
                Some(page) => pages.push(Probe::Page(Box::new(page))),
                None => notes.add(spot, format!("{} is neither a path nor WAIT, TIMEOUT or ATTEMPTS", shown(line))),
            },
        }
    }
    let health = Probe::all(pages).map(|probe| tries(probe, attempts, wait, timeout, 0));
    notes.or(health)
}

/// The health check of somebody who counts tries: `attempts` of them with `wait` seconds between, the first after
/// `delay`. Quarry asks more often, and gives up when the last of those tries would have been.
pub(super) fn tries(probe: Probe, attempts: u32, wait: u32, timeout: u32, delay: u32) -> Health {
    let start = u64::from(delay) + u64::from(attempts) * u64::from(wait);
    Health {
        probe,
        interval: Millis::seconds(u64::from(wait.max(1))),
        timeout: Millis::seconds(u64::from(timeout.max(1))),
        retries: 1,
        start: Millis::seconds(start.min(LONGEST)),
        lasting: false,
    }
}

/// Nobody waits longer than a day, in seconds.
const LONGEST: u64 = 24 * 60 * 60;

fn setting(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    ["WAIT", "TIMEOUT", "ATTEMPTS"].contains(&name.trim()).then(|| (name.trim(), value))
}

fn number(value: &str) -> Option<u32> {
    let value = value.split('#').next()?.trim();
    value.parse().ok().filter(|number| (1..=3600).contains(number))
}

/// `/path text`, `//host/path text`, or the same behind `http:`.
fn page(line: &str) -> Option<Page> {
    let (url, content) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let url = url.strip_prefix("http:").or_else(|| url.strip_prefix("https:")).unwrap_or(url);
    let (host, path) = match url.strip_prefix("//") {
        Some(rest) => match rest.find('/') {
            Some(slash) => (Some(&rest[..slash]), &rest[slash..]),
            None => (Some(rest), "/"),
        },
        None => (None, url),
    };
    let content = Some(content.trim()).filter(|content| !content.is_empty()).map(str::to_owned);
    let page = Page { host: host.map(str::to_owned), content, ..Page::of(path) };
    page.is_sound().then_some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hosts_and_texts_are_asked_for_with_the_times_of_the_file() {
        let text = "# checks\nWAIT=2\nTIMEOUT = 10 # seconds\nATTEMPTS=3\n\n/  My App\n//admin.example.com  Admin\nhttp://a.example/x\n";
        let health = parse("CHECKS", text).unwrap().unwrap();
        let page = |path: &str, host: Option<&str>, content: Option<&str>| {
            Probe::Page(Box::new(Page {
                host: host.map(str::to_owned),
                content: content.map(str::to_owned),
                ..Page::of(path)
            }))
        };
        let pages = vec![
            page("/", None, Some("My App")),
            page("/", Some("admin.example.com"), Some("Admin")),
            page("/x", Some("a.example"), None),
        ];
        assert_eq!(health.probe, Probe::All(pages));
        assert_eq!((health.start, health.timeout, health.retries), (Millis::seconds(6), Millis::seconds(10), 1));
    }

    #[test]
    fn a_file_without_pages_asks_for_nothing_and_mistakes_have_their_line() {
        assert_eq!(parse("CHECKS", "# nothing\nWAIT=1\n").unwrap(), None);
        assert_eq!(
            parse("CHECKS", "WAIT=soon\nhello\n/a\u{7}b\n").unwrap_err().to_string(),
            "CHECKS:1:1: `WAIT` is a whole number from 1 to 3600, not `soon`\n\
             CHECKS:2:1: `hello` is neither a path nor WAIT, TIMEOUT or ATTEMPTS\n\
             CHECKS:3:1: `/a\\u{7}b` is neither a path nor WAIT, TIMEOUT or ATTEMPTS"
        );
    }
}
