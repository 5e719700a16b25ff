//! Repositories as people have them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::place::Place;
use super::program::done;

pub struct Repository {
    folder: PathBuf,
}

impl Repository {
    /// With these files in its first commit.
    pub fn with(place: &Place, name: &str, files: &[(&str, &[u8])]) -> Self {
        let repository = Self { folder: place.path(name) };
        fs::create_dir_all(&repository.folder).unwrap();
        done(&mut repository.git(&["init", "-q", "-b", "master"]));
        files.iter().for_each(|(name, bytes)| repository.write(name, bytes));
        repository.commit();
        repository
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Commits everything there is.
    pub fn commit(&self) {
        done(&mut self.git(&["add", "-A"]));
        done(&mut self.git(&["commit", "-q", "--allow-empty", "-m", "a commit"]));
    }

    /// Git in its folder.
    pub fn git(&self, words: &[&str]) -> Command {
        let mut command = Command::new("git");
        Self::dress(command.current_dir(&self.folder).args(words));
        command
    }

    /// Has a git see nothing of the machine's own settings.
    pub fn dress(command: &mut Command) -> &mut Command {
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null").env_remove("SSH_AUTH_SOCK");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "Ada").env(format!("GIT_{role}_EMAIL"), "ada@example.com");
        }
        command
    }

    /// The files without git's own, as a builder gets them.
    pub fn tar(&self) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for entry in fs::read_dir(&self.folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name();
            if name == ".git" {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                builder.append_dir_all(&name, entry.path()).unwrap();
            } else {
                builder.append_path_with_name(entry.path(), &name).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }
}
