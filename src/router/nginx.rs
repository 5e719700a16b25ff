//! The edge on a real nginx, which HQ starts, finds again after its own restart, and which serves with HQ off.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::StackRoutes;
use super::edge::{Edge, EdgeError, Tally};
use super::files::{self, ROUTES};
use super::http::{self, Answer};
use super::process::{self, Process, Role};
pub use super::text::Listen;
use super::text::{self, Text};
use super::tls::{TlsChange, TlsState};
use crate::front::Snippet;
use crate::names::StackName;

mod ports;
mod snippets;
mod tls;

/// How long one question to the control socket may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long nginx has to come up, or to change to a new text.
const START: Duration = Duration::from_secs(15);

/// How long requests under way have when the router moves to addresses that it cannot open beside those it has.
const MOVE: Duration = Duration::from_secs(5);

/// How often a running nginx is looked at; its end is seen at once.
const LOOK: Duration = Duration::from_secs(5);

/// The longest wait between two tries to start it again.
const BACKOFF: Duration = Duration::from_secs(10);

/// Bytes from which a log moves aside.
const LOG_LIMIT: u64 = 64 * 1024 * 1024;

/// The file of tables is rewritten when it is this many bytes long and four times as long as it need be.
const SETTLE: u64 = 1024 * 1024;

/// The router of one HQ.
#[derive(Debug)]
pub struct Nginx {
    folder: PathBuf,
    listen: Listen,
    /// One start at a time.
    starting: Mutex<()>,
    /// One change of the tables at a time: bytes of the file when it was last settled.
    changing: Mutex<u64>,
    /// The same for certificates and challenges.
    securing: Mutex<u64>,
    /// The snippets in nginx's text; `None` until it is known.
    shown: Mutex<Option<BTreeSet<Snippet>>>,
}

/// How it came to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// It ran with this very text.
    Adopted,
    /// It ran with another text and changed to this one; requests under way finish.
    Reloaded,
    /// It did not run.
    Started,
}

impl Nginx {
    /// The router below `root` that answers HTTP at these addresses. Does nothing yet.
    pub fn new(root: &Path, http: Vec<SocketAddr>) -> Self {
        Self::listening(root, Listen { http, ..Listen::default() })
    }

    /// The router below `root` that listens there. Does nothing yet.
    pub fn listening(root: &Path, listen: Listen) -> Self {
        let (starting, changing, securing) = (Mutex::new(()), Mutex::new(0), Mutex::new(0));
        Self { folder: root.join("router"), listen, starting, changing, securing, shown: Mutex::default() }
    }

    /// Makes sure it runs, with the text of this program and all tables. Whatever runs and can go on serving does.
    ///
    /// # Errors
    /// [`EdgeError::Start`] with nginx's last words, who holds the port, or what to install; an nginx that runs with
    /// an earlier text goes on with it then. [`EdgeError::File`].
    pub async fn start_or_adopt(&self) -> Result<Came, EdgeError> {
        let _one = self.starting.lock().await;
        if let Some(piece) = process::missing_piece() {
            let hint = "apt install nginx-light libnginx-mod-http-lua lua-resty-core";
            return Err(EdgeError::Start { message: format!("{piece} is missing; {hint}") });
        }
        let folder = self.folder.clone();
        self.blocking(move || files::prepare(&folder)).await?;
        let text = text::render(&self.listen, process::size(), &self.shown().await?);
        let running = self.running().await?;
        if let Some(master) = master(&running)
            && let Ok(version) = self.ping().await
        {
            if version == text.version {
                return Ok(Came::Adopted);
            }
            self.held(&running)?;
            self.choose(&text).await?;
            if self.listen.all().any(|address| process::overlaps(*address)) {
                // It opens the new sockets while it still has the old ones, and these are in the way.
                self.quit(&running, MOVE).await?;
                self.start(&text, &running).await?;
                info!(version = %text.version, "the router moved to its new addresses");
                return Ok(Came::Started);
            }
            self.tell(master, Signal::HUP)?;
            self.answers_with(&text).await?;
            self.only_new_workers(&running).await?;
            info!(version = %text.version, "the router changed to its new text");
            return Ok(Came::Reloaded);
        }
        self.clear(&running).await?;
        self.start(&text, &running).await?;
        info!(version = %text.version, "the router started");
        Ok(Came::Started)
    }

    /// Keeps it running and its logs short; never returns.
    pub async fn watch(&self) {
        let mut wait = Duration::ZERO;
        loop {
            sleep(wait).await;
            let longer = (wait * 2).clamp(Duration::from_millis(250), BACKOFF);
            wait = match self.look().await {
                Ok(Came::Adopted | Came::Reloaded) => Duration::ZERO,
                // One that dies as soon as it has started is not started as fast as it dies.
                Ok(Came::Started) => longer,
                Err(problem) => {
                    warn!(error = &problem as &dyn std::error::Error, "the router is down");
                    longer
                }
            };
        }
    }

