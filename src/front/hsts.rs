//! How long browsers are told to come by HTTPS only.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::printable::excerpt;

/// The header `Strict-Transport-Security`: as text `off`, or `1y`, `30d includeSubDomains preload`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hsts {
    /// In seconds; 0 takes back what browsers were told.
    seconds: u32,
    subdomains: bool,
    preload: bool,
}

/// A text that says nothing about HTTPS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither `off` nor a length of time such as `1y`, `30d` or `1y includeSubDomains preload`")]
pub struct BadHsts(String);

/// The longest: two years.
const LONGEST: u32 = 2 * 365 * 86_400;

impl FromStr for Hsts {
    type Err = BadHsts;
    fn from_str(text: &str) -> Result<Self, BadHsts> {
        let bad = || BadHsts(excerpt(text, 60));
        let lower = text.to_ascii_lowercase().replace([',', ';'], " ");
        let mut words = lower.split_whitespace();
        let first = words.next().ok_or_else(bad)?;
        let mut hsts = Self { seconds: seconds(first).ok_or_else(bad)?, subdomains: false, preload: false };
        for word in words {
            match word {
                "includesubdomains" | "subdomains" => hsts.subdomains = true,
                "preload" => hsts.preload = true,
                _ => return Err(bad()),
            }
        }
        Ok(hsts)
    }
}

fn seconds(text: &str) -> Option<u32> {
    if matches!(text, "off" | "no" | "false") {
        return Some(0);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "y" => 365 * 86_400,
        _ => return None,
    };
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse::<u32>().ok()?.checked_mul(unit).filter(|seconds| plain && *seconds <= LONGEST)
}

impl fmt::Display for Hsts {
    /// The header's value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "max-age={}", self.seconds)?;
        if self.subdomains {
            f.write_str("; includeSubDomains")?;
        }
        if self.preload {
            f.write_str("; preload")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Hsts {
    type Error = BadHsts;
    fn try_from(text: String) -> Result<Self, BadHsts> {
        text.strip_prefix("max-age=").unwrap_or(&text).parse()
    }
}

impl From<Hsts> for String {
    fn from(hsts: Hsts) -> Self {
        hsts.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_become_the_header_and_read_back() {
        let good = [
            ("off", "max-age=0"),
            ("1y", "max-age=31536000"),
            ("30d includeSubDomains preload", "max-age=2592000; includeSubDomains; preload"),
            ("60", "max-age=60"),
        ];
        for (text, header) in good {
            let hsts: Hsts = text.parse().unwrap();
            assert_eq!(hsts.to_string(), header);
            assert_eq!(Hsts::try_from(header.to_owned()), Ok(hsts));
        }
        for wrong in ["", "on", "3y", "-1", "+1", "1x", "1y; always", "99999999999"] {
            assert!(wrong.parse::<Hsts>().is_err(), "{wrong}");
        }
    }
}
