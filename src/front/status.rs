//! The statuses that the router itself answers with.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One of [`Status::ALL`]. As text in JSON, because it is a key there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Status(u16);

/// Another number, or none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the router itself answers only with {}", Status::ALL.map(|status| status.to_string()).join(", "))]
pub struct BadStatus;

impl Status {
    /// All there are.
    pub const ALL: [u16; 9] = [401, 403, 404, 411, 413, 429, 502, 503, 504];
}

impl FromStr for Status {
    type Err = BadStatus;
    fn from_str(text: &str) -> Result<Self, BadStatus> {
        let known = Self::ALL.into_iter().find(|status| status.to_string() == text);
        known.map(Self).ok_or(BadStatus)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Status {
    type Error = BadStatus;
    fn try_from(text: String) -> Result<Self, BadStatus> {
        text.parse()
    }
}

impl From<Status> for String {
    fn from(status: Status) -> Self {
        status.to_string()
    }
}
