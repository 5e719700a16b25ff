//! HQ as one file: everything another machine needs to be this HQ. [`act`] writes it, [`restore`] reads it.
//!
//! A gzipped tar: `quarry-backup.json` ([`Manifest`]) first, then `state/<key>`, `etc/<path>`, `root/<path>`,
//! `images/<n>` (pieces of one archive of docker's) and `end.json` ([`End`]), without which it is only a part.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::db::{DbError, Entry, Key, layout};
use crate::docker::EngineError;
use crate::instruction::Instruction;
use crate::launch::Proc;
use crate::launch::record::Release;
use crate::names::{ImageId, StackName};

pub mod act;
pub mod restore;
pub mod tar;

/// The format this program writes, and the only one it reads.
pub const FORMAT: u32 = 1;

/// The name of the first entry.
pub const MANIFEST: &str = "quarry-backup.json";
/// The name of the last one.
pub const END: &str = "end.json";

/// What goes along besides the state, the settings and the repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    /// Images.
    pub images: Images,
    /// Volumes of this machine.
    pub volumes: Volumes,
}

/// Which images go along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Images {
    /// Those of what serves: enough to answer again.
    Serving,
    /// Those of every release that can be rolled back to.
    All,
    /// None: HQ builds what serves again, from the commits.
    None,
}

/// Whether volumes go along, as they are at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volumes {
    /// They do.
    Along,
    /// They stay.
    Stay,
}

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Of the program that wrote it.
    pub version: String,
    /// When.
    pub created: Timestamp,
    /// The machine it is of.
    pub hostname: String,
    /// HQ's root folder there.
    pub root: PathBuf,
    /// Where its state was: `files` or `etcd`.
    pub home: String,
    /// Its stacks.
    pub stacks: BTreeSet<StackName>,
    /// The images that come along.
    pub images: BTreeSet<ImageId>,
    /// Whether volumes come along.
    pub volumes: bool,
}

/// What came before the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Values of the state.
    pub values: u64,
    /// Files of settings and root.
    pub files: u64,
    /// Bytes of images.
    pub images: u64,
}

