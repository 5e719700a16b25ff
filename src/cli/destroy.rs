//! `destroy STACK`

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::hq::HqError;
use crate::hq::progress::{detail, phase};
use crate::hq::rights::Right;

/// Remove a stack with its containers, releases, variables and volumes
#[derive(Debug, clap::Args)]
pub struct Destroy {
    /// Which stack
    stack: Option<String>,
    /// Yes, destroy it: repeat the stack's name
    #[arg(long, value_name = "STACK")]
    confirm: Option<String>,
    /// Destroy without asking
    #[arg(long, visible_alias = "yes")]
    force: bool,
}

impl Destroy {
    /// Runs the command.
    ///
    /// # Errors
    /// When it is not confirmed, or something cannot be removed.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let stack = cx.only_stack(self.stack.as_slice(), Right::Admin).await?;
        if !self.force && self.confirm.as_deref() != Some(stack.as_str()) {
            let message = format!(
                "this removes {stack} with its releases, variables and volumes; to do it: destroy {stack} --confirm {stack}"
            );
            return Err(Failure::new(Exit::Refused, message));
        }
        let hq = cx.hq.clone();
        cx.in_turn(&stack.clone(), "destruction", |say| async move {
            say.line(phase(&format!("Destroying {stack}")));
            hq.destroy(&stack, &|line| say.line(line)).await?;
            say.line(detail("gone"));
            Ok::<_, HqError>(())
        })
        .await
    }
}
