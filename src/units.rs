//! Quantities with their units, as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub mod hex;
pub mod net;
pub mod port;
pub mod random;

/// A quantity that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is {}{what}", if *bounded { "" } else { "not " })]
pub struct BadUnit {
    /// What came.
    pub given: String,
    /// What was expected, with an example; or which bound it breaks.
    pub what: &'static str,
    /// It is a quantity, but one that is too small or too large.
    pub bounded: bool,
}

/// Text that is no such quantity.
fn no(given: &str, what: &'static str) -> BadUnit {
    BadUnit { given: given.to_owned(), what, bounded: false }
}

/// A quantity beyond a bound.
fn beyond(given: &str, what: &'static str) -> BadUnit {
    BadUnit { given: given.to_owned(), what, bounded: true }
}

/// Memory in mebibytes; at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Megabytes(pub u64);

impl Megabytes {
    /// The same in bytes.
    pub fn bytes(self) -> u64 {
        self.0 * 1024 * 1024
    }
}

impl fmt::Display for Megabytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}mb", self.0)
    }
}

impl FromStr for Megabytes {
    type Err = BadUnit;
    /// `256`, `256m`, `256mb`, `1g`, `1gb`, `1.5g`; letters in either case.
    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let error = || no(text, "an amount of memory such as `256mb` or `1g`");
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match &lower[digits.len()..] {
            "" | "m" | "mb" | "mib" => 1.0,
            "g" | "gb" | "gib" => 1024.0,
            "t" | "tb" | "tib" => 1024.0 * 1024.0,
            "k" | "kb" | "kib" => 1.0 / 1024.0,
            "b" => 1.0 / 1024.0 / 1024.0,
            _ => return Err(error()),
        };
        let number: f64 = digits.trim().parse().map_err(|_| error())?;
        let megabytes = (number * factor).round();
        match megabytes {
            1.0..=1e9 => Ok(Self(megabytes as u64)),
            0.0..1.0 => Err(beyond(text, "too little memory: at least `1mb`")),
            _ if megabytes > 1e9 => Err(beyond(text, "too much memory: at most `950tb`")),
            _ => Err(error()),
        }
    }
}

/// A share of processors in thousandths: 1500 is one and a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MilliCpus(pub u32);

impl fmt::Display for MilliCpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1000.0)
    }
}

impl FromStr for MilliCpus {
    type Err = BadUnit;
    /// `2`, `0.5`, `500m`; from 0.01 to 1024 processors.
    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let error = || no(text, "a number of processors such as `0.5` or `2`");
        let thousandths = match text.strip_suffix('m') {
            Some(milli) => milli.parse::<f64>().map_err(|_| error())?,
            None => text.parse::<f64>().map_err(|_| error())? * 1000.0,
        };
        if (10.0..=1_024_000.0).contains(&thousandths) { Ok(Self(thousandths.round() as u32)) } else { Err(error()) }
    }
}

/// A length of time in milliseconds, at most a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// Whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds * 1000)
    }

    /// The same as a [`Duration`].
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms < 1000 => write!(f, "{ms}ms"),
            ms if ms < 60_000 => write!(f, "{}s", ms as f64 / 1000.0),
            ms => write!(f, "{}m{}s", ms / 60_000, ms % 60_000 / 1000),
        }
    }
}

impl FromStr for Millis {
    type Err = BadUnit;
    /// `10` (seconds), `10s`, `500ms`, `2m`, `1h`.
    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let error = || no(text, "a length of time such as `10s`, `500ms` or `2m`");
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match &lower[digits.len()..] {
            "ms" => 1.0,
            "" | "s" | "sec" => 1000.0,
            "m" | "min" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return Err(error()),
        };
        let number: f64 = digits.trim().parse().map_err(|_| error())?;
        let millis = (number * factor).round();
        match millis {
            0.0..=86_400_000.0 => Ok(Self(millis as u64)),
            _ if millis > 86_400_000.0 => Err(beyond(text, "too long: at most a day, `24h`")),
            _ => Err(error()),
        }
    }
}

/// What a container that is routed speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1, and WebSockets.
    #[default]
    Http,
    /// HTTP/2 without TLS, as gRPC does.
    Grpc,
}

impl Protocol {
    /// Whether it is what everybody speaks, who says nothing else.
    pub fn is_usual(&self) -> bool {
        *self == Self::Http
    }
}

/// How connections are spread among the containers of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// In turn.
    #[default]
    RoundRobin,
    /// To whoever has the fewest open ones.
    LeastConnections,
}

impl Balance {
    /// Whether it is what happens when nothing is said.
    pub fn is_usual(&self) -> bool {
        *self == Self::RoundRobin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr<Err = BadUnit> + PartialEq + fmt::Debug>(text: &str, expected: Option<T>) {
        assert_eq!(text.parse::<T>().ok(), expected, "{text:?}");
    }

    #[test]
    fn memory_is_read_with_and_without_units() {
        check("256", Some(Megabytes(256)));
        check("256MB", Some(Megabytes(256)));
        check("1.5g", Some(Megabytes(1536)));
        for wrong in ["", "0", "-1", "x", "1kb", "NaN", "inf", "1e99g"] {
            check::<Megabytes>(wrong, None);
        }
    }

    #[test]
    fn processors_and_times_are_read_with_and_without_units() {
        check("0.5", Some(MilliCpus(500)));
        check("250m", Some(MilliCpus(250)));
        check::<MilliCpus>("0", None);
        check("10", Some(Millis(10_000)));
        check("500ms", Some(Millis(500)));
        check("2m", Some(Millis(120_000)));
        check::<Millis>("-1s", None);
        check("1d", Some(Millis(86_400_000)));
        check::<Millis>("2d", None);
        let told = |error: BadUnit| error.to_string();
        assert_eq!("9999h".parse::<Millis>().map_err(told), Err("`9999h` is too long: at most a day, `24h`".into()));
        assert_eq!("1kb".parse::<Megabytes>().map_err(told), Err("`1kb` is too little memory: at least `1mb`".into()));
        assert!("9s9".parse::<Millis>().unwrap_err().to_string().starts_with("`9s9` is not a length of time"));
    }
}