/// Why there is no backup, or nothing was restored from one.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The state is never the same twice.
    #[error("HQ's state changed each time it was read; try again when fewer pushes are under way")]
    Restless,
    /// A file.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Whoever takes it has gone.
    #[error("nobody takes the backup any more")]
    Gone,
    /// No backup.
    #[error("{} is no backup of quarry", .0.display())]
    Foreign(PathBuf),
    /// Cut off, or changed.
    #[error("{} is cut off or damaged; nothing of it was taken", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Written by another program.
    #[error("this backup has format {found}, written by quarry {version}; this program reads format {FORMAT}")]
    Format {
        /// Its format.
        found: u32,
        /// Who wrote it.
        version: String,
    },
    /// There is an HQ already.
    #[error("{} is not empty; name another folder with --root, or move this one away", .0.display())]
    NotEmpty(PathBuf),
    /// Settings of somebody's own.
    #[error("{} is there already and says something else; move it away", .0.display())]
    Differs(PathBuf),
    /// The images.
    #[error("cannot bring the images")]
    Images(#[source] EngineError),
    /// The state.
    #[error("cannot write the state")]
    State(#[source] DbError),
}

/// What lies at the top of the root folder and goes along as it is. What is not named here is made again: the router's
/// and the registry's folders, hooks, sockets, marks.
const ROOT: [&str; 6] = ["events", "image_secret", "server_key", "sites", "stacks", "volumes"];

/// Whether a place of the root folder goes along as it is. What is part of the state tree, or of a repository's
/// references, is read at one instant and written apart from this.
pub fn travels(place: &str, volumes: Volumes) -> bool {
    let parts: Vec<&str> = place.split('/').collect();
    match parts.as_slice() {
        ["stacks"] | ["stacks", _] => true,
        ["stacks", _, "build" | "logs", ..] => true,
        ["stacks", _, "repo.git"] => true,
        ["stacks", _, "repo.git", inside @ ..] => is_content(inside),
        ["stacks", ..] => false,
        ["volumes", ..] => volumes == Volumes::Along,
        [first, ..] => ROOT.contains(first),
        [] => false,
    }
}

/// Whether a place of a repository holds its content. Objects that are still arriving are nobody's yet.
fn is_content(inside: &[&str]) -> bool {
    match inside {
        ["objects", name, ..] => !name.starts_with("tmp_") && !name.starts_with("incoming-"),
        ["objects"] | ["config"] => true,
        _ => false,
    }
}

/// Whether a file at the top of a repository says what it is at this instant: where branches point, where a shallow
/// history ends. `refs/…` does too.
pub fn is_instant(name: &str) -> bool {
    ["HEAD", "packed-refs", "shallow"].contains(&name)
}

/// Names of settings that go along: all but what editors and an earlier restore left.
pub fn is_setting(name: &str) -> bool {
    !name.ends_with('~') && !name.starts_with('.')
}

/// The images that are wanted of a state; damaged records name none.
pub fn images(state: &BTreeMap<Key, Entry>, which: Images) -> BTreeSet<ImageId> {
    if which == Images::None {
        return BTreeSet::new();
    }
    let mut wanted: BTreeSet<ImageId> = procs(state).map(|proc| proc.settings.image).collect();
    for releases in releases(state).into_values() {
        let taken = if which == Images::All { 0 } else { releases.len().saturating_sub(1) };
        let launched = releases.iter().skip(taken).flat_map(|release| &release.instructions);
        wanted.extend(launched.filter_map(Instruction::settings).map(|settings| settings.image.clone()));
    }
    wanted
}

/// What should run.
fn procs(state: &BTreeMap<Key, Entry>) -> impl Iterator<Item = Proc> {
    let procs = state.values().filter(|entry| entry.key.is_under(layout::PROCS));
    procs.filter_map(|entry| serde_json::from_slice(&entry.value).ok())
}

/// The releases of every stack, oldest first.
pub fn releases(state: &BTreeMap<Key, Entry>) -> BTreeMap<StackName, Vec<Release>> {
    let mut all: BTreeMap<StackName, Vec<Release>> = BTreeMap::new();
    for entry in state.values() {
        let segments: Vec<&str> = entry.key.segments().collect();
        let ["stacks", stack, "releases", _] = segments.as_slice() else { continue };
        let release = serde_json::from_slice(&entry.value);
        if let (Ok(stack), Ok(release)) = (stack.parse(), release) {
            all.entry(stack).or_default().push(release);
        }
    }
    for releases in all.values_mut() {
        releases.sort_by_key(|release| release.number);
    }
    all
}

/// The stacks of a state.
pub fn stacks(state: &BTreeMap<Key, Entry>) -> BTreeSet<StackName> {
    let stack = |key: &Key| match key.segments().collect::<Vec<_>>().as_slice() {
        ["stacks", stack, "status"] => stack.parse().ok(),
        _ => None,
    };
    state.keys().filter_map(stack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_made_again_goes_along() {
        let check = |place: &str, expected: bool| assert_eq!(travels(place, Volumes::Stay), expected, "{place}");
        for along in [
            "image_secret",
            "server_key",
            "events/2026-11-22.jsonl",
            "sites/blog/3/index.html",
            "stacks/blog",
            "stacks/blog/build/3.tar.gz",
            "stacks/blog/logs/nightly/1.log",
            "stacks/blog/repo.git/objects/pack/pack-1.pack",
            "stacks/blog/repo.git/config",
        ] {
            check(along, true);
        }
        for left in [
            ".lock",
            "hq.sock",
            "hq/last-epoch",
            "keys/ada/laptop.pub",
            "registry/data",
            "router/routes.json",
            "stacks/blog/src/app.py",
            "stacks/blog/status",
            "stacks/blog/env/SECRET",
            "stacks/blog/repo.git/refs/heads/master",
            "stacks/blog/repo.git/HEAD.lock",
            "stacks/blog/repo.git/objects/tmp_objdir-incoming-x/1",
            "volumes/blog/db/data",
        ] {
            check(left, false);
        }
        assert!(travels("volumes/blog/db/data", Volumes::Along));
    }
}