    /// Sees that it runs and waits until it ended, at most until the next look.
    async fn look(&self) -> Result<Came, EdgeError> {
        let came = self.start_or_adopt().await?;
        let folder = self.folder.clone();
        if self.blocking(move || files::move_logs(&folder, LOG_LIMIT)).await? {
            self.reopen_logs().await?;
        }
        if let Some(master) = master(&self.running().await?) {
            let ended = tokio::time::timeout(LOOK, process::ended(master)).await;
            ended.unwrap_or(Ok(())).map_err(|source| self.at("/proc", source))?;
        }
        Ok(came)
    }

    /// Has nginx open its logs again, after they were moved.
    ///
    /// # Errors
    /// It cannot be told.
    pub async fn reopen_logs(&self) -> Result<(), EdgeError> {
        match master(&self.running().await?) {
            Some(master) => self.tell(master, Signal::USR1),
            None => Ok(()),
        }
    }

    /// Ends it: requests under way have `grace` to finish.
    ///
    /// # Errors
    /// A process cannot be told or does not end.
    pub async fn stop(&self, grace: Duration) -> Result<(), EdgeError> {
        let _one = self.starting.lock().await;
        if !self.folder.exists() {
            return Ok(());
        }
        let running = self.running().await?;
        self.quit(&running, grace).await
    }

    async fn quit(&self, running: &[Process], grace: Duration) -> Result<(), EdgeError> {
        let steps = [(Signal::QUIT, grace), (Signal::TERM, Duration::from_secs(3)), (Signal::KILL, PATIENCE)];
        for (signal, patience) in steps {
            if process::end(running, signal, patience).await.map_err(|source| self.at("/proc", source))? {
                return Ok(());
            }
        }
        Err(EdgeError::Start { message: "an earlier nginx does not end".to_owned() })
    }

    /// Takes away what an nginx that no longer works has left: hanging processes, and workers whose master was killed.
    async fn clear(&self, running: &[Process]) -> Result<(), EdgeError> {
        if master(running).is_some() {
            return self.quit(running, Duration::from_secs(1)).await;
        }
        // They close their sockets at once, so the new nginx need not wait until they have answered everybody.
        for worker in running {
            self.tell(worker.pid, Signal::QUIT)?;
        }
        Ok(())
    }

    async fn start(&self, text: &Text, leaving: &[Process]) -> Result<(), EdgeError> {
        self.ports_are_free(leaving).await?;
        let folder = self.folder.clone();
        self.blocking(move || files::make_ready(&folder)).await?;
        self.choose(text).await?;
        let configuration = format!("{}/nginx.conf", files::CURRENT);
        process::start(&self.folder, &configuration).await.map_err(start_error)?;
        self.answers_with(text).await
    }

    /// Tests the text and makes it the one nginx reads; a refused one changes nothing.
    async fn choose(&self, text: &Text) -> Result<(), EdgeError> {
        let (folder, own) = (self.folder.clone(), text.clone());
        self.blocking(move || files::write_text(&folder, &own)).await?;
        let configuration = format!("{}/nginx.conf", text.folder());
        process::test(&self.folder, &configuration).await.map_err(start_error)?;
        let (folder, own) = (self.folder.clone(), text.clone());
        self.blocking(move || files::choose_text(&folder, &own)).await
    }

