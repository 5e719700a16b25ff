//! Brings the agent to a server over HQ's line: the program HQ itself runs, started there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout_at};

use super::bootstrap::{DISMISS, INSTALL, LOOK, MISSING, PACKAGES, PROGRAM, ROUTER_PACKAGES, START, UPLOAD, unit};
use super::http::{Client, Way};
use super::{Agent, AgentError, stats};
use crate::servers::ssh::{Line, Link, LinkError, ScriptError};

/// A short command.
const COMMAND: Duration = Duration::from_secs(30);

/// The program, over a slow cable.
const UPLOADING: Duration = Duration::from_secs(15 * 60);

/// Packages from slow mirrors.
const INSTALLING: Duration = Duration::from_secs(10 * 60);

/// From its start until it answers.
const STARTING: Duration = Duration::from_secs(20);

/// Between two looks whether it does.
const AGAIN: Duration = Duration::from_millis(50);

/// The program HQ runs.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    digest: String,
}

/// What installing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// The same program ran already.
    Runs,
    /// It ran as another program, and goes on as this one.
    Changed,
    /// It did not run.
    Started,
}

/// Whether a server routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routes {
    /// It needs nginx.
    Yes,
    /// It does not.
    No,
}

/// Why there is no agent on a server.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// HQ cannot read its own program.
    #[error("cannot read {}", path.display())]
    Program {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The way to the server.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// HQ comes as somebody who may not.
    #[error("the agent keeps packet rules and /etc/hosts, so HQ must come as root; add the server as root@…")]
    NotRoot,
    /// HQ's program is for other processors.
    #[error("the server's processors are {there} and HQ's program is for {here}", here = std::env::consts::ARCH)]
    Architecture {
        /// What the server has.
        there: String,
    },
    /// A script there failed.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// It was started and does not answer.
    #[error("the agent does not come up; see {log} there")]
    Silent {
        /// Its log.
        log: String,
        /// What was tried last.
        source: Option<AgentError>,
    },
}

impl Program {
    /// The program that runs. It is still that one when its file has been replaced since.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn own() -> Result<Self, InstallError> {
        Self::at(Path::new("/proc/self/exe")).await
    }

    /// Another one.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn at(path: &Path) -> Result<Self, InstallError> {
        let own = path.to_owned();
        let digest = tokio::task::spawn_blocking(move || stats::digest(&own)).await;
        let digest = digest.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
        let failed = |source| InstallError::Program { path: path.to_owned(), source };
        Ok(Self { path: path.to_owned(), digest: digest.map_err(failed)? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256, as [`super::Vitals::program`] has it.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// Sees to it that the program runs as the agent of the server, which lives in `folder` there. Doing it again mends
/// what is half done, and puts a newer program in the place of an older one.
///
/// # Errors
/// What stands in the way; then an agent that ran runs on.
pub async fn install(line: &Arc<Line>, program: &Program, folder: &str, routes: Routes) -> Result<Came, InstallError> {
    let link = line.link().await?;
    let there = look(&link).await?;
    supply(&link, routes).await?;
    if there != program.digest {
        upload(line, program).await?;
    }
    let unit = unit(PROGRAM, folder);
    let words = [PROGRAM, &program.digest, folder, unit.trim_end()];
    let done = link.script("start the agent", START, &words, tokio::io::empty(), COMMAND).await?;
    answers(&Client::new(Way::Line(line.clone()), Path::new(folder)), program, folder).await?;
    Ok(came(&String::from_utf8_lossy(&done.stdout)))
}

/// What starting came to, from what the script says.
pub(super) fn came(said: &str) -> Came {
    match said.trim() {
        "runs" => Came::Runs,
        "changed" => Came::Changed,
        _ => Came::Started,
    }
}

/// Ends the agent of the server for good, and takes away what was brought. What it keeps in order must be given up before.
///
/// # Errors
/// What stands in the way.
pub async fn dismiss(line: &Line, folder: &str) -> Result<(), InstallError> {
    let link = line.link().await?;
    link.script("end the agent", DISMISS, &[PROGRAM, folder], tokio::io::empty(), COMMAND).await?;
    Ok(())
}

/// The digest of the program that is there; empty when there is none.
async fn look(link: &Link) -> Result<String, InstallError> {
    let done = link.script("look at the server", LOOK, &[PROGRAM], tokio::io::empty(), COMMAND).await?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let facts: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let fact = |name: &str| facts.get(name).copied().unwrap_or_default().to_owned();
    if fact("user") != "0" {
        return Err(InstallError::NotRoot);
    }
    if fact("machine") != std::env::consts::ARCH {
        return Err(InstallError::Architecture { there: fact("machine") });
    }
    Ok(fact("digest"))
}

/// Installs what is missing.
async fn supply(link: &Link, routes: Routes) -> Result<(), InstallError> {
    let router = match routes {
        Routes::Yes => &ROUTER_PACKAGES[..],
        Routes::No => &[],
    };
    let needed: Vec<(&str, &str)> = PACKAGES.iter().chain(router).copied().collect();
    let pieces: Vec<&str> = needed.iter().map(|(piece, _)| *piece).collect();
    let done = link.script("look for programs", MISSING, &pieces, tokio::io::empty(), COMMAND).await?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let is_missing = |piece: &str| said.lines().any(|line| line == piece);
    let packages: Vec<&str> = needed.iter().filter(|(piece, _)| is_missing(piece)).map(|(_, name)| *name).collect();
    if packages.is_empty() {
        return Ok(());
    }
    link.script("install packages", INSTALL, &packages, tokio::io::empty(), INSTALLING).await?;
    Ok(())
}

async fn upload(line: &Line, program: &Program) -> Result<(), InstallError> {
    let file = tokio::fs::File::open(&program.path).await;
    let file = file.map_err(|source| InstallError::Program { path: program.path.clone(), source })?;
    let words = [PROGRAM, program.digest.as_str()];
    line.bulk().await?.script("copy the program", UPLOAD, &words, file, UPLOADING).await?;
    Ok(())
}

/// Waits until the agent answers as this program.
pub(super) async fn answers(client: &Client, program: &Program, folder: &str) -> Result<(), InstallError> {
    let deadline = Instant::now() + STARTING;
    let mut last = None;
    while Instant::now() < deadline {
        match timeout_at(deadline, first_vitals(client)).await {
            Ok(Ok(digest)) if digest == program.digest => return Ok(()),
            Ok(Err(error)) => last = Some(error),
            Ok(Ok(_)) | Err(_) => {}
        }
        sleep(AGAIN).await;
    }
    Err(InstallError::Silent { log: format!("{folder}/log"), source: last })
}

async fn first_vitals(client: &Client) -> Result<String, AgentError> {
    let mut vitals = client.vitals().await?;
    match vitals.next().await {
        Some(vitals) => Ok(vitals?.program),
        None => Ok(String::new()),
    }
}
