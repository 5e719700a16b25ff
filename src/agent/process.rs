//! Brings the agent to HQ's own server: the program HQ itself runs, started beside it and not below it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::bootstrap::{PROGRAM, START, UPLOAD, unit};
use super::http::{Client, Way};
use super::ssh::{Came, InstallError, Program, answers, came};
use super::stats;
use crate::servers::ssh::{ScriptError, last_words};

/// A copy on a busy disk.
const PATIENCE: Duration = Duration::from_secs(60);

/// As [`super::ssh::install`], on the machine this runs on. The program is put where other servers have it, so that it
/// is there when HQ's own is replaced. Packages are a person's to install here.
///
/// # Errors
/// What stands in the way; then an agent that ran runs on.
pub async fn install(program: &Program, folder: &str) -> Result<Came, InstallError> {
    if !rustix::process::geteuid().is_root() {
        return Err(InstallError::NotRoot);
    }
    let there = tokio::task::spawn_blocking(|| stats::digest(Path::new(PROGRAM))).await;
    if !matches!(there, Ok(Ok(digest)) if digest == program.digest()) {
        let file = std::fs::File::open(program.path());
        let file = file.map_err(|source| InstallError::Program { path: program.path().to_owned(), source })?;
        run("copy the program", UPLOAD, &[PROGRAM, program.digest()], file.into()).await?;
    }
    let said = run(
        "start the agent",
        START,
        &[PROGRAM, program.digest(), folder, unit(PROGRAM, folder).trim_end()],
        Stdio::null(),
    )
    .await?;
    answers(&Client::new(Way::Here, Path::new(folder)), program, folder).await?;
    Ok(came(&said))
}

/// Runs a script with these words; what it says.
async fn run(doing: &'static str, script: &str, words: &[&str], input: Stdio) -> Result<String, ScriptError> {
    let failed = |why: String| ScriptError::Failed { doing, why };
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).args(words).current_dir("/").kill_on_drop(true);
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = match timeout(PATIENCE, command.output()).await {
        Ok(output) => output.map_err(|error| failed(error.to_string()))?,
        Err(_) => return Err(failed("it takes too long".to_owned())),
    };
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(failed(last_words(&output.stderr)))
    }
}
