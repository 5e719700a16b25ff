//! The commands that HQ carries out, and what is known of each before it runs.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{
    backup, certs, cluster, config, deploy, destroy, docker, doctor, domains, env, events, gc, grid, jobs, keys,
    launch, links, logs, maintenance, metrics, network, pause, ps, releases, restart, rights, rollback, run, scale,
    servers, stacks, tasks, tokens, upgrade, urls, version,
};

/// Commands that HQ carries out, whichever door they come through.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum HqCommand {
    Stacks(stacks::Stacks),
    Ps(ps::Ps),
    Servers(servers::Servers),
    Cluster(cluster::Cluster),
    Grid(grid::Grid),
    Scale(scale::Scale),
    Restart(restart::Restart),
    Env(env::EnvCommand),
    Logs(logs::Logs),
    Run(run::Run),
    Jobs(jobs::Jobs),
    Links(links::Links),
    Releases(releases::Releases),
    Rollback(rollback::Rollback),
    Deploy(deploy::Deploy),
    Launch(launch::Launch),
    Destroy(destroy::Destroy),
    Keys(keys::Keys),
    Tokens(tokens::Tokens),
    Rights(rights::Rights),
    Events(events::Events),
    Tasks(tasks::Tasks),
    Network(network::Network),
    Config(config::Config),
    Certs(certs::Certs),
    Domains(domains::Domains),
    Maintenance(maintenance::Maintenance),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Urls(urls::Urls),
    Backup(backup::Backup),
    Upgrade(upgrade::Upgrade),
    Version(version::Version),
    Docker(docker::Docker),
    Doctor(doctor::Doctor),
    Metrics(metrics::Metrics),
    Gc(gc::Gc),
}

impl HqCommand {
    /// Whether it changes something. It leaves an event then.
    pub(super) fn changes(&self) -> bool {
        match self {
            HqCommand::Ps(_)
            | HqCommand::Urls(_)
            | HqCommand::Links(_)
            | HqCommand::Logs(_)
            | HqCommand::Releases(_)
            | HqCommand::Metrics(_)
            | HqCommand::Events(_) => false,
            // What is asked for on its connection leaves events of its own.
            HqCommand::Version(_) | HqCommand::Doctor(_) | HqCommand::Docker(_) => false,
            HqCommand::Gc(gc) => gc.changes(),
            HqCommand::Stacks(stacks) => stacks.changes(),
            HqCommand::Servers(servers) => servers.changes(),
            HqCommand::Cluster(cluster) => cluster.changes(),
            HqCommand::Grid(grid) => grid.changes(),
            HqCommand::Env(env) => env.changes(),
            HqCommand::Keys(keys) => keys.changes(),
            HqCommand::Rights(rights) => rights.changes(),
            HqCommand::Network(network) => network.changes(),
            HqCommand::Config(config) => config.changes(),
            HqCommand::Tasks(tasks) => tasks.changes(),
            HqCommand::Jobs(jobs) => jobs.changes(),
            HqCommand::Certs(certs) => certs.changes(),
            HqCommand::Domains(domains) => domains.changes(),
            HqCommand::Maintenance(maintenance) => maintenance.changes(),
            HqCommand::Tokens(tokens) => tokens.changes(),
            HqCommand::Scale(scale) => scale.changes(),
            HqCommand::Pause(_)
            | HqCommand::Resume(_)
            | HqCommand::Restart(_)
            | HqCommand::Run(_)
            | HqCommand::Rollback(_)
            | HqCommand::Deploy(_)
            | HqCommand::Launch(_)
            | HqCommand::Backup(_)
            | HqCommand::Upgrade(_)
            | HqCommand::Destroy(_) => true,
        }
    }

    /// A file of the machine it is typed on that stands in for standard input.
    pub fn file(&self) -> Option<&Path> {
        match self {
            HqCommand::Launch(launch) => launch.file.as_deref(),
            HqCommand::Keys(keys) => keys.file(),
            HqCommand::Jobs(jobs) => jobs.file(),
            _ => None,
        }
    }

    /// A file of the machine it is typed on that takes standard output.
    pub fn output(&self) -> Option<PathBuf> {
        match self {
            HqCommand::Backup(backup) => backup.output(),
            _ => None,
        }
    }

    /// Whether HQ is about to be another program when it has answered.
    pub fn is_upgrade(&self) -> bool {
        matches!(self, HqCommand::Upgrade(_))
    }

    /// Whether it looks at the machine also where nothing else of HQ works.
    pub fn is_doctor(&self) -> bool {
        matches!(self, HqCommand::Doctor(_))
    }

    /// Where that program lies now, if it is named.
    pub fn program(&self) -> Option<PathBuf> {
        match self {
            HqCommand::Upgrade(upgrade) => upgrade.program(),
            _ => None,
        }
    }

    /// Its words as HQ is told them: files of the machine it is typed on mean nothing there.
    pub fn told(&self, words: Vec<String>) -> Vec<String> {
        match self {
            HqCommand::Backup(backup) => backup.told(words),
            HqCommand::Upgrade(upgrade) => upgrade.told(words),
            _ => words,
        }
    }

    /// Whether it concerns everybody, and not one stack. An instruction tarball may name any image there is.
    pub(super) fn is_operator_s(&self) -> bool {
        match self {
            HqCommand::Servers(_)
            | HqCommand::Cluster(_)
            | HqCommand::Grid(_)
            | HqCommand::Network(_)
            | HqCommand::Config(_)
            | HqCommand::Backup(_)
            | HqCommand::Upgrade(_)
            | HqCommand::Doctor(_)
            | HqCommand::Gc(_)
            | HqCommand::Launch(_) => true,
            HqCommand::Stacks(_)
            | HqCommand::Ps(_)
            | HqCommand::Scale(_)
            | HqCommand::Restart(_)
            | HqCommand::Env(_)
            | HqCommand::Logs(_)
            | HqCommand::Run(_)
            | HqCommand::Jobs(_)
            | HqCommand::Links(_)
            | HqCommand::Releases(_)
            | HqCommand::Rollback(_)
            | HqCommand::Deploy(_)
            | HqCommand::Destroy(_)
            | HqCommand::Keys(_)
            | HqCommand::Tokens(_)
            | HqCommand::Metrics(_)
            | HqCommand::Rights(_)
            | HqCommand::Tasks(_)
            | HqCommand::Certs(_)
            | HqCommand::Domains(_)
            | HqCommand::Maintenance(_)
            | HqCommand::Pause(_)
            | HqCommand::Resume(_)
            | HqCommand::Urls(_)
            | HqCommand::Version(_)
            | HqCommand::Docker(_)
            | HqCommand::Events(_) => false,
        }
    }

    /// What becomes of a command that is interrupted.
    pub(super) fn farewell(&self) -> &'static str {
        match self {
            HqCommand::Logs(_) | HqCommand::Events(_) | HqCommand::Docker(_) => "",
            HqCommand::Backup(_) => "interrupted; what was written is no backup",
            HqCommand::Upgrade(_) => "interrupted; HQ stays as it is",
            HqCommand::Version(_) | HqCommand::Doctor(_) | HqCommand::Metrics(_) => "",
            HqCommand::Servers(_)
            | HqCommand::Cluster(_)
            | HqCommand::Config(_)
            | HqCommand::Certs(_)
            | HqCommand::Network(_)
            | HqCommand::Grid(_)
            | HqCommand::Keys(_)
            | HqCommand::Tokens(_)
            | HqCommand::Rights(_) => {
                "interrupted; what had begun may still be done, and the same command again sees to the rest"
            }
            _ => "interrupted; a launch that had begun finishes by itself",
        }
    }
}
