//! Carries the steps of an installation out, each only where it is not done. Everything here blocks.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{DAEMON, InstallError, PROGRAM, Step, below};

/// Docker's settings as they are.
///
/// # Errors
/// They cannot be read.
pub fn daemon(prefix: Option<&Path>) -> Result<Option<String>, InstallError> {
    let path = below(prefix, Path::new(DAEMON));
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(InstallError::File { doing: "read", path, source }),
    }
}

/// Whether there is something to do; the lines that tell what.
///
/// # Errors
/// What is there cannot be read.
pub fn is_due(step: &Step, prefix: Option<&Path>) -> Result<bool, InstallError> {
    Ok(match step {
        Step::Folder { path, .. } => !below(prefix, path).is_dir(),
        Step::File { path, text } => fs::read_to_string(below(prefix, path)).ok().as_deref() != Some(text),
        Step::Program => !is_program(&below(prefix, Path::new(PROGRAM))),
        // The system is told where something has changed, and never another one.
        Step::Run(_) => prefix.is_none(),
    })
}

/// Whether a file is this very program.
fn is_program(path: &Path) -> bool {
    crate::hq::upgrade::process::is_own(path).unwrap_or(false)
}

/// What a step does, for a person.
pub fn told(step: &Step, prefix: Option<&Path>) -> String {
    match step {
        Step::Folder { path, .. } => format!("make {}", below(prefix, path).display()),
        Step::File { path, .. } => format!("write {}", below(prefix, path).display()),
        Step::Program => format!("copy this program to {}", below(prefix, Path::new(PROGRAM)).display()),
        Step::Run(words) => format!("run {}", words.join(" ")),
    }
}

/// Does it.
///
/// # Errors
/// What stands in the way.
pub fn perform(step: &Step, prefix: Option<&Path>) -> Result<(), InstallError> {
    match step {
        Step::Folder { path, mode } => {
            let path = below(prefix, path);
            let made = fs::create_dir_all(&path);
            let made = made.and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(*mode)));
            made.map_err(|source| InstallError::File { doing: "make", path, source })
        }
        Step::File { path, text } => {
            let path = below(prefix, path);
            replace(&path, 0o644, |new| fs::write(new, text))
        }
        Step::Program => {
            let path = below(prefix, Path::new(PROGRAM));
            replace(&path, 0o755, |new| fs::copy("/proc/self/exe", new).map(drop))
        }
        Step::Run(words) => run(words),
    }
}

fn replace(path: &Path, mode: u32, write: impl Fn(&Path) -> io::Result<()>) -> Result<(), InstallError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".quarry-new");
    let new = Path::new(&name);
    let done = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        write(new)?;
        fs::set_permissions(new, fs::Permissions::from_mode(mode))?;
        fs::File::open(new)?.sync_all()?;
        fs::rename(new, path)
    };
    done().map_err(|source| InstallError::File { doing: "write", path: path.to_owned(), source })
}

fn run(words: &[String]) -> Result<(), InstallError> {
    let failed = |why: String| InstallError::Command { command: words.join(" "), why };
    let output = Command::new(&words[0]).args(&words[1..]).output().map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    // A service that was never there need not be ended.
    if output.status.success() || said.contains("does not exist") { Ok(()) } else { Err(failed(said)) }
}
