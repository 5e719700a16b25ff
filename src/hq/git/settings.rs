//! How git is set up: a repository's settings, its hooks, and the environment of git's processes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::hq::git::{GitError, file_error, replace};

/// Settings of a stack's repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The folder with git's hooks.
    pub hooks: PathBuf,
    /// The largest pack taken in bytes; 0 for any.
    pub push_limit: u64,
}

/// Writes git's hooks into `folder`.
///
/// # Errors
/// When they cannot be written.
pub fn install_hooks(folder: &Path) -> Result<(), GitError> {
    fs::create_dir_all(folder).map_err(|source| file_error("make the folder", folder, source))?;
    replace(&folder.join("pre-receive"), include_bytes!("../../../hooks/pre-receive"), 0o755)?;
    replace(&folder.join("proc-receive"), include_bytes!("../../../hooks/proc-receive"), 0o755)
}

/// A git process at work on `repository`, with an environment of HQ's own.
pub fn command(repository: &Path) -> Command {
    let mut command = Command::new("git");
    command.env_clear().arg("--git-dir").arg(repository);
    command.envs(environment(repository));
    command
}

/// What git sees of the environment: nothing of the caller's that could change what it does.
pub fn environment(repository: &Path) -> BTreeMap<&'static str, OsString> {
    let home = repository.parent().unwrap_or(repository);
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    BTreeMap::from([
        ("PATH", path),
        ("HOME", home.as_os_str().to_owned()),
        ("LC_ALL", "C.UTF-8".into()),
        ("GIT_CONFIG_NOSYSTEM", "1".into()),
        ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
    ])
}

/// `unpackLimit=1` keeps the pack as it came, which takes big pushes at three times the speed of loose objects; the
/// branches are HQ's to move (`procReceiveRefs`), and HQ alone collects garbage.
pub(super) fn config(settings: &Settings) -> String {
    let hooks = settings.hooks.to_string_lossy().replace('\\', r"\\").replace('"', "\\\"");
    let limit = settings.push_limit;
    format!(
        "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n\tlogAllRefUpdates = false\n\
         \thooksPath = \"{hooks}\"\n\
         [gc]\n\tauto = 0\n\
         [maintenance]\n\tauto = false\n\
         [receive]\n\tprocReceiveRefs = refs/heads\n\tunpackLimit = 1\n\tautogc = false\n\
         \tdenyDeletes = false\n\tdenyNonFastForwards = false\n\tdenyDeleteCurrent = ignore\n\
         \tdenyCurrentBranch = ignore\n\tmaxInputSize = {limit}\n\
         [transfer]\n\thideRefs = refs/quarry\n\
         [uploadpack]\n\thideRefs = refs/quarry\n\
         [advice]\n\tdetachedHead = false\n"
    )
}
