//! How much a tree is on disk, found out before any of it is written: a pack of a few kilobytes can hold a tree of
//! millions of files, or files of any size.

use std::cell::Cell;
use std::collections::BTreeMap;

use git2::{ObjectType, Oid};

use super::{GitError, Repository};

/// Files and folders of one checkout, its submodules included.
const MOST_FILES: u64 = 300_000;
/// Folders within folders.
const MOST_DEPTH: u32 = 200;
/// One file, in bytes: it goes through memory.
const LARGEST: u64 = 512 << 20;

/// What a checkout may still write.
#[derive(Debug)]
pub(super) struct Budget {
    files: Cell<u64>,
    bytes: Cell<u64>,
}

impl Budget {
    /// For a checkout that may write so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        Self { files: Cell::new(MOST_FILES), bytes: Cell::new(bytes) }
    }

    /// Takes what a tree needs.
    ///
    /// # Errors
    /// [`GitError::TooMuch`] when it is more than is left, or one file is too large.
    pub(super) fn spend(&self, repository: &Repository, tree: Oid) -> Result<(), GitError> {
        let weight = weigh(repository, tree, 0, &mut BTreeMap::new())?;
        let too_much = |what: String| Err(GitError::TooMuch { what });
        match (self.files.get().checked_sub(weight.files), self.bytes.get().checked_sub(weight.bytes)) {
            (None, _) => {
                too_much(format!("more than {MOST_FILES} files and folders; leave out what is built or installed"))
            }
            (_, None) => {
                let (needed, left) = (weight.bytes >> 20, self.bytes.get() >> 20);
                too_much(format!("{needed} MB of files, and only {left} MB may still be written to HQ's disk"))
            }
            (Some(files), Some(bytes)) => {
                self.files.set(files);
                self.bytes.set(bytes);
                Ok(())
            }
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    files: u64,
    bytes: u64,
}

/// Each tree is looked at once, however often it is there.
fn weigh(
    repository: &Repository,
    tree: Oid,
    depth: u32,
    known: &mut BTreeMap<Oid, Weight>,
) -> Result<Weight, GitError> {
    if let Some(weight) = known.get(&tree) {
        return Ok(*weight);
    }
    if depth > MOST_DEPTH {
        return Err(GitError::TooMuch { what: format!("folders more than {MOST_DEPTH} deep") });
    }
    repository.check_size(tree, "a folder's listing").map_err(repository.err("read a tree"))??;
    let odb = repository.git.odb().map_err(repository.err("read its objects"))?;
    let mut weight = Weight::default();
    for entry in &repository.git.find_tree(tree).map_err(repository.err("read a tree"))? {
        weight.files = weight.files.saturating_add(1);
        match entry.kind() {
            Some(ObjectType::Tree) => {
                let inner = weigh(repository, entry.id(), depth + 1, known)?;
                weight.files = weight.files.saturating_add(inner.files);
                weight.bytes = weight.bytes.saturating_add(inner.bytes);
            }
            Some(ObjectType::Blob) => {
                let (size, _) = odb.read_header(entry.id()).map_err(repository.err("read a file's size"))?;
                let size = size as u64;
                if size > LARGEST {
                    let name: String =
                        String::from_utf8_lossy(entry.name_bytes()).chars().flat_map(char::escape_debug).collect();
                    let (size, most) = (size >> 20, LARGEST >> 20);
                    let what =
                        format!("the file `{name}` with {size} MB, and {most} MB is the most; keep it elsewhere");
                    return Err(GitError::TooMuch { what });
                }
                weight.bytes = weight.bytes.saturating_add(size);
            }
            _ => {}
        }
    }
    known.insert(tree, weight);
    Ok(weight)
}
