//! Checkouts: the tree of a commit as plain files, with its submodules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use git2::ObjectType;
use git2::build::CheckoutBuilder;

use crate::hq::git::submodule::{Base, Fetching, Modules};
use crate::hq::git::{GitError, Repository, commit_id, file_error, oid};
use crate::names::CommitId;

/// Submodules within submodules are fetched down to this depth.
const DEPTH: u32 = 5;

impl Repository {
    /// Writes the tree of `commit` into the folder `into`, which is made and must be empty: files with their modes,
    /// symlinks as they are, submodules fetched. Nothing of git itself is left in it.
    ///
    /// # Errors
    /// For paths that could leave the folder, more than a checkout may be, submodules that cannot be fetched, and when
    /// writing fails.
    pub fn checkout(&self, commit: &CommitId, into: &Path, fetching: &Fetching) -> Result<(), GitError> {
        self.checkout_nested(commit, into, &Modules::of(&self.path, fetching), &Base::Stack, 0)
    }

    fn checkout_nested(
        &self,
        commit: &CommitId,
        into: &Path,
        modules: &Modules<'_>,
        base: &Base,
        depth: u32,
    ) -> Result<(), GitError> {
        let tree = self.find(commit)?.tree().map_err(self.err("read a tree"))?;
        modules.budget.spend(self, tree.id())?;
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
            if depth >= DEPTH {
                return Err(fail("submodules within submodules go too deep".into()));
            }
            let (repository, base) = modules.repository(path, url, base, commit).map_err(fail)?;
            repository.checkout_nested(commit, &into.join(path), modules, &base, depth + 1)?;
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

    /// Keeps a submodule's commit from being collected.
    pub(super) fn keep(&self, commit: &CommitId) -> Result<(), GitError> {
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
