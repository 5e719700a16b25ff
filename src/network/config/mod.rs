//! Config files: what each server is given, and what becomes of it when it is no longer given.
//!
//! Quarry takes away only what it wrote itself, and puts back what was there before. A file that somebody has changed
//! since is theirs: it is left when quarry's goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::files::Owner;

use crate::names::printable::excerpt;

pub mod act;
pub mod files;

/// The largest config file, in bytes.
pub const LIMIT: usize = 1_000_000;

/// Where no config file may be: these are the kernel's, docker's, quarry's own or kept by it in another way, or without
/// them nobody comes in any more who could mend it.
const CLOSED: [&str; 14] = [
    "/proc",
    "/sys",
    "/dev",
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/var/lib/docker",
    super::files::HOSTS,
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/gshadow",
    "/root/.ssh",
    "/usr/local/lib/quarry",
    "/var/lib/quarry-etcd",
];

/// The path of a config file: absolute, of plain names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConfigPath(String);

/// A path no config file may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no path for a config file: {why}")]
pub struct BadPath {
    /// What came, shortened and with control characters escaped.
    pub given: String,
    /// What is wrong with it.
    pub why: String,
}

impl BadPath {
    fn new(given: &str, why: impl Into<String>) -> Self {
        Self { given: excerpt(given, 200), why: why.into() }
    }
}

impl ConfigPath {
    /// The path.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// Refuses a path inside one of these folders, which are quarry's own.
    ///
    /// # Errors
    /// [`BadPath`], naming the folder.
    pub fn outside(&self, own: &[PathBuf]) -> Result<(), BadPath> {
        refuse_inside(&self.0, self.as_path(), own)
    }
}

/// The same for the place a path really leads to, with its links followed.
///
/// # Errors
/// [`BadPath`], naming the folder.
pub fn refuse_inside(given: &str, path: &Path, own: &[PathBuf]) -> Result<(), BadPath> {
    let closed = CLOSED.iter().map(Path::new).chain(own.iter().map(PathBuf::as_path));
    for folder in closed {
        if path.starts_with(folder) {
            return Err(BadPath::new(given, format!("{} is not for config files", folder.display())));
        }
    }
    Ok(())
}

impl FromStr for ConfigPath {
    type Err = BadPath;
    fn from_str(text: &str) -> Result<Self, BadPath> {
        let bad = |why: &str| Err(BadPath::new(text, why));
        let Some(rest) = text.strip_prefix('/') else { return bad("it does not begin with `/`") };
        if text.len() > 4000 {
            return bad("it is too long");
        }
        if text.chars().any(char::is_control) {
            return bad("it has control characters");
        }
        for name in rest.split('/') {
            match name {
                "" if rest.ends_with('/') || rest.is_empty() => return bad("it names a folder"),
                "" => return bad("it has `//` inside"),
                "." | ".." => return bad("it has `.` or `..` inside"),
                name if name.len() > 255 => return bad("one of its names is too long"),
                _ => {}
            }
        }
        let path = Self(text.to_owned());
        path.outside(&[])?;
        Ok(path)
    }
}

impl TryFrom<String> for ConfigPath {
    type Error = BadPath;
    fn try_from(text: String) -> Result<Self, BadPath> {
        text.parse()
    }
}

impl From<ConfigPath> for String {
    fn from(path: ConfigPath) -> Self {
        path.0
    }
}

impl fmt::Display for ConfigPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The digest of a file's bytes, as hexadecimal SHA-256.
pub type Content = String;

/// Everything quarry has written here.
pub type Manifest = BTreeMap<ConfigPath, Written>;

/// One file quarry has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// What quarry wrote: one content, or two while one takes the other's place.
    pub contents: BTreeSet<Content>,
    /// What was there before; `None` when nothing was.
    pub before: Option<Before>,
    /// Folders made for it, outermost first.
    pub made: Vec<PathBuf>,
}

/// What was there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Which of the kept files has its bytes.
    pub kept: Content,
    /// Its mode and owner.
    pub owner: Owner,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write the wanted bytes.
    Write(ConfigPath),
    /// Put back what was there before, or nothing.
    PutBack(ConfigPath),
    /// It is somebody else's by now: only forget it.
    Leave(ConfigPath),
}

