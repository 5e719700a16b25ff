//! What every command gets: HQ, who asks, where to print, and which stack is meant.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::failure::{Exit, Failure, hung_up};
use super::print::Out;
use super::trace::Trace;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::hq::door::{Caller, Lines, Say};
use crate::hq::lock::Turn;
use crate::hq::rights::{Access, Right};
use crate::hq::{Hq, HqError};
use crate::names::{NodeName, StackName, UserName};

/// Pause between two looks at what somebody who follows something may still see.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// A command's surroundings.
pub struct Context {
    /// The one that acts.
    pub hq: Arc<Hq>,
    /// Who asks.
    pub caller: Caller,
    /// Where to print.
    pub out: Out,
    /// The stack that is meant when none is named.
    pub stack: Option<StackName>,
    /// Cancelled when the caller has hung up.
    pub hung_up: CancellationToken,
    /// What the caller may.
    pub access: Access,
    /// What the command leaves in the record of events.
    pub trace: Trace,
}

/// A stack, or one node of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which stack.
    pub stack: StackName,
    /// Which node of it.
    pub node: Option<NodeName>,
}

impl std::str::FromStr for Target {
    type Err = crate::names::BadName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((stack, node)) => Ok(Self { stack: stack.parse()?, node: Some(node.parse()?) }),
            None => Ok(Self { stack: text.parse()?, node: None }),
        }
    }
}

impl Context {
    /// The stack meant by the first word, and the rest, for a caller who has this right on it. Without a word that names a
    /// stack it is the default one.
    ///
    /// # Errors
    /// When no stack is named and there is no default, the name is none, or the caller may not.
    pub async fn target<'a>(&self, words: &'a [String], needed: Right) -> Result<(Target, &'a [String]), Failure> {
        let (target, rest) = self.named(words).await?;
        self.enter(&target.stack, needed).await?;
        Ok((target, rest))
    }

    /// The command is about this stack, and begins if the caller has this right on it.
    ///
    /// # Errors
    /// When the caller may not.
    pub(super) async fn enter(&self, stack: &StackName, needed: Right) -> Result<(), Failure> {
        self.trace.about(stack);
        if let Err(error) = self.hq.check_right(&self.access, stack, needed).await {
            if matches!(error, HqError::Rights(_)) {
                self.trace.refused();
            }
            return Err(error.into());
        }
        self.begin().await;
        Ok(())
    }

    /// Waits until the caller may no longer do this with a stack, and says so: what follows something ends then.
    pub async fn revoked(&self, stack: &StackName, needed: Right) -> Failure {
        loop {
            tokio::time::sleep(LOOK).await;
            // While the tree cannot be read, nothing is taken away.
            let Ok(access) = self.hq.access(&self.caller).await else { continue };
            let checked = self.hq.check_right(&access, stack, needed).await;
            if let Err(error @ (HqError::Rights(_) | HqError::NoStack(_))) = checked {
                return error.into();
            }
        }
    }

    async fn named<'a>(&self, words: &'a [String]) -> Result<(Target, &'a [String]), Failure> {
        if let (Some(default), first) = (&self.stack, words.first()) {
            let named: Option<Target> = first.and_then(|word| word.parse().ok());
            return match named {
                Some(target) if self.stacks().await?.contains(&target.stack) => Ok((target, &words[1..])),
                _ => Ok((Target { stack: default.clone(), node: None }, words)),
            };
        }
        match words.first() {
            Some(first) => Ok((first.parse()?, &words[1..])),
            None => Err(Failure::new(Exit::Usage, "name a stack; `stacks` lists them")),
        }
    }

    /// One stack and nothing else.
    ///
    /// # Errors
    /// As [`Context::target`], and when words are left over.
    pub async fn only_stack(&self, words: &[String], needed: Right) -> Result<StackName, Failure> {
        let (target, rest) = self.named(words).await?;
        if let Some(extra) = rest.first() {
            return Err(Failure::new(Exit::Usage, format!("`{extra}` is one word too many")));
        }
        self.enter(&target.stack, needed).await?;
        Ok(target.stack)
    }

    /// The stacks the caller may see.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn stacks(&self) -> Result<BTreeSet<StackName>, Failure> {
        self.stacks_of(&self.access).await
    }

    /// The stacks that somebody may see.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn stacks_of(&self, access: &Access) -> Result<BTreeSet<StackName>, Failure> {
        let seen = |(stack, owner): (StackName, Option<UserName>)| {
            let right = owner.and_then(|owner| access.on(&stack, &owner));
            (access.is_operator() || right.is_some()).then_some(stack)
        };
        Ok(self.hq.owners().await?.into_iter().filter_map(seen).collect())
    }

    /// Refuses all but operators.
    ///
    /// # Errors
    /// When the caller is none.
    pub fn check_operator(&self) -> Result<(), Failure> {
        self.access.check_operator().map_err(|error| {
            self.trace.refused();
            error.into()
        })
    }

    /// What changes something begins to do so: whoever looks at the events sees it from now on.
    pub async fn begin(&self) {
        self.trace.begin().await;
    }

    /// Waits for a stack's turn and then does something that reports lines, which arrive on standard error while it
    /// happens; those behind are told what this is. A caller who hangs up while waiting in line gives the command up;
    /// once its turn has begun it goes on to its end.
    ///
    /// # Errors
    /// What the work runs into.
    pub async fn in_turn<T, E, F>(
        &self,
        stack: &StackName,
        what: &str,
        work: impl FnOnce(Say) -> F,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        E: Send + 'static,
        Failure: From<E>,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let (say, mut lines) = Say::pair();
        let turn = self.turn(stack, what, (&say, &mut lines)).await?;
        let work = work(say);
        let work = tokio::spawn(async move {
            let _turn = turn;
            work.await
        });
        Ok(self.heard(work, lines).await??)
    }

    /// Does something that reports lines, which arrive on standard error while it happens. It goes on to its end when the
    /// command is given up.
    ///
    /// # Errors
    /// When it ends in a bug.
    pub async fn beside<T, F>(&self, work: impl FnOnce(Say) -> F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (say, lines) = Say::pair();
        self.heard(tokio::spawn(work(say)), lines).await
    }

    /// The same as a part of the command: it ends when the command is given up.
    pub async fn within<T, F: Future<Output = T>>(&self, work: impl FnOnce(Say) -> F) -> T {
        let (say, mut lines) = Say::pair();
        let heard = async {
            while let Some(line) = lines.next().await {
                // Whoever does not read is told no more.
                let _ = self.out.note(&line).await;
            }
        };
        let (done, ()) = tokio::join!(work(say), heard);
        done
    }

    async fn heard<T>(&self, work: JoinHandle<T>, mut lines: Lines) -> Result<T, Failure> {
        while let Some(line) = lines.next().await {
            // Whoever hung up does not stop the work.
            let _ = self.out.note(&line).await;
        }
        work.await.map_err(|panic| Failure::of(Exit::Bug, &panic))
    }

    /// The wait is part of the command's own future and no task beside it: whoever gives the command up leaves the line.
    async fn turn(&self, stack: &StackName, what: &str, (say, lines): (&Say, &mut Lines)) -> Result<Turn, Failure> {
        let line = |text: &str| say.line(text);
        let mut turn = pin!(self.hq.turn(stack, format!("the {what} by {}", self.caller.user), &line));
        loop {
            tokio::select! {
                biased;
                () = self.hung_up.cancelled() => return Err(hung_up()),
                turn = &mut turn => return Ok(turn),
                Some(line) = lines.next() => self.out.note(&line).await?,
            }
        }
    }
}
