//! `grid [show|autosize]`

use super::context::Context;
use super::failure::Failure;
use crate::grid::{Autosize, Paint, draw};
use crate::hq::HqError;
use crate::hq::cloud::{Limits, SizingError};
use crate::units::{Megabytes, Millis};

/// Draw the servers' memory and what takes it, or have the grid rent its servers by itself
#[derive(Debug, clap::Args)]
pub struct Grid {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Draw the servers' memory and what takes it
    Show,
    /// Rent servers from the cloud when something has no room, and give them back when they are spare
    Autosize(Bounds),
}

/// What is not named stays as it is.
#[derive(Debug, clap::Args)]
struct Bounds {
    /// `off`: nothing is ordered or given back any more; what serves stays
    #[arg(value_parser = ["off"])]
    off: Option<String>,
    /// At least so many servers that are up, HQ's own counted
    #[arg(long, conflicts_with = "off")]
    min: Option<usize>,
    /// At most so many servers
    #[arg(long, conflicts_with = "off")]
    max: Option<usize>,
    /// The memory of a new server, such as 2g; more when a container needs more
    #[arg(long, conflicts_with = "off")]
    size: Option<Megabytes>,
    /// How much of the memory must stay free when a server is given back, in percent; 25 without
    #[arg(long, conflicts_with = "off", value_name = "PERCENT")]
    spare: Option<u8>,
    /// For how long a server must have been spare before it is given back, such as 10m, which it is without
    #[arg(long, conflicts_with = "off")]
    idle: Option<Millis>,
}

impl Grid {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        matches!(self.verb, Some(Verb::Autosize(_)))
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When docker does not answer, or the grid cannot size itself like that.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        match self.verb {
            None | Some(Verb::Show) => show(cx).await,
            Some(Verb::Autosize(bounds)) => autosize(cx, bounds).await,
        }
    }
}

async fn show(cx: &Context) -> Result<(), Failure> {
    let grid = cx.hq.grid().await?;
    if cx.out.json {
        return cx.out.value(&grid).await;
    }
    cx.out.drawn(&draw(&grid, cx.out.width(), if cx.out.coloured() { Paint::Colour } else { Paint::Plain })).await
}

async fn autosize(cx: &Context, bounds: Bounds) -> Result<(), Failure> {
    if bounds.off.is_some() {
        cx.hq.size_itself(None).await?;
        return cx.out.note("the grid stays as it is; `servers remove` gives a rented server back").await;
    }
    let now = cx.hq.sizing.limits();
    if bounds.says_something() {
        let limits = bounds.on(now).map_err(HqError::from)?;
        cx.hq.size_itself(Some(limits)).await?;
    }
    let limits = cx.hq.sizing.limits();
    if cx.out.json {
        return cx.out.value(&limits).await;
    }
    cx.out.line(&limits.as_ref().map_or_else(|| "off".to_owned(), described)).await
}

impl Bounds {
    fn says_something(&self) -> bool {
        self.min.is_some() || self.max.is_some() || self.size.is_some() || self.spare.is_some() || self.idle.is_some()
    }

    /// What is named, on top of what counts now.
    fn on(self, now: Option<Limits>) -> Result<Limits, SizingError> {
        let known = now.as_ref().map(|limits| limits.autosize.clone());
        let max = self.max.or(known.as_ref().map(|known| known.max)).ok_or(SizingError::Unsaid)?;
        let size = self.size.or(known.as_ref().map(|known| known.size)).ok_or(SizingError::Unsaid)?;
        let min = self.min.or(known.as_ref().map(|known| known.min)).unwrap_or(1);
        let usual = Autosize::new(min, max, size);
        let spare = self.spare.or(known.map(|known| known.spare)).unwrap_or(usual.spare);
        Limits::new(Autosize { spare, ..usual }, self.idle.or(now.map(|limits| limits.idle)))
    }
}

fn described(limits: &Limits) -> String {
    let Autosize { min, max, size, spare } = &limits.autosize;
    format!(
        "{min} to {max} servers; a new one has {size}; one that is spare for {} goes when {spare} % stay free without it",
        limits.idle
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(max: Option<usize>, size: Option<u64>, idle: Option<u64>) -> Bounds {
        let (size, idle) = (size.map(Megabytes), idle.map(Millis::seconds));
        Bounds { off: None, min: None, max, size, spare: None, idle }
    }

    #[test]
    fn what_is_not_named_stays_as_it_is() {
        let first = bounds(Some(5), Some(2048), None).on(None).unwrap();
        assert_eq!((first.autosize.min, first.autosize.max, first.idle), (1, 5, Millis::seconds(600)));
        let second = bounds(Some(7), None, Some(30)).on(Some(first.clone())).unwrap();
        assert_eq!((second.autosize.max, second.autosize.size, second.idle), (7, Megabytes(2048), Millis::seconds(30)));
        assert_eq!(bounds(None, Some(1), None).on(Some(second)).unwrap().idle, Millis::seconds(30));
        assert_eq!(bounds(Some(5), None, None).on(None), Err(SizingError::Unsaid));
        assert!(bounds(Some(0), None, None).on(Some(first)).is_err());
    }
}
