//! `releases STACK`

use super::context::Context;
use super::failure::Failure;
use crate::hq::rights::Right;
use crate::names::printable::printable;

/// List the kept releases, newest first
#[derive(Debug, clap::Args)]
pub struct Releases {
    /// Which stack
    stack: Option<String>,
}

impl Releases {
    /// Runs the command.
    ///
    /// # Errors
    /// When the stack does not exist.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let words: Vec<String> = self.stack.into_iter().collect();
        let stack = cx.only_stack(&words, Right::View).await?;
        let mut releases = cx.hq.releases(&stack).await?;
        releases.reverse();
        if cx.out.json {
            return cx.out.value(&releases).await;
        }
        let now = cx.hq.clock.now();
        let rows: Vec<Vec<String>> = releases
            .iter()
            .enumerate()
            .map(|(place, release)| {
                let age = super::ps::age(now.as_second() - release.created.as_second());
                vec![
                    format!("{}{}", release.number, if place == 0 { " *" } else { "" }),
                    release.commit.as_ref().map_or("-", |commit| commit.short()).to_owned(),
                    release.env_version.to_string(),
                    age,
                    release.user.to_string(),
                    printable(&release.cause.to_string()),
                    printable(&release.subject),
                ]
            })
            .collect();
        cx.out.table(&["RELEASE", "COMMIT", "ENV", "AGE", "BY", "CAUSE", "SUBJECT"], &rows).await
    }
}
