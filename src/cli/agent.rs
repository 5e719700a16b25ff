//! `agent`: what looks after a server for HQ.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::failure::{Exit, Failure};
use super::parts::Places;
use crate::agent::act::{self, Places as Looks};
use crate::agent::files::{FOLDER, Home};
use crate::docker::bollard::Docker;
use crate::embassy::Legacy;
use crate::network::files::HOSTS;

/// Look after this server for HQ, which installs and starts this by itself
#[derive(Debug, clap::Args)]
pub struct Agent {
    /// The agent's own folder
    #[arg(long, env = "QUARRY_AGENT", default_value = FOLDER, value_name = "FOLDER")]
    folder: PathBuf,
    /// The hosts file it keeps the servers in
    #[arg(long, env = "QUARRY_HOSTS", default_value = HOSTS, value_name = "FILE", hide = true)]
    hosts: PathBuf,
}

impl Agent {
    /// Runs until SIGTERM or SIGINT. What it looks after stays as it is. SIGHUP has it go on as the program that is in
    /// its place by now, under the same process id.
    ///
    /// # Errors
    /// When another one runs in the folder, or it cannot be used.
    pub async fn run(self, places: &Places) -> Result<(), Failure> {
        let refused = |source: std::io::Error| Failure::new(Exit::Bug, format!("cannot wait for signals: {source}"));
        let mut term = signal(SignalKind::terminate()).map_err(refused)?;
        let mut int = signal(SignalKind::interrupt()).map_err(refused)?;
        let mut hup = signal(SignalKind::hangup()).map_err(refused)?;
        let home = Home::take(&self.folder).map_err(|error| Failure::of(Exit::Refused, &error))?;
        let looks = Looks { hosts: self.hosts.clone(), own: vec![places.root.clone(), places.etc.clone()] };
        let renewed = async move {
            hup.recv().await;
        };
        let running = act::run(home, Arc::new(Docker::local()), looks, inherited(), renewed);
        tokio::select! {
            left = running => Err(begin_anew(left.map_err(|error| Failure::of(Exit::Refused, &error))?)),
            _ = term.recv() => Ok(()),
            _ = int.recv() => Ok(()),
        }
    }
}

/// Says that the standard input holds what the program before this one has left.
const LEGACY: &str = "QUARRY_LEGACY";

/// What the program before this one has left.
fn inherited() -> Option<Legacy> {
    std::env::var_os(LEGACY)?;
    match Legacy::receive(std::io::stdin()) {
        Ok(left) => Some(left),
        Err(error) => {
            tracing::warn!(%error, "the connections of the program before this one are lost");
            None
        }
    }
}

/// Goes on as the program that is in place by now, with what this one leaves; only a failure comes back.
fn begin_anew(left: Option<Legacy>) -> Failure {
    let mut words = std::env::args_os();
    let first = words.next().map(PathBuf::from).unwrap_or_default();
    let program = if first.is_absolute() { first } else { Path::new("/proc/self/exe").to_owned() };
    let connections = left.as_ref().map_or(0, |left| left.connections.len());
    tracing::info!(program = %program.display(), connections, "the agent begins anew");
    let mut command = std::process::Command::new(&program);
    command.args(words).env_remove(LEGACY).stdin(Stdio::null());
    match left.map(Legacy::send) {
        Some(Ok(end)) => drop(command.env(LEGACY, "stdin").stdin(end)),
        Some(Err(error)) => tracing::warn!(%error, "the embassy's connections are lost"),
        None => {}
    }
    let error = command.exec();
    Failure::new(Exit::Refused, format!("cannot run {}: {error}", program.display()))
}
