//! What an agent tells of its server.

use serde::{Deserialize, Serialize};

use super::config::{Applied, Turn};
use crate::docker::Container;
use crate::network::act::Standing;
use crate::units::Megabytes;

/// How a server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vitals {
    /// The agent's version.
    pub version: String,
    /// SHA-256 of the program it runs, in hexadecimal; empty until it is known, a moment after its start.
    pub program: String,
    /// What the machine measures.
    pub machine: Machine,
    /// Its docker.
    pub docker: Docker,
    /// How locknet's rules stand; `None` when that cannot be seen.
    pub locknet: Option<Standing>,
    /// The configuration it was told last, and what became of it.
    pub config: Option<Applied>,
    /// The turn of the router's tables; `None` until it has been told some since its start.
    pub routes: Option<Turn>,
}

/// A machine's own figures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Changes with each boot.
    pub boot: String,
    /// Seconds since then.
    pub uptime: u64,
    /// Processes that wanted to run in the last minute, on average, in hundredths.
    pub load: u32,
    /// Its memory; free is what programs can have.
    pub memory: Space,
    /// The disk docker's data is on.
    pub disk: Space,
}

/// So much of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// In all.
    pub total: Megabytes,
    /// Of it not in use.
    pub free: Megabytes,
}

impl Default for Space {
    /// Nothing is known.
    fn default() -> Self {
        Self { total: Megabytes(0), free: Megabytes(0) }
    }
}

/// What is known of a server's docker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Docker {
    /// It answers, and has these containers of HQ's, by name.
    Answers(Vec<Container>),
    /// It does not.
    Silent(String),
}

impl Machine {
    /// Reads what the kernel shows in `/proc`: `sys/kernel/random/boot_id`, `uptime`, `loadavg`, `meminfo`. What cannot
    /// be read is nothing.
    pub fn parse(boot: &str, uptime: &str, loadavg: &str, meminfo: &str) -> Self {
        let whole = |text: &str| text.split(['.', ' ']).next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let kilobytes = |name: &str| -> u64 {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
        };
        Self {
            boot: boot.trim().to_owned(),
            uptime: whole(uptime),
            load: hundredths(loadavg.split(' ').next().unwrap_or_default()),
            memory: Space {
                total: Megabytes(kilobytes("MemTotal") / 1024),
                free: Megabytes(kilobytes("MemAvailable") / 1024),
            },
            disk: Space::default(),
        }
    }
}

/// `1.25` is 125.
fn hundredths(text: &str) -> u32 {
    let (whole, part) = text.trim().split_once('.').unwrap_or((text, "0"));
    let part = format!("{part:0<2}");
    let number = |text: &str| text.parse::<u32>().ok();
    let whole = number(whole).and_then(|whole| whole.checked_mul(100));
    whole.zip(part.get(..2).and_then(number)).and_then(|(whole, part)| whole.checked_add(part)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read() {
        let machine = Machine::parse(
            "6c5d\n",
            "4242.77 100.00\n",
            "1.07 0.5 0.25 2/300 1234\n",
            "MemTotal:       2048000 kB\nMemFree:  1 kB\nMemAvailable:   1024000 kB\n",
        );
        let memory = Space { total: Megabytes(2000), free: Megabytes(1000) };
        assert_eq!(machine, Machine { boot: "6c5d".into(), uptime: 4242, load: 107, memory, disk: Space::default() });
        assert_eq!(Machine::parse("", "", "", ""), Machine::default());
    }

    #[test]
    fn loads_keep_two_places() {
        for (text, expected) in [("0.00", 0), ("1.5", 150), ("12", 1200), ("3.999", 399), ("x", 0), ("99999999.0", 0)] {
            assert_eq!(hundredths(text), expected, "{text}");
        }
    }
}