/// What makes the files those that are wanted, by path. `found` has the content of each file of the manifest and of each
/// wanted one that is there.
pub fn plan(
    wanted: &BTreeMap<ConfigPath, Content>,
    manifest: &Manifest,
    found: &BTreeMap<ConfigPath, Content>,
) -> Vec<Step> {
    let write = wanted.iter().filter(|(path, content)| {
        let settled = manifest.get(*path).is_some_and(|written| written.contents.iter().eq([*content]));
        !settled || found.get(*path) != Some(*content)
    });
    let write = write.map(|(path, _)| Step::Write(path.clone()));
    let gone = manifest.iter().filter(|(path, _)| !wanted.contains_key(*path));
    let gone = gone.map(|(path, written)| match found.get(path) {
        Some(content) if written.contents.contains(content) => Step::PutBack(path.clone()),
        Some(_) | None => Step::Leave(path.clone()),
    });
    write.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_plain_and_lead_to_nothing_of_the_kernels_or_quarrys() {
        let check = |path: &str, good: bool| {
            let own = [PathBuf::from("/home/quarry"), PathBuf::from("/etc/quarry")];
            let read = path.parse::<ConfigPath>().and_then(|path| path.outside(&own).map(|()| path));
            assert_eq!(read.is_ok(), good, "{path:?}: {read:?}");
        };
        for good in
            ["/etc/app.conf", "/a", "/etc/..x", "/etc/a b;$(c)", "/process", "/home/quarryman/x", "/etc/hosts.d/a"]
        {
            check(good, true);
        }
        for bad in [
            "",
            "etc/a",
            "/",
            "/etc/",
            "/etc//a",
            "/etc/../a",
            "/etc/./a",
            "/..",
            "/a\0b",
            "/a\nb",
            "/proc/x",
            "/sys",
            "/dev/sda",
            "/home/quarry/db",
            "/etc/quarry/host_key",
            "/etc/hosts",
            "/run/docker.sock",
            "/var/lib/docker/x",
            "/etc/passwd",
            "/etc/shadow",
            "/root/.ssh/authorized_keys",
            "/usr/local/lib/quarry/quarry",
        ] {
            check(bad, false);
        }
        check(&format!("/{}", "a".repeat(256)), false);
    }

    fn path(text: &str) -> ConfigPath {
        text.parse().unwrap()
    }

    fn files(pairs: &[(&str, &str)]) -> BTreeMap<ConfigPath, Content> {
        pairs.iter().map(|(at, content)| (path(at), (*content).to_owned())).collect()
    }

    fn manifest(pairs: &[(&str, &[&str])]) -> Manifest {
        let written = |contents: &[&str]| Written {
            contents: contents.iter().map(|content| (*content).to_owned()).collect(),
            before: None,
            made: Vec::new(),
        };
        pairs.iter().map(|(at, contents)| (path(at), written(contents))).collect()
    }

    #[test]
    fn what_stands_is_left_and_what_differs_is_written() {
        let check = |written: &[(&str, &[&str])], found: &[(&str, &str)], expected: &[Step]| {
            assert_eq!(plan(&files(&[("/a", "1")]), &manifest(written), &files(found)), expected);
        };
        let write = [Step::Write(path("/a"))];
        check(&[("/a", &["1"])], &[("/a", "1")], &[]);
        check(&[("/a", &["1"])], &[("/a", "changed by hand")], &write);
        check(&[("/a", &["1"])], &[], &write);
        check(&[], &[("/a", "1")], &write);
        check(&[("/a", &["0", "1"])], &[("/a", "1")], &write);
    }

    #[test]
    fn only_what_quarry_wrote_is_taken_away() {
        let check = |contents: &[&str], found: &[(&str, &str)], expected: Step| {
            assert_eq!(plan(&files(&[]), &manifest(&[("/a", contents)]), &files(found)), [expected]);
        };
        check(&["1"], &[("/a", "1")], Step::PutBack(path("/a")));
        check(&["0", "1"], &[("/a", "0")], Step::PutBack(path("/a")));
        check(&["1"], &[("/a", "changed by hand")], Step::Leave(path("/a")));
        check(&["1"], &[], Step::Leave(path("/a")));
    }
}
