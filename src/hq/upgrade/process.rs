//! Programs on the disk: tried, put in the place of the one that runs, and taken back.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::{UpgradeError, files};

/// How long a program may take to look around.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a program that works says first.
const GREETING: &str = "quarry ";

/// A program that is to take HQ's place. What is tried is the copy that is put there, whatever becomes of the file that
/// was named.
#[derive(Debug)]
pub struct Arrival {
    named: PathBuf,
    /// HQ's place.
    program: PathBuf,
    /// Where it lies until it takes that; nothing where it lies there already.
    copy: Option<PathBuf>,
}

impl Arrival {
    /// Brings a program beside the place that it is to take. Blocks.
    ///
    /// # Errors
    /// [`UpgradeError::Unfit`] when there is no such file, or what the disk says.
    pub fn bring(named: &Path, program: &Path) -> Result<Self, UpgradeError> {
        let (named, program) = (named.to_owned(), program.to_owned());
        let unfit = |why: String| UpgradeError::Unfit { program: named.clone(), why };
        let metadata = fs::metadata(&named).map_err(|error| unfit(error.to_string()))?;
        if !metadata.is_file() {
            return Err(unfit("it is no file".to_owned()));
        }
        if is_same(&named, &program) {
            return Ok(Self { named, program, copy: None });
        }
        let copy = beside(&program, "new");
        duplicate(&named, &copy)?;
        Ok(Self { named, program, copy: Some(copy) })
    }

    /// Where it lies.
    fn file(&self) -> &Path {
        self.copy.as_deref().unwrap_or(&self.program)
    }

    /// Has it look whether it could be this HQ; gives its version.
    ///
    /// # Errors
    /// [`UpgradeError::Unfit`] with its last words.
    pub async fn rehearse(&self, root: &Path, etc: &Path) -> Result<String, UpgradeError> {
        let unfit = |why: String| UpgradeError::Unfit { program: self.named.clone(), why };
        let mut command = Command::new(self.file());
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

    /// Puts it in HQ's place in one step, on trial in the folder `root`. What runs, `running`, is kept beside it. Blocks.
    ///
    /// # Errors
    /// What the disk says; HQ's place is as it was.
    pub fn install(mut self, running: &Path, root: &Path) -> Result<(), UpgradeError> {
        keep(running, &self.program)?;
        files::begin(root, &self.program, self.file()).map_err(at("mark a trial in", root))?;
        if let Some(copy) = self.copy.take() {
            fs::rename(&copy, &self.program).map_err(at("replace", &self.program))?;
        }
        Ok(())
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if let Some(copy) = &self.copy {
            // The next one takes its place.
            let _ = fs::remove_file(copy);
        }
    }
}

/// The program that runs lies beside its place from now on. In the place itself somebody may have put another already.
fn keep(running: &Path, program: &Path) -> Result<(), UpgradeError> {
    let kept = before(program);
    if is_same(running, &kept) {
        return Ok(());
    }
    let part = beside(program, "before-part");
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at("remove", &part)(error)),
        Ok(()) | Err(_) => {}
    }
    match is_same(running, program) {
        true => fs::hard_link(program, &part).map_err(at("keep", &part))?,
        false => duplicate(running, &part)?,
    }
    fs::rename(&part, &kept).map_err(at("replace", &kept))
}

/// A copy that can be run, and is on the disk.
fn duplicate(from: &Path, to: &Path) -> Result<(), UpgradeError> {
    fs::copy(from, to).map_err(at("copy the program to", to))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).map_err(at("make executable", to))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(at("keep", to))
}

fn at<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> UpgradeError + 'a {
    move |source| UpgradeError::File { doing, path: path.to_owned(), source }
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
            let arrival = Arrival::bring(&new, &program).unwrap();
            // What was tried is what is put there.
            fs::write(&new, "changed since").unwrap();
            arrival.install(&program, dir.path()).unwrap();
            assert_eq!(fs::read_to_string(&program).unwrap(), text);
            assert_eq!(fs::read_to_string(before(&program)).unwrap(), kept);
        }
        assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
        take_back(&program).unwrap();
        assert_eq!(fs::read_to_string(&program).unwrap(), "two");
        assert!(take_back(&program).is_err());
        drop(Arrival::bring(&new, &program).unwrap());
        assert!(!beside(&program, "new").exists(), "what is given up leaves nothing");
    }

    #[test]
    fn what_runs_is_kept_also_when_another_one_lies_in_its_place_already() {
        let dir = tempfile::tempdir().unwrap();
        let (program, running) = (dir.path().join("quarry"), dir.path().join("replaced"));
        fs::write(&running, "runs").unwrap();
        fs::write(before(&program), "from long ago").unwrap();
        for named in ["quarry", "download"] {
            fs::write(&program, "by a package").unwrap();
            fs::write(dir.path().join("download"), "downloaded").unwrap();
            Arrival::bring(&dir.path().join(named), &program).unwrap().install(&running, dir.path()).unwrap();
            take_back(&program).unwrap();
            assert_eq!(fs::read_to_string(&program).unwrap(), "runs", "{named}");
        }
    }

    #[tokio::test]
    async fn what_is_no_quarry_is_refused_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("other");
        fs::write(&program, "#!/bin/sh\necho 'wrong machine' >&2\nexit 1\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let rehearse = async |named: &Path| {
            Arrival::bring(named, &dir.path().join("quarry"))?.rehearse(dir.path(), dir.path()).await
        };
        let error = rehearse(&program).await.unwrap_err().to_string();
        assert!(error.ends_with("does not work here: wrong machine"), "{error}");
        fs::write(&program, "#!/bin/sh\necho 'hello'\n").unwrap();
        assert!(rehearse(&program).await.is_err());
        for none in ["/etc/hostname", "/etc", "/nothing/there"] {
            let error = rehearse(Path::new(none)).await.unwrap_err().to_string();
            assert!(error.starts_with(&format!("{none} does not work here: ")), "{error}");
        }
    }
}
