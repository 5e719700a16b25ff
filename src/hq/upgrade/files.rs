//! The mark of a program on trial, in the root folder: it outlives the process, whatever ends that. Its name tells whether
//! the trial has begun, so that no disk is too full to note it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::process::{before, take_back};

/// Somebody has put a program in HQ's place, and it has yet to be started.
const DUE: &str = "hq.trial";
/// It has been started.
const BEGUN: &str = "hq.trial-begun";

/// What the mark says.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    /// HQ's place.
    program: PathBuf,
    /// What was put there.
    file: Print,
}

/// What a file has in common with no other that may lie in its place.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Print {
    inode: u64,
    length: u64,
    seconds: i64,
    nanoseconds: i64,
}

/// What a start of HQ finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing is on trial.
    Nothing,
    /// This start is the trial.
    Begins(Trial),
    /// So was one before, and HQ has not come to serve.
    Failed(Trial),
}

/// A program is on trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    root: PathBuf,
    /// HQ's place.
    pub program: PathBuf,
}

/// Puts on trial what is to lie in HQ's place, `program`, and lies at `new`.
///
/// # Errors
/// What the disk says.
pub fn begin(root: &Path, program: &Path, new: &Path) -> io::Result<()> {
    let mark = Mark { program: program.to_owned(), file: print(new)? };
    let (part, due) = (root.join(format!("{DUE}.part")), root.join(DUE));
    let mut file = File::create(&part)?;
    file.write_all(&serde_json::to_vec(&mark)?)?;
    file.sync_all()?;
    remove(&root.join(BEGUN))?;
    fs::rename(part, due)
}

/// Looks for a mark, and notes that its trial begins with this.
pub fn find(root: &Path) -> Found {
    let (due, begun) = (root.join(DUE), root.join(BEGUN));
    // A trial that is due is a newer one.
    let (path, is_first) = if due.exists() { (&due, true) } else { (&begun, false) };
    let mark = fs::read(path).ok().and_then(|text| serde_json::from_slice::<Mark>(&text).ok());
    // Where something else lies in the place by now, or nothing to go back to, nobody has to be sent back.
    let mark = mark.filter(|mark| print(&mark.program).is_ok_and(|file| file == mark.file));
    let Some(Mark { program, .. }) = mark.filter(|mark| before(&mark.program).exists()) else {
        let _ = remove(path);
        return Found::Nothing;
    };
    let trial = Trial { root: root.to_owned(), program };
    match is_first {
        // Where this cannot be noted, the next start tries once more.
        true => {
            let _ = fs::rename(due, begun);
            Found::Begins(trial)
        }
        false => Found::Failed(trial),
    }
}

impl Trial {
    /// It serves: it is HQ from now on.
    pub fn passed(&self) {
        // Where it stays, the next start ends by going back, and says so.
        let _ = remove(&self.root.join(BEGUN));
    }

    /// Somebody has ended it before it could serve: the next start is its trial.
    pub fn postponed(&self) {
        let _ = fs::rename(self.root.join(BEGUN), self.root.join(DUE));
    }

    /// The program of before is HQ again.
    ///
    /// # Errors
    /// What the disk says.
    pub fn failed(&self) -> io::Result<()> {
        take_back(&self.program)?;
        // One that stays tells of a file that lies there no more.
        let _ = remove(&self.root.join(BEGUN));
        Ok(())
    }
}

fn print(path: &Path) -> io::Result<Print> {
    let metadata = fs::metadata(path)?;
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    Ok(Print { inode: metadata.ino(), length: metadata.len(), seconds, nanoseconds })
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder in which `new` is on trial and `old` is kept.
    fn on_trial() -> (tempfile::TempDir, Trial) {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("quarry");
        fs::write(before(&program), "old").unwrap();
        fs::write(&program, "new").unwrap();
        begin(root.path(), &program, &program).unwrap();
        let trial = Trial { root: root.path().to_owned(), program };
        (root, trial)
    }

    #[test]
    fn the_second_start_of_a_program_that_never_served_is_none() {
        let (root, trial) = on_trial();
        assert_eq!(find(root.path()), Found::Begins(trial.clone()));
        assert_eq!(find(root.path()), Found::Failed(trial.clone()));
        trial.failed().unwrap();
        assert_eq!(fs::read_to_string(&trial.program).unwrap(), "old");
        assert_eq!(find(root.path()), Found::Nothing);
    }

    #[test]
    fn a_program_that_serves_or_was_ended_by_somebody_has_not_failed() {
        let (root, trial) = on_trial();
        assert_eq!(find(root.path()), Found::Begins(trial.clone()));
        trial.postponed();
        assert_eq!(find(root.path()), Found::Begins(trial.clone()));
        trial.passed();
        assert_eq!(find(root.path()), Found::Nothing);
    }

    #[test]
    fn nobody_is_sent_back_from_another_program_or_to_none() {
        let (root, trial) = on_trial();
        find(root.path());
        fs::write(root.path().join("mended"), "mended").unwrap();
        fs::rename(root.path().join("mended"), &trial.program).unwrap();
        assert_eq!(find(root.path()), Found::Nothing);
        let (root, trial) = on_trial();
        find(root.path());
        fs::remove_file(before(&trial.program)).unwrap();
        assert_eq!(find(root.path()), Found::Nothing);
        fs::write(root.path().join(BEGUN), "x").unwrap();
        assert_eq!(find(root.path()), Found::Nothing);
    }
}
