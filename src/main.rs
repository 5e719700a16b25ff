//! The `quarry` program.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use quarry::cli::failure::Failure;
use quarry::cli::parts::Places;
use quarry::cli::serve::Ended;
use quarry::cli::{Cli, Command, again, client, doctor, normalised};
use quarry::docker::handover::process;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if let [program, words @ ..] = &words[..]
        && process::is_meant(program)
    {
        return process::run(words);
    }
    let mut arguments: Vec<String> = std::env::args().collect();
    // Git's hook is on every pusher's time: it starts before anything else is set up.
    if arguments.get(1).is_some_and(|word| word == "hook") {
        return quarry::hq::relay::run();
    }
    let program = arguments.remove(0);
    let words = normalised(arguments);
    let cli = Cli::parse_from(std::iter::once(program).chain(words.iter().cloned()));
    match run(cli, words) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("quarry: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(cli: Cli, words: Vec<String>) -> Result<u8, Failure> {
    let places = cli.places.clone();
    match cli.command {
        Command::Serve(serve) => {
            log();
            match block(async move { serve.run(&places).await })?? {
                Ended::ForGood => Ok(0),
                Ended::ToBeginAnew(handed, next) => Err(again::begin(&handed, &next)),
                Ended::ToGoBack(handed, trial, why) => Err(again::back(&handed, &trial, why)),
            }
        }
        Command::Agent(agent) => {
            log();
            block(async move { agent.run(&places).await })?.map(|()| 0)
        }
        Command::Build(build) => block(async move { build.run(&places, cli.stack).await })?.map(|()| 0),
        Command::Start(start) => block(async move { start.run(&places, cli.stack).await })?.map(|()| 0),
        Command::Stop(stop) => block(async move { stop.run(&places, cli.stack).await })?.map(|()| 0),
        Command::Locknet(locknet) => block(async move { locknet.run(&places, cli.json).await })?.map(|()| 0),
        Command::Db(db) => block(async move { db.run(&places).await })?.map(|()| 0),
        Command::Hook(_) => Ok(ExitCode::SUCCESS).map(|_| 0),
        Command::Install(install) => install.run(&places).map(|()| 0),
        Command::Restore(restore) => block(async move { restore.run(&places).await })?.map(|()| 0),
        Command::Hq(command) => {
            let words = command.told(client::plain(words));
            if let Some(file) = command.file() {
                client::send(file)?;
            }
            match command.output() {
                Some(file) => {
                    let receipt = client::Receipt::open(&file)?;
                    receipt.end(ask(&places, cli.hq.as_deref(), words, client::by_ssh_and_back))
                }
                None if command.is_doctor() && cli.hq.is_none() && places.is_here() => {
                    block(async move { doctor::on_this_machine(&places, words, cli.json).await })?
                }
                None if command.is_upgrade() => {
                    let (named, near) = (command.program(), places.clone());
                    let program = block(async move { client::arriving(&near, named).await })?;
                    let code = ask(&places, cli.hq.as_deref(), words, client::by_ssh_and_back)?;
                    block(async move { client::greeted(&places, code, program).await })?
                }
                None => ask(&places, cli.hq.as_deref(), words, |address, words| Err(client::by_ssh(address, words))),
            }
        }
    }
}

/// Hands a command to the HQ that carries it out: the one that is named, this machine's, or the repository's.
fn ask(
    places: &Places,
    hq: Option<&str>,
    words: Vec<String>,
    by_ssh: impl Fn(&str, &[String]) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    if let Some(address) = hq {
        return by_ssh(address, &words);
    }
    if !places.is_here()
        && let Some((address, stack)) = client::remote()
    {
        let words = [vec!["--stack".to_owned(), stack], words].concat();
        return by_ssh(&address, &words);
    }
    block(async move { client::on_this_machine(places, words).await })?
}

/// HQ's log: constant sentences with fields, on standard error.
fn log() {
    let filter = EnvFilter::try_from_env("QUARRY_LOG").unwrap_or_else(|_| EnvFilter::new("info,russh=warn"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr).init();
}

fn block<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(work);
            // A read of standard input under way cannot be broken off: a person would have to press Enter first.
            runtime.shutdown_background();
            Ok(done)
        }
        Err(error) => Err(Failure::new(quarry::cli::failure::Exit::Bug, format!("cannot start: {error}"))),
    }
}
