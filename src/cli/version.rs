//! `version`

use std::path::PathBuf;

use serde::Serialize;

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::hq::upgrade::process::is_own;

/// Which quarry this HQ is
#[derive(Debug, clap::Args)]
pub struct Version {
    /// Only if its program is a copy of this file
    #[arg(long, hide = true)]
    like: Option<PathBuf>,
}

#[derive(Serialize)]
struct Shown {
    version: &'static str,
    process: u32,
    /// Where it lies, for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<PathBuf>,
}

impl Version {
    /// Runs the command.
    ///
    /// # Errors
    /// When it is another program.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let program = cx.hq.house().filter(|_| cx.access.is_operator()).map(|house| house.program.clone());
        let shown = Shown { version: env!("CARGO_PKG_VERSION"), process: std::process::id(), program };
        if let Some(like) = self.like {
            cx.check_operator()?;
            let same = tokio::task::spawn_blocking(move || is_own(&like)).await;
            if !matches!(same, Ok(Ok(true))) {
                let text = "HQ did not come to serve as that program and is the one of before; its log says why";
                return Err(Failure::new(Exit::Refused, text));
            }
        }
        match cx.out.json {
            true => cx.out.value(&shown).await,
            false => cx.out.line(&format!("quarry {} serves (process {})", shown.version, shown.process)).await,
        }
    }
}
