//! The door: what SSH, the unix socket and the HTTP api ask of HQ, answered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use tokio::sync::watch;

use super::failure::Exit;
use super::{Door as Doors, run_words};
use crate::db::layout;
use crate::etc::Settings;
use crate::hq::chain;
use crate::hq::deploy::Request;
use crate::hq::door::{Caller, Door, Ended, Frame, Io, Say, Service, Update};
use crate::hq::events::Outcome;
use crate::hq::git::Stand;
use crate::hq::keys::PublicKey;
use crate::hq::progress::phase;
use crate::hq::rights::{Access, Right, RightsError};
use crate::hq::status::{BranchUse, branch_use};
use crate::hq::tokens::Record;
use crate::hq::{Hq, HqError};
use crate::launch::journal::BranchMove;
use crate::launch::record::Cause;
use crate::names::printable::printable;
use crate::names::{CommitId, StackName, UserName};

/// Pause before changed keys are read again.
const AGAIN: Duration = Duration::from_secs(1);

/// HQ as SSH and the socket see it.
pub struct HqDoor {
    hq: Arc<Hq>,
    keys: RwLock<BTreeMap<String, UserName>>,
    /// By their digests.
    tokens: RwLock<BTreeMap<String, (UserName, Record)>>,
    /// Counts how often they were read.
    read: watch::Sender<u64>,
    /// Stacks that a push has made and none has deployed. Held while one of them is made or taken away again.
    made: tokio::sync::Mutex<BTreeSet<StackName>>,
}

