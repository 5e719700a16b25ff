//! A machine as it is found: its files, disks, clock and programs. Everything here blocks, and asks nobody but the system.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Disk, Listening, Machine, Secret};
use crate::etc::{self, AUTHORITY, ENV_KEY, HOST_KEY, Settings};
use crate::hq::agents::wanted::Ports;
use crate::router::process::{holder, missing_piece};

/// Files of the settings' folder that nobody else may read.
const SECRETS_OF_ETC: [&str; 5] = [ENV_KEY, HOST_KEY, AUTHORITY, "etcd/password", "etcd/key"];
/// The same of the root folder.
const SECRETS_OF_ROOT: [&str; 2] = ["image_secret", "server_key"];

/// Programs that HQ runs, with what brings them.
const PROGRAMS: [(&str, &str); 3] = [("git", "git"), ("nft", "nftables"), ("ssh", "openssh-client")];

/// What brings the router.
const ROUTER: &str = "nginx-light libnginx-mod-http-lua lua-resty-core";

/// The settings and the machine around these folders. `more` are further folders of which the disk counts.
pub fn look(root: &Path, etc: &Path, more: &[PathBuf]) -> (Option<Settings>, Machine) {
    let (settings, mistakes) = match etc::files::read(etc) {
        Ok(settings) => (Some(settings), Vec::new()),
        Err(error) => (None, error.0),
    };
    let secrets = SECRETS_OF_ETC.iter().map(|name| etc.join(name));
    let secrets = secrets.chain(SECRETS_OF_ROOT.iter().map(|name| root.join(name))).filter_map(secret).collect();
    let systemd = Path::new("/run/systemd/system").is_dir();
    let mut folders = vec![root.to_owned()];
    folders.extend_from_slice(more);
    let machine = Machine {
        mistakes,
        secrets,
        missing: missing(),
        disks: disks(&folders),
        clock: if systemd { synchronised() } else { None },
        limits: limits(Path::new("/sys/fs/cgroup")),
        systemd,
        ephemeral: ephemeral(),
    };
    (settings, machine)
}

fn secret(path: PathBuf) -> Option<Secret> {
    let metadata = fs::metadata(&path).ok()?;
    Some(Secret { path, mode: metadata.mode(), owner: metadata.uid() })
}

fn missing() -> Vec<(String, String)> {
    let there = |name: &&(&str, &str)| {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let own = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        std::env::split_paths(&folders).chain(own).any(|folder| folder.join(name.0).is_file())
    };
    let programs =
        PROGRAMS.iter().filter(|name| !there(name)).map(|(name, package)| (name.to_string(), package.to_string()));
    let router = missing_piece().map(|piece| (piece.to_owned(), ROUTER.to_owned()));
    programs.chain(router).collect()
}

/// Each disk once, by the first folder that is on it.
fn disks(folders: &[PathBuf]) -> Vec<Disk> {
    let mut seen = Vec::new();
    let mut disks = Vec::new();
    for folder in folders {
        let (Ok(metadata), Ok(disk)) = (fs::metadata(folder), rustix::fs::statvfs(folder)) else { continue };
        if seen.contains(&metadata.dev()) {
            continue;
        }
        seen.push(metadata.dev());
        disks.push(Disk {
            folder: folder.clone(),
            size: disk.f_blocks.saturating_sub(disk.f_bfree).saturating_add(disk.f_bavail) * disk.f_frsize,
            free: disk.f_bavail * disk.f_frsize,
            files: disk.f_files,
            files_free: disk.f_favail,
        });
    }
    disks
}

/// How full the disk of a folder is; `None` where it cannot be asked.
pub fn disk(folder: &Path) -> Option<Disk> {
    disks(&[folder.to_owned()]).pop()
}

fn synchronised() -> Option<bool> {
    let output = Command::new("timedatectl").args(["show", "--property=NTPSynchronized", "--value"]).output().ok()?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// Both versions of control groups: one list, or a tree for each.
fn limits(groups: &Path) -> bool {
    match fs::read_to_string(groups.join("cgroup.controllers")) {
        Ok(text) => ["memory", "pids"].iter().all(|wanted| text.split_whitespace().any(|word| word == *wanted)),
        Err(_) => ["memory", "pids"].iter().all(|wanted| groups.join(wanted).is_dir()),
    }
}

/// `None` where the ports of containers are kept out of it.
fn ephemeral() -> Option<(u16, u16)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let reserved = fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    if !reserved.trim().is_empty() {
        return None;
    }
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Who listens where HQ and its router should.
pub fn listening(ports: Ports) -> Vec<Listening> {
    let own = fs::read_to_string("/proc/self/comm").unwrap_or_default().trim().to_owned();
    let at = |port: u16, what: &'static str, wanted: &'static str| {
        let found = holder(([0, 0, 0, 0], port).into()).map(|holder| holder.name);
        // This very process, whatever its file is called.
        let found = found.map(|name| if name == own { "quarry".to_owned() } else { name });
        Listening { port, what, wanted, found }
    };
    let mut listening = vec![at(ports.ssh, "where pushes come in", "quarry"), at(ports.http, "the router's", "nginx")];
    listening.extend(ports.https.map(|port| at(port, "the router's for HTTPS", "nginx")));
    listening
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_machine_is_seen_as_it_is() {
        let (root, etc) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(root.path().join("image_secret"), "x").unwrap();
        fs::set_permissions(root.path().join("image_secret"), fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(etc.path().join("size"), "big").unwrap();
        let (settings, machine) = look(root.path(), etc.path(), &[root.path().to_owned()]);
        assert!(settings.is_none());
        assert_eq!(machine.mistakes[0].file, etc.path().join("size"));
        assert_eq!(machine.secrets.len(), 1);
        assert_eq!(machine.secrets[0].mode & 0o777, 0o644);
        assert_eq!(machine.disks.len(), 1, "both folders are on one disk");
        assert!(machine.disks[0].size > machine.disks[0].free);
    }

    #[test]
    fn both_versions_of_control_groups_are_known() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!limits(folder.path()));
        fs::create_dir(folder.path().join("memory")).unwrap();
        fs::create_dir(folder.path().join("pids")).unwrap();
        assert!(limits(folder.path()));
        fs::write(folder.path().join("cgroup.controllers"), "cpu io\n").unwrap();
        assert!(!limits(folder.path()));
        fs::write(folder.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        assert!(limits(folder.path()));
    }
}
