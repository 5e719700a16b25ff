//! The reference for everything by SSH: OpenSSH's server, alone for this benchmark.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::place::{Place, free_port};
use super::program::{self, done, until};
use super::repository::Repository;

pub struct Sshd {
    place: Place,
    pub port: u16,
}

impl Sshd {
    pub fn start(place: &Place) -> Self {
        let port = free_port();
        let folder = place.folder().display();
        // Its own settings, but that it does not drop the hundredth connection.
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/sshd_key\nAuthorizedKeysFile {folder}/id.pub\n\
             PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nMaxStartups 1000\nMaxSessions 100\n"
        );
        fs::write(place.path("sshd_config"), config).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(place.path("sshd_config")).stderr(Stdio::null());
        let mut child = program::start(&mut command);
        std::thread::spawn(move || child.wait());
        until("sshd", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { place: place.clone(), port }
    }

    /// Where the repository of this name is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path("sshd").join(format!("{name}.git"))
    }

    /// A bare repository to push to, made when it is not there.
    fn repository(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        if !path.exists() {
            fs::create_dir_all(&path).unwrap();
            done(Repository::dress(Command::new("git").args(["init", "-q", "--bare"]).arg(&path)));
        }
        path
    }

    /// Its address.
    pub fn url(&self, name: &str) -> String {
        format!("ssh://root@127.0.0.1:{}{}", self.port, self.repository(name).display())
    }

    /// `git push` of the branch that is checked out.
    pub fn push(&self, repository: &Repository, name: &str) -> Command {
        let mut command = repository.git(&["push", &self.url(name), "HEAD"]);
        command.env("GIT_SSH_COMMAND", self.place.ssh_words().join(" "));
        command
    }
}
