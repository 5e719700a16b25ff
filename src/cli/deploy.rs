//! `deploy STACK REF`

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::hq::deploy::Request;
use crate::hq::git::Named;
use crate::hq::rights::Right;
use crate::launch::record::Cause;
use tokio_util::sync::CancellationToken;

/// Deploy a branch or commit that was pushed before
#[derive(Debug, clap::Args)]
pub struct Deploy {
    /// [STACK] REF: a branch, a tag, or the first digits of a commit's id
    #[arg(required = true)]
    words: Vec<String>,
}

impl Deploy {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such commit, or its launch fails; then nothing has changed.
    pub async fn run(self, cx: &Context, hung_up: CancellationToken) -> Result<(), Failure> {
        let (target, rest) = cx.target(&self.words, Right::Deploy).await?;
        let [reference] = rest else {
            return Err(Failure::new(Exit::Usage, "name one branch or commit: deploy STACK REF"));
        };
        let stack = target.stack;
        let name = reference.clone();
        let named = cx.hq.with_repository(&stack, move |repository| repository.named(&name)).await?;
        let wrong = |text: String| Err(Failure::new(Exit::Mistake, text));
        let commit = match named {
            Named::One(commit) => commit,
            Named::Several => return wrong(format!("several commits of `{stack}` begin with `{reference}`")),
            Named::None => {
                return wrong(format!("`{stack}` has no branch, tag or commit `{reference}`; push it first"));
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
