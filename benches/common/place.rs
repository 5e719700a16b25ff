//! Where a benchmark keeps everything: one temporary folder with keys for both servers.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::end;
use super::program::done;

/// The folder; it goes at the end.
#[derive(Clone)]
pub struct Place {
    folder: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("quarry-bench-").tempdir().unwrap().keep();
        let gone = folder.clone();
        end::later(move || drop(fs::remove_dir_all(gone)));
        // nginx's workers are somebody else.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let place = Self { folder };
        for name in ["id", "sshd_key"] {
            done(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(place.path(name)));
        }
        place
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// OpenSSH's client with its default algorithms and nothing of this machine's own settings.
    pub fn ssh_words(&self) -> Vec<String> {
        self.ssh_words_of(&self.path("id"))
    }

    /// The same with another private key.
    pub fn ssh_words_of(&self, key: &Path) -> Vec<String> {
        let key = key.display().to_string();
        let options = ["IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"];
        let options = options.iter().chain(&["BatchMode=yes", "LogLevel=ERROR"]);
        let mut words: Vec<String> = ["ssh", "-F", "/dev/null", "-i", &key].map(str::to_owned).into();
        options.for_each(|option| words.extend(["-o".to_owned(), (*option).to_owned()]));
        words
    }

    /// What has ssh keep a connection open for whoever comes next with the same name.
    pub fn kept(&self, name: &str) -> [String; 6] {
        let path = format!("ControlPath={}", self.path(&format!("{name}.control")).display());
        ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", &path].map(str::to_owned)
    }

    /// `ssh user@127.0.0.1 words`.
    pub fn ssh(&self, user: &str, port: u16, words: &[&str]) -> Command {
        let own = self.ssh_words();
        let mut command = Command::new(&own[0]);
        command.args(&own[1..]).arg("-p").arg(port.to_string()).arg(format!("{user}@127.0.0.1")).args(words);
        command.env_remove("SSH_AUTH_SOCK");
        command
    }
}

/// A port nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
