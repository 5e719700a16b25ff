//! nginx's processes: which are this router's, telling them something, seeing them end; and who holds a port.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Resource, Signal, getrlimit, kill_process, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

use super::text::Size;

const PROGRAM: &str = "/usr/sbin/nginx";

/// What Debian's packages bring, all of it needed.
const PIECES: [&str; 5] = [
    PROGRAM,
    "/usr/lib/nginx/modules/ndk_http_module.so",
    "/usr/lib/nginx/modules/ngx_http_lua_module.so",
    "/usr/share/lua/5.1/resty/core.lua",
    "/etc/nginx/mime.types",
];

/// A process of nginx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// Its part.
    pub role: Role,
}

/// What a process of nginx does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Holds the sockets, takes the signals, makes workers.
    Master,
    /// Answers requests.
    Worker,
}

/// The first piece of nginx that is not on this machine.
pub fn missing_piece() -> Option<&'static str> {
    PIECES.into_iter().find(|piece| !Path::new(piece).exists())
}

/// As many workers as processors, up to eight of some 10 MB each, and as many files as the machine allows.
pub fn size() -> Size {
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX).min(65_536);
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    Size { workers, files }
}

/// There where systemd is the first process.
const SYSTEMD: &str = "/run/systemd/system";

/// A scope of its own, which ends when all its processes have: whatever becomes of the service that has started the
/// router, or of its memory limit, the router is none of it.
const SCOPE: [&str; 6] = [
    "/usr/bin/systemd-run",
    "--scope",
    "--quiet",
    "--collect",
    "--slice=quarry-router.slice",
    "--description=Quarry's router",
];

/// Tests the text of this configuration, with nginx's prefix in `folder`.
///
/// # Errors
/// It cannot be run, does not come to an end, or ends badly: then with its own words.
pub async fn test(folder: &Path, configuration: &str) -> io::Result<()> {
    run(folder, &[PROGRAM, "-c", configuration, "-t", "-q"]).await
}

/// Starts nginx with its prefix in `folder`; returns when it has gone into the background.
///
/// # Errors
/// As [`test`].
pub async fn start(folder: &Path, configuration: &str) -> io::Result<()> {
    let bare = [PROGRAM, "-c", configuration];
    if !Path::new(SYSTEMD).exists() {
        return run(folder, &bare).await;
    }
    match run(folder, &[&SCOPE[..], &bare].concat()).await {
        // Nginx's own words are never about a scope; without one it serves all the same.
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.to_string().starts_with("Failed to") => {
            tracing::warn!(%error, "the router gets no scope of its own");
            run(folder, &bare).await
        }
        other => other,
    }
}

async fn run(folder: &Path, line: &[&str]) -> io::Result<()> {
    let output = Command::new(line[0])
        .args(&line[1..])
        .arg("-p")
        .arg(folder)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(30), output).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if output.status.success() { Ok(()) } else { Err(io::Error::other(words(&output.stderr))) }
}

/// What nginx says, without the lines that only say where.
fn words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = text.lines().filter(|line| line.contains("[emerg]") || line.contains("[alert]"));
    let words: Vec<&str> = lines.map(|line| line.trim_start_matches("nginx: ")).collect();
    if words.is_empty() { text.trim().to_owned() } else { words.join("; ") }
}

/// The running processes that write to the logs in `folder`: a pid file may be stale, and workers outlive a master that
/// was killed.
///
/// # Errors
/// `/proc` cannot be read.
pub fn running(folder: &Path) -> io::Result<Vec<Process>> {
    let logs = fs::canonicalize(folder)?.join("log");
    let mut found = Vec::new();
    for (pid, path) in processes()? {
        if fs::read(path.join("comm")).is_ok_and(|comm| comm == b"nginx\n")
            && open_files(&path).any(|file| file.starts_with(&logs))
        {
            let title = fs::read(path.join("cmdline")).unwrap_or_default();
            let role = if title.starts_with(b"nginx: master") { Role::Master } else { Role::Worker };
            found.push(Process { pid, role });
        }
    }
    Ok(found)
}

/// Whether a worker takes new connections; not when it is about to end.
pub fn accepts(worker: Pid) -> bool {
    let title = fs::read(format!("/proc/{}/cmdline", worker.as_raw_nonzero())).unwrap_or_default();
    let title = String::from_utf8_lossy(&title);
    title.starts_with("nginx: worker process") && !title.contains("shutting down")
}

fn processes() -> io::Result<impl Iterator<Item = (Pid, PathBuf)>> {
    Ok(fs::read_dir("/proc")?.flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        Some((pid, entry.path()))
    }))
}

fn open_files(process: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok())
}

/// Sends a signal; a process that is gone needs none.
///
/// # Errors
/// The kernel refuses.
pub fn tell(pid: Pid, signal: Signal) -> io::Result<()> {
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(problem) => Err(problem.into()),
    }
}

