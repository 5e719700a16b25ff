//! Runs the commands that come after a deploy, in a container of their own, and gives a stack what it wishes for.

use std::sync::Arc;

use super::Aftermath;
use crate::env::Env;
use crate::hq::deploy::source::act::{Source, read_checkout};
use crate::hq::oneoff::OneOff;
use crate::hq::progress::{detail, phase};
use crate::hq::rights::Access;
use crate::hq::{Hq, HqError};
use crate::launch::Step;
use crate::launch::act::{LaunchError, Say};
use crate::launch::journal::act::Book;
use crate::names::StackName;
use crate::names::printable::excerpt;
use crate::stack::Command;
use crate::stack::wishes::{Wish, grant};
use crate::units::random::hex;

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

    /// What an earlier HQ did not live to do once a release was live; in the background, in the stack's turn.
    pub fn catch_up_after(self: &Arc<Self>, stack: &StackName) {
        let (hq, stack) = (self.clone(), stack.clone());
        tokio::spawn(async move {
            let _turn = hq.turn(&stack, "what comes after a deploy, for an HQ that ended in it", &|_| {}).await;
            if let Err(error) = hq.run_missed(&stack).await {
                tracing::error!(%stack, error = ?error, "what comes after its deploy waits for the next start of HQ");
            }
        });
    }

    async fn run_missed(&self, stack: &StackName) -> Result<(), HqError> {
        let book = self.book(stack).await?;
        // A deploy that had its turn first has put its own there, or nothing.
        let Some(number) = book.read().await.after else { return Ok(()) };
        let current = self.current(stack).await?;
        if let Some(commit) = current.commit.filter(|_| current.number == number) {
            let folder = self.stack_folder(stack).join("src");
            let access = Access::full(current.user);
            self.checkout(stack, &commit, &folder, Some(&access), &|_| {}).await?;
            let env = self.env(stack).await?;
            let Source { described, folder, .. } = read_checkout(&folder, self.settings.packs.as_deref(), &env).await?;
            let given = self.given_certificates(&described.stack, &folder).await?;
            let after = Aftermath::of(number, described.after, given);
            tracing::info!(%stack, release = %number, "what comes after its deploy is done now");
            self.keep_given(after.given).await;
            self.run_after(stack, &after.commands, &|line| tracing::debug!(%stack, line)).await;
        }
        self.close_after(&book).await;
        Ok(())
    }

    /// Notes that all of it is done.
    pub(in crate::hq::deploy) async fn close_after(&self, book: &Book) {
        if book.read().await.after.is_none() {
            return;
        }
        if let Err(error) = book.write(|journal| journal.after = None).await {
            tracing::warn!(stack = %book.stack(), %error, "what came after a deploy will come again");
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
            grant(wishes, &env, hex::<SECRET>).map_err(|mistake| HqError::Mistakes(mistake.of_stack(stack).into()))?;
        if !granted.set.is_empty() {
            let names: Vec<&str> = granted.set.iter().map(|name| name.as_str()).collect();
            say(&phase(&format!("app.json sets {}", names.join(", "))));
        }
        Ok(granted.env)
    }
}

fn shown(command: &Command) -> String {
    let text = match command {
        Command::Shell(text) => text.clone(),
        Command::Words(words) => words.join(" "),
    };
    let short = excerpt(&text, 60);
    format!("`{short}`")
}
