//! `restart STACK[/NODE] …`

use std::collections::BTreeSet;

use super::context::Context;
use super::failure::Failure;
use crate::hq::HqError;
use crate::hq::progress::detail;
use crate::hq::rights::Right;

/// Replace containers by new ones without dropping a request
#[derive(Debug, clap::Args)]
pub struct Restart {
    /// STACK or STACK/NODE; services only when named
    target: Option<String>,
}

impl Restart {
    /// Runs the command.
    ///
    /// # Errors
    /// When new containers do not come up; then the old ones run on.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let words: Vec<String> = self.target.into_iter().collect();
        let (target, _) = cx.target(&words, Right::Deploy).await?;
        let hq = cx.hq.clone();
        cx.in_turn(&target.stack.clone(), "restart", |say| async move {
            let nodes: BTreeSet<_> = target.node.into_iter().collect();
            hq.restart(&target.stack, &nodes, &|line| say.line(line)).await?;
            say.line(detail("done"));
            Ok::<_, HqError>(())
        })
        .await
    }
}
