//! Servers beside HQ, as `bin/lab` makes them on this machine.

use std::process::Command;

use super::end;
use super::program::done;

/// Servers 1, 2, …; they go at the end.
pub struct Lab {
    id: String,
}

impl Lab {
    pub fn up(count: usize) -> Self {
        let (owner, count) = (std::process::id().to_string(), count.to_string());
        let id = done(command().args(["take", &owner, &count])).trim().to_owned();
        let gone = id.clone();
        end::later(move || drop(command().env("QUARRY_LAB", gone).arg("down").output()));
        Self { id }
    }

    /// Where HQ logs in, as root.
    pub fn address(&self, number: u8) -> String {
        format!("root@10.77.{}.{}", self.id, 10 + number)
    }

    /// The private key that every server lets in.
    pub fn key(&self) -> String {
        format!("/var/tmp/quarry-lab/{}/key", self.id)
    }

    /// Bytes that have come in over a server's cable.
    pub fn received(&self, number: u8) -> u64 {
        let words = ["ssh", &number.to_string(), "cat /sys/class/net/eth0/statistics/rx_bytes"];
        done(command().env("QUARRY_LAB", &self.id).args(words)).trim().parse().unwrap()
    }
}

fn command() -> Command {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/bin/lab"))
}
