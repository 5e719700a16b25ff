//! What detection sees of a repository: which files there are, and the text of the few that describe it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::shelf::Shelf;

/// A checked out repository as plain values. Paths are relative, with `/`, without a leading `./`; folders are not
/// listed, a folder is there when a file in it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repository {
    /// Every file, links included, `.git` excluded.
    pub paths: BTreeSet<String>,
    /// Whether files were left out of `paths` because there are too many; then a path that is not listed may exist.
    pub cut: bool,
    /// The text of the well-known small files.
    pub contents: BTreeMap<String, String>,
    /// Well-known files whose text could not be taken, with the reason.
    pub unreadable: BTreeMap<String, Unreadable>,
    /// Files that are pointers of Git LFS instead of themselves.
    pub pointers: BTreeSet<String>,
    /// The packs that the server's owner has beside the built-in ones.
    pub shelf: Shelf,
}

/// Why the text of a well-known file was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unreadable {
    /// Longer than [`Repository::LARGEST`].
    TooLarge,
    /// Not UTF-8.
    NotText,
    /// A named pipe, socket, device or folder.
    NotAFile,
    /// A symbolic link to a file outside of the repository.
    Outside,
    /// A symbolic link to nothing.
    Dangling,
    /// The system refused.
    Refused,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unreadable::TooLarge => "is larger than 256 KiB",
            Unreadable::NotText => "is not UTF-8 text",
            Unreadable::NotAFile => "is not a regular file",
            Unreadable::Outside => "is a link that leads out of the repository",
            Unreadable::Dangling => "is a link that leads to nothing",
            Unreadable::Refused => "cannot be read",
        })
    }
}

impl Repository {
    /// Bytes of a well-known file that are still taken.
    pub const LARGEST: u64 = 256 * 1024;

    /// Whether the text of a file is wanted: it describes the stack or its packs.
    pub fn is_well_known(path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        let names = [
            "quarry.yml",
            "quarry.yaml",
            "Procfile",
            "CHECKS",
            "app.json",
            "project.toml",
            ".buildpacks",
            "Gemfile",
            "Gemfile.lock",
            ".ruby-version",
            "config.ru",
            "go.mod",
            "composer.json",
            "pom.xml",
            "system.properties",
            "build.gradle",
            "build.gradle.kts",
            "Cargo.toml",
            "rust-toolchain",
            "rust-toolchain.toml",
            "package.json",
            "requirements.txt",
            "pyproject.toml",
            "runtime.txt",
            ".python-version",
            ".nvmrc",
            ".node-version",
            "Aptfile",
            "app.py",
            "main.py",
            "wsgi.py",
            "asgi.py",
            "server.py",
            "application.py",
        ];
        let at_root = !path.contains('/');
        let inner = ["app/main.py", "app/app.py", "src/main.py", "src/app.py"].contains(&path);
        (at_root && names.contains(&name))
            || inner
            || name == "Dockerfile"
            || name == ".gitattributes"
            || name.starts_with("Dockerfile.")
            || name.to_ascii_lowercase().ends_with(".dockerfile")
    }

    /// Whether a file is there.
    pub fn has(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// Whether a folder with a file in it is there; the empty path and `.` are the repository itself.
    pub fn has_folder(&self, folder: &str) -> bool {
        if matches!(folder, "" | ".") {
            return true;
        }
        let prefix = format!("{folder}/");
        self.paths.range(prefix.clone()..).next().is_some_and(|path| path.starts_with(&prefix))
    }

    /// The text of a well-known file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.contents.get(path).map(String::as_str)
    }

    /// A repository of these files, all of them well known by their text.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let contents: BTreeMap<String, String> =
            files.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect();
        Self { paths: contents.keys().cloned().collect(), contents, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_there_when_a_file_in_it_is() {
        let repository = Repository::of([("public/css/a.css", ""), ("public.txt", "")]);
        for (folder, expected) in
            [("public", true), ("public/css", true), (".", true), ("publi", false), ("public.txt", false)]
        {
            assert_eq!(repository.has_folder(folder), expected, "{folder}");
        }
    }

    #[test]
    fn only_dockerfiles_are_well_known_below_the_root() {
        for (path, expected) in [
            ("quarry.yml", true),
            ("docs/quarry.yml", false),
            ("web/Dockerfile", true),
            ("Dockerfile.worker", true),
            ("build/web.Dockerfile", true),
            ("Dockerfiles", false),
        ] {
            assert_eq!(Repository::is_well_known(path), expected, "{path}");
        }
    }
}
