//! How many requests one client may send.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::printable::excerpt;

/// So many requests in a second, minute or hour from one address, and so many more at once. As text `10/s`, `600/m
/// burst 50`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Requests, at least one.
    pub count: u32,
    /// In so many seconds: 1, 60 or 3600.
    pub per: u32,
    /// How many may come at once; as many as `count` when nothing is said.
    pub burst: u32,
}

/// A text that is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no rate of requests such as `10/s`, `600/m` or `10/s burst 50`, at most a million")]
pub struct BadRate(String);

const MOST: u32 = 1_000_000;

impl FromStr for Rate {
    type Err = BadRate;
    fn from_str(text: &str) -> Result<Self, BadRate> {
        let bad = || BadRate(excerpt(text, 60));
        let number = |text: &str| {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|count| plain && (1..=MOST).contains(count))
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (rate, burst) = match words[..] {
            [rate] => (rate, None),
            [rate, "burst", burst] => (rate, Some(number(burst).ok_or_else(bad)?)),
            _ => return Err(bad()),
        };
        let (count, unit) = rate.split_once('/').ok_or_else(bad)?;
        let count = number(count).ok_or_else(bad)?;
        let per = match unit {
            "s" | "second" => 1,
            "m" | "min" | "minute" => 60,
            "h" | "hour" => 3600,
            _ => return Err(bad()),
        };
        Ok(Self { count, per, burst: burst.unwrap_or(count) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit} burst {}", self.count, self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_read_back() {
        for (text, count, per, burst) in [("10/s", 10, 1, 10), ("600/m burst 5", 600, 60, 5), ("1/hour", 1, 3600, 1)] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate, Rate { count, per, burst });
            assert_eq!(rate.to_string().parse(), Ok(rate));
        }
        for wrong in ["", "10", "0/s", "10/d", "10/s burst", "10/s burst 0", "+1/s", "9999999/s", "10/s 5"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