    async fn answers_with(&self, text: &Text) -> Result<(), EdgeError> {
        let deadline = Instant::now() + START;
        while self.ping().await.ok().as_ref() != Some(&text.version) {
            if Instant::now() > deadline {
                return Err(EdgeError::Start { message: files::last_errors(&self.folder) });
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Waits until workers of an earlier text take no new connections.
    async fn only_new_workers(&self, before: &[Process]) -> Result<(), EdgeError> {
        let deadline = Instant::now() + START;
        while before.iter().any(|process| process.role == Role::Worker && process::accepts(process.pid)) {
            if Instant::now() > deadline {
                let message = "workers of the earlier configuration do not end".to_owned();
                return Err(EdgeError::Start { message });
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn ping(&self) -> io::Result<String> {
        http::ask(&self.socket(), "GET /ping", "", PATIENCE).await.map(|answer| answer.text)
    }

    async fn ask(&self, request: &str, body: &str) -> Result<Answer, EdgeError> {
        match http::ask(&self.socket(), request, body, PATIENCE).await {
            Ok(answer) => Ok(answer),
            Err(source) => Err(self.down(source)),
        }
    }

    /// Asks, and starts an nginx that does not answer first.
    async fn ask_running(&self, request: &str, body: &str) -> Result<Answer, EdgeError> {
        match self.ask(request, body).await {
            Err(EdgeError::Down { .. }) => {
                self.start_or_adopt().await?;
                self.ask(request, body).await
            }
            answered => answered,
        }
    }

    /// Writes one line to a file on disk.
    async fn write(&self, name: &'static str, settled: &mut u64, line: String) -> Result<(), EdgeError> {
        let folder = self.folder.clone();
        let length = self.blocking(move || files::append(&folder, name, &line)).await?;
        if length > SETTLE && length > 4 * *settled {
            let folder = self.folder.clone();
            *settled = self.blocking(move || files::settle(&folder, name)).await?;
        }
        Ok(())
    }

    /// What was written of a stack before nginx refused its table, so that its next start does not differ.
    async fn write_back(&self, settled: &mut u64, stack: &StackName) -> Result<(), EdgeError> {
        let old = self.tables().await?.into_iter().find(|table| table.stack == *stack);
        self.write(ROUTES, settled, old.map_or_else(|| gone_line(stack), |table| table_line(&table))).await
    }

    async fn running(&self) -> Result<Vec<Process>, EdgeError> {
        let folder = self.folder.clone();
        self.blocking(move || process::running(&folder)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, EdgeError> {
        let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        done.map_err(|source| EdgeError::File { path: self.folder.display().to_string(), source })
    }

    fn tell(&self, pid: Pid, signal: Signal) -> Result<(), EdgeError> {
        process::tell(pid, signal).map_err(|source| self.at("nginx.pid", source))
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("control/socket")
    }

    fn at(&self, name: &str, source: io::Error) -> EdgeError {
        EdgeError::File { path: self.folder.join(name).display().to_string(), source }
    }

    fn down(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> EdgeError {
        EdgeError::Down { log: self.folder.join("log/error.log").display().to_string(), source: source.into() }
    }
}

#[async_trait]
impl Edge for Nginx {
    async fn try_snippet(&self, snippet: &Snippet) -> Result<(), EdgeError> {
        self.check_snippet(snippet).await
    }

    /// The table is on disk before nginx has it: one that nginx shows is never forgotten by its next start.
    async fn set(&self, routes: &StackRoutes) -> Result<(), EdgeError> {
        let mut settled = self.changing.lock().await;
        self.show_snippets(routes).await?;
        let line = table_line(routes);
        self.write(ROUTES, &mut settled, line.clone()).await?;
        let answer = self.ask_running(&format!("PUT /stacks/{}", routes.stack), &line).await?;
        if answer.status == 204 {
            return Ok(());
        }
        self.write_back(&mut settled, &routes.stack).await?;
        Err(EdgeError::Refused { stack: routes.stack.clone(), message: answer.text })
    }

    async fn remove(&self, stack: &StackName) -> Result<(), EdgeError> {
        let mut settled = self.changing.lock().await;
        self.write(ROUTES, &mut settled, gone_line(stack)).await?;
        let answer = self.ask_running(&format!("DELETE /stacks/{stack}"), "").await?;
        match answer.status {
            204 => Ok(()),
            _ => Err(EdgeError::Refused { stack: stack.clone(), message: answer.text }),
        }
    }

    async fn tables(&self) -> Result<Vec<StackRoutes>, EdgeError> {
        let answer = self.ask("GET /stacks", "").await?;
        let mut tables: Vec<StackRoutes> = serde_json::from_str(&answer.text).map_err(|source| self.down(source))?;
        tables.sort_by(|a, b| a.stack.cmp(&b.stack));
        Ok(tables)
    }

    async fn secure(&self, change: &TlsChange) -> Result<(), EdgeError> {
        self.change_tls(change).await
    }

    async fn secured(&self) -> Result<TlsState, EdgeError> {
        self.tls_state().await
    }

    async fn in_flight(&self, peer: SocketAddr) -> Result<u64, EdgeError> {
        let answer = self.ask(&format!("GET /in-flight?peer={peer}"), "").await?;
        answer.text.parse().map_err(|source: std::num::ParseIntError| self.down(source))
    }

    async fn tallies(&self) -> Result<Vec<Tally>, EdgeError> {
        Ok(self.ask("GET /tallies", "").await?.text.lines().filter_map(Tally::parse).collect())
    }
}

fn master(running: &[Process]) -> Option<Pid> {
    running.iter().find(|process| process.role == Role::Master).map(|process| process.pid)
}

fn table_line(routes: &StackRoutes) -> String {
    serde_json::to_string(routes).expect("a table has no value that JSON lacks")
}

fn gone_line(stack: &StackName) -> String {
    serde_json::json!({ "stack": stack }).to_string()
}

fn start_error(problem: io::Error) -> EdgeError {
    EdgeError::Start { message: problem.to_string() }
}
