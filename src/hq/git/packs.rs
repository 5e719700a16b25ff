//! Packs: each push leaves one, and here they are put together.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use jiff::Timestamp;

use crate::build::limits;
use crate::hq::git::push::{MEMORY, TIME};
use crate::hq::git::{GitError, command, file_error};

/// Objects that nothing leads to stay for so long: those of a push under way are among them.
const LOST: &str = "2.days.ago";

/// What is left free on the disk, in bytes.
const SPARE: u64 = 64 << 20;

/// In the repository: says by its age when that was last done, or tried.
const STAMP: &str = "quarry-packed";

/// The packs of a repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packs {
    /// How many.
    pub count: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// When the oldest came; `None` without any.
    pub first: Option<Timestamp>,
    /// When they were last put together, or that was tried.
    pub tried: Option<Timestamp>,
}

impl Packs {
    /// Those of the repository at `path`; none where there is no repository.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn of(path: &Path) -> Result<Self, GitError> {
        let folder = path.join("objects/pack");
        let error = |source| file_error("list", &folder, source);
        let entries = match fs::read_dir(&folder) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            entries => entries.map_err(error)?,
        };
        let mut packs = Self::default();
        for entry in entries {
            let entry = entry.map_err(error)?;
            // One that a push or a collection takes away meanwhile is none.
            let Some(found) = entry.metadata().ok().filter(|_| entry.path().extension().is_some_and(|is| is == "pack"))
            else {
                continue;
            };
            packs.count += 1;
            packs.bytes += found.len();
            packs.first = packs.first.into_iter().chain(time(found.modified())).min();
        }
        let stamp = fs::metadata(path.join(STAMP)).and_then(|found| found.modified());
        packs.tried = time(stamp);
        Ok(packs)
    }
}

fn time(time: io::Result<SystemTime>) -> Option<Timestamp> {
    Timestamp::try_from(time.ok()?).ok()
}

/// Makes one pack of the packs at `path`, and one more of what nothing leads to; of that, what is old goes. Whoever reads or
/// pushes meanwhile is not disturbed. Waits.
///
/// # Errors
/// What git says, or the disk is too full for it.
pub fn put_together(path: &Path, packs: &Packs) -> Result<(), GitError> {
    // First: what fails is not tried again at once.
    let stamp = path.join(STAMP);
    fs::write(&stamp, "").map_err(|source| file_error("write", &stamp, source))?;
    if limits::free(path).is_some_and(|free| free < packs.bytes.saturating_add(SPARE)) {
        let full = io::Error::new(io::ErrorKind::StorageFull, "the disk has no room for a second copy");
        return Err(file_error("put the packs together in", path, full));
    }
    let expire = format!("--cruft-expiration={LOST}");
    run(path, &["repack", "-d", "-q", "--cruft", &expire])?;
    run(path, &["prune", &format!("--expire={LOST}")])
}

fn run(path: &Path, words: &[&str]) -> Result<(), GitError> {
    let own = command(path);
    let mut git = Command::new("nice");
    git.args(["prlimit", &format!("--data={MEMORY}"), &format!("--cpu={TIME}"), "--"]);
    git.arg(own.get_program()).args(own.get_args()).env_clear();
    git.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    git.args(["-c", "pack.threads=1", "-c", "pack.windowMemory=256m"]).args(words);
    let error = |source| file_error("put the packs together in", path, source);
    let done = git.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0).output().map_err(error)?;
    match done.status.success() {
        true => Ok(()),
        false => Err(error(io::Error::other(String::from_utf8_lossy(&done.stderr).trim().to_owned()))),
    }
}
