//! Git: a stack's bare repository, its branches, its pins, and checkouts of its commits.
//!
//! Everything here blocks; call it from `spawn_blocking`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use git2::{ErrorCode, Oid};

use crate::names::{CommitId, ReleaseNumber};

mod checkout;
mod history;
pub mod packs;
pub mod push;
mod settings;
mod socks;
mod submodule;
mod weight;

pub use history::{Named, Stand};
pub use settings::{Settings, command, environment, install_hooks};
pub use submodule::{Fetching, Stop};

/// Where releases are pinned; hidden from clients.
const PINS: &str = "refs/quarry/releases/";

/// A commit, or a folder's listing, is smaller than so many bytes: the largest folder that a checkout may be has a third.
const LARGEST_OBJECT: usize = 32 << 20;

/// What went wrong with a repository.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// libgit2 failed at something.
    #[error("cannot {doing} in the stack's repository")]
    Git {
        /// What was tried.
        doing: String,
        /// The repository: for HQ's log, nobody else knows its folders.
        path: PathBuf,
        /// libgit2's words.
        source: Words,
    },
    /// A file of the repository could not be read or written.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The branch does not point where it was believed to.
    #[error("`{branch}` was changed by another push in the meantime; fetch and push again")]
    Moved {
        /// The branch's short name.
        branch: String,
    },
    /// The commit is not in the repository.
    #[error("the repository has no commit {}", commit.short())]
    NoCommit {
        /// Which commit.
        commit: CommitId,
    },
    /// The tree holds names that no git client writes.
    #[error("the commit contains the path `{path}`, which cannot be checked out")]
    Path {
        /// The path, escaped.
        path: String,
    },
    /// More than a checkout may be.
    #[error("the push has {what}")]
    TooMuch {
        /// What of.
        what: String,
    },
    /// A submodule without an address, or with one that is not supported.
    #[error("cannot fetch the submodule `{path}`: {reason}")]
    Submodule {
        /// Its path in the tree.
        path: String,
        /// Why.
        reason: String,
    },
}

/// What libgit2 says, without its own numbers for it.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message())]
pub struct Words(git2::Error);

/// What a commit says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its id.
    pub id: CommitId,
    /// Seconds since the epoch at which it was committed.
    pub time: i64,
    /// The first line of its message.
    pub subject: String,
    /// Its author's name.
    pub author: String,
}

/// A stack's bare repository.
pub struct Repository {
    path: PathBuf,
    git: git2::Repository,
}

impl Repository {
    /// Opens the repository at `path`, making it when there is none, and sees to its settings.
    ///
    /// # Errors
    /// When it cannot be made, read or written.
    pub fn open_or_create(path: &Path, settings: &Settings) -> Result<Self, GitError> {
        if !path.join("HEAD").exists() {
            let mut options = git2::RepositoryInitOptions::new();
            options.bare(true).external_template(false).initial_head("master").mkpath(true);
            git2::Repository::init_opts(path, &options).map_err(git("make a repository", path))?;
        }
        let config = settings::config(settings);
        let file = path.join("config");
        let current = fs::read_to_string(&file).map_err(|source| file_error("read", &file, source))?;
        // Shallow pushes leave their mark in a file of its own, never here: the text is the same for every repository.
        if current != config {
            replace(&file, config.as_bytes(), 0o644)?;
        }
        Self::open(path)
    }

