//! The commands: one grammar behind three doors. On HQ as root they go through the unix socket (or open the tree when
//! no `serve` runs), over SSH they come as an exec string, and from a developer's machine `--hq` speaks SSH.

use std::sync::Arc;

use clap::{Parser, Subcommand};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::command::HqCommand;
use self::context::Context;
pub use self::dialect::{advice, normalised};
use self::failure::{Exit, Failure};
use self::print::Out;
use self::trace::{Trace, told};
use crate::hq::Hq;
use crate::hq::door::{Caller, Ended, Io, IoEvent, Stdin, Why};
use crate::names::StackName;
use crate::names::printable::printable;

pub mod again;
pub mod agent;
pub mod api;
pub mod backup;
pub mod build;
pub mod certs;
pub mod client;
pub mod cluster;
pub mod command;
pub mod config;
pub mod context;
pub mod db;
pub mod deploy;
pub mod destroy;
mod dialect;
pub mod dock;
pub mod docker;
pub mod doctor;
pub mod domains;
pub mod door;
pub mod env;
pub mod events;
pub mod failure;
pub mod gc;
pub mod grid;
pub mod install;
pub mod jobs;
pub mod keys;
pub mod launch;
pub mod links;
pub mod local;
pub mod locknet;
pub mod logs;
pub mod maintenance;
pub mod metrics;
pub mod network;
pub mod parts;
pub mod pause;
pub mod print;
pub mod ps;
pub mod releases;
pub mod restart;
pub mod restore;
pub mod rights;
pub mod rollback;
pub mod run;
pub mod scale;
pub mod serve;
pub mod servers;
pub mod stacks;
pub mod systemd;
pub mod tasks;
pub mod tokens;
pub mod trace;
pub mod upgrade;
pub mod urls;
pub mod version;

/// git push, and the stack is live
#[derive(Debug, Parser)]
#[command(name = "quarry", version, disable_help_subcommand = false, max_term_width = 100)]
pub struct Cli {
    /// Listings as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// The stack that is meant where none is named
    // Its id differs from that of the commands' own `stack`, which clap would take for the same argument.
    #[arg(id = "default_stack", long = "stack", global = true, value_name = "STACK")]
    pub stack: Option<StackName>,
    /// Speak to the HQ at this address by SSH: [USER@]HOST[:PORT]
    #[arg(long, global = true, value_name = "ADDRESS", env = "QUARRY_HQ")]
    pub hq: Option<String>,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub places: parts::Places,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run HQ: the SSH receiver, the router and the reconciler
    Serve(serve::Serve),
    #[allow(missing_docs)]
    Agent(agent::Agent),
    /// Make the instruction tarball of a folder
    Build(build::Build),
    /// Run the stack of this folder on this machine
    Start(local::Start),
    /// Stop the stack of this folder on this machine
    Stop(local::Stop),
    #[allow(missing_docs)]
    Locknet(locknet::Locknet),
    #[allow(missing_docs)]
    Db(db::Db),
    #[allow(missing_docs)]
    Restore(restore::Restore),
    #[allow(missing_docs)]
    Install(install::Install),
    /// Called by git inside HQ's repositories
    #[command(hide = true)]
    Hook(serve::Hook),
    #[command(flatten)]
    #[allow(missing_docs)]
    Hq(HqCommand),
}

/// What came in through a door besides words.
pub struct Door {
    /// The one that acts.
    pub hq: Arc<Hq>,
    /// Who asks.
    pub caller: Caller,
}

// The grammar as HQ hears it over SSH and its socket: commands HQ carries out, nothing local. Its doc comments are help.
/// git push, and the stack is live
#[derive(Debug, Parser)]
#[command(name = "quarry", bin_name = "", no_binary_name = true, version, max_term_width = 100)]
struct Remote {
    /// Listings as JSON
    #[arg(long, global = true)]
    json: bool,
    /// The stack that is meant where none is named
    #[arg(id = "default_stack", long = "stack", global = true, value_name = "STACK")]
    stack: Option<StackName>,
    #[command(subcommand)]
    command: HqCommand,
}

