//! `gc`

use super::context::Context;
use super::failure::Failure;
use crate::hq::collect::Then;

/// Take away what could be done without: old releases and images, checkouts, ended runs, old events, build cache
///
/// HQ does so by itself every ten minutes, within the budget of the settings (`releases-kept`, `gc/…`). The release that
/// serves and the two before it always stay.
#[derive(Debug, clap::Args)]
pub struct Gc {
    /// Only tell what would go
    #[arg(long)]
    dry_run: bool,
}

impl Gc {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        !self.dry_run
    }

    /// Runs the command.
    ///
    /// # Errors
    /// What cannot be listed.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let hq = cx.hq.clone();
        let then = if self.dry_run { Then::Tell } else { Then::Take };
        let found = cx.beside(|_| async move { hq.sweep(then).await }).await??;
        if cx.out.json {
            return cx.out.value(&found).await;
        }
        for surplus in &found {
            cx.out.line(&surplus.to_string()).await?;
        }
        if found.is_empty() {
            cx.out.note("nothing could be done without").await?;
        }
        Ok(())
    }
}
