//! `metrics`

use std::collections::BTreeSet;

use super::context::Context;
use super::failure::Failure;
use crate::docker::State;
use crate::hq::fleet::Seen;
use crate::hq::metrics::{Figures, Running, Server, text};
use crate::launch::label;
use crate::names::StackName;

/// Print what HQ counts, as text for Prometheus
#[derive(Debug, clap::Args)]
pub struct Metrics {}

impl Metrics {
    /// Runs the command: operators see everything, others their stacks.
    ///
    /// # Errors
    /// When the tree cannot be read, or docker does not answer.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let stacks = cx.stacks().await?;
        let mut figures = Figures { version: env!("CARGO_PKG_VERSION").to_owned(), ..Figures::default() };
        for stack in &stacks {
            let releases = cx.hq.releases(stack).await?;
            let current = releases.last().map(|release| release.number.0);
            figures.stacks.insert(stack.clone(), (releases.len() as u64, current));
            for proc in cx.hq.procs(stack).await? {
                figures.wanted.insert((stack.clone(), proc.node), proc.count.into());
            }
        }
        add_containers(cx, &stacks, &mut figures).await?;
        if cx.access.is_operator() {
            figures.work = Some(cx.hq.traffic.under_way().len() as u64);
            for server in cx.hq.list_servers().await? {
                let up = server.why.is_none() && ["up", "draining"].contains(&server.state);
                let remote = cx.hq.agents.all().remove(&server.name);
                let machine = remote.and_then(|remote| remote.state().vitals).map(|vitals| vitals.machine);
                let known = Server { up, size: server.size, used: server.used, free: server.free, machine };
                figures.servers.insert(server.name, known);
            }
        }
        let leads = cx.hq.leads().await?.into_iter();
        figures.ports = leads.filter(|lead| stacks.contains(&lead.exposure.node.stack)).collect();
        figures.answered = cx.hq.answered().await;
        figures.answered.values_mut().for_each(|all| all.retain(|tally| stacks.contains(&tally.stack)));
        cx.out.data(text(&figures)).await
    }
}

async fn add_containers(cx: &Context, stacks: &BTreeSet<StackName>, figures: &mut Figures) -> Result<(), Failure> {
    let (survey, sick) = (cx.hq.survey().await?, cx.hq.sick());
    let text = |seen: &Seen, name: &str| seen.container.labels.get(name).cloned().unwrap_or_default();
    let stack = |seen: &Seen| text(seen, label::STACK).parse::<StackName>().ok().filter(|stack| stacks.contains(stack));
    let own = survey.containers.iter().filter(|seen| {
        let is_own = text(seen, label::HQ) == cx.hq.launcher.identity.id;
        // What a server does not say now is unknown.
        is_own && !survey.silent.contains_key(&seen.server) && seen.container.state == State::Running
    });
    let shown: Vec<Seen> = own.filter(|seen| stack(seen).is_some()).cloned().collect();
    let usage = cx.hq.usage(&shown).await;
    for seen in &shown {
        let Some(stack) = stack(seen) else { continue };
        let node = text(seen, label::NODE);
        let place = (seen.server.clone(), seen.container.name.clone());
        *figures.running.entry((stack.clone(), node.clone(), seen.server.clone())).or_default() += 1;
        let (is_sick, usage) = (sick.contains(&place), usage.get(&place).copied());
        let (server, container) = place;
        figures.containers.push(Running { stack, node, server, container, is_sick, usage });
    }
    Ok(())
}
