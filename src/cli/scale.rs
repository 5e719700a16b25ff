//! `scale STACK NODE=N …`

use std::collections::BTreeMap;

use serde::Serialize;

use super::context::{Context, Target};
use super::failure::{Exit, Failure};
use crate::hq::progress::{detail, phase};
use crate::hq::rights::Right;
use crate::hq::{Hq, HqError};
use crate::names::{NodeName, StackName};

/// Most containers of one node.
const MOST: u32 = 100;

/// Set how many containers of each node run
#[derive(Debug, clap::Args)]
pub struct Scale {
    /// [STACK] NODE=N …; without NODE=N the present numbers are shown
    words: Vec<String>,
    /// Print the steps and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Scale {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        self.words.iter().any(|word| word.contains('='))
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When a node does not exist or containers do not come up; then the numbers stay.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let (stack, counts) = self.read(cx).await?;
        if counts.is_empty() {
            return list(cx, &stack).await;
        }
        let current = cx.hq.current(&stack).await?;
        let known: Vec<NodeName> = cx.hq.procs(&stack).await?.into_iter().map(|proc| proc.node).collect();
        if let Some(missing) = counts.keys().find(|node| !known.contains(node)) {
            return Err(cx.hq.no_node(&stack, missing, &current).into());
        }
        if self.dry_run {
            let plan = cx.hq.dry_run(&Hq::scale_job(&stack, &counts)).await?;
            return super::launch::print_plan(cx, &plan).await;
        }
        let hq = cx.hq.clone();
        cx.in_turn(&stack.clone(), "scaling", |say| async move {
            let list: Vec<String> = counts.iter().map(|(node, count)| format!("{node}={count}")).collect();
            say.line(phase(&format!("Scaling {stack} to {}", list.join(" "))));
            hq.operate(Hq::scale_job(&stack, &counts), &|line| say.line(line)).await?;
            say.line(detail("done"));
            Ok::<_, HqError>(())
        })
        .await
    }

    async fn read(&self, cx: &Context) -> Result<(StackName, BTreeMap<NodeName, u32>), Failure> {
        let pairs = self.words.iter().position(|word| word.contains('=')).unwrap_or(self.words.len());
        let needed = if self.changes() { Right::Deploy } else { Right::View };
        let (Target { stack, .. }, rest) = cx.target(&self.words[..pairs], needed).await?;
        if let Some(node) = rest.first() {
            let message = format!("how many containers of `{node}` shall run? write {node}=N");
            return Err(Failure::new(Exit::Usage, message));
        }
        let mut counts = BTreeMap::new();
        for word in &self.words[pairs..] {
            let wrong = || Failure::new(Exit::Usage, format!("`{word}` is not NODE=N with N from 0 to {MOST}"));
            let (node, count) = word.split_once('=').ok_or_else(wrong)?;
            let count: u32 = count.parse().ok().filter(|count| *count <= MOST).ok_or_else(wrong)?;
            counts.insert(node.parse()?, count);
        }
        Ok((stack, counts))
    }
}

/// A node as listings show it.
#[derive(Debug, Serialize)]
struct Row {
    node: NodeName,
    count: u32,
}

async fn list(cx: &Context, stack: &StackName) -> Result<(), Failure> {
    let procs = cx.hq.procs(stack).await?;
    let rows: Vec<Row> = procs.into_iter().map(|proc| Row { node: proc.node, count: proc.count }).collect();
    if cx.out.json {
        return cx.out.value(&rows).await;
    }
    let cells: Vec<Vec<String>> =
        rows.into_iter().map(|row| vec![row.node.to_string(), row.count.to_string()]).collect();
    cx.out.table(&["NODE", "COUNT"], &cells).await
}
