//! What the machine has left.

use std::path::Path;

use super::HqError;
use crate::units::Megabytes;

/// Refuses when less than `needed` megabytes are free on the disk that holds `path`.
///
/// # Errors
/// [`HqError::Full`] with both figures. A disk that cannot be asked counts as free: the write itself will tell.
pub fn check_space(path: &Path, needed: u64) -> Result<(), HqError> {
    let Ok(disk) = rustix::fs::statvfs(path) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize) / (1024 * 1024);
    if free < needed {
        return Err(HqError::Full { path: path.display().to_string(), free, needed });
    }
    Ok(())
}

/// The server's memory.
pub fn memory() -> Megabytes {
    let info = rustix::system::sysinfo();
    let bytes = (info.totalram as u64).saturating_mul(info.mem_unit.into());
    Megabytes((bytes / (1024 * 1024)).max(1))
}