/// Returns when the process has ended, at once when it already has.
///
/// # Errors
/// The process cannot be watched.
pub async fn ended(pid: Pid) -> io::Result<()> {
    let pidfd: OwnedFd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(problem) => return Err(problem.into()),
    };
    // An `OwnedFd` keeps its number as long as it lives, which is what the unsafe successor asks for.
    #[expect(deprecated, reason = "the successor is unsafe, and this crate has no unsafe code")]
    let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
    let _ready = pidfd.readable().await?;
    Ok(())
}

/// Sends the signal to all, and whether they ended within `patience`.
///
/// # Errors
/// A process cannot be told or watched.
pub async fn end(processes: &[Process], signal: Signal, patience: Duration) -> io::Result<bool> {
    for process in processes {
        tell(process.pid, signal)?;
    }
    let all = async {
        for process in processes {
            ended(process.pid).await?;
        }
        Ok(true)
    };
    tokio::time::timeout(patience, all).await.unwrap_or(Ok(false))
}

/// Who listens at a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: Pid,
    /// What it is called.
    pub name: String,
}

/// The process that listens on the port of this address, where it can be seen.
pub fn holder(address: SocketAddr) -> Option<Holder> {
    let inodes: Vec<String> =
        listeners(address.port()).into_iter().map(|(_, inode)| format!("socket:[{inode}]")).collect();
    let holds =
        |path: &Path| open_files(path).any(|file| inodes.iter().any(|inode| file.as_os_str() == inode.as_str()));
    let (pid, path) = processes().ok()?.find(|(_, path)| holds(path))?;
    let name = fs::read_to_string(path.join("comm")).ok()?;
    Some(Holder { pid, name: name.trim().to_owned() })
}

/// Whether somebody listens at a part of this address, or at more than it: nobody can listen there then before they have
/// stopped. Who listens at the very same address can hand it on.
pub fn overlaps(address: SocketAddr) -> bool {
    let all = listeners(address.port());
    let is_part = |other: &IpAddr| {
        other.is_ipv4() == address.is_ipv4() && (other.is_unspecified() || address.ip().is_unspecified())
    };
    all.iter().all(|(other, _)| *other != address.ip()) && all.iter().any(|(other, _)| is_part(other))
}

/// Addresses and inodes of the sockets that listen on a port.
fn listeners(port: u16) -> Vec<(IpAddr, String)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|path| fs::read_to_string(path).ok());
    tables.flat_map(|table| listed(&table, port)).collect()
}

/// The same from one of the kernel's tables: local address in the second column, in words of four bytes as the machine
/// keeps them, state (0A listens) in the fourth, inode in the tenth.
fn listed(table: &str, port: u16) -> Vec<(IpAddr, String)> {
    let ending = format!(":{port:04X}");
    let listed = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let digits = words.get(1)?.strip_suffix(&ending)?;
        let inode = words.get(9).filter(|_| words[3] == "0A")?;
        let parts: Option<Vec<u8>> = (0..digits.len() / 8)
            .map(|place| u32::from_str_radix(digits.get(place * 8..place * 8 + 8)?, 16).ok().map(u32::to_ne_bytes))
            .collect::<Option<Vec<_>>>()
            .map(|words| words.concat());
        let address = match <[u8; 4]>::try_from(parts.as_deref()?) {
            Ok(ipv4) => IpAddr::from(ipv4),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(parts.as_deref()?).ok()?),
        };
        Some((address, (*inode).to_owned()))
    });
    listed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = holder(listener.local_addr().unwrap()).unwrap();
        assert_eq!(holder.pid, rustix::process::getpid());
    }

    #[test]
    fn who_listens_at_more_or_less_is_in_the_way_and_at_the_same_is_not() {
        let check = |listens: &str, wanted: &[(&str, bool)]| {
            let listener = std::net::TcpListener::bind(format!("{listens}:0")).unwrap();
            let port = listener.local_addr().unwrap().port();
            for (address, expected) in wanted {
                let wanted = format!("{address}:{port}").parse().unwrap();
                assert_eq!(overlaps(wanted), *expected, "{wanted} beside {listens}");
            }
        };
        check("127.0.0.1", &[("127.0.0.1", false), ("127.0.0.2", false), ("0.0.0.0", true), ("[::]", false)]);
        check("0.0.0.0", &[("127.0.0.1", true), ("0.0.0.0", false), ("[::1]", false)]);
        check("[::1]", &[("[::1]", false), ("[::]", true), ("0.0.0.0", false)]);
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_seen() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
        let process = Process { pid, role: Role::Worker };
        assert!(!end(&[process], Signal::CONT, Duration::from_millis(20)).await.unwrap());
        assert!(end(&[process], Signal::KILL, Duration::from_secs(10)).await.unwrap());
        child.wait().await.unwrap();
        ended(pid).await.unwrap();
    }
}
