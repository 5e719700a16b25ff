//! `deploy STACK REF`

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::hq::deploy::Request;
use crate::launch::record::Cause;
use crate::names::CommitId;
use tokio_util::sync::CancellationToken;

/// Deploy a branch or commit that was pushed before
#[derive(Debug, clap::Args)]
pub struct Deploy {
    /// [STACK] REF: a branch or a whole commit id
    #[arg(required = true)]
    words: Vec<String>,
}

impl Deploy {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such commit, or its launch fails; then nothing has changed.
    pub async fn run(self, cx: &Context, hung_up: CancellationToken) -> Result<(), Failure> {
        let (target, rest) = cx.target(&self.words).await?;
        let [reference] = rest else {
            return Err(Failure::new(Exit::Usage, "name one branch or commit: deploy STACK REF"));
        };
        let stack = target.stack;
        let name = reference.clone();
        let found = cx
            .hq
            .with_repository(&stack, move |repository| match repository.tip(&name)? {
                Some(commit) => Ok(Some(commit)),
                None => Ok(name.parse::<CommitId>().ok().filter(|id| repository.commit(id).is_ok())),
            })
            .await?;
        let commit = found.ok_or_else(|| {
            Failure::new(Exit::Mistake, format!("`{stack}` has no branch or commit `{reference}`; push it first"))
        })?;
        let (hq, user, cause) = (cx.hq.clone(), cx.caller.user.clone(), Cause::Deploy(reference.clone()));
        let request = Request { stack: stack.clone(), commit, branch: None, cause, user };
        cx.in_turn(&stack, "deploy", |say| async move {
            hq.deploy(request, hung_up, &|line| say.line(line)).await.map(drop)
        })
        .await
    }
}
