//! `links [STACK]`

use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use crate::embassy::{EndpointCounts, Health};
use crate::hq::embassies::Lead;
use crate::hq::rights::Right;
use crate::names::StackName;

/// Show where nodes are found by those linked to them: each port they expose, with its number at the embassies
#[derive(Debug, clap::Args)]
pub struct Links {
    /// Whose; all stacks' without
    stack: Option<String>,
}

/// A port as listings show it.
#[derive(Debug, Serialize)]
struct Row {
    stack: String,
    node: String,
    port: String,
    address: String,
    number: u16,
    healthy: usize,
    containers: usize,
    linked_by: Vec<String>,
    open: usize,
    total: u64,
    refused: u64,
    unserved: u64,
    bytes: u64,
}

impl Links {
    /// Runs the command.
    ///
    /// # Errors
    /// When the stack does not exist or the tree cannot be read.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let words: Vec<String> = self.stack.into_iter().collect();
        let stack = match (&words[..], &cx.stack) {
            ([], None) => None,
            _ => Some(cx.only_stack(&words, Right::View).await?),
        };
        let Some(address) = cx.hq.embassy() else {
            cx.out
                .note("there are no embassies: nodes of a stack find each other by name; `network show` says more")
                .await?;
            return if cx.out.json { cx.out.value(&Vec::<Row>::new()).await } else { Ok(()) };
        };
        let seen = cx.stacks().await?;
        let all = cx.access.is_operator();
        let is_shown = |of: &StackName| stack.as_ref().is_none_or(|stack| stack == of);
        let may_see = |of: &StackName| all || seen.contains(of);
        let leads = cx.hq.leads().await?.into_iter();
        let leads = leads.filter(|lead| is_shown(&lead.exposure.node.stack) && may_see(&lead.exposure.node.stack));
        let rows: Vec<Row> = leads.map(|lead| row(lead, address.to_string(), &may_see)).collect();
        if cx.out.json {
            return cx.out.value(&rows).await;
        }
        let cells = rows.into_iter().map(|row| {
            let containers = match row.healthy == row.containers {
                true => row.containers.to_string(),
                false => format!("{} of {}", row.healthy, row.containers),
            };
            let counts = [row.open.to_string(), row.total.to_string(), row.refused.to_string()];
            let by = row.linked_by.join(" ");
            let first = [row.stack, row.node, row.port, format!("{}:{}", row.address, row.number), containers];
            first.into_iter().chain(counts).chain([by]).collect()
        });
        let header = ["STACK", "NODE", "PORT", "FOUND AT", "CONTAINERS", "OPEN", "TOTAL", "REFUSED", "LINKED BY"];
        cx.out.table(&header, &cells.collect::<Vec<_>>()).await
    }
}

/// Of stacks that may not be seen it is not told that they link.
fn row(lead: Lead, address: String, may_see: &impl Fn(&StackName) -> bool) -> Row {
    let counts = &lead.counts;
    let sum = |of: fn(&EndpointCounts) -> u64| -> u64 { counts.iter().flat_map(|port| &port.endpoints).map(of).sum() };
    Row {
        stack: lead.exposure.node.stack.to_string(),
        node: lead.exposure.node.node.to_string(),
        port: lead.exposure.port.to_string(),
        address,
        number: lead.number,
        healthy: lead.endpoints.iter().filter(|endpoint| endpoint.health == Health::Healthy).count(),
        containers: lead.endpoints.len(),
        linked_by: lead.linked_by.iter().filter(|stack| may_see(stack)).map(ToString::to_string).collect(),
        open: counts.iter().flat_map(|port| &port.endpoints).map(|endpoint| endpoint.open).sum(),
        total: sum(|endpoint| endpoint.total),
        refused: counts.iter().map(|port| port.refused).sum(),
        unserved: counts.iter().map(|port| port.unserved).sum(),
        bytes: sum(|endpoint| endpoint.received + endpoint.sent),
    }
}
