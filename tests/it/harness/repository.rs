//! Repositories as people have them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::program::{Done, run};

/// A git repository in a folder of its own.
pub struct Repository {
    folder: TempDir,
}

impl Repository {
    /// An empty one on branch master.
    pub fn empty() -> Self {
        let repository = Self { folder: tempfile::tempdir().unwrap() };
        repository.git(&["init", "-q", "-b", "master"]).succeeded();
        repository
    }

    /// With these files in its first commit.
    pub fn with(files: &[(&str, &str)]) -> Self {
        let repository = Self::empty();
        repository.write_all(files);
        repository.commit("first");
        repository
    }

    /// With the files of `tests/samples/<name>` in its first commit.
    pub fn sample(name: &str) -> Self {
        let repository = Self::empty();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(name), repository.path());
        repository.commit("first");
        repository
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn write_all(&self, files: &[(&str, &str)]) {
        files.iter().for_each(|(name, text)| self.write(name, text));
    }

    /// Commits everything there is and gives the commit's id.
    #[track_caller]
    pub fn commit(&self, subject: &str) -> String {
        self.git(&["add", "-A"]).succeeded();
        self.git(&["commit", "-q", "--allow-empty", "-m", subject]).succeeded();
        self.head()
    }

    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"]).succeeded().text().trim().to_owned()
    }

    pub fn git(&self, words: &[&str]) -> Done {
        run(git(self.path()).args(words))
    }
}

/// A git that sees nothing of the machine's own settings.
pub fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Ada").env(format!("GIT_{who}_EMAIL"), "ada@example.com");
        command.env(format!("GIT_{who}_DATE"), "2026-01-01T12:00:00Z");
    }
    command
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
