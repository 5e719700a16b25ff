//! `rollback STACK [N]`

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::hq::door::Why;
use crate::hq::rights::Right;
use crate::names::ReleaseNumber;

/// Bring code and variables of a kept release back
#[derive(Debug, clap::Args)]
pub struct Rollback {
    /// [STACK] [N]; without N the release before the current one
    words: Vec<String>,
}

impl Rollback {
    /// Runs the command.
    ///
    /// # Errors
    /// When the release is not kept or does not come up; then the current one serves on.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let number: Option<ReleaseNumber> = self.words.last().and_then(|word| word.parse().ok());
        let words = &self.words[..self.words.len() - usize::from(number.is_some())];
        let stack = cx.only_stack(words, Right::Deploy).await?;
        if cx.hq.releases(&stack).await?.len() < 2 && number.is_none() {
            let failure = Failure::new(Exit::Mistake, format!("`{stack}` has no earlier release"));
            return Err(failure.because(Why::Refused));
        }
        let (hq, caller) = (cx.hq.clone(), cx.caller.clone());
        cx.in_turn(&stack.clone(), "rollback", |say| async move {
            hq.rollback(&stack, number, &caller.user, &|line| say.line(line)).await
        })
        .await
        .map(drop)
    }
}
