//! `network [show|apply|off]`

use std::collections::BTreeMap;

use serde::Serialize;

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::agent::{AgentError, Applied};
use crate::hq::agents::Voice;
use crate::hq::agents::act::Told;
use crate::hq::agents::remote::State;
use crate::hq::agents::wanted::Lock;
use crate::names::ServerName;
use crate::network::Net;
use crate::network::act::Standing;
use crate::units::port::Port;

/// Show and change who reaches the servers
///
/// Servers reach each other; everybody reaches SSH, and HTTP where a server routes. New rules that keep HQ out of a
/// server give way to those before by themselves.
#[derive(Debug, clap::Args)]
pub struct Network {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show how each server stands
    Show,
    /// Refuse strangers on every server, HQ's own included
    Apply,
    /// Let everybody reach everything
    Off,
}

#[derive(Debug, Serialize)]
struct Row {
    server: ServerName,
    presence: Voice,
    rules: String,
    agent: String,
    peers: Vec<String>,
    open: Vec<String>,
    trouble: Vec<String>,
}

impl Network {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        matches!(self.verb, Some(Verb::Apply | Verb::Off))
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When no HQ serves, or a server did not take the rules.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let (lock, done) = match self.verb {
            None | Some(Verb::Show) => return show(cx).await,
            Some(Verb::Apply) => (Lock::On, "strangers are refused"),
            Some(Verb::Off) => (Lock::Off, "nobody is refused any more"),
        };
        report(cx, cx.hq.lock_network(lock).await?, done).await
    }
}

/// One line for each server that is not what it should be, and one that says of how many it is `done`.
///
/// # Errors
/// When there is one that could have been.
pub async fn report(cx: &Context, told: Told, done: &str) -> Result<(), Failure> {
    let (mut failed, mut later) = (0, 0);
    let count = told.len();
    for (server, outcome) in told {
        match trouble(&outcome) {
            None => {}
            Some(Trouble::Later(why)) => {
                later += 1;
                cx.out.note(&format!("{server} is told when it is back: {why}")).await?;
            }
            Some(Trouble::Now(why)) => {
                failed += 1;
                cx.out.note(&format!("{server}: {why}")).await?;
            }
        }
    }
    match failed {
        0 => match count - later {
            0 => cx.out.note("kept; servers are told as soon as they can be").await,
            1 => cx.out.note(&format!("{done} on 1 server")).await,
            now => cx.out.note(&format!("{done} on {now} servers")).await,
        },
        _ => Err(Failure::new(Exit::Refused, format!("{failed} of {count} servers are not what they should be"))),
    }
}

enum Trouble {
    Later(String),
    Now(String),
}

fn trouble(outcome: &Result<Applied, AgentError>) -> Option<Trouble> {
    match outcome {
        Ok(applied) if applied.failed.is_empty() => None,
        Ok(applied) => {
            let failed: BTreeMap<String, &String> =
                applied.failed.iter().map(|(part, why)| (format!("{part:?}").to_lowercase(), why)).collect();
            let lines: Vec<String> = failed.iter().map(|(part, why)| format!("{part}: {why}")).collect();
            Some(Trouble::Now(lines.join("; ")))
        }
        Err(AgentError::Away { why, .. }) => Some(Trouble::Later(why.clone())),
        Err(AgentError::Trial(why)) => {
            Some(Trouble::Now(format!("the new rules kept HQ out, and those before are back ({why})")))
        }
        Err(error) => Some(Trouble::Now(error.to_string())),
    }
}

async fn show(cx: &Context) -> Result<(), Failure> {
    let voices = cx.hq.agents.voices().borrow().clone();
    let wanted = cx.hq.agents.wanted().borrow().clone();
    let mut rows = Vec::new();
    for (server, remote) in cx.hq.agents.all() {
        let state = remote.state();
        let turn = crate::agent::Turn { epoch: 0, generation: 0 };
        let policy = wanted.as_ref().and_then(|wanted| wanted.config(&server, turn).locknet);
        let presence = voices.get(&server).copied().unwrap_or(Voice::Suspect);
        rows.push(Row {
            presence,
            rules: rules(&state),
            agent: state.vitals.as_ref().map(|vitals| vitals.version.clone()).unwrap_or_default(),
            peers: policy.iter().flat_map(|policy| &policy.peers).map(Net::to_string).collect(),
            open: policy.iter().flat_map(|policy| &policy.open).map(Port::to_string).collect(),
            trouble: troubles(&state),
            server,
        });
    }
    if cx.out.json {
        return cx.out.value(&rows).await;
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let presence = format!("{:?}", row.presence).to_lowercase();
            let peers = row.peers.len().to_string();
            vec![row.server.to_string(), presence, row.rules.clone(), peers, row.open.join(",")]
        })
        .collect();
    cx.out.table(&["SERVER", "AGENT", "RULES", "PEERS", "OPEN TO EVERYBODY"], &cells).await?;
    for row in &rows {
        for trouble in &row.trouble {
            cx.out.note(&format!("{}: {trouble}", row.server)).await?;
        }
    }
    Ok(())
}

fn rules(state: &State) -> String {
    let standing = state.vitals.as_ref().and_then(|vitals| vitals.locknet.as_ref());
    match standing {
        None => "unknown",
        Some(Standing::Off) => "off",
        Some(Standing::Applied) => "applied",
        Some(Standing::Trial(_)) => "on trial",
        Some(Standing::RolledBack) => "rolled back",
        Some(Standing::Changed) => "changed by hand",
    }
    .to_owned()
}

fn troubles(state: &State) -> Vec<String> {
    let told = state.told.as_ref().and_then(trouble).map(|trouble| match trouble {
        Trouble::Later(why) | Trouble::Now(why) => why,
    });
    let back = state.rolled_back.iter().map(|why| format!("rules that kept HQ out went back ({why})"));
    let rival = state.rival.map(|_| "another HQ tells it what it should be, too; stop one of the two".to_owned());
    told.into_iter().chain(back).chain(rival).collect()
}
