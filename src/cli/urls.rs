//! `urls STACK`

use super::context::Context;
use super::failure::Failure;
use crate::hq::rights::Right;

/// Print where a stack answers, one address a line
#[derive(Debug, clap::Args)]
pub struct Urls {
    /// [STACK]
    words: Vec<String>,
}

impl Urls {
    /// Runs the command.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let stack = cx.only_stack(&self.words, Right::View).await?;
        let urls = match cx.hq.routes(&stack).await? {
            Some(table) => cx.hq.urls(&table).await,
            None => Vec::new(),
        };
        if cx.out.json { cx.out.value(&urls).await } else { cx.out.line(&urls.join("\n")).await }
    }
}
