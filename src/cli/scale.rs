//! `scale STACK NODE=N …`

use std::collections::BTreeMap;

use super::context::{Context, Target};
use super::failure::{Exit, Failure};
use crate::hq::progress::{detail, phase};
use crate::hq::rights::Right;
use crate::hq::{Hq, HqError};
use crate::names::NodeName;

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
    /// Runs the command.
    ///
    /// # Errors
    /// When a node does not exist or containers do not come up; then the numbers stay.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let (stack, counts) = self.read(cx).await?;
        if counts.is_empty() {
            let rows: Vec<Vec<String>> = cx
                .hq
                .procs(&stack)
                .await?
                .into_iter()
                .map(|proc| vec![proc.node.to_string(), proc.count.to_string()])
                .collect();
            return cx.out.table(&["NODE", "COUNT"], &rows).await;
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

    async fn read(&self, cx: &Context) -> Result<(crate::names::StackName, BTreeMap<NodeName, u32>), Failure> {
        let pairs = self.words.iter().position(|word| word.contains('=')).unwrap_or(self.words.len());
        let (Target { stack, .. }, rest) = cx.target(&self.words[..pairs], Right::Deploy).await?;
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
