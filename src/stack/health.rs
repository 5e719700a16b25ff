//! How a container shows that it is ready.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Command;
use super::mistakes::shown;
use crate::env::Env;
use crate::names::EnvName;
use crate::units::Millis;
use crate::units::port::Port;

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
    /// Whether it is asked on and on once it has come up, and made anew when it is sick.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lasting: bool,
}

impl Health {
    /// This probe, asked on and on, with the times that hold where none are named.
    pub fn of(probe: Probe) -> Self {
        Self { probe, interval: INTERVAL, timeout: TIMEOUT, retries: RETRIES, start: START, lasting: true }
    }

    /// What a node's variables say: `VIKING_HEALTH` of its first port, `VIKING_HEALTH_<port>` of another one, each `tcp`,
    /// `http`, or `http:/path`. `None` where they say nothing.
    ///
    /// # Errors
    /// The first name with what is wrong with it.
    pub fn by_env(env: &Env) -> Result<Option<Self>, (EnvName, String)> {
        let mut probes = Vec::new();
        for (name, value) in env.iter() {
            let Some(rest) = name.as_str().strip_prefix(VARIABLE) else { continue };
            let wrong = |what: String| (name.clone(), format!("`{name}` {what}"));
            let port = match rest.strip_prefix('_') {
                None if rest.is_empty() => None,
                None => continue,
                Some(port) => match port.parse::<Port>() {
                    Ok(port) => Some(port.number),
                    Err(_) => {
                        return Err(wrong("names no port from 1 to 65535, as VIKING_HEALTH_8080 does".to_owned()));
                    }
                },
            };
            let page = |path: &str| Page { port, ..Page::of(path) };
            let probe = match (value.split_once(':').unwrap_or((value, "/")), port) {
                (("tcp", "/"), Some(port)) => Probe::Tcp(port),
                (("tcp", "/"), None) => Probe::Listening,
                (("http", path), _) if page(path).is_sound() => page(path).probe(),
                _ => return Err(wrong(format!("is `tcp`, `http`, or `http:/path`, not {}", shown(value)))),
            };
            probes.push(probe);
        }
        Ok(Probe::all(probes).map(Self::of))
    }
}

/// The variable that says how a container shows that it is healthy.
const VARIABLE: &str = "VIKING_HEALTH";

/// Between two checks while it comes up. Short, because a deploy waits for it.
pub const INTERVAL: Millis = Millis(500);
/// For one check.
pub const TIMEOUT: Millis = Millis::seconds(5);
/// Failures in a row until it counts as sick.
pub const RETRIES: u32 = 3;
/// How long it may take to come up.
pub const START: Millis = Millis::seconds(60);

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
    fn variables_say_which_ports_are_asked_and_how() {
        let by_env = |pairs: &[(&str, &str)]| {
            let env: Env = pairs.iter().map(|(name, value)| (name.parse().unwrap(), (*value).to_owned())).collect();
            Health::by_env(&env).map(|health| health.map(|health| health.probe)).map_err(|(_, what)| what)
        };
        assert_eq!(by_env(&[("VIKING_FIXED", "1"), ("VIKING_HEALTHY", "x")]), Ok(None));
        assert_eq!(by_env(&[("VIKING_HEALTH", "tcp")]), Ok(Some(Probe::Listening)));
        assert_eq!(by_env(&[("VIKING_HEALTH", "http:/up?x=a:b")]), Ok(Some(Probe::Http("/up?x=a:b".into()))));
        let page = Page { port: Some(9000), ..Page::of("/") };
        assert_eq!(
            by_env(&[("VIKING_HEALTH_80", "tcp"), ("VIKING_HEALTH_9000", "http")]),
            Ok(Some(Probe::All(vec![Probe::Tcp(80), Probe::Page(Box::new(page))])))
        );
        for (name, value) in [
            ("VIKING_HEALTH", "https"),
            ("VIKING_HEALTH", "http:up"),
            ("VIKING_HEALTH", "http:/a b"),
            ("VIKING_HEALTH_0", "tcp"),
            ("VIKING_HEALTH_65536", "tcp"),
            ("VIKING_HEALTH_WEB", "tcp"),
        ] {
            let wrong = by_env(&[(name, value)]).unwrap_err();
            assert!(wrong.starts_with(&format!("`{name}` ")), "{wrong}");
        }
    }

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