/// Runs a command HQ heard through a door; tells how it ended.
pub async fn run_words(door: Door, words: Vec<String>, io: Io) -> Ended {
    let typed = words.clone();
    let words = normalised(words);
    let event = door.hq.new_event(&door.caller, None, &told(&words));
    let remote = match Remote::try_parse_from(words) {
        Ok(remote) => remote,
        Err(error) => return Ended::with(say_usage(error, advice(&typed), io).await),
    };
    let out = Out::new(io.output.clone(), io.terminal.clone(), remote.json);
    let trace = Trace::new(door.hq.clone(), event, remote.command.changes());
    let done = match door.hq.access(&door.caller).await {
        Ok(access) => {
            let Door { hq, caller } = door;
            let (out, stack, hung_up) = (out.clone(), remote.stack, io.hung_up.clone());
            let context = Context { hq, caller, out, stack, hung_up, access, trace };
            let done = dispatch(remote.command, &context, io).await;
            context.trace.end(&done).await;
            done
        }
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(code) => Ended { code, why: None },
        Err(failure) => {
            if !failure.message.is_empty() {
                // Whoever hung up does not hear it.
                let _ = out.note(&format!("quarry: {}", printable(&failure.message))).await;
            }
            Ended { code: failure.code, why: failure.why }
        }
    }
}

/// Help goes to stdout with success, a wrong command line to stderr with [`Exit::Usage`].
async fn say_usage(error: clap::Error, advice: Option<String>, io: Io) -> u8 {
    let out = Out::new(io.output, io.terminal, false);
    // Over SSH there is no program's name that clap could begin the line with.
    let text = error.render().to_string().replace("Usage:  ", "Usage: ");
    let text = text.trim_end();
    // Whoever hung up does not hear it.
    let _ = match error.use_stderr() {
        true => out.note(text).await,
        false => out.line(text).await,
    };
    if let Some(advice) = advice.filter(|_| error.use_stderr()) {
        let _ = out.note(&advice).await;
    }
    if error.use_stderr() { Exit::Usage as u8 } else { 0 }
}

async fn dispatch(command: HqCommand, cx: &Context, io: Io) -> Result<u8, Failure> {
    if command.is_operator_s() {
        cx.check_operator()?;
        cx.begin().await;
    }
    let Io { stdin, terminal, mut events, hung_up, .. } = io;
    let farewell = command.farewell();
    // What changes something is waited for when HQ is upgraded; what only looks is not, and ends.
    let is_work = command.changes() && !command.is_upgrade();
    let _work = is_work.then(|| cx.hq.traffic.work(cx.trace.told()));
    let closing = async {
        match is_work {
            true => std::future::pending().await,
            false => cx.hq.traffic.haste().await,
        }
    };
    if let HqCommand::Run(run) = command {
        return run.run(cx, run::Streams { stdin, terminal, events, hung_up }).await;
    }
    if let HqCommand::Jobs(jobs) = command {
        return jobs.run(cx, run::Streams { stdin, terminal, events, hung_up }).await;
    }
    if let HqCommand::Upgrade(upgrade) = command {
        let given_up = async {
            tokio::select! {
                () = interruption(&mut events) => failure::interrupted(farewell),
                () = hung_up.cancelled() => failure::hung_up(),
            }
        };
        return upgrade.run(cx, given_up).await.map(|()| 0);
    }
    if let HqCommand::Tasks(tasks) = command {
        return tokio::select! {
            done = tasks.run(cx) => done,
            () = interruption(&mut events) => Err(failure::interrupted(farewell)),
        };
    }
    tokio::select! {
        done = carry_out(command, cx, stdin, hung_up.clone()) => done.map(|()| 0),
        () = closing => {
            hung_up.cancel();
            Err(Failure::new(Exit::Refused, "HQ is being upgraded; try again in a moment").because(Why::Away))
        }
        () = interruption(&mut events) => {
            hung_up.cancel();
            Err(failure::interrupted(farewell))
        }
    }
}

