//! Looks at everything and tells what is wrong.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::stats::{self, listening, look};
use super::{DockerFacts, Finding, of_clock, of_docker, of_listening, of_machine};
use crate::build::limits::unlimited;
use crate::certs::plan::is_public;
use crate::docker::Engine;
use crate::etc::Settings;
use crate::etc::acme::Look;
use crate::hq::reconcile::drift;
use crate::hq::{Hq, HqError, chain};
use crate::instruction::Instruction;
use crate::launch::Identity;
use crate::names::{Domain, ServerName, StackName};
use crate::network::nft;
use crate::network::wall::Wall;
use crate::router::StackRoutes;
use crate::servers::ssh::Line;

/// How long a server may take to tell its time.
const TELL: Duration = Duration::from_secs(5);
/// Names that are asked for at once.
const AT_ONCE: usize = 16;
/// A certificate that nobody renews is told of so long before its end.
const EXPIRY: Duration = Duration::from_secs(14 * 24 * 3600);

/// What is wrong with the machine around an HQ, which need not serve.
pub async fn examine_machine(root: &Path, etc: &Path, engine: &dyn Engine) -> Vec<Finding> {
    let docker = match (engine.version().await, engine.surroundings().await) {
        (Ok(version), Ok(around)) => Ok((version, around)),
        (Err(error), _) | (_, Err(error)) => Err(chain(&error)),
    };
    let more: Vec<_> = docker.iter().map(|(_, around)| around.folder.clone()).collect();
    let (root, etc) = (root.to_owned(), etc.to_owned());
    let looked = spawn_blocking(move || look(&root, &etc, &more)).await;
    let (settings, machine) = looked.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let ports = settings.unwrap_or_else(Settings::default).ports;
    let mut found = of_machine(&machine, &ports);
    let facts = docker.map(|(version, around)| DockerFacts {
        version,
        live_restore: around.live_restore,
        unlimited: unlimited(&around),
    });
    found.extend(of_docker(&facts, machine.systemd));
    found
}

/// Whether the wall between containers stands.
pub async fn examine_wall(identity: &Identity) -> Option<Finding> {
    let wall = Wall { hq: identity.id.clone(), ..Wall::default() };
    match nft::stands(&wall.table()).await {
        Ok(true) => None,
        Ok(false) => {
            let what = "the wall is down: containers reach HQ's machine and each other's";
            Some(Finding::broken("network", what, "quarry network apply"))
        }
        Err(error) => Some(Finding::broken("network", chain(&error), "apt-get install nftables")),
    }
}

impl Hq {
    /// What is wrong with HQ, its servers and its stacks. What cannot be asked is a finding too.
    pub async fn examine(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        if let Some(ports) = self.house().and_then(|house| house.ports.get().copied()) {
            let systemd = Path::new("/run/systemd/system").is_dir();
            let looked = spawn_blocking(move || listening(ports)).await.unwrap_or_default();
            found.extend(of_listening(&looked, systemd));
            found.extend(examine_wall(&self.launcher.identity).await);
        }
        for (about, part) in [
            ("servers", self.examine_servers().await),
            ("certificates", self.examine_certificates().await),
            ("stacks", self.examine_stacks().await),
            ("domains", self.examine_domains().await),
        ] {
            match part {
                Ok(more) => found.extend(more),
                Err(error) => found.push(Finding::broken(about, chain(&error), "quarry events -n 20")),
            }
        }
        found.sort();
        found
    }

    async fn examine_servers(&self) -> Result<Vec<Finding>, HqError> {
        let mut found = Vec::new();
        for server in self.list_servers().await? {
            if !["down", "lost"].contains(&server.state) {
                continue;
            }
            let (name, why) = (&server.name, server.why.unwrap_or_else(|| "it does not answer".to_owned()));
            let what = format!("`{name}` is {}: {why}", server.state);
            let mend = match server.address {
                Some(address) => format!("ssh {address} (or, to give it up: quarry servers remove {name} --force)"),
                None => "systemctl restart docker".to_owned(),
            };
            found.push(Finding::broken("servers", what, mend));
        }
        let now = self.clock.now().as_second();
        for server in self.members().into_keys().filter(|server| server != self.engines().here()) {
            if let Some(time) = self.time_of(&server).await {
                found.extend(of_clock(server.as_str(), time - now));
            }
        }
        Ok(found)
    }

    /// Seconds since 1970 on a server; `None` where it does not answer.
    async fn time_of(&self, server: &ServerName) -> Option<i64> {
        let line: std::sync::Arc<Line> = self.lines.of(server).ok()?;
        let asked = async {
            let link = line.link().await.ok()?;
            let done = link.exec(&["date", "+%s"], tokio::io::empty(), TELL).await.ok()?;
            String::from_utf8_lossy(&done.stdout).trim().parse().ok()
        };
        timeout(TELL, asked).await.ok().flatten()
    }

