//! `grid`

use super::context::Context;
use super::failure::Failure;
use crate::grid::{Paint, draw};

/// Draw the servers' memory and what takes it
#[derive(Debug, clap::Args)]
pub struct Grid {}

impl Grid {
    /// Runs the command.
    ///
    /// # Errors
    /// When docker does not answer.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        let grid = cx.hq.grid().await?;
        if cx.out.json {
            return cx.out.value(&grid).await;
        }
        cx.out.line(&draw(&grid, cx.out.width(), if cx.out.coloured() { Paint::Colour } else { Paint::Plain })).await
    }
}