    /// Opens the repository at `path`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self, GitError> {
        let git = git2::Repository::open_bare(path).map_err(git("open it", path))?;
        Ok(Self { path: path.to_owned(), git })
    }

    fn err<'a>(&'a self, doing: &'a str) -> impl Fn(git2::Error) -> GitError + 'a {
        git(doing, &self.path)
    }

    /// The commit `branch` points to; `None` when there is no such branch.
    ///
    /// # Errors
    /// When the branch is there and cannot be read.
    pub fn tip(&self, branch: &str) -> Result<Option<CommitId>, GitError> {
        match self.git.refname_to_id(&format!("refs/heads/{branch}")) {
            Ok(id) => Ok(Some(commit_id(id))),
            // What no branch can be called is none.
            Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec) => Ok(None),
            Err(error) => Err(self.err("read a branch")(error)),
        }
    }

    /// All branches and where they point.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn branches(&self) -> Result<BTreeMap<String, CommitId>, GitError> {
        self.references("refs/heads/")
    }

    /// Whether nobody has a branch or tag here.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn is_blank(&self) -> Result<bool, GitError> {
        let mut names = self.git.references().map_err(self.err("list references"))?;
        let mut names = names.names();
        Ok(!names.any(|name| name.is_ok_and(|name| !name.starts_with("refs/quarry/"))))
    }

    fn references(&self, prefix: &str) -> Result<BTreeMap<String, CommitId>, GitError> {
        let mut found = BTreeMap::new();
        for reference in self.git.references_glob(&format!("{prefix}*")).map_err(self.err("list references"))? {
            let reference = reference.map_err(self.err("list references"))?;
            if let (Ok(name), Some(id)) = (reference.name(), reference.target())
                && let Some(rest) = name.strip_prefix(prefix)
            {
                found.insert(rest.to_owned(), commit_id(id));
            }
        }
        Ok(found)
    }

    /// Points `branch` to `new` if it still points to `old` (`None`: if there is none). Already there is success.
    ///
    /// # Errors
    /// [`GitError::Moved`] when it points elsewhere; nothing is changed then.
    pub fn move_branch(&self, branch: &str, old: Option<&CommitId>, new: &CommitId) -> Result<(), GitError> {
        let name = format!("refs/heads/{branch}");
        let target = oid(new);
        if self.tip(branch)?.as_ref() == Some(new) {
            return Ok(());
        }
        let moved = match old {
            Some(old) => self.git.reference_matching(&name, target, true, oid(old), "quarry: released"),
            None => self.git.reference(&name, target, false, "quarry: released"),
        };
        moved.map(drop).map_err(|error| self.unless_moved(branch, error))
    }

    /// Takes `branch` away if it still points to `old`. Gone is success.
    ///
    /// # Errors
    /// [`GitError::Moved`] when it points elsewhere.
    pub fn delete_branch(&self, branch: &str, old: &CommitId) -> Result<(), GitError> {
        let mut reference = match self.git.find_reference(&format!("refs/heads/{branch}")) {
            Ok(reference) => reference,
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(()),
            Err(error) => return Err(self.err("read a branch")(error)),
        };
        if reference.target() != Some(oid(old)) {
            return Err(GitError::Moved { branch: branch.to_owned() });
        }
        // libgit2 deletes only what the reference said when it was read.
        reference.delete().map_err(|error| self.unless_moved(branch, error))
    }

    fn unless_moved(&self, branch: &str, error: git2::Error) -> GitError {
        match error.code() {
            ErrorCode::Modified | ErrorCode::Exists | ErrorCode::NotFound | ErrorCode::Locked => {
                GitError::Moved { branch: branch.to_owned() }
            }
            _ => self.err("move a branch")(error),
        }
    }

    /// Makes `branch` the one that a clone checks out.
    ///
    /// # Errors
    /// When HEAD cannot be written.
    pub fn set_head(&self, branch: &str) -> Result<(), GitError> {
        self.git.set_head(&format!("refs/heads/{branch}")).map_err(self.err("set HEAD"))
    }

    /// Keeps the commit of a release from being collected; a second pin of the same number replaces the first.
    ///
    /// # Errors
    /// When the reference cannot be written.
    pub fn pin(&self, release: ReleaseNumber, commit: &CommitId) -> Result<(), GitError> {
        let name = format!("{PINS}{release}");
        self.git.reference(&name, oid(commit), true, "").map(drop).map_err(self.err("pin a release"))
    }

    /// Removes what a killed `git receive-pack` leaves behind: locks, marks that keep a pack, packs not yet taken in.
    /// With such a mark in its place the same push would be refused for ever. Nobody may be pushing.
    ///
    /// # Errors
    /// When something cannot be listed or removed.
    pub fn sweep(&self) -> Result<(), GitError> {
        let leftover = |name: &str| name.ends_with(".lock") || name.ends_with(".keep") || name.starts_with("tmp_");
        let mut folders = vec![self.path.clone(), self.path.join("objects"), self.path.join("objects/pack")];
        folders.push(self.path.join("refs/heads"));
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(|source| file_error("list", &folder, source))?,
            };
            for entry in entries {
                let path = entry.map_err(|source| file_error("list", &folder, source))?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if !leftover(&name) {
                    // Branches have folders where their names have slashes.
                    folders.extend(
                        path.starts_with(self.path.join("refs")).then(|| path.clone()).filter(|path| path.is_dir()),
                    );
                    continue;
                }
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(|source| file_error("remove", &path, source))?;
            }
        }
        Ok(())
    }

    /// Takes a pin away; gone is success.
    ///
    /// # Errors
    /// When the reference cannot be deleted.
    pub fn unpin(&self, release: ReleaseNumber) -> Result<(), GitError> {
        match self.git.find_reference(&format!("{PINS}{release}")) {
            Ok(mut reference) => reference.delete().map_err(self.err("unpin a release")),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(()),
            Err(error) => Err(self.err("unpin a release")(error)),
        }
    }

    /// The pinned releases and their commits.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn pins(&self) -> Result<BTreeMap<ReleaseNumber, CommitId>, GitError> {
        let pins = self.references(PINS)?;
        Ok(pins.into_iter().filter_map(|(number, commit)| Some((number.parse().ok()?, commit))).collect())
    }

    /// What the commit says of itself.
    ///
    /// # Errors
    /// [`GitError::NoCommit`].
    pub fn commit(&self, id: &CommitId) -> Result<Commit, GitError> {
        let commit = self.find(id)?;
        let author = commit.author();
        Ok(Commit {
            id: id.clone(),
            time: commit.time().seconds(),
            subject: String::from_utf8_lossy(commit.summary_bytes().unwrap_or_default()).into_owned(),
            author: String::from_utf8_lossy(author.name_bytes()).into_owned(),
        })
    }

    fn find(&self, id: &CommitId) -> Result<git2::Commit<'_>, GitError> {
        let error = |error: git2::Error| match error.code() {
            ErrorCode::NotFound => GitError::NoCommit { commit: id.clone() },
            _ => self.err("read a commit")(error),
        };
        self.check_size(oid(id), "a commit").map_err(error)??;
        self.git.find_commit(oid(id)).map_err(error)
    }

    /// Whether an object that is about to be read whole is small enough for that: a few bytes of a pack can stand for
    /// gigabytes. The outer error is that it cannot be asked.
    fn check_size(&self, id: Oid, object: &str) -> Result<Result<(), GitError>, git2::Error> {
        let (size, _) = self.git.odb()?.read_header(id)?;
        let (size, most) = (size >> 20, LARGEST_OBJECT >> 20);
        let what = || format!("{object} of {size} MB, and {most} MB is the most");
        Ok(if size >= most { Err(GitError::TooMuch { what: what() }) } else { Ok(()) })
    }
}

fn replace(file: &Path, content: &[u8], mode: u32) -> Result<(), GitError> {
    let new = file.with_extension("quarry-new");
    fs::write(&new, content).map_err(|source| file_error("write", &new, source))?;
    let mode = fs::Permissions::from_mode(mode);
    fs::set_permissions(&new, mode).map_err(|source| file_error("set the mode of", &new, source))?;
    fs::rename(&new, file).map_err(|source| file_error("replace", file, source))
}

fn oid(id: &CommitId) -> Oid {
    Oid::from_str(id.as_str()).expect("a commit id is 40 hexadecimal digits")
}

fn commit_id(id: Oid) -> CommitId {
    id.to_string().parse().expect("libgit2 writes 40 lowercase hexadecimal digits")
}

fn git<'a>(doing: &'a str, path: &'a Path) -> impl Fn(git2::Error) -> GitError + 'a {
    move |source| GitError::Git { doing: doing.to_owned(), path: path.to_owned(), source: Words(source) }
}

fn file_error(doing: &'static str, path: &Path, source: io::Error) -> GitError {
    GitError::File { doing, path: path.to_owned(), source }
}
