//! Makes and lists stacks, and reaches their repositories.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::db::{DbError, Entry, Guard, layout};
use crate::hq::git::{self, Commit, Fetching, GitError, Repository, Stop};
use crate::hq::lock::Turn;
use crate::hq::progress::phase;
use crate::hq::rights::{Access, Right};
use crate::hq::status::Status;
use crate::hq::{Hq, HqError};
use crate::launch::act::Say;
use crate::launch::journal::act::Book;
use crate::launch::journal::{BranchMove, Journal};
use crate::names::reach::Reach;
use crate::names::{CommitId, ReleaseNumber, StackName, UserName};

impl Hq {
    /// Waits for the stack's turn; `who` is what those behind are told.
    pub async fn turn(&self, stack: &StackName, who: impl Into<String>, say: Say<'_>) -> Turn {
        self.queue.turn(stack, who.into(), say).await
    }

    /// The stack's turn if nobody has it.
    pub fn try_turn(&self, stack: &StackName, who: &str) -> Option<Turn> {
        self.queue.try_turn(stack, who)
    }

    /// All stacks, by name.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn stack_names(&self) -> Result<BTreeSet<StackName>, DbError> {
        Ok(self.owners().await?.into_keys().collect())
    }

    /// All stacks, each with its owner where its record can be read.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn owners(&self) -> Result<BTreeMap<StackName, Option<UserName>>, DbError> {
        let entries = layout::all(&*self.db, layout::STACKS).await?;
        let named = entries.iter().filter(|entry| entry.key.last() == "status");
        let owner = |entry: &Entry| Some(serde_json::from_slice::<Status>(&entry.value).ok()?.owner);
        Ok(named.filter_map(|entry| Some((entry.key.segments().nth(1)?.parse().ok()?, owner(entry)))).collect())
    }

    /// What is known of a stack.
    ///
    /// # Errors
    /// [`HqError::NoStack`] when it does not exist.
    pub async fn status(&self, stack: &StackName) -> Result<Status, HqError> {
        let status = layout::read_json(&*self.db, &layout::status(stack)).await?;
        status.ok_or_else(|| HqError::NoStack(stack.clone()))
    }

    /// Makes a stack with an empty repository.
    ///
    /// # Errors
    /// [`HqError::StackExists`], [`HqError::StillLeaving`], or what the disk says.
    pub async fn create_stack(&self, stack: &StackName, owner: &UserName) -> Result<(), HqError> {
        let journal: Journal = layout::read_json(&*self.db, &layout::journal(stack)).await?.unwrap_or_default();
        if !journal.sweeping().is_empty() {
            let servers = journal.sweeping().into_iter().cloned().collect();
            return Err(HqError::StillLeaving { stack: stack.clone(), servers });
        }
        let status = Status { owner: owner.clone(), created: self.clock.now(), branch: None, subnet: None };
        match layout::put_json(&*self.db, &layout::status(stack), &status, Guard::Absent).await {
            Err(DbError::Changed { .. }) => return Err(HqError::StackExists(stack.clone())),
            other => other?,
        }
        self.with_repository(stack, |_| Ok(())).await
    }

    /// Makes the stack unless it is there: the first push does.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn ensure_stack(&self, stack: &StackName, owner: &UserName) -> Result<(), HqError> {
        match self.create_stack(stack, owner).await {
            Err(HqError::StackExists(_)) => self.with_repository(stack, |_| Ok(())).await,
            other => other,
        }
    }

    /// Whether a stack is as empty as it was made: no release, no variable, nothing in its repository.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn is_blank(&self, stack: &StackName) -> Result<bool, HqError> {
        let used = !self.releases(stack).await?.is_empty() || !self.env(stack).await?.is_empty();
        Ok(!used && self.with_repository(stack, |repository| repository.is_blank()).await?)
    }

    /// Where a stack's repository is.
    pub fn repository_path(&self, stack: &StackName) -> PathBuf {
        self.stack_folder(stack).join("repo.git")
    }

    /// Does something with the stack's repository off the async threads.
    ///
    /// # Errors
    /// What git says, with the stack's name.
    pub async fn with_repository<T: Send + 'static>(
        &self,
        stack: &StackName,
        work: impl FnOnce(&Repository) -> Result<T, GitError> + Send + 'static,
    ) -> Result<T, HqError> {
        let path = self.repository_path(stack);
        let settings = git::Settings { hooks: self.root.join("hooks"), push_limit: self.settings.push_limit.bytes() };
        let done = tokio::task::spawn_blocking(move || {
            let repository = Repository::open_or_create(&path, &settings)?;
            work(&repository)
        });
        let done = done.await.expect("git work does not panic");
        done.map_err(|source| HqError::Git { stack: stack.clone(), source })
    }

    /// Pins a commit for a release, so that git keeps it.
    ///
    /// # Errors
    /// What git says.
    pub async fn pin(&self, stack: &StackName, number: ReleaseNumber, commit: &CommitId) -> Result<(), HqError> {
        let commit = commit.clone();
        self.with_repository(stack, move |repository| repository.pin(number, &commit)).await
    }

    /// The numbers that are pinned.
    ///
    /// # Errors
    /// What git says.
    pub async fn pins(&self, stack: &StackName) -> Result<Vec<ReleaseNumber>, HqError> {
        self.with_repository(stack, |repository| Ok(repository.pins()?.into_keys().collect())).await
    }

    /// Lets a release's commit go.
    pub async fn unpin_number(&self, stack: &StackName, number: ReleaseNumber) {
        // The stack may have gone meanwhile, and must not come back as an empty repository.
        if !self.repository_path(stack).exists() {
            return;
        }
        if let Err(error) = self.with_repository(stack, move |repository| repository.unpin(number)).await {
            tracing::warn!(%stack, %number, error = ?error, "a release stays pinned");
        }
    }

    /// Lets go what the active operation of a journal pinned.
    pub async fn unpin(&self, book: &Book) {
        if let Some(number) = book.read().await.active.and_then(|active| active.pinned) {
            self.unpin_number(book.stack(), number).await;
        }
    }

    /// Moves a branch to its new commit; there already is success.
    ///
    /// # Errors
    /// When it stands elsewhere.
    pub async fn move_branch(&self, stack: &StackName, branch: &BranchMove) -> Result<(), HqError> {
        let branch = branch.clone();
        self.with_repository(stack, move |repository| {
            repository.move_branch(&branch.branch, branch.old.as_ref(), &branch.new)
        })
        .await
    }

    /// What HQ may speak to for others, and these hosts inside.
    ///
    /// # Errors
    /// When the servers cannot be read.
    pub async fn reach(&self, named: &BTreeSet<String>) -> Result<Reach, HqError> {
        let ways = self.server_records().await?.into_values().filter_map(|record| record.way);
        Ok(Reach { named: named.clone(), servers: ways.flat_map(|way| [way.ip, way.hq]).collect() })
    }

    /// Checks a commit out to a clean folder, submodules included, and tells what is known of it. Submodules that are
    /// other stacks are read for `reader` if they may see them, for whoever asks without. Dropping the future ends what is
    /// being fetched.
    ///
    /// # Errors
    /// What git says.
    pub async fn checkout(
        &self,
        stack: &StackName,
        commit: &CommitId,
        folder: &Path,
        reader: Option<&Access>,
        say: Say<'_>,
    ) -> Result<Commit, HqError> {
        let turn = self.queue.checkout(stack).await;
        let (said, mut lines) = mpsc::unbounded_channel();
        let (asked, mut questions) = mpsc::unbounded_channel::<(StackName, oneshot::Sender<bool>)>();
        let fetching = Fetching {
            reach: self.reach(&self.settings.submodule_hosts).await?,
            most: self.settings.push_limit.bytes(),
            key: self.settings.submodule_key.clone(),
            // Nobody listens to a checkout that was given up.
            say: Arc::new(move |line| drop(said.send(line))),
            may_read: Arc::new(move |stack| {
                let (answer, answered) = oneshot::channel();
                asked.send((stack.clone(), answer)).is_ok() && answered.blocking_recv().unwrap_or(false)
            }),
            ..Fetching::default()
        };
        let _ends = Ends(fetching.stop.clone());
        let (commit, into) = (commit.clone(), folder.to_owned());
        let mut work = pin!(self.with_repository(stack, move |repository| {
            let _turn = turn;
            crate::launch::files::remove_folder(&into).map_err(|source| GitError::File {
                doing: "empty",
                path: into.clone(),
                source,
            })?;
            repository.checkout(&commit, &into, &fetching)?;
            repository.commit(&commit)
        }));
        loop {
            tokio::select! {
                biased;
                Some(line) = lines.recv() => say(&phase(&line)),
                Some((stack, answer)) = questions.recv() => {
                    let seen = match reader {
                        Some(reader) => self.check_right(reader, &stack, Right::View).await.is_ok(),
                        None => true,
                    };
                    // A checkout that was given up asks for nothing.
                    let _ = answer.send(seen);
                }
                done = &mut work => return done,
            }
        }
    }
}

/// Ends a checkout's fetching when it is dropped.
struct Ends(Arc<Stop>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.now();
    }
}
