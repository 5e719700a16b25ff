//! `launch FILE`

use std::path::PathBuf;

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::hq::HqError;
use crate::hq::door::Stdin;
use crate::hq::progress::{detail, phase};
use crate::instruction::tarball::unpack;
use crate::launch::Plan;

/// Perform an instruction tarball made by `build`
#[derive(Debug, clap::Args)]
pub struct Launch {
    /// The tarball; standard input without
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Print the steps and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Largest tarball, in bytes.
const TARBALL_LIMIT: usize = 32 << 20;

impl Launch {
    /// Runs the command.
    ///
    /// # Errors
    /// When the file is no tarball, or the launch fails; then nothing has changed.
    pub async fn run(self, cx: &Context, stdin: Stdin) -> Result<(), Failure> {
        let too_long = || Failure::new(Exit::Mistake, "this is longer than any instruction tarball");
        let bytes = stdin.at_most(TARBALL_LIMIT).await.ok_or_else(too_long)?;
        let (manifest, instructions) = unpack(&bytes)
            .map_err(|what| Failure::new(Exit::Mistake, format!("this is not an instruction tarball: {what}")))?;
        if self.dry_run {
            let job = cx.hq.launch_job(&manifest, &instructions, &cx.caller.user).await?;
            let plan = cx.hq.dry_run(&job).await?;
            return print_plan(cx, &plan).await;
        }
        let (hq, caller) = (cx.hq.clone(), cx.caller.clone());
        cx.in_turn(&manifest.stack.clone(), "launch", |say| async move {
            hq.ensure_stack(&manifest.stack, &caller.user).await?;
            let job = hq.launch_job(&manifest, &instructions, &caller.user).await?;
            say.line(phase(&format!("Launching {} from instructions", manifest.stack)));
            hq.operate(job, &|line| say.line(line)).await?;
            say.line(detail("live"));
            Ok::<_, HqError>(())
        })
        .await
    }
}

/// Prints a plan's steps, phase by phase.
///
/// # Errors
/// When the reader is gone.
pub async fn print_plan(cx: &Context, plan: &Plan) -> Result<(), Failure> {
    if cx.out.json {
        return cx.out.value(plan).await;
    }
    let phases = [("stage", &plan.stage), ("switch", &plan.switch), ("route", &plan.route), ("retire", &plan.retire)];
    for (name, steps) in phases {
        for step in steps {
            cx.out.line(&format!("{name:<7} {step}")).await?;
        }
    }
    for note in &plan.notes {
        cx.out.note(note).await?;
    }
    Ok(())
}
