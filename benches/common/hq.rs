//! The HQ that is measured: a whole `quarry serve` of this build, with a root, ports and labels of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::engine::Engine;
use super::lab::Lab;
use super::place::{Place, free_port};
use super::program::{self, until};
use super::repository::Repository;
use super::{end, web};

pub struct Hq {
    place: Place,
    engine: Engine,
    /// The `serve` process.
    pub pid: u32,
    /// Where it takes pushes and commands.
    pub ssh: u16,
    /// Where its router answers.
    pub http: u16,
    /// What its containers are labelled with.
    pub id: String,
    /// Its root and its settings in the place.
    folders: (&'static str, &'static str),
}

impl Hq {
    /// A running one that knows the key of the place.
    pub fn start(place: &Place, engine: &Engine) -> Self {
        let root = place.path("root");
        for (name, text) in [("port-range", "29000-29999\n"), ("subnets", "10.220.0.0/16\n")] {
            fs::create_dir_all(place.path("etc")).unwrap();
            fs::write(place.path("etc").join(name), text).unwrap();
        }
        fs::create_dir(&root).unwrap();
        let id = id(&root.canonicalize().unwrap());
        let (swept, of_engine) = (id.clone(), engine.clone());
        end::later(move || clear(&of_engine, &root, &swept));
        let (ssh, http) = (free_port(), free_port());
        let folders = ("root", "etc");
        let mut hq = Self { place: place.clone(), engine: engine.clone(), pid: 0, ssh, http, id, folders };
        hq.serve();
        done_with(hq.quarry().args(["keys", "add", "bench"]), &place.path("id.pub"));
        hq
    }

    /// Adds a lab's server, under the name it has itself.
    pub fn add_server(&self, lab: &Lab, number: u8) {
        let mut add = self.quarry();
        done_with(add.args(["servers", "add", &lab.address(number)]), lab.key().as_ref());
    }

    fn serve(&mut self) {
        let log = fs::File::create(self.place.path("serve.log")).unwrap();
        let addresses = [self.ssh, self.http].map(|port| format!("127.0.0.1:{port}"));
        let mut command = self.quarry();
        command.args(["serve", "--ssh", &addresses[0], "--http", &addresses[1], "--https", "off", "--api", "off"]);
        let mut child = program::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("ready"), "HQ does not become ready: {line}{}", self.log());
        self.pid = child.id();
        // It is reaped when it ends; until then nobody waits for it.
        std::thread::spawn(move || child.wait());
    }

    /// Takes away this HQ with everything it has made, makes another one of its backup under another root, and starts it.
    pub fn replace(&mut self, backup: &Path) {
        program::stop(self.pid);
        let root = self.place.path(self.folders.0);
        clear(&self.engine, &root, &self.id);
        self.folders = ("root-restored", "etc-restored");
        let root = self.place.path(self.folders.0);
        fs::create_dir(&root).unwrap();
        self.id = id(&root.canonicalize().unwrap());
        let (swept, of_engine) = (self.id.clone(), self.engine.clone());
        end::later(move || clear(&of_engine, &root, &swept));
        program::done(self.quarry().arg("restore").arg(backup));
        self.serve();
    }

    /// What HQ has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.place.path("serve.log")).unwrap_or_default()
    }

    /// `quarry` on HQ as root.
    pub fn quarry(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quarry"));
        let (root, etc) = self.folders;
        command.env("QUARRY_ROOT", self.place.path(root)).env("QUARRY_ETC", self.place.path(etc));
        command.env_remove("QUARRY_HQ").current_dir(self.place.folder());
        command
    }

    pub fn url(&self, stack: &str) -> String {
        format!("ssh://quarry@127.0.0.1:{}/{stack}", self.ssh)
    }

    /// `git push` of the branch that is checked out.
    pub fn push(&self, repository: &Repository, stack: &str) -> Command {
        let mut command = repository.git(&["push", &self.url(stack), "HEAD"]);
        command.env("GIT_SSH_COMMAND", self.place.ssh_words().join(" "));
        command
    }

    /// Waits until nothing but what should run is there: old containers go after the pusher has been answered.
    pub fn wait_for_rest(&self, stack: &str, containers: usize) {
        let journal = self.place.path(self.folders.0).join("journal").join(format!("{stack}.json"));
        let own = [format!("quarry.hq={}", self.id), format!("quarry.stack={stack}")];
        until(&format!("{containers} containers of {stack}"), || {
            !journal.exists() && self.engine.containers(&own).len() == containers
        });
    }

    /// Where a container of a stack that is routed answers.
    pub fn peer(&self, stack: &str) -> SocketAddr {
        let routes = fs::read(self.place.path(self.folders.0).join("routes").join(format!("{stack}.json"))).unwrap();
        let address = address(&serde_json::from_slice(&routes).unwrap());
        address.and_then(|text| text.parse().ok()).expect("the stack is routed to a container")
    }

    /// Waits until a site answers through the router.
    pub fn wait_for_page(&self, host: &str) {
        until(&format!("an answer of {host}"), || {
            web::get(("127.0.0.1", self.http), host, "/").is_ok_and(|code| code == 200)
        });
    }
}

fn done_with(command: &mut Command, input: &Path) {
    let done = command.stdin(fs::File::open(input).unwrap()).output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// As HQ names itself: the start of the digest of its root.
fn id(root: &Path) -> String {
    let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Takes away what an HQ leaves that has ended: its router, its containers and its wall.
fn clear(engine: &Engine, root: &Path, id: &str) {
    end_router(root);
    engine.sweep("quarry.hq", id);
    let _ = Command::new("nft").args(["delete", "table", "inet", &format!("quarry_hq_{id}")]).output();
}

/// The router outlives HQ by design.
fn end_router(root: &Path) {
    let pid = fs::read_to_string(root.join("router/nginx.pid")).ok().and_then(|text| text.trim().parse().ok());
    let Some(pid) = pid.and_then(Pid::from_raw) else { return };
    let command = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    // A number that has become somebody else's is left alone.
    if String::from_utf8_lossy(&command).contains(&root.display().to_string()) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// The first address in a table of routes.
fn address(value: &Value) -> Option<String> {
    match value {
        Value::Object(map) => match map.get("address").and_then(Value::as_str) {
            Some(address) => Some(address.to_owned()),
            None => map.values().find_map(address),
        },
        Value::Array(list) => list.iter().find_map(address),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
