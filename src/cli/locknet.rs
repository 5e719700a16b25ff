//! `locknet`: this machine accepts its peers and SSH, and nobody else. Needs no HQ.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::failure::{Exit, Failure};
use super::parts::Places;
use crate::network::act::{Came, NetworkError, Standing};
use crate::network::files::machine::machine;
use crate::network::policy::SSH;
use crate::network::rules::{Force, Table, force, table};
use crate::network::{Containers, Locknet as Rulebook, Net, Policy, nft};
use crate::units::port::Port;

/// Accept these peers and SSH on this machine, and refuse everybody else
///
/// Peers reach every port, published ports of containers included. Everybody reaches port 22, the port of the SSH
/// session this is run in, and those of --open.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").args(["peers", "policy", "show", "check", "confirm", "restore", "off"]).required(true))]
pub struct Locknet {
    /// Addresses or networks: 192.0.2.7, 2001:db8::7, 192.0.2.0/24
    #[arg(value_name = "PEER")]
    peers: Vec<String>,
    /// Ports that everybody reaches: 80,443,443/udp
    #[arg(long, value_delimiter = ',', value_name = "PORT", requires = "peers")]
    open: Vec<String>,
    /// Apply a whole policy from this file, or from standard input (-)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Undo it by itself after so many seconds unless it is confirmed
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    trial: Option<u32>,
    /// Print the rules and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Show what is accepted
    #[arg(long)]
    show: bool,
    /// Say whether the rules stand as they were applied; 3 when they do not
    #[arg(long)]
    check: bool,
    /// Keep what is on trial
    #[arg(long, value_name = "ID")]
    confirm: Option<String>,
    /// Apply again what was confirmed last, after a reboot or somebody's change
    #[arg(long)]
    restore: bool,
    /// Refuse nothing any more
    #[arg(long)]
    off: bool,
}

impl From<NetworkError> for Failure {
    fn from(error: NetworkError) -> Self {
        Self::of(Exit::Refused, &error)
    }
}

impl Locknet {
    /// Runs the command.
    ///
    /// # Errors
    /// When an address or port is none, all of them named, or the rules cannot be changed; then nothing has.
    pub async fn run(self, places: &Places, as_json: bool) -> Result<(), Failure> {
        let rulebook = Rulebook::new(&places.root);
        if self.show {
            return show(&rulebook, as_json).await;
        }
        if self.check || self.restore {
            let standing = if self.check { rulebook.check().await? } else { rulebook.restore().await? };
            return match standing {
                Standing::Off | Standing::Applied | Standing::Trial(_) => print(sentence(&standing)),
                Standing::RolledBack | Standing::Changed => Err(Failure::new(Exit::Refused, sentence(&standing))),
            };
        }
        if let Some(id) = &self.confirm {
            rulebook.confirm(id).await?;
            return note("confirmed");
        }
        if self.off {
            rulebook.off().await?;
            return note("everybody reaches this machine again");
        }
        let policy = self.wanted()?;
        if self.dry_run {
            let machine = machine().map_err(|error| Failure::of(Exit::Refused, &error))?;
            let rules = table(Table(1), &policy, &machine) + &force(Table(1), Force::Standing);
            return print(rules.trim_end());
        }
        self.apply(&rulebook, &policy).await
    }

    async fn apply(&self, rulebook: &Rulebook, policy: &Policy) -> Result<(), Failure> {
        if let Some(seconds) = self.trial
            && let Came::Trial(id) = rulebook.apply(policy, Duration::from_secs(seconds.into())).await?
        {
            note(&format!("in force for {seconds} seconds; to keep it: quarry locknet --confirm {id}"))?;
            return print(&id);
        }
        if self.trial.is_none() {
            rulebook.put(policy).await?;
        }
        let open: Vec<String> = policy.open.iter().map(Port::to_string).collect();
        let everybody =
            if open.is_empty() { "nobody else anything".into() } else { format!("everybody: {}", open.join(" ")) };
        let peers = policy.peers.len();
        let reach = if peers == 1 { "reaches" } else { "reach" };
        note(&format!("{} {reach} everything, {everybody}", count(peers)))?;
        note("after a reboot: quarry locknet --restore")
    }

