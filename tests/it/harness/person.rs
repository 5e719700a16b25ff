//! Somebody besides ada.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::hq::Hq;
use super::program::{Done, run, run_with};
use super::repository::{Repository, git};

/// Somebody with a key of their own.
pub struct Person<'a> {
    hq: &'a Hq,
    config: PathBuf,
}

impl Hq {
    /// Somebody whose key HQ knows.
    pub fn person(&self, name: &str) -> Person<'_> {
        let key = self.make_key(&format!("{name}_key"));
        self.quarry_with(&["keys", "add", name, "laptop"], key.as_bytes()).succeeded();
        let config = self.file(&format!("ssh_config_{name}"));
        let own =
            fs::read_to_string(self.file("ssh_config")).unwrap().replace("/id_ed25519\n", &format!("/{name}_key\n"));
        fs::write(&config, own).unwrap();
        Person { hq: self, config }
    }
}

impl Person<'_> {
    /// The HQ that knows them.
    pub fn hq(&self) -> &Hq {
        self.hq
    }

    /// How their ssh is set up.
    pub fn config(&self) -> &std::path::Path {
        &self.config
    }

    /// By `ssh quarry@hq words`.
    pub fn run(&self, words: &[&str]) -> Done {
        self.run_with(words, b"")
    }

    pub fn run_with(&self, words: &[&str], input: &[u8]) -> Done {
        run_with(&mut self.command(words), input)
    }

    pub fn command(&self, words: &[&str]) -> Command {
        self.command_with(&[], words)
    }

    /// With options of ssh's own.
    pub fn command_with(&self, options: &[&str], words: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(&self.config).args(options).arg("hq").args(words);
        command
    }

    pub fn push(&self, repository: &Repository, stack: &str) -> Done {
        self.git(repository, &["push", &self.hq.url(stack), "HEAD"])
    }

    pub fn git(&self, repository: &Repository, words: &[&str]) -> Done {
        let ssh = format!("ssh -F {}", self.config.display());
        run(git(repository.path()).env("GIT_SSH_COMMAND", ssh).args(words))
    }
}
