//! How commits descend from each other, and where history ends.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use git2::{ErrorCode, Oid};

use crate::hq::git::{GitError, Repository, commit_id, file_error, oid, replace};
use crate::names::CommitId;

/// How a branch stands to a push that has waited in line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand {
    /// Where the pusher saw it.
    AsSeen,
    /// It has moved from there, and the push goes on from where it is now.
    Behind(CommitId),
    /// Where the push wants it.
    There,
    /// It has moved to what the push does not contain.
    Aside,
}

/// What a person's word for a commit leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// This commit.
    One(CommitId),
    /// More than one begins with it.
    Several,
    /// Nothing.
    None,
}

/// Digits of a commit's id that a person has to give.
const DIGITS: usize = 4;

impl Repository {
    /// The commit called so: a branch, a tag, or the first digits of an id; whoever comes first.
    ///
    /// # Errors
    /// When the references cannot be read.
    pub fn named(&self, name: &str) -> Result<Named, GitError> {
        if let Some(tip) = self.tip(name)? {
            return Ok(Named::One(tip));
        }
        let tag = self.git.find_reference(&format!("refs/tags/{name}")).ok();
        if let Some(commit) = tag.and_then(|tag| tag.peel_to_commit().ok()) {
            return Ok(Named::One(commit_id(commit.id())));
        }
        if !(DIGITS..=40).contains(&name.len()) || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Named::None);
        }
        match self.git.find_commit_by_prefix(name) {
            Ok(commit) => Ok(Named::One(commit_id(commit.id()))),
            Err(error) if error.code() == ErrorCode::Ambiguous => Ok(Named::Several),
            // What begins so is no commit.
            Err(_) => Ok(Named::None),
        }
    }

    /// How `branch` stands to a push that saw it at `old` and wants it at `new`.
    ///
    /// # Errors
    /// When branch or commits cannot be read.
    pub fn stand(&self, branch: &str, old: Option<&CommitId>, new: &CommitId) -> Result<Stand, GitError> {
        let tip = self.tip(branch)?;
        if tip.as_ref() == old {
            return Ok(Stand::AsSeen);
        }
        let Some(tip) = tip else { return Ok(Stand::Aside) };
        if tip == *new {
            return Ok(Stand::There);
        }
        // A branch that was forced elsewhere in the meantime is not what the pusher has built on.
        let grown = old.map_or(Ok(true), |old| self.is_ancestor(old, &tip))?;
        Ok(if grown && self.is_ancestor(&tip, new)? { Stand::Behind(tip) } else { Stand::Aside })
    }

    /// Whether `old` is `new` or among its ancestors. History that a shallow push left out counts as not.
    ///
    /// # Errors
    /// When `new` itself cannot be read.
    pub fn is_ancestor(&self, old: &CommitId, new: &CommitId) -> Result<bool, GitError> {
        let (old, start) = (oid(old), oid(new));
        let mut seen = BTreeSet::from([start]);
        let mut open = vec![start];
        let oldest = self.find(&commit_id(old)).map(|commit| commit.time().seconds()).ok();
        while let Some(id) = open.pop() {
            if id == old {
                return Ok(true);
            }
            let commit = match self.find(&commit_id(id)) {
                Ok(commit) => commit,
                Err(_) if id != start => continue,
                Err(error) => return Err(error),
            };
            // An ancestor is not younger than its descendants by more than clocks differ: a day is generous.
            if oldest.is_some_and(|oldest| commit.time().seconds() < oldest - 86_400) {
                continue;
            }
            open.extend(commit.parent_ids().filter(|parent| seen.insert(*parent)));
        }
        Ok(false)
    }

    /// Sees to it that history may end at `roots`, commits whose parents a shallow pusher does not have, and takes back
    /// what is not needed for it any more. What is here with all its parents is not cut.
    ///
    /// # Errors
    /// When the repository's list cannot be read or written.
    pub fn set_shallow(&self, roots: &BTreeSet<CommitId>) -> Result<(), GitError> {
        let file = self.path.join("shallow");
        let before = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(file_error("read", &file, source)),
        };
        let known = before.lines().filter_map(|line| line.parse().ok());
        let odb = self.git.odb().map_err(self.err("open the objects"))?;
        let mut needed = BTreeSet::new();
        for id in known.chain(roots.iter().cloned()) {
            if self.ends_at(&odb, &id, roots.contains(&id))? {
                needed.insert(id);
            }
        }
        let after: String = needed.iter().map(|id| format!("{id}\n")).collect();
        if after == before {
            return Ok(());
        }
        if after.is_empty() {
            return fs::remove_file(&file).map_err(|source| file_error("remove", &file, source));
        }
        replace(&file, after.as_bytes(), 0o644)
    }

    /// Whether history has to end at `id`: it is here without all its parents, or is `expected` and not here yet.
    fn ends_at(&self, odb: &git2::Odb<'_>, id: &CommitId, expected: bool) -> Result<bool, GitError> {
        // Read from the object itself: the library's own commits hide parents that the list cuts off.
        match self.check_size(oid(id), "a commit") {
            Ok(fits) => fits?,
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(expected),
            Err(error) => return Err(self.err("read a commit")(error)),
        }
        let object = match odb.read(oid(id)) {
            Ok(object) => object,
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(expected),
            Err(error) => return Err(self.err("read a commit")(error)),
        };
        let header = object.data().split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
        let parents = header.filter_map(|line| std::str::from_utf8(line.strip_prefix(b"parent ")?).ok());
        Ok(parents.filter_map(|id| Oid::from_str(id).ok()).any(|parent| !odb.exists(parent)))
    }
}