    fn wanted(&self) -> Result<Policy, Failure> {
        if let Some(path) = &self.policy {
            return read(path);
        }
        let mut mistakes = Vec::new();
        let peers = parsed::<Net>(&self.peers, &mut mistakes);
        let mut open = parsed::<Port>(&self.open, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(Failure::new(Exit::Mistake, mistakes.join("\n        ")));
        }
        open.insert(SSH);
        open.extend(session_port());
        Ok(Policy { peers, open, containers: Containers::Free })
    }
}

fn parsed<T: std::str::FromStr<Err: ToString> + Ord>(words: &[String], mistakes: &mut Vec<String>) -> BTreeSet<T> {
    let read = words.iter().filter_map(|word| match word.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            mistakes.push(T::Err::to_string(&error));
            None
        }
    });
    read.collect()
}

fn read(path: &Path) -> Result<Policy, Failure> {
    let wrong = |what: String| Failure::new(Exit::Mistake, format!("{}: {what}", path.display()));
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(path).map(|read| bytes = read)
    };
    read.map_err(|error| wrong(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))
}

/// The port of the SSH session this runs in. `sudo` takes the variable away: then it is that of whoever called sudo.
fn session_port() -> Option<Port> {
    let own = std::env::var("SSH_CONNECTION").ok();
    let connection = own.or_else(|| ancestors().find_map(|process| ssh_connection(&process)))?;
    // client, its port, server, its port
    connection.split(' ').nth(3)?.parse().ok()
}

fn ancestors() -> impl Iterator<Item = PathBuf> {
    let parent = |process: &PathBuf| {
        let status = std::fs::read_to_string(process.join("status")).ok()?;
        let pid = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<u32>().ok()?;
        (pid > 1).then(|| PathBuf::from(format!("/proc/{pid}")))
    };
    std::iter::successors(Some(PathBuf::from("/proc/self")), parent).skip(1)
}

fn ssh_connection(process: &Path) -> Option<String> {
    let environ = std::fs::read(process.join("environ")).ok()?;
    let found = environ.split(|byte| *byte == 0).find_map(|pair| pair.strip_prefix(b"SSH_CONNECTION="))?;
    String::from_utf8(found.to_vec()).ok()
}

async fn show(rulebook: &Rulebook, as_json: bool) -> Result<(), Failure> {
    let (standing, policy) = (rulebook.check().await?, rulebook.policy()?);
    let refused = nft::refused().await.map_err(|error| Failure::of(Exit::Refused, &error))?;
    if as_json {
        let value = json!({ "standing": word(&standing), "policy": policy, "refused": refused });
        return print(&serde_json::to_string_pretty(&value).expect("a policy has string keys and serialises"));
    }
    let Some(policy) = policy else { return print(sentence(&standing)) };
    let join = |words: Vec<String>| if words.is_empty() { "nobody".to_owned() } else { words.join(" ") };
    print(&format!(
        "{}\npeers       {}\neverybody   {}\ncontainers  {}\nrefused     {refused} packets",
        sentence(&standing),
        join(policy.peers.iter().map(Net::to_string).collect()),
        join(policy.open.iter().map(Port::to_string).collect()),
        match &policy.containers {
            Containers::Free => "whatever this machine reaches".to_owned(),
            Containers::Kept { links, .. } => format!("the internet and {} links", links.len()),
        },
    ))
}

fn word(standing: &Standing) -> &'static str {
    match standing {
        Standing::Off => "off",
        Standing::Applied => "applied",
        Standing::Trial(_) => "trial",
        Standing::RolledBack => "rolled back",
        Standing::Changed => "changed",
    }
}

fn sentence(standing: &Standing) -> &'static str {
    match standing {
        Standing::Off => "off: everybody reaches this machine",
        Standing::Applied => "the rules stand as they were applied",
        Standing::Trial(_) => "new rules are on trial",
        Standing::RolledBack => {
            "a trial was not confirmed and the rules before it are back; tidy up: quarry locknet --restore"
        }
        Standing::Changed => "the rules are not those that were applied; apply them again: quarry locknet --restore",
    }
}

fn count(peers: usize) -> String {
    if peers == 1 { "1 peer".to_owned() } else { format!("{peers} peers") }
}

fn print(text: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{text}").map_err(|_| super::failure::hung_up())
}

fn note(text: &str) -> Result<(), Failure> {
    writeln!(std::io::stderr(), "{text}").map_err(|_| super::failure::hung_up())
}
