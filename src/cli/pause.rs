//! `pause`, `resume`

use super::context::Context;
use super::failure::{Exit, Failure};
use super::maintenance::set;
use crate::front::Mode;
use crate::units::Millis;

/// Let the requests of a stack wait, such as during a migration, until `resume`
#[derive(Debug, clap::Args)]
pub struct Pause {
    /// [STACK]
    words: Vec<String>,
    /// How long each request waits at most before it is answered with 503
    #[arg(long, default_value = "60s", value_name = "TIME")]
    hold: Millis,
}

/// Let the requests of a stack through again
#[derive(Debug, clap::Args)]
pub struct Resume {
    /// [STACK]
    words: Vec<String>,
}

/// Longer than this nobody waits.
const LONGEST: Millis = Millis::seconds(600);

impl Pause {
    /// Runs the command.
    ///
    /// # Errors
    /// When the time is too long, or the router does not take it.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        if !(Millis::seconds(1)..=LONGEST).contains(&self.hold) {
            return Err(Failure::new(Exit::Usage, format!("`--hold` is a time from 1s to {LONGEST}")));
        }
        let told = format!("requests wait, each for {} at most; let them through again: resume", self.hold);
        set(cx, &self.words, Mode::Paused { hold: self.hold }, &told).await
    }
}

impl Resume {
    /// Runs the command.
    ///
    /// # Errors
    /// When the router does not take it.
    pub async fn run(self, cx: &Context) -> Result<(), Failure> {
        set(cx, &self.words, Mode::Open, "requests go through").await
    }
}
