//! Runs the commands that come after a deploy, in a container of their own, and gives a stack what it wishes for.

use crate::env::Env;
use crate::hq::oneoff::OneOff;
use crate::hq::progress::{detail, phase};
use crate::hq::{Hq, HqError};
use crate::launch::Step;
use crate::launch::act::{LaunchError, Say};
use crate::names::StackName;
use crate::stack::Command;
use crate::stack::wishes::{Wish, grant};

/// Bytes of a secret that is made for a stack.
const SECRET: usize = 32;

impl Hq {
    /// Runs the commands one after the other in the stack's newest image. The release is live whatever they do: a
    /// failure is said and not more.
    pub async fn run_after(&self, stack: &StackName, commands: &[Command], say: Say<'_>) {
        for command in commands {
            let words = command.words();
            say(&phase(&format!("Running {} after the deploy", shown(command))));
            let wanted = OneOff { stack: stack.clone(), node: None, words: Some(words), tty: false };
            let done = match self.one_off(&wanted).await {
                Ok(container) => {
                    let once = Step::Once { container: Box::new(container) };
                    self.launcher.perform(stack, &once, say).await.map_err(HqError::from)
                }
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => {}
                Err(HqError::Launch(LaunchError::Command { code, .. })) => {
                    say(&detail(&format!("Warning: it ended with exit code {code}; the release stays live")));
                    return;
                }
                Err(error) => {
                    tracing::warn!(%stack, error = ?error, "a command after a deploy did not run");
                    say(&detail(&format!("Warning: {error}; the release stays live")));
                    return;
                }
            }
        }
    }

    /// The stack's variables with those that its repository wishes for, and what was set, said by name.
    ///
    /// # Errors
    /// Those that only a person can set.
    pub(in crate::hq::deploy) fn granted(
        &self,
        stack: &StackName,
        wishes: &[Wish],
        env: Env,
        say: Say<'_>,
    ) -> Result<Env, HqError> {
        if wishes.is_empty() {
            return Ok(env);
        }
        let granted =
            grant(wishes, &env, secret).map_err(|mistake| HqError::Mistakes(mistake.of_stack(stack).into()))?;
        if !granted.set.is_empty() {
            let names: Vec<&str> = granted.set.iter().map(|name| name.as_str()).collect();
            say(&phase(&format!("app.json sets {}", names.join(", "))));
        }
        Ok(granted.env)
    }
}

fn secret() -> String {
    let mut bytes = [0; SECRET];
    // The kernel gives as much at once.
    let given = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    given.expect("the kernel gives random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn shown(command: &Command) -> String {
    let text = match command {
        Command::Shell(text) => text.clone(),
        Command::Words(words) => words.join(" "),
    };
    let short: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    format!("`{short}`")
}