    async fn examine_certificates(&self) -> Result<Vec<Finding>, HqError> {
        let now = self.clock.now();
        let mut found = Vec::new();
        for row in self.certificate_rows().await? {
            let domain = &row.domain;
            let own = format!("quarry certs add '{domain}' < chain-and-key.pem");
            let mend = if row.next.is_some() { format!("quarry certs renew {domain}") } else { own.clone() };
            let ends =
                row.expires.filter(|expires| expires.duration_since(now).unsigned_abs() < EXPIRY || *expires <= now);
            if let Some(problem) = &row.problem {
                let what = format!("{domain}: {problem}");
                found.push(match row.kind {
                    Some(_) if row.expires.is_none_or(|expires| expires > now) => {
                        Finding::soon("certificates", what, mend)
                    }
                    Some(_) | None => Finding::broken("certificates", what, mend),
                });
            } else if let (Some(ends), None) = (ends, row.next) {
                let what = format!("the certificate of {domain} ends at {ends}, and nobody renews it");
                found.push(Finding::soon("certificates", what, own));
            }
        }
        Ok(found)
    }

    /// What should run and does not, and what the router should know and does not.
    async fn examine_stacks(&self) -> Result<Vec<Finding>, HqError> {
        let mut found = Vec::new();
        for stack in self.known_stacks().await? {
            match self.examine_stack(&stack).await {
                Ok(more) => found.extend(more),
                Err(error) => {
                    let what = format!("{stack}: {}", chain(&error));
                    found.push(Finding::broken("stacks", what, format!("quarry stacks show {stack}")));
                }
            }
        }
        let Some(edge) = &self.launcher.edge else { return Ok(found) };
        let served: Vec<StackRoutes> = match edge.tables().await {
            Ok(served) => served,
            Err(error) => {
                let what = format!("the router does not answer: {}", chain(&error));
                found.push(Finding::broken("router", what, "systemctl restart quarry"));
                return Ok(found);
            }
        };
        for table in self.tables().await? {
            if !served.contains(&table) {
                let what = format!("the router serves something else of `{}` than it should", table.stack);
                found.push(Finding::broken("router", what, format!("quarry restart {}", table.stack)));
            }
        }
        Ok(found)
    }

    async fn examine_stack(&self, stack: &StackName) -> Result<Vec<Finding>, HqError> {
        // Whoever is at it brings it about.
        let Some(_turn) = self.try_turn(stack, "the doctor") else { return Ok(Vec::new()) };
        let Some(current) = self.releases(stack).await?.pop() else { return Ok(Vec::new()) };
        let world = self.world(stack, current.number, current.env_version).await?;
        let mut found = Vec::new();
        for instruction in drift(&world) {
            let what = format!("{stack} is not as it should be; HQ has yet to {}", yet(&instruction));
            found.push(Finding::broken("stacks", what, format!("quarry logs {stack}; quarry restart {stack}")));
        }
        for (node, proc) in &world.procs {
            if self.engines().local().image(proc.settings.image.as_str()).await?.is_none() {
                let what =
                    format!("the image of {stack}/{node} is gone from HQ's machine: it could not be started elsewhere");
                let commit = current.commit.as_ref().map_or("COMMIT", |commit| commit.short());
                found.push(Finding::soon("stacks", what, format!("quarry deploy {stack} {commit}")));
            }
        }
        Ok(found)
    }

    /// Domains that lead nowhere, or to somebody else. Where HQ is told not to look, it does not.
    async fn examine_domains(&self) -> Result<Vec<Finding>, HqError> {
        let Some(ports) = self.house().and_then(|house| house.ports.get()) else { return Ok(Vec::new()) };
        if self.settings.acme.as_ref().is_some_and(|acme| acme.look == Look::Never) {
            return Ok(Vec::new());
        }
        let tables = self.tables().await?;
        let all = tables.iter().flat_map(|table| table.nodes.values().flat_map(|node| &node.domains));
        let public = |domain: &&Domain| !domain.is_wildcard() && is_public(domain);
        let domains: BTreeSet<Domain> = all.filter(public).cloned().collect();
        let looks = futures_util::stream::iter(domains).map(|domain| async move {
            let elsewhere = self.leads_here(&domain, ports.http).await.err()?;
            let mend = format!("dig {domain} A {domain} AAAA (its records should lead to a router of this HQ)");
            Some(Finding::soon("domains", format!("{domain}: {elsewhere}"), mend))
        });
        Ok(looks.buffer_unordered(AT_ONCE).filter_map(|found| async move { found }).collect().await)
    }
}

/// What heals, in words.
fn yet(instruction: &Instruction) -> String {
    match instruction {
        Instruction::Scale { node, count } => format!("bring {node} to {count} containers that run and are routed"),
        Instruction::Kill { container, .. } => format!("remove the container {container}"),
        Instruction::Ensure { node, .. } | Instruction::Deploy { node, .. } | Instruction::Route { node, .. } => {
            format!("see to {node}")
        }
    }
}

/// How full the disk of HQ's files is, in percent; `None` where it cannot be asked.
pub async fn disk_used(folder: &Path) -> Option<u64> {
    let folder = folder.to_owned();
    spawn_blocking(move || stats::disk(&folder).map(|disk| disk.used())).await.ok().flatten()
}
