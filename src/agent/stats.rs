//! The machine's figures, from the kernel.

use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::vitals::{Machine, Space};
use crate::units::Megabytes;
use crate::units::hex::hex;

/// Where docker keeps what it has.
const DOCKER: &str = "/var/lib/docker";

/// Now. What cannot be read is nothing.
pub fn measure() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let boot = read("/proc/sys/kernel/random/boot_id");
    let machine = Machine::parse(&boot, &read("/proc/uptime"), &read("/proc/loadavg"), &read("/proc/meminfo"));
    let place = if Path::new(DOCKER).exists() { DOCKER } else { "/" };
    Machine { disk: space(place), ..machine }
}

fn space(place: &str) -> Space {
    let Ok(found) = rustix::fs::statvfs(place) else { return Space::default() };
    let megabytes = |blocks: u64| Megabytes((blocks.saturating_mul(found.f_frsize)) >> 20);
    Space { total: megabytes(found.f_blocks), free: megabytes(found.f_bavail) }
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// It cannot be read.
pub fn digest(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash)?;
    Ok(hex(hash.finalize()))
}
