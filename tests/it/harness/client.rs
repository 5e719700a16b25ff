//! Docker's own client on a person's machine, against HQ.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::hq::Hq;
use super::person::Person;
use super::program::{Done, Running, run_with};

/// Debian's client.
pub const DEBIAN: &str = "/usr/bin/docker";

/// A client whose engine is HQ. It calls `ssh` by that name, which is set up for one person.
pub struct Client {
    program: PathBuf,
    /// With that ssh and nothing else.
    folder: PathBuf,
    host: String,
    certificate: Option<PathBuf>,
}

impl Hq {
    /// Ada's.
    pub fn docker(&self) -> Client {
        self.client("ada", &self.file("ssh_config"))
    }

    fn client(&self, name: &str, config: &std::path::Path) -> Client {
        let hint = "docker's client is not there; apt install docker.io, as bin/test does";
        assert!(std::path::Path::new(DEBIAN).exists(), "{DEBIAN}: {hint}");
        let folder = self.file(&format!("docker-{name}"));
        if !folder.exists() {
            fs::create_dir(&folder).unwrap();
            let wrapper = format!("#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n", config.display());
            fs::write(folder.join("ssh"), wrapper).unwrap();
            fs::set_permissions(folder.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Client {
            program: DEBIAN.into(),
            folder,
            host: format!("ssh://quarry@127.0.0.1:{}", self.ssh.port()),
            certificate: None,
        }
    }
}

impl Person<'_> {
    /// Theirs.
    pub fn docker(&self) -> Client {
        let name = self.config().file_name().unwrap().to_string_lossy().into_owned();
        self.hq().client(&name, self.config())
    }
}

impl Client {
    /// Comes in by TCP at this address, with the certificate in this folder.
    pub fn by_tcp(&self, address: &str, certificate: &std::path::Path) -> Client {
        let certificate = Some(certificate.to_owned());
        Client { certificate, host: format!("tcp://{address}"), ..self.as_program(DEBIAN) }
    }

    /// Another client of the same person.
    pub fn as_program(&self, program: &str) -> Client {
        let certificate = self.certificate.clone();
        Client { program: program.into(), folder: self.folder.clone(), host: self.host.clone(), certificate }
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        self.dress(&mut command);
        command.args(words);
        command
    }

    /// What a shell needs that calls it.
    pub fn dress(&self, command: &mut Command) {
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.folder.display()));
        command.env("DOCKER_HOST", &self.host).env("DOCKER_CONFIG", &self.folder);
        command.env_remove("DOCKER_CONTEXT").env_remove("DOCKER_TLS_VERIFY").env_remove("DOCKER_API_VERSION");
        if let Some(certificate) = &self.certificate {
            command.env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", certificate);
        }
    }

    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Done {
        self.run_with(words, b"")
    }

    #[track_caller]
    pub fn run_with(&self, words: &[&str], input: &[u8]) -> Done {
        run_with(&mut self.command(words), input)
    }

    #[track_caller]
    pub fn beside(&self, words: &[&str]) -> Running {
        Running::start(&mut self.command(words))
    }

    /// Lines of a listing, sorted.
    #[track_caller]
    pub fn list(&self, words: &[&str]) -> Vec<String> {
        let mut lines: Vec<String> = self.run(words).succeeded().text().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}
