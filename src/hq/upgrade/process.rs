//! Programs on the disk: tried, put in the place of the one that runs, and taken back.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::UpgradeError;

/// How long a program may take to look around.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a program that works says first.
const GREETING: &str = "quarry ";

/// Has a program look whether it could be this HQ; gives its version.
///
/// # Errors
/// [`UpgradeError::Unfit`] with its last words.
pub async fn rehearse(program: &Path, root: &Path, etc: &Path) -> Result<String, UpgradeError> {
    let unfit = |why: String| UpgradeError::Unfit { program: program.to_owned(), why };
    let mut command = Command::new(program);
    command.args(["serve", "--rehearse"]).arg("--root").arg(root).arg("--etc").arg(etc);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = match timeout(PATIENCE, command.output()).await {
        Ok(output) => output.map_err(|error| unfit(error.to_string()))?,
        Err(_) => return Err(unfit("it does not end".to_owned())),
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = said.lines().next().and_then(|line| line.strip_prefix(GREETING)).map(str::to_owned);
    match version.filter(|_| output.status.success()) {
        Some(version) => Ok(version),
        None => {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(unfit(if words.is_empty() { "it is no quarry that can be upgraded to".to_owned() } else { words }))
        }
    }
}

/// Where the program before the last upgrade is.
pub fn before(program: &Path) -> PathBuf {
    beside(program, "before")
}

fn beside(program: &Path, ending: &str) -> PathBuf {
    let mut name = program.as_os_str().to_owned();
    name.push(format!(".{ending}"));
    name.into()
}

/// Puts `new` in the place of `program` in one step; that one is kept beside it. Blocks.
///
/// # Errors
/// What the disk says; `program` is as it was.
pub fn install(new: &Path, program: &Path) -> Result<(), UpgradeError> {
    let at = |doing, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| UpgradeError::File { doing, path, source }
    };
    if is_same(new, program) {
        return Ok(());
    }
    let (arriving, kept) = (beside(program, "new"), before(program));
    fs::copy(new, &arriving).map_err(at("copy the new program to", &arriving))?;
    fs::set_permissions(&arriving, fs::Permissions::from_mode(0o755)).map_err(at("make executable", &arriving))?;
    File::open(&arriving).and_then(|file| file.sync_all()).map_err(at("keep", &arriving))?;
    match fs::remove_file(&kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at("replace", &kept)(error)),
        Ok(()) | Err(_) => {}
    }
    match fs::hard_link(program, &kept) {
        // Somebody has taken it away: then there is none to keep.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at("keep", &kept)(error)),
        Ok(()) | Err(_) => {}
    }
    fs::rename(&arriving, program).map_err(at("replace", program))
}

fn is_same(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    file(one).is_some() && file(one) == file(other)
}

/// The program of before is the one again. Blocks.
///
/// # Errors
/// What the disk says.
pub fn take_back(program: &Path) -> io::Result<()> {
    fs::rename(before(program), program)
}

/// Whether the program that runs has the content of this file. Blocks.
///
/// # Errors
/// What the disk says.
pub fn is_own(path: &Path) -> io::Result<bool> {
    let own = File::open("/proc/self/exe")?;
    let other = File::open(path)?;
    if own.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut own, mut other) = (BufReader::with_capacity(CHUNK, own), BufReader::with_capacity(CHUNK, other));
    loop {
        let (one, two) = (own.fill_buf()?, other.fill_buf()?);
        let length = one.len().min(two.len());
        if one[..length] != two[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(one.is_empty() && two.is_empty());
        }
        own.consume(length);
        other.consume(length);
    }
}

/// Bytes that are compared at once.
const CHUNK: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_replaced_in_one_step_and_can_be_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let (new, program) = (dir.path().join("download"), dir.path().join("quarry"));
        fs::write(&program, "one").unwrap();
        for (text, kept) in [("two", "one"), ("three", "two")] {
            fs::write(&new, text).unwrap();
            install(&new, &program).unwrap();
            assert_eq!(fs::read_to_string(&program).unwrap(), text);
            assert_eq!(fs::read_to_string(before(&program)).unwrap(), kept);
        }
        assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
        // What lies there already is not the one before.
        install(&program, &program).unwrap();
        assert_eq!(fs::read_to_string(before(&program)).unwrap(), "two");
        take_back(&program).unwrap();
        assert_eq!(fs::read_to_string(&program).unwrap(), "two");
        assert!(take_back(&program).is_err());
    }

    #[tokio::test]
    async fn what_is_no_quarry_is_refused_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("other");
        fs::write(&program, "#!/bin/sh\necho 'wrong machine' >&2\nexit 1\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let error = rehearse(&program, dir.path(), dir.path()).await.unwrap_err().to_string();
        assert!(error.ends_with("does not work here: wrong machine"), "{error}");
        fs::write(&program, "#!/bin/sh\necho 'hello'\n").unwrap();
        assert!(rehearse(&program, dir.path(), dir.path()).await.is_err());
        assert!(rehearse(Path::new("/etc/hostname"), dir.path(), dir.path()).await.is_err());
    }
}
