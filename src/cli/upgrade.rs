//! `upgrade`

use std::io::Write;
use std::path::PathBuf;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::parts::Places;
use crate::docker::Engine;
use crate::docker::bollard::Docker;
use crate::hq::HqError;
use crate::hq::door::Origin;
use crate::hq::upgrade::UpgradeError;
use crate::seal;
use crate::units::Millis;

/// Put another program in HQ's place, without a lost request or push
///
/// Stacks serve on. Pushes and commands under way finish, those that come meanwhile wait for a moment. A program that
/// does not come to serve gives its place back. Agents and routers of all servers follow by themselves.
#[derive(Debug, clap::Args)]
pub struct Upgrade {
    /// The new program; without it what lies in the place of HQ's own by now
    program: Option<PathBuf>,
    /// How long HQ goes on serving everybody until nothing is under way; after that new ones wait
    #[arg(long, value_name = "TIME", default_value = "10m")]
    patience: Millis,
}

impl Upgrade {
    /// Where the new program lies.
    pub fn program(&self) -> Option<PathBuf> {
        let program = self.program.as_ref()?;
        Some(std::path::absolute(program).unwrap_or_else(|_| program.clone()))
    }

    /// HQ lives in another folder than the person.
    pub fn told(&self, mut words: Vec<String>) -> Vec<String> {
        let named = self.program.as_ref().and_then(|program| program.to_str());
        let place = words.iter().rposition(|word| Some(word.as_str()) == named);
        if let (Some(place), Some(program)) = (place, self.program()) {
            words[place] = program.to_string_lossy().into_owned();
        }
        words
    }

    /// Runs the command, which can be given up until HQ begins anew.
    ///
    /// # Errors
    /// What stands in the way; HQ goes on as it is.
    pub async fn run(self, cx: &Context, given_up: impl Future<Output = Failure>) -> Result<(), Failure> {
        match cx.caller.from {
            Origin::Socket => {}
            // An operator may do everything with every stack; this is what root may do with the machine.
            Origin::Address(_) => {
                cx.trace.refused();
                return Err(HqError::from(UpgradeError::Elsewhere).into());
            }
        }
        let (hq, program) = (cx.hq.clone(), self.program());
        let patience = self.patience.duration();
        let made = cx.within(|say| async move {
            let line = |text: &str| say.line(text);
            hq.make_way(program.as_deref(), patience, &line).await
        });
        let ready = tokio::select! {
            biased;
            failure = given_up => return Err(failure),
            ready = made => ready?,
        };
        Ok(cx.beside(|say| async move { ready.begin_anew(&|line| say.line(line)).await }).await??)
    }
}

/// Whether this program could serve here: what it cannot read, or has to ask for in vain, it tells.
///
/// # Errors
/// What stands in the way.
pub async fn rehearse(places: &Places) -> Result<(), Failure> {
    places.settings()?;
    if places.env_key().exists() {
        seal::files::open_or_create(&places.env_key()).map_err(|error| Failure::of(Exit::Refused, &error))?;
    }
    Docker::local().version().await?;
    // Nobody reads it where the one who asked has gone.
    let _ = writeln!(std::io::stdout(), "quarry {}", env!("CARGO_PKG_VERSION"));
    Ok(())
}
