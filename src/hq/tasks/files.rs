//! What runs have printed: `stacks/<stack>/logs/<node>/<run>.log` below HQ's root.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The longest output that is kept of a run, in bytes: its end.
pub const LONGEST: usize = 1 << 20;

/// Keeps a run's output.
///
/// # Errors
/// What the disk says.
pub fn keep(folder: &Path, number: u64, output: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{number}.log"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(output)
}

/// A run's output; `None` when none is kept.
///
/// # Errors
/// What the disk says.
pub fn read(folder: &Path, number: u64) -> io::Result<Option<Vec<u8>>> {
    match fs::read(folder.join(format!("{number}.log"))) {
        Ok(output) => Ok(Some(output)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the output of runs before this one.
///
/// # Errors
/// What the disk says.
pub fn drop_before(folder: &Path, oldest: u64) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        if number.is_some_and(|number| number < oldest) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_kept_for_the_runs_that_are() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("logs/nightly");
        drop_before(&folder, 9).unwrap();
        for number in 1..=3 {
            keep(&folder, number, format!("run {number}\n").as_bytes()).unwrap();
        }
        drop_before(&folder, 3).unwrap();
        assert_eq!(read(&folder, 2).unwrap(), None);
        assert_eq!(read(&folder, 3).unwrap().unwrap(), b"run 3\n");
    }
}