/// Every command but `run` and `jobs`, which have keys and signals of their own, `tasks`, which has exit codes, and `upgrade`, which
/// cannot be interrupted at its end. Work that others wait for goes on when this is dropped.
async fn carry_out(command: HqCommand, cx: &Context, stdin: Stdin, hung_up: CancellationToken) -> Result<(), Failure> {
    match command {
        HqCommand::Run(_) | HqCommand::Jobs(_) | HqCommand::Tasks(_) | HqCommand::Upgrade(_) => Ok(()),
        HqCommand::Logs(logs) => tokio::select! {
            done = logs.run(cx) => done,
            () = hung_up.cancelled() => Err(failure::hung_up()),
        },
        HqCommand::Events(events) => tokio::select! {
            done = events.run(cx) => done,
            () = hung_up.cancelled() => Err(failure::hung_up()),
        },
        HqCommand::Stacks(stacks) => stacks.run(cx).await,
        HqCommand::Ps(ps) => ps.run(cx).await,
        HqCommand::Servers(servers) => servers.run(cx, stdin).await,
        HqCommand::Cluster(cluster) => cluster.run(cx).await,
        HqCommand::Grid(grid) => grid.run(cx).await,
        HqCommand::Scale(scale) => scale.run(cx).await,
        HqCommand::Restart(restart) => restart.run(cx).await,
        HqCommand::Env(env) => env.run(cx, stdin).await,
        HqCommand::Releases(releases) => releases.run(cx).await,
        HqCommand::Rollback(rollback) => rollback.run(cx).await,
        HqCommand::Deploy(deploy) => deploy.run(cx, hung_up).await,
        HqCommand::Launch(launch) => launch.run(cx, stdin).await,
        HqCommand::Destroy(destroy) => destroy.run(cx).await,
        HqCommand::Keys(keys) => keys.run(cx, stdin).await,
        HqCommand::Rights(rights) => rights.run(cx).await,
        HqCommand::Network(network) => network.run(cx).await,
        HqCommand::Config(config) => config.run(cx, stdin).await,
        HqCommand::Certs(certs) => certs.run(cx, stdin).await,
        HqCommand::Domains(domains) => domains.run(cx).await,
        HqCommand::Maintenance(maintenance) => maintenance.run(cx, stdin).await,
        HqCommand::Pause(pause) => pause.run(cx).await,
        HqCommand::Resume(resume) => resume.run(cx).await,
        HqCommand::Urls(urls) => urls.run(cx).await,
        HqCommand::Links(links) => links.run(cx).await,
        HqCommand::Backup(backup) => backup.run(cx).await,
        HqCommand::Docker(docker) => docker.run(cx, stdin, hung_up).await,
        HqCommand::Doctor(doctor) => doctor.run(cx).await,
        HqCommand::Gc(gc) => gc.run(cx).await,
        HqCommand::Version(version) => version.run(cx).await,
        HqCommand::Tokens(tokens) => tokens.run(cx).await,
        HqCommand::Metrics(metrics) => metrics.run(cx).await,
    }
}

/// Ends when the person asks for an end: Ctrl-C, or a signal to their client.
async fn interruption(events: &mut mpsc::Receiver<IoEvent>) {
    loop {
        match events.recv().await {
            Some(IoEvent::Interrupt | IoEvent::Signal(_)) => return,
            Some(IoEvent::Resize { .. }) => {}
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammars_are_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        Remote::command().debug_assert();
    }

    #[test]
    fn a_stack_is_named_before_or_behind_the_command_by_option_and_by_word() {
        let check = |line: &str, expected: Option<&str>| {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(cli.stack.as_ref().map(StackName::as_str), expected, "{line}");
            let words = line.split(' ').skip(1);
            let remote = Remote::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(remote.stack.as_ref().map(StackName::as_str), expected, "{line}");
        };
        for command in
            ["ps", "releases", "env", "env list", "env import", "stacks show", "scale", "destroy", "rollback"]
        {
            check(&format!("quarry {command} blog"), None);
            check(&format!("quarry --stack shop {command} blog"), Some("shop"));
            check(&format!("quarry {command} blog --stack shop"), Some("shop"));
        }
        check("quarry ps", None);
    }

    #[test]
    fn every_spelling_on_the_pages_for_newcomers_is_understood() {
        for page in [include_str!("../../docs/coming-from-dokku.md"), include_str!("../../docs/coming-from-heroku.md")]
        {
            let (table, _) = page.split_once("What has another place").unwrap();
            let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | `"));
            let mut count = 0;
            for (theirs, ours) in rows {
                let (ours, _) = ours.split_once('`').unwrap();
                let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
                let (theirs, ours) = (normalised(words(theirs)), normalised(words(ours)));
                assert_eq!(theirs, ours);
                Remote::try_parse_from(&theirs).unwrap_or_else(|error| panic!("{theirs:?}: {error}"));
                count += 1;
            }
            assert!(count > 10, "{count}");
        }
    }
}
