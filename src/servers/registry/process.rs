//! HQ's own registry process: started when it is first needed, found again by the next HQ, started anew when it is gone.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{RegistryError, config, http};

/// Where Debian has it.
const PROGRAM: &str = "/usr/bin/docker-registry";

/// Where it keeps the names of HQ's images, in its folder.
const REPOSITORIES: &str = "storage/docker/registry/v2/repositories/quarry";

/// It takes a few hundredths of a second.
const START: Duration = Duration::from_secs(15);

/// Between two looks whether it answers or has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Between two looks at one that is in use.
const VIGIL: Duration = Duration::from_secs(5);

/// Reading every manifest and removing what they do not name.
const COLLECTION: Duration = Duration::from_secs(30 * 60);

/// Looks after the registry of one folder.
pub(super) struct Keeper {
    folder: PathBuf,
    program: PathBuf,
    running: Mutex<Option<Running>>,
    starts: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    pid: Pid,
    address: SocketAddr,
}

impl Keeper {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, program: PROGRAM.into(), running: Mutex::default(), starts: AtomicU64::new(0) }
    }

    /// The same, by another program.
    pub(super) fn with_program(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }

    /// Whether there ever was something in it.
    pub(super) fn is_used(&self) -> bool {
        self.folder.join("storage").exists()
    }

    /// Every image it has a name for, with its repository.
    pub(super) fn kept(&self) -> Result<Vec<(String, String)>, RegistryError> {
        let mut kept = Vec::new();
        for stack in self.listed("")? {
            for node in self.listed(&stack)? {
                let tags = self.listed(&format!("{stack}/{node}/_manifests/tags"))?;
                kept.extend(tags.into_iter().map(|tag| (format!("{stack}/{node}"), tag)));
            }
        }
        Ok(kept)
    }

    fn listed(&self, place: &str) -> Result<Vec<String>, RegistryError> {
        let place = Path::new(REPOSITORIES).join(place);
        let entries = match fs::read_dir(self.folder.join(&place)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.file(&place, source)),
        };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        Ok(names)
    }

    /// Forgets the name of an image, and its repository with the last one.
    pub(super) fn forget(&self, repository: &str, tag: &str) -> Result<(), RegistryError> {
        let tags = format!("{repository}/_manifests/tags");
        let place = match self.listed(&tags)?.as_slice() {
            [last] if last == tag => repository.to_owned(),
            _ => format!("{tags}/{tag}"),
        };
        let place = Path::new(REPOSITORIES).join(place);
        match fs::remove_dir_all(self.folder.join(&place)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.file(&place, error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// How many times it had to be started.
    pub(super) fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    /// Where it answers; started unless it does.
    pub(super) async fn address(&self) -> Result<SocketAddr, RegistryError> {
        let mut running = self.running.lock().await;
        if let Some(known) = *running
            && self.is_ours(known.pid)
            && http::answers(known.address).await
        {
            return Ok(known.address);
        }
        *running = None;
        let found = match self.adopt().await {
            Some(found) => found,
            None => self.start().await?,
        };
        *running = Some(found);
        Ok(found.address)
    }

    /// Keeps it alive as long as somebody waits for this; returns when that fails.
    pub(super) async fn watch(&self) -> RegistryError {
        loop {
            sleep(VIGIL).await;
            if let Err(error) = self.address().await {
                return error;
            }
        }
    }

    fn config(&self) -> PathBuf {
        self.folder.join("config.yml")
    }

    fn is_ours(&self, pid: Pid) -> bool {
        let words = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        let config = self.config();
        let ours = [self.program.as_os_str().as_encoded_bytes(), b"serve", config.as_os_str().as_encoded_bytes()];
        words.strip_suffix(b"\0").is_some_and(|words| words.split(|byte| *byte == 0).eq(ours))
    }

    /// One that an earlier HQ has left, if it answers; otherwise it is ended.
    async fn adopt(&self) -> Option<Running> {
        let ours = self.ours();
        let kept = self.kept_port().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        if let ([pid], Some(address)) = (ours.as_slice(), kept)
            && http::answers(address).await
        {
            info!(%address, "found HQ's registry running");
            return Some(Running { pid: *pid, address });
        }
        for pid in ours {
            warn!(pid = pid.as_raw_nonzero(), "HQ's registry does not answer and is started anew");
            self.end(pid).await;
        }
        None
    }

    fn ours(&self) -> Vec<Pid> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
        pids.filter(|pid| self.is_ours(*pid)).collect()
    }

    /// Ends whatever serves its folder.
    pub(super) async fn end_all(&self) {
        for pid in self.ours() {
            self.end(pid).await;
        }
    }

    /// What it was writing is written again: it needs no time to end.
    async fn end(&self, pid: Pid) {
        let deadline = Instant::now() + START;
        while self.is_ours(pid) && Instant::now() < deadline {
            // One that is gone needs no signal.
            let _ = kill_process(pid, Signal::KILL);
            sleep(LOOK).await;
        }
    }

    fn kept_port(&self) -> Option<u16> {
        fs::read_to_string(self.folder.join("port")).ok()?.trim().parse().ok()
    }

    /// On the port it had, because the engine knows by it what it has handed over before; else on the first that is free.
    async fn start(&self) -> Result<Running, RegistryError> {
        if !self.program.exists() {
            return Err(RegistryError::Missing);
        }
        fs::create_dir_all(self.folder.join("storage")).map_err(|source| self.file("storage", source))?;
        let mut words = "no port of HQ's loopback is free for it".to_owned();
        for port in self.kept_port().into_iter().chain(config::ports(&self.folder)) {
            if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
                continue;
            }
            match self.start_on(port).await? {
                Ok(running) => {
                    self.write("port", &format!("{port}\n"))?;
                    self.starts.fetch_add(1, Ordering::Relaxed);
                    info!(address = %running.address, "started HQ's registry");
                    return Ok(running);
                }
                Err(said) => words = said,
            }
            // Somebody else was faster.
            if !words.contains("address already in use") {
                break;
            }
        }
        Err(RegistryError::Start { words })
    }

    /// The inner error is what it said before it ended.
    async fn start_on(&self, port: u16) -> Result<Result<Running, String>, RegistryError> {
        self.write("config.yml", &config::text(&self.folder, port))?;
        self.write("log", "")?;
        let log = fs::File::options().append(true).open(self.folder.join("log"));
        let log = log.and_then(|log| Ok((log.try_clone()?, log))).map_err(|source| self.file("log", source))?;
        // It stays when HQ ends: its group is its own, and nobody kills it with the handle.
        let child = Command::new(&self.program)
            .arg("serve")
            .arg(self.config())
            .current_dir("/")
            .env_clear()
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.0)
            .stderr(log.1)
            .spawn();
        let mut child = child.map_err(|source| RegistryError::Start { words: source.to_string() })?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let deadline = Instant::now() + START;
        loop {
            let ended = child.try_wait().map_err(|source| RegistryError::Start { words: source.to_string() })?;
            match (ended, pid) {
                (None, Some(pid)) if http::answers(address).await => return Ok(Ok(Running { pid, address })),
                (None, Some(_)) if Instant::now() < deadline => sleep(LOOK).await,
                (None, _) => {
                    let _ = child.kill().await;
                    return Ok(Err(format!("it did not answer within {} seconds", START.as_secs())));
                }
                (Some(_), _) => return Ok(Err(last_words(&self.folder.join("log")))),
            }
        }
    }

    /// Removes what no manifest names. Nothing may be written meanwhile.
    pub(super) async fn collect_garbage(&self) -> Result<(), RegistryError> {
        let failed = |words: String| RegistryError::Collect { words };
        let collection = Command::new(&self.program)
            .args(["garbage-collect", "--delete-untagged"])
            .arg(self.config())
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .output();
        let output = timeout(COLLECTION, collection).await.map_err(|elapsed| failed(elapsed.to_string()))?;
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(failed(ending(&String::from_utf8_lossy(&output.stderr)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(RegistryError::Missing),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Whole or not at all: a next HQ reads what this one wrote.
    fn write(&self, name: &str, text: &str) -> Result<(), RegistryError> {
        let path = self.folder.join(name);
        let temporary = self.folder.join(format!("{name}.new"));
        let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|source| self.file(name, source))
    }

    fn file(&self, name: impl AsRef<Path>, source: io::Error) -> RegistryError {
        RegistryError::File { path: self.folder.join(name), source }
    }
}

fn last_words(log: &Path) -> String {
    ending(&String::from_utf8_lossy(&fs::read(log).unwrap_or_default()))
}

/// The last line with something in it.
fn ending(text: &str) -> String {
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    last.unwrap_or("it ended without a word").chars().take(500).collect()
}
