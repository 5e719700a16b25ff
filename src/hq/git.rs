//! Git: a stack's bare repository, its branches, its pins, and checkouts of its commits.
//!
//! Everything here blocks; call it from `spawn_blocking`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use git2::build::CheckoutBuilder;
use git2::{ErrorCode, ObjectType, Oid};

use crate::names::{CommitId, ReleaseNumber};

/// Where releases are pinned; hidden from clients.
const PINS: &str = "refs/quarry/releases/";

/// What went wrong with a repository.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// libgit2 failed at something.
    #[error("cannot {doing} in the repository {}", path.display())]
    Git {
        /// What was tried.
        doing: String,
        /// The repository.
        path: PathBuf,
        /// libgit2's words.
        source: git2::Error,
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
    /// A submodule without an address, or with one that is not supported.
    #[error("cannot fetch the submodule `{path}`: {reason}")]
    Submodule {
        /// Its path in the tree.
        path: String,
        /// Why.
        reason: String,
    },
}

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

/// Settings of a stack's repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The folder with git's hooks.
    pub hooks: PathBuf,
    /// The largest pack taken in bytes; 0 for any.
    pub push_limit: u64,
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
        let config = config(settings);
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
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
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

    /// Whether `old` is `new` or among its ancestors. History that a shallow push left out counts as not.
    ///
    /// # Errors
    /// When `new` itself cannot be read.
    pub fn is_ancestor(&self, old: &CommitId, new: &CommitId) -> Result<bool, GitError> {
        let (old, start) = (oid(old), oid(new));
        let mut seen = BTreeSet::from([start]);
        let mut open = vec![start];
        let oldest = self.git.find_commit(old).map(|commit| commit.time().seconds()).ok();
        while let Some(id) = open.pop() {
            if id == old {
                return Ok(true);
            }
            let commit = match self.git.find_commit(id) {
                Ok(commit) => commit,
                Err(_) if id != start => continue,
                Err(error) => return Err(self.err("read a commit")(error)),
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
        let object = match odb.read(oid(id)) {
            Ok(object) => object,
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(expected),
            Err(error) => return Err(self.err("read a commit")(error)),
        };
        let header = object.data().split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
        let parents = header.filter_map(|line| std::str::from_utf8(line.strip_prefix(b"parent ")?).ok());
        Ok(parents.filter_map(|id| Oid::from_str(id).ok()).any(|parent| !odb.exists(parent)))
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
        self.git.find_commit(oid(id)).map_err(|error| match error.code() {
            ErrorCode::NotFound => GitError::NoCommit { commit: id.clone() },
            _ => self.err("read a commit")(error),
        })
    }

    /// Writes the tree of `commit` into the folder `into`, which is made and must be empty: files with their modes,
    /// symlinks as they are, submodules fetched. Nothing of git itself is left in it.
    ///
    /// # Errors
    /// For paths that could leave the folder, submodules that cannot be fetched, and when writing fails.
    pub fn checkout(&self, commit: &CommitId, into: &Path) -> Result<(), GitError> {
        self.checkout_nested(commit, into, 0)
    }

    fn checkout_nested(&self, commit: &CommitId, into: &Path, depth: u32) -> Result<(), GitError> {
        let tree = self.find(commit)?.tree().map_err(self.err("read a tree"))?;
        let mut submodules = BTreeMap::new();
        self.inspect(&tree, "", &mut submodules)?;
        fs::create_dir_all(into).map_err(|source| file_error("make the folder", into, source))?;
        // libgit2 checks submodules out of a repository with a work tree only: a handle of its own has one.
        let worker = git2::Repository::open_bare(&self.path).map_err(self.err("open it"))?;
        worker.set_workdir(into, false).map_err(self.err("check out a commit"))?;
        let tree = worker.find_tree(tree.id()).map_err(self.err("read a tree"))?;
        let mut options = CheckoutBuilder::new();
        options.force().update_index(false).refresh(false);
        worker.checkout_tree(tree.as_object(), Some(&mut options)).map_err(self.err("check out a commit"))?;
        if submodules.is_empty() {
            return Ok(());
        }
        let urls = self.submodule_urls(into)?;
        for (path, commit) in &submodules {
            let fail = |reason: String| GitError::Submodule { path: path.clone(), reason };
            let url = urls.get(path).ok_or_else(|| fail("`.gitmodules` has no entry for it".into()))?;
            if depth >= 5 {
                return Err(fail("submodules within submodules go too deep".into()));
            }
            let modules = self.fetch_submodule(url, commit).map_err(fail)?;
            modules.checkout_nested(commit, &into.join(path), depth + 1)?;
        }
        Ok(())
    }

    /// Looks for what a checkout must not meet, and for submodules. Two entries of one name are what makes a checkout
    /// write through a symlink; libgit2 refuses `..` and `.git` itself, and is not the only one to rely on.
    fn inspect(
        &self,
        tree: &git2::Tree<'_>,
        prefix: &str,
        submodules: &mut BTreeMap<String, CommitId>,
    ) -> Result<(), GitError> {
        let mut names = BTreeSet::new();
        for entry in tree {
            let bytes = entry.name_bytes();
            let name = String::from_utf8_lossy(bytes);
            let path = format!("{prefix}{name}");
            let special = matches!(bytes, b"" | b"." | b"..") || bytes.eq_ignore_ascii_case(b".git");
            if special || bytes.contains(&b'/') || !names.insert(bytes.to_vec()) {
                return Err(GitError::Path { path: path.chars().flat_map(char::escape_debug).collect() });
            }
            match entry.kind() {
                Some(ObjectType::Commit) => {
                    submodules.insert(path, commit_id(entry.id()));
                }
                Some(ObjectType::Tree) => {
                    let tree = self.git.find_tree(entry.id()).map_err(self.err("read a tree"))?;
                    self.inspect(&tree, &format!("{path}/"), submodules)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The addresses in the `.gitmodules` just checked out, by path.
    fn submodule_urls(&self, checkout: &Path) -> Result<BTreeMap<String, String>, GitError> {
        let file = checkout.join(".gitmodules");
        // A symlink could lead to any file of the machine.
        match fs::symlink_metadata(&file) {
            Ok(metadata) if metadata.is_file() => read_urls(&file).map_err(self.err("read `.gitmodules`")),
            Ok(_) => Ok(BTreeMap::new()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(source) => Err(file_error("read", &file, source)),
        }
    }

    /// Gets a submodule's commit into the repository beside this one that keeps them all.
    fn fetch_submodule(&self, url: &str, commit: &CommitId) -> Result<Repository, String> {
        if url.starts_with("./") || url.starts_with("../") {
            return Err(format!("its address `{url}` is relative, which is not supported yet; write it in full"));
        }
        let path = match self.path.file_name() {
            Some(name) if name == "modules.git" => self.path.clone(),
            _ => self.path.with_file_name("modules.git"),
        };
        let settings = Settings { hooks: path.join("no-hooks"), push_limit: 0 };
        let modules = Repository::open_or_create(&path, &settings).map_err(|error| error.to_string())?;
        if modules.git.find_commit(oid(commit)).is_err() {
            modules.fetch(url, commit)?;
        }
        Ok(modules)
    }

    fn fetch(&self, url: &str, commit: &CommitId) -> Result<(), String> {
        let keep = format!("+{commit}:refs/quarry/modules/{commit}");
        // Servers before protocol 2 give single commits only by branch: then everything is fetched.
        let attempts: [&[&str]; 2] = [&["--depth=1", "--", url, &keep], &["--", url, "+refs/*:refs/quarry/all/*"]];
        let mut reason = String::new();
        for attempt in attempts {
            let output = command(&self.path)
                .env("GIT_ALLOW_PROTOCOL", "https:http:ssh:git")
                .env("GIT_TERMINAL_PROMPT", "0")
                .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
                .args(["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"])
                .args(attempt)
                .stdin(Stdio::null())
                .output()
                .map_err(|error| format!("cannot run git: {error}"))?;
            if self.git.find_commit(oid(commit)).is_ok() {
                return self.keep(commit).map_err(|error| error.to_string());
            }
            reason = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        }
        Err(if reason.is_empty() { format!("`{url}` has no commit {}", commit.short()) } else { reason })
    }

    fn keep(&self, commit: &CommitId) -> Result<(), GitError> {
        let name = format!("refs/quarry/modules/{commit}");
        self.git.reference(&name, oid(commit), true, "").map(drop).map_err(self.err("keep a submodule"))
    }
}

fn read_urls(file: &Path) -> Result<BTreeMap<String, String>, git2::Error> {
    let config = git2::Config::open(file)?;
    let mut paths = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    config.entries(Some(r"^submodule\..*\.(path|url)$"))?.for_each(|entry| {
        if let (Ok(name), Ok(value)) = (entry.name(), entry.value()) {
            if let Some(module) = name.strip_suffix(".path") {
                paths.insert(module.to_owned(), value.to_owned());
            } else if let Some(module) = name.strip_suffix(".url") {
                addresses.insert(module.to_owned(), value.to_owned());
            }
        }
    })?;
    Ok(paths.into_iter().filter_map(|(module, path)| Some((path, addresses.remove(&module)?))).collect())
}

/// Writes git's hooks into `folder`.
///
/// # Errors
/// When they cannot be written.
pub fn install_hooks(folder: &Path) -> Result<(), GitError> {
    fs::create_dir_all(folder).map_err(|source| file_error("make the folder", folder, source))?;
    let file = folder.join("proc-receive");
    replace(&file, include_bytes!("../../hooks/proc-receive"), 0o755)
}

/// A git process at work on `repository`, with an environment of HQ's own.
pub fn command(repository: &Path) -> std::process::Command {
    let mut command = std::process::Command::new("git");
    command.env_clear().arg("--git-dir").arg(repository);
    command.envs(environment(repository));
    command
}

/// What git sees of the environment: nothing of the caller's that could change what it does.
pub fn environment(repository: &Path) -> BTreeMap<&'static str, std::ffi::OsString> {
    let home = repository.parent().unwrap_or(repository);
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    BTreeMap::from([
        ("PATH", path),
        ("HOME", home.as_os_str().to_owned()),
        ("LC_ALL", "C.UTF-8".into()),
        ("GIT_CONFIG_NOSYSTEM", "1".into()),
        ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
    ])
}

/// `unpackLimit=1` keeps the pack as it came, which takes big pushes at three times the speed of loose objects; the
/// branches are HQ's to move (`procReceiveRefs`), and HQ alone collects garbage.
fn config(settings: &Settings) -> String {
    let hooks = settings.hooks.to_string_lossy().replace('\\', r"\\").replace('"', "\\\"");
    let limit = settings.push_limit;
    format!(
        "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n\tlogAllRefUpdates = false\n\
         \thooksPath = \"{hooks}\"\n\
         [gc]\n\tauto = 0\n\
         [maintenance]\n\tauto = false\n\
         [receive]\n\tprocReceiveRefs = refs/heads\n\tunpackLimit = 1\n\tautogc = false\n\
         \tdenyDeletes = false\n\tdenyNonFastForwards = false\n\tdenyDeleteCurrent = ignore\n\
         \tdenyCurrentBranch = ignore\n\tmaxInputSize = {limit}\n\
         [transfer]\n\thideRefs = refs/quarry\n\
         [uploadpack]\n\thideRefs = refs/quarry\n\
         [advice]\n\tdetachedHead = false\n"
    )
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
    move |source| GitError::Git { doing: doing.to_owned(), path: path.to_owned(), source }
}

fn file_error(doing: &'static str, path: &Path, source: io::Error) -> GitError {
    GitError::File { doing, path: path.to_owned(), source }
}
