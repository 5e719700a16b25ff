//! `deploy STACK REF`

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::hq::deploy::Request;
use crate::hq::door::Why;
use crate::hq::git::Named;
use crate::hq::rights::Right;
use crate::launch::record::Cause;
use tokio_util::sync::CancellationToken;

/// Deploy a branch or commit that was pushed before
#[derive(Debug, clap::Args)]
pub struct Deploy {
    /// [STACK] [REF]: a branch, a tag, or the first digits of a commit's id; without it the branch that deploys
    words: Vec<String>,
}

impl Deploy {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such commit, or its launch fails; then nothing has changed.
    pub async fn run(self, cx: &Context, hung_up: CancellationToken) -> Result<(), Failure> {
        let (target, rest) = cx.target(&self.words, Right::Deploy).await?;
        let stack = target.stack;
        let own;
        let reference = match rest {
            [reference] => reference,
            [] => {
                let text = format!("nothing was pushed to `{stack}` yet; push it first");
                let nothing = || Failure::new(Exit::Mistake, text).because(Why::Refused);
                own = cx.hq.status(&stack).await?.branch.ok_or_else(nothing)?;
                &own
            }
            _ => return Err(Failure::new(Exit::Usage, "name one branch or commit: deploy STACK REF")),
        };
        let name = reference.clone();
        let named = cx.hq.with_repository(&stack, move |repository| repository.named(&name)).await?;
        let commit = match named {
            Named::One(commit) => commit,
            Named::Several => {
                let text = format!("several commits of `{stack}` begin with `{reference}`");
                return Err(Failure::new(Exit::Mistake, text));
            }
            Named::None => {
                let text = format!("`{stack}` has no branch, tag or commit `{reference}`; push it first");
                return Err(Failure::new(Exit::Mistake, text).because(Why::Refused));
            }
        };
        let (hq, access, cause) = (cx.hq.clone(), cx.access.clone(), Cause::Deploy(reference.clone()));
        let request = Request { stack: stack.clone(), commit, branch: None, cause, access };
        cx.in_turn(&stack, "deploy", |say| async move {
            hq.deploy(request, hung_up, &|line| say.line(line)).await.map(drop)
        })
        .await
    }
}
