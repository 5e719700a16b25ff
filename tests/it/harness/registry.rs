//! Registry processes, found by the folder they work in; and one of a test's own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::wait::until;

/// The registry processes whose configuration lies below `folder`.
pub fn processes(folder: &Path) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let works_there = |pid: &i32| {
        let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = words.split('\0');
        words.next().is_some_and(|program| program.ends_with("docker-registry"))
            && words.any(|word| Path::new(word).starts_with(folder))
    };
    pids.filter(works_there).filter_map(Pid::from_raw).collect()
}

/// SIGKILL for all of them; how many there were.
pub fn kill(folder: &Path) -> usize {
    let found = processes(folder);
    for pid in &found {
        let _ = kill_process(*pid, Signal::KILL);
    }
    found.len()
}

/// A registry on this machine's loopback; it ends with the test.
pub struct OwnRegistry {
    folder: TempDir,
    port: u16,
    child: Child,
}

impl OwnRegistry {
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("quarry-it-registry-").tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let config = folder.path().join("config.yml");
        let storage = folder.path().display();
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {storage}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("these tests need docker-registry: apt install docker-registry");
        let registry = Self { folder, port, child };
        until("the registry to answer", || TcpStream::connect(registry.address()).ok());
        registry
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

impl Drop for OwnRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        assert!(processes(self.folder.path()).is_empty());
    }
}
