//! How a container shows that it is ready.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Command;
use crate::units::Millis;

/// How a container shows that it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// Between two tries.
    pub interval: Millis,
    /// For one try.
    pub timeout: Millis,
    /// Failed tries after `start` until it counts as sick.
    pub retries: u32,
    /// How long it may take to become healthy.
    pub start: Millis,
}

/// One question to a container, or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// GET this path on the first exposed port; 200 to 399 is healthy.
    Http(String),
    /// The same with more to it.
    Page(Box<Page>),
    /// This port takes a connection.
    Tcp(u16),
    /// Its first exposed port takes a connection.
    Listening,
    /// It has run for so long.
    Uptime(Millis),
    /// This command exits 0 inside the container.
    Command(Command),
    /// All of these, in order.
    All(Vec<Probe>),
}

/// A page that has to be as expected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// What is asked for, from the slash on.
    pub path: String,
    /// The host that is asked; `localhost` where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Further headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Text that it contains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The port, where that is not the first exposed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// The longest path, host, header or text.
const LONGEST: usize = 1000;

impl Probe {
    /// All of these as one; `None` where there are none.
    pub fn all(mut probes: Vec<Probe>) -> Option<Probe> {
        if probes.len() > 1 { Some(Probe::All(probes)) } else { probes.pop() }
    }

    /// Whether it asks the first exposed port, so that there has to be one.
    pub fn asks_first_port(&self) -> bool {
        match self {
            Probe::Http(_) | Probe::Listening => true,
            Probe::Page(page) => page.port.is_none(),
            Probe::All(probes) => probes.iter().any(Probe::asks_first_port),
            Probe::Tcp(_) | Probe::Uptime(_) | Probe::Command(_) => false,
        }
    }
}

impl Page {
    /// The page at `path`, whatever it says.
    pub fn of(path: &str) -> Self {
        Self { path: path.to_owned(), ..Self::default() }
    }

    /// Whether it can be asked for: nothing in it ends a line of HTTP.
    pub fn is_sound(&self) -> bool {
        let plain = |text: &str| text.len() <= LONGEST && !text.contains(|c: char| c.is_control());
        let word = |text: &str| !text.is_empty() && plain(text) && !text.contains(char::is_whitespace);
        let token = |text: &str| word(text) && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        self.path.starts_with('/')
            && word(&self.path)
            && self.host.as_deref().is_none_or(|host| word(host) && !host.contains(['/', '@']))
            && self.headers.iter().all(|(name, value)| token(name) && plain(value))
            && self.content.as_deref().is_none_or(|content| content.len() <= LONGEST)
    }

    /// The simplest probe that asks for it.
    pub fn probe(self) -> Probe {
        if self == Self::of(&self.path) { Probe::Http(self.path) } else { Probe::Page(Box::new(self)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_page_ends_a_line_of_its_request() {
        let header = |name: &str, value: &str| Page {
            headers: BTreeMap::from([(name.to_owned(), value.to_owned())]),
            ..Page::of("/")
        };
        for good in [Page::of("/a?b=c"), header("X-Forwarded-Proto", "https, x")] {
            assert!(good.is_sound(), "{good:?}");
        }
        let host = Page { host: Some("a b".into()), ..Page::of("/") };
        for bad in
            [Page::of("a"), Page::of("/ x"), Page::of("/\r\nX: y"), header("A:", "b"), header("A", "b\r\nC: d"), host]
        {
            assert!(!bad.is_sound(), "{bad:?}");
        }
    }
}
