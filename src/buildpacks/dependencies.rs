//! Which files a pack copies before it installs the dependencies.

use std::collections::{BTreeMap, BTreeSet};

use super::Repository;
use super::templates::exec;

/// Files by the folder they belong to.
#[derive(Debug, Default)]
pub(super) struct Files {
    folders: BTreeMap<String, BTreeSet<String>>,
    source: bool,
}

impl Files {
    /// Takes those of `paths` that the repository has. Names in which docker would expand something cannot be copied
    /// one by one, the whole source is then needed first.
    pub(super) fn take(&mut self, repository: &Repository, paths: &[&str]) {
        for path in paths.iter().filter(|path| repository.has(path)) {
            let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "._-/@+".contains(c));
            if !plain {
                self.source = true;
                continue;
            }
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            self.folders.entry(folder.to_owned()).or_default().insert((*path).to_owned());
        }
    }

    /// The dependencies cannot be installed without the source.
    pub(super) fn need_source(&mut self) {
        self.source = true;
    }

    /// Whether the source has to be copied before the dependencies are installed.
    pub(super) fn needs_source(&self) -> bool {
        self.source
    }

    /// One `COPY` line a folder.
    pub(super) fn lines(&self) -> String {
        let line = |(folder, paths): (&String, &BTreeSet<String>)| {
            let target = format!("./{folder}{}", if folder.is_empty() { "" } else { "/" });
            let words = paths.iter().map(String::as_str).chain([target.as_str()]);
            format!("COPY --chown=app:app {}", exec(words))
        };
        self.folders.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}