impl HqDoor {
    /// A door that knows the keys and tokens of the tree, and learns of every change of them, hand edits included.
    ///
    /// # Errors
    /// When the keys cannot be read or watched.
    pub async fn open(hq: Arc<Hq>) -> Result<Arc<Self>, HqError> {
        let (keys, tokens, read, made) = Default::default();
        let door = Arc::new(Self { hq, keys, tokens, read, made });
        let mut tokens = door.hq.db.watch(layout::TOKENS).await?;
        door.load_tokens().await?;
        let watching = Arc::downgrade(&door);
        tokio::spawn(async move {
            while tokens.next().await.is_some() {
                let Some(door) = watching.upgrade() else { return };
                while let Err(error) = door.load_tokens().await {
                    tracing::warn!(error = ?error, "the tokens cannot be read again; trying on");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        });
        let mut changes = door.hq.db.watch(layout::KEYS).await?;
        door.load_keys().await?;
        let watching = Arc::downgrade(&door);
        tokio::spawn(async move {
            while changes.next().await.is_some() {
                let Some(door) = watching.upgrade() else { return };
                while let Err(error) = door.load_keys().await {
                    tracing::warn!(error = ?error, "the keys cannot be read again; trying on");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        });
        Ok(door)
    }

    /// What is set.
    pub fn settings(&self) -> &Settings {
        &self.hq.settings
    }

    /// The one behind it.
    pub fn hq(&self) -> Arc<Hq> {
        self.hq.clone()
    }

    async fn load_keys(&self) -> Result<(), HqError> {
        let mut keys = BTreeMap::new();
        for entry in layout::all(&*self.hq.db, layout::KEYS).await? {
            let user = entry.key.segments().nth(1).and_then(|user| user.parse::<UserName>().ok());
            let key = std::str::from_utf8(&entry.value).ok().and_then(|text| text.trim().parse::<PublicKey>().ok());
            match (user, key) {
                (Some(user), Some(key)) => drop(keys.insert(key.fingerprint().to_owned(), user)),
                _ => tracing::warn!(key = %entry.key, "this public key is damaged and opens nothing"),
            }
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.read.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn load_tokens(&self) -> Result<(), HqError> {
        let mut tokens = BTreeMap::new();
        for entry in layout::all(&*self.hq.db, layout::TOKENS).await? {
            let user = entry.key.segments().nth(1).and_then(|user| user.parse::<UserName>().ok());
            match (user, serde_json::from_slice::<Record>(&entry.value)) {
                (Some(user), Ok(record)) => drop(tokens.insert(record.digest.clone(), (user, record))),
                _ => tracing::warn!(key = %entry.key, "this token is damaged and opens nothing"),
            }
        }
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
        self.read.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Sees to it that the stack is there for somebody who may push it, and remembers those that were not.
    async fn make(&self, caller: &Caller, stack: &StackName) -> Result<(), HqError> {
        let access = self.hq.access(caller).await?;
        let mut made = self.made.lock().await;
        match self.hq.check_right(&access, stack, Right::Deploy).await {
            Ok(_) => return self.hq.ensure_stack(stack, &caller.user).await,
            Err(HqError::NoStack(_)) => {}
            Err(HqError::Rights(RightsError::Hidden(stack))) => return Err(RightsError::Taken(stack).into()),
            Err(error) => return Err(error),
        }
        access.check_creation(self.hq.settings.creators, stack)?;
        self.hq.create_stack(stack, &caller.user).await?;
        made.insert(stack.clone());
        Ok(())
    }

    /// The repository, for somebody who may see it.
    async fn show(&self, caller: &Caller, stack: &StackName) -> Result<(), HqError> {
        let access = self.hq.access(caller).await?;
        self.hq.check_right(&access, stack, Right::View).await.map(drop)
    }

    async fn update_branch(&self, update: &Update, say: &Say) -> Result<(), HqError> {
        let line = |text: &str| say.line(text);
        let Some(branch) = update.reference.strip_prefix("refs/heads/") else {
            return Err(HqError::Stale);
        };
        let access = self.hq.access(&update.caller).await?;
        // It may have been taken away since the pusher came in.
        let status = self.hq.check_right(&access, &update.stack, Right::Deploy).await?;
        let Some(new) = &update.new else {
            return self.delete_branch(update, branch, status.branch.as_deref()).await;
        };
        check_branch(branch)?;
        let moved = BranchMove { branch: branch.to_owned(), old: update.old.clone(), new: new.clone() };
        match branch_use(status.branch.as_deref(), branch) {
            BranchUse::Store(deploys) => {
                let commit = new.clone();
                self.hq.with_repository(&update.stack, move |repository| repository.commit(&commit)).await?;
                self.hq.move_branch(&update.stack, &moved).await?;
                let deploys = deploys.map_or_else(|| "master or main".to_owned(), |branch| format!("`{branch}`"));
                line(&phase(&format!(
                    "Stored {branch}; only {deploys} deploys (or: deploy {} {branch})",
                    update.stack
                )));
                Ok(())
            }
            BranchUse::Deploy => {
                let who = format!("the push of {} by {}", new.short(), update.caller.user);
                let _turn = tokio::select! {
                    turn = self.hq.turn(&update.stack, who, &line) => turn,
                    () = update.hung_up.cancelled() => return Err(HqError::Cancelled),
                };
                self.deploy(update, access, moved, say).await
            }
        }
    }

    async fn deploy(&self, update: &Update, access: Access, moved: BranchMove, say: &Say) -> Result<(), HqError> {
        let stack = &update.stack;
        let (branch, old, new) = (moved.branch.clone(), moved.old.clone(), moved.new.clone());
        let moved = match self.hq.with_repository(stack, move |git| git.stand(&branch, old.as_ref(), &new)).await? {
            Stand::AsSeen => moved,
            Stand::Behind(tip) => BranchMove { old: Some(tip), ..moved },
            Stand::There => {
                say.line(phase(&format!("{} is live already", moved.new.short())));
                return Ok(());
            }
            Stand::Aside => return Err(HqError::Stale),
        };
        if let Some(old) = moved.old.clone() {
            self.tell_forced(stack, old, moved.new.clone(), say).await?;
        }
        let branch = moved.branch.clone();
        let request = Request {
            stack: stack.clone(),
            commit: moved.new.clone(),
            cause: Cause::Push(branch.clone()),
            branch: Some(moved),
            access,
        };
        self.hq.deploy(request, update.hung_up.clone(), &|line| say.line(line)).await?;
        self.hq.choose_branch(stack, &branch).await
    }

    async fn tell_forced(&self, stack: &StackName, old: CommitId, new: CommitId, say: &Say) -> Result<(), HqError> {
        let short = old.short().to_owned();
        let forward = self.hq.with_repository(stack, move |repository| repository.is_ancestor(&old, &new)).await?;
        if !forward {
            say.line(phase(&format!("Forced push: {short} is left behind; it can still be rolled back to")));
        }
        Ok(())
    }

    async fn delete_branch(&self, update: &Update, branch: &str, deploys: Option<&str>) -> Result<(), HqError> {
        if deploys == Some(branch) {
            return Err(HqError::DeployBranch { stack: update.stack.clone(), branch: branch.to_owned() });
        }
        let (branch, old) = (branch.to_owned(), update.old.clone());
        self.hq
            .with_repository(&update.stack, move |repository| match old {
                Some(old) => repository.delete_branch(&branch, &old),
                None => Ok(()),
            })
            .await
    }
}

#[async_trait]
impl Door for HqDoor {
    async fn who(&self, key: &PublicKey) -> Option<UserName> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(key.fingerprint()).cloned()
    }

    async fn bearer(&self, digest: &str) -> Option<UserName> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let (user, record) = tokens.get(digest)?;
        record.holds(self.hq.clock.now()).then(|| user.clone())
    }

    fn keys(&self) -> watch::Receiver<u64> {
        self.read.subscribe()
    }

    async fn repository(&self, caller: &Caller, stack: &StackName, service: Service) -> Result<PathBuf, String> {
        let (ready, what) = match service {
            Service::Receive => (self.make(caller, stack).await, "push"),
            Service::Upload => (self.show(caller, stack).await, "fetch"),
        };
        if let Err(error) = ready {
            let text = chain(&error);
            if matches!(error, HqError::Rights(_)) {
                let event = self.hq.new_event(caller, Some(stack.clone()), what);
                self.hq.end_event(event, Outcome::Refused, Some(&text)).await;
            }
            return Err(text);
        }
        Ok(self.hq.repository_path(stack))
    }

    async fn pushed(&self, stack: &StackName, is_pushed: &(dyn Fn() -> bool + Send + Sync)) {
        let mut made = self.made.lock().await;
        if !made.contains(stack) || is_pushed() {
            return;
        }
        made.remove(stack);
        let Some(_turn) = self.hq.try_turn(stack, "the end of a push") else { return };
        match self.hq.is_blank(stack).await {
            Ok(false) => {}
            Ok(true) => {
                if let Err(error) = self.hq.destroy(stack, &|_| {}).await {
                    tracing::warn!(%stack, error = ?error, "the empty stack of a failed push stays");
                }
            }
            Err(error) => tracing::warn!(%stack, error = ?error, "it is not known whether the stack is empty"),
        }
    }

    async fn command(&self, caller: Caller, words: Vec<String>, io: Io) -> u8 {
        self.ask(caller, words, io).await.code
    }

    async fn ask(&self, caller: Caller, words: Vec<String>, io: Io) -> Ended {
        let door = Doors { hq: self.hq.clone(), caller };
        let output = io.output.clone();
        match tokio::spawn(run_words(door, words, io)).await {
            Ok(ended) => ended,
            Err(panic) => {
                tracing::error!(%panic, "a command ended in a bug");
                let line = "quarry: this is a bug; HQ's log says where. Nothing was left half done\n";
                // Whoever hung up does not hear it.
                let _ = output.send(Frame::Stderr(line.into())).await;
                Ended::with(Exit::Bug as u8)
            }
        }
    }

    async fn update(&self, update: Update, say: Say) -> Result<(), String> {
        let event = self.hq.new_event(&update.caller, Some(update.stack.clone()), &told(&update));
        self.hq.write_event(event.clone()).await;
        match self.update_branch(&update, &say).await {
            Ok(()) => {
                self.hq.end_event(event, Outcome::Done, None).await;
                Ok(())
            }
            Err(error) => {
                let text = chain(&error);
                let outcome = if matches!(error, HqError::Rights(_)) { Outcome::Refused } else { Outcome::Failed };
                self.hq.end_event(event, outcome, Some(&text)).await;
                for line in text.lines() {
                    say.line(format!(" !     {}", printable(line)));
                }
                Err(reason(&error, &text))
            }
        }
    }
}

/// An update as an event shows it.
fn told(update: &Update) -> String {
    let branch = update.reference.strip_prefix("refs/heads/").unwrap_or(&update.reference);
    match &update.new {
        Some(new) => format!("push {branch} {}", new.short()),
        None => format!("push --delete {branch}"),
    }
}

/// Git's own commands make no such branches, and cannot get rid of them.
fn check_branch(branch: &str) -> Result<(), HqError> {
    let confusing = branch == "HEAD" || branch.starts_with("refs/") || branch.starts_with('-');
    if confusing { Err(HqError::BranchName(branch.to_owned())) } else { Ok(()) }
}

/// The reason git shows beside the branch: one line, the whole story is above it.
fn reason(error: &HqError, text: &str) -> String {
    match error {
        HqError::Mistakes(_) => "the repository has mistakes".to_owned(),
        _ => shortened(text.lines().next().unwrap_or("refused")),
    }
}

/// At most so many characters of a line, cut between words.
fn shortened(line: &str) -> String {
    const LONGEST: usize = 120;
    let Some((end, _)) = line.char_indices().nth(LONGEST) else { return line.to_owned() };
    let end = line[..end].rfind(' ').unwrap_or(end);
    format!("{} …", &line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_beside_a_branch_ends_with_a_whole_word() {
        assert_eq!(shortened("too large"), "too large");
        let words = "word ".repeat(40);
        let short = shortened(&words);
        assert!(short.ends_with("word …") && short.chars().count() <= 122, "{short}");
        assert_eq!(shortened(&"é".repeat(200)).chars().count(), 122);
    }

    #[test]
    fn names_that_confuse_git_are_no_branches() {
        for wrong in ["HEAD", "refs/heads/master", "-x"] {
            assert!(check_branch(wrong).is_err(), "{wrong}");
        }
        for good in ["master", "feature/HEAD", "head"] {
            assert!(check_branch(good).is_ok(), "{good}");
        }
    }
}
