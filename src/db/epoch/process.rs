//! Who this process is.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;

use super::Claimant;

/// A number of its own for each start of the machine.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// This process as the holder of the root folder, whose lock it has.
///
/// # Errors
/// When the folder is not there.
pub fn claimant(root: &Path, since: Timestamp) -> io::Result<Claimant> {
    let folder = fs::metadata(root)?;
    let boot = fs::read_to_string(BOOT)?;
    Ok(Claimant {
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        pid: std::process::id(),
        since,
        place: format!("{} {}:{}", boot.trim(), folder.dev(), folder.ino()),
    })
}
