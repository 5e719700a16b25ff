//! `docker system dial-stdio`

use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::failure::{Exit, Failure};
use crate::dock::act::attend;
use crate::dock::http::Channel;
use crate::hq::door::Stdin;

/// Answer docker's own client: docker -H ssh://quarry@HQ ps
#[derive(Debug, clap::Args)]
pub struct Docker {
    /// What the client runs: system dial-stdio
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// What the client runs, behind options that name an engine: here there is one.
const DIAL: [&str; 2] = ["system", "dial-stdio"];

impl Docker {
    /// Speaks docker's HTTP API on the caller's streams until they end.
    ///
    /// # Errors
    /// When something else was typed: the client is on the caller's machine.
    pub async fn run(self, cx: &Context, stdin: Stdin, hung_up: CancellationToken) -> Result<(), Failure> {
        if !self.words.ends_with(&DIAL.map(str::to_owned)) {
            let advice = "docker's commands run where you are: DOCKER_HOST=ssh://quarry@HQ docker ps";
            return Err(Failure::new(Exit::Usage, advice));
        }
        attend(cx.hq.clone(), cx.caller.clone(), Channel::new(stdin, cx.out.frames()), hung_up).await;
        Ok(())
    }
}
