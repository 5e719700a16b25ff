//! What the router does with a request besides passing it on: the rules of a node, which come with its release, and the
//! orders of a stack, which people give by commands and which outlive releases.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{Domain, NodeName};
use crate::units::net::Net;
use crate::units::{Megabytes, Millis};

mod hsts;
mod login;
mod rate;
mod snippet;
mod status;

pub use hsts::Hsts;
pub use login::{Hash, Login};
pub use rate::Rate;
pub use snippet::{BadSnippet, Snippet};
pub use status::Status;

/// The longest page of one's own, in bytes, and all of a stack together: they travel with its table.
pub const LONGEST_PAGE: usize = 32 * 1024;
/// See [`LONGEST_PAGE`].
pub const LONGEST_PAGES: usize = 128 * 1024;

/// How the router treats the requests of one node. The default passes everything on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// Domains of the node that only lead to another one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub redirect: BTreeMap<Domain, Domain>,
    /// The largest body of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Megabytes>,
    /// How long the app may be silent before the router gives up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Millis>,
    /// Requests and answers are collected first, so that slow visitors do not hold up the app.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub buffering: bool,
    /// Who may come in, by name; everybody where it is empty.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub auth: BTreeMap<Login, Hash>,
    /// From where one may come; from everywhere where it is empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Net>,
    /// From where nobody may come. It counts before `allow`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Net>,
    /// How many requests one client may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// How long browsers are to come by HTTPS only; a week without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hsts: Option<Hsts>,
    /// Pages of one's own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pages: BTreeMap<Status, String>,
    /// Directives of nginx's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snippet: Option<Snippet>,
}

impl Rules {
    /// Whether everything is passed on as it is.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// `stacks/<stack>/front.json`: what people have ordered of a stack's routing. Releases come and go beneath it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Front {
    /// Domains beside those of quarry.yml.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub domains: BTreeMap<Domain, NodeName>,
    /// Domains of the stack that lead to another one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub redirects: BTreeMap<Domain, Domain>,
    /// Whether requests are passed on at all.
    #[serde(skip_serializing_if = "Mode::is_open")]
    pub mode: Mode,
}

/// Whether requests reach a stack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum Mode {
    /// They do.
    #[default]
    Open,
    /// They are answered with a page that says so.
    Maintenance {
        /// One's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        page: Option<String>,
    },
    /// They wait until the stack is open again.
    Paused {
        /// Each of them for so long at most.
        hold: Millis,
    },
}

impl Mode {
    /// Whether requests are passed on.
    pub fn is_open(&self) -> bool {
        *self == Mode::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asked_for_is_not_written() {
        assert_eq!(serde_json::to_string(&Rules::default()).unwrap(), "{}");
        assert_eq!(serde_json::to_string(&Front::default()).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<Rules>("{}").unwrap(), Rules::default());
    }

    #[test]
    fn orders_read_back() {
        let modes = [
            (Mode::Open, r#"{"is":"open"}"#),
            (Mode::Maintenance { page: Some("x".into()) }, r#"{"is":"maintenance","page":"x"}"#),
            (Mode::Maintenance { page: None }, r#"{"is":"maintenance"}"#),
            (Mode::Paused { hold: Millis::seconds(5) }, r#"{"is":"paused","hold":5000}"#),
        ];
        for (mode, json) in modes {
            assert_eq!(serde_json::to_string(&mode).unwrap(), json);
            assert_eq!(serde_json::from_str::<Mode>(json).unwrap(), mode);
        }
    }
}
