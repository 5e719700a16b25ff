//! What the machine has left.

use std::path::Path;

use super::HqError;
use crate::build::limits::free;
use crate::grid::Standing;
use crate::servers::Record;
use crate::units::{Megabytes, MilliCpus};

/// Refuses when less than `needed` megabytes are free on the disk that holds `path`.
///
/// # Errors
/// [`HqError::Full`] with both figures. A disk that cannot be asked counts as free: the write itself will tell.
pub fn check_space(path: &Path, needed: u64) -> Result<(), HqError> {
    let Some(free) = free(path).map(|bytes| bytes >> 20) else { return Ok(()) };
    if free < needed {
        return Err(HqError::Full { path: path.display().to_string(), free, needed });
    }
    Ok(())
}

/// The server's processors.
pub fn processors() -> MilliCpus {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    MilliCpus(u32::try_from(count).unwrap_or(u32::MAX).saturating_mul(1000))
}

/// The server's memory.
pub fn memory() -> Megabytes {
    let info = rustix::system::sysinfo();
    let bytes = (info.totalram as u64).saturating_mul(info.mem_unit.into());
    Megabytes((bytes / (1024 * 1024)).max(1))
}

/// HQ's own server as long as nobody has changed anything about it.
pub fn own_record() -> Record {
    Record {
        way: None,
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        tags: Default::default(),
        size: memory(),
        memory: memory(),
        processors: processors().0 / 1000,
        architecture: std::env::consts::ARCH.into(),
        standing: Standing::Up,
        order: None,
    }
}
