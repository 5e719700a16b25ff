//! Agents on real servers, installed over SSH.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quarry::agent::config::Contents;
use quarry::agent::files::FOLDER;
use quarry::agent::http::{Client, Way};
use quarry::agent::ssh::{Came, Program, Routes, install};
use quarry::agent::vitals::Docker;
use quarry::agent::{Agent, AgentError, Config, Routing};
use quarry::network::act::Standing;
use quarry::network::hosts::Entries;
use quarry::servers::ssh::{Line, State};
use tokio::time::timeout;

use super::{config, contract, policy, table, turn, vitals};
use crate::harness::lab::{Lab, Server};
use crate::harness::wait::{PATIENCE, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quarry");

/// A server with its line and its agent.
struct Site<'lab> {
    server: Server<'lab>,
    line: Arc<Line>,
    agent: Client,
}

impl<'lab> Site<'lab> {
    async fn new(server: Server<'lab>, program: &Program) -> Self {
        let line = Arc::new(server.line());
        assert_eq!(install(&line, program, FOLDER, Routes::Yes).await.unwrap(), Came::Started);
        let agent = Client::new(Way::Line(line.clone()), Path::new(FOLDER));
        Self { server, line, agent }
    }

    fn pid(&self) -> String {
        self.shell(&format!("cat {FOLDER}/lock")).trim().to_owned()
    }

    fn shell(&self, script: &str) -> String {
        self.server.ssh(&["sh", "-c", script]).succeeded().text()
    }

    /// Whether a connection to a port of this server comes about.
    fn reaches(&self, address: &str, port: u16) -> bool {
        let script = format!("timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/{port} && read -t 2 line <&3'");
        self.server.ssh(&["sh", "-c", &script]).code == 0
    }

    fn hosts(&self) -> String {
        self.shell("cat /etc/hosts")
    }

    /// Reads a file until it has this content.
    async fn up(&self) {
        let mut state = self.line.state();
        let seen = timeout(PATIENCE, state.wait_for(|state| *state == State::Up)).await;
        assert!(seen.is_ok(), "still {:?}", *self.line.state().borrow());
    }
}

fn entries(pairs: &[(&str, &str)]) -> Entries {
    pairs.iter().map(|(address, name)| (address.parse().unwrap(), [name.parse().unwrap()].into())).collect()
}

fn files(pairs: &[(&str, &str)]) -> BTreeMap<quarry::network::config::ConfigPath, Contents> {
    pairs.iter().map(|(path, text)| (path.parse().unwrap(), Contents(text.as_bytes().to_vec()))).collect()
}

#[tokio::test]
async fn an_agent_over_ssh_keeps_the_promises_and_is_upgraded_in_place() {
    let lab = Lab::up(1);
    let program = Program::at(Path::new(PROGRAM)).await.unwrap();
    let site = Site::new(lab.server(1), &program).await;
    let (hq, _) = (format!("10.77.{}.1", lab.id()), ());
    contract(&site.agent, &[&hq], format!("{}:80", site.server.ip()).parse().unwrap()).await;

    assert_eq!(install(&site.line, &program, FOLDER, Routes::No).await.unwrap(), Came::Runs);
    let pid = site.pid();
    // Another program, as far as anybody can tell: the same with a byte behind it.
    let other = lab.folder().join("quarry");
    std::fs::copy(PROGRAM, &other).unwrap();
    let mut bytes = std::fs::OpenOptions::new().append(true).open(&other).unwrap();
    std::io::Write::write_all(&mut bytes, b"\n").unwrap();
    drop(bytes);
    let other = Program::at(&other).await.unwrap();
    assert_eq!(install(&site.line, &other, FOLDER, Routes::No).await.unwrap(), Came::Changed);
    assert_eq!(site.pid(), pid, "it goes on under its process id");
    let told = vitals(&site.agent, "the new program", |vitals| vitals.program == other.digest()).await;
    assert_eq!(told.config.unwrap().turn, turn(11), "and with what it knew");
    let stale = site.agent.configure(&config(2)).await;
    assert_eq!(stale, Err(AgentError::Stale { held: turn(11) }));
}
