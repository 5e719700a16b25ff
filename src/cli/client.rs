//! Handing a command to the HQ that carries it out: through its unix socket, by SSH, or in this very process when no
//! `serve` runs on this machine.

use std::fs::{self, File};
use std::io::IsTerminal;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::again;
use super::door::HqDoor;
use super::failure::{Exit, Failure};
use super::parts::{Home, HomeError, Places};
use crate::db::DbError;
use crate::etc::Settings;
use crate::hq::Hq;
use crate::hq::call::{Mode, Streams, call, converse};
use crate::hq::cluster::house::House;
use crate::hq::socket::{self, SocketError};
use crate::names::UserName;

/// The user as whom everyone speaks to HQ by SSH.
const SSH_USER: &str = "quarry";

/// How long a command waits for an HQ that is about to serve.
const BEGINNING: Duration = Duration::from_secs(10);
/// How long HQ may take to serve as another program.
const TRIAL: Duration = Duration::from_secs(60);
/// Pause between two looks whether it does.
const AGAIN: Duration = Duration::from_millis(100);

/// Runs words on the HQ of this machine and gives the exit code.
///
/// # Errors
/// When neither a running HQ nor its files can be reached.
pub async fn on_this_machine(places: &Places, words: Vec<String>) -> Result<u8, Failure> {
    let mode = match () {
        () if is_interactive(&words) => Mode::Raw,
        () if reads_a_secret(&words) => Mode::Silent,
        () => Mode::Plain,
    };
    let until = Instant::now() + BEGINNING;
    loop {
        match call(&places.socket(), words.clone(), mode).await {
            Ok(code) => return Ok(code),
            Err(SocketError::Connect { .. }) if again::is_due(&places.root) && Instant::now() < until => {
                sleep(AGAIN).await;
                continue;
            }
            Err(SocketError::Connect { .. }) => {}
            Err(error) => return Err(Failure::of(Exit::Refused, &error)),
        }
        let settings = places.settings()?;
        match places.home(&settings).await {
            // An HQ that has yet to open its socket, or another command.
            Err(HomeError::State(DbError::InUse { .. })) if Instant::now() < until => sleep(AGAIN).await,
            home => return in_this_process(places, settings, home?, words, mode).await,
        }
    }
}

/// Before an upgrade: the program that HQ is to become, open, so that it can be compared whatever lies in its place by
/// then. What cannot be opened here HQ complains of.
pub async fn arriving(places: &Places, named: Option<PathBuf>) -> Option<File> {
    if let Some(named) = named {
        return File::open(named).ok();
    }
    let (mut said, mut complaints, (_, events)) = (Vec::new(), Vec::new(), mpsc::channel(1));
    let streams = Streams { stdin: tokio::io::empty(), stdout: &mut said, stderr: &mut complaints };
    let words = ["version", "--json"].map(str::to_owned).to_vec();
    converse(&places.socket(), words, None, streams, events).await.ok()?;
    let shown: serde_json::Value = serde_json::from_slice(&said).ok()?;
    File::open(shown["program"].as_str()?).ok()
}

/// After an upgrade: waits until HQ serves again, has it say which program it is, and refuses another than this one.
///
/// # Errors
/// When it does not come back, or as the program that it was.
pub async fn greeted(places: &Places, code: u8, program: Option<File>) -> Result<u8, Failure> {
    if code != 0 {
        return Ok(code);
    }
    let own = std::process::id();
    let like = program.as_ref().map(|file| format!("/proc/{own}/fd/{}", file.as_raw_fd()));
    let until = Instant::now() + TRIAL;
    loop {
        let words = match &like {
            Some(like) => ["version", "--like", like].map(str::to_owned).to_vec(),
            None => vec!["version".to_owned()],
        };
        match call(&places.socket(), words, Mode::Plain).await {
            Ok(code) => return Ok(code),
            // It is on its way: the connection was one to the program before.
            Err(_) if Instant::now() < until => sleep(AGAIN).await,
            Err(error) => return Err(Failure::of(Exit::Refused, &error)),
        }
    }
}

/// No `serve` runs: the tree is opened here, for as long as the command takes.
async fn in_this_process(
    places: &Places,
    settings: Settings,
    home: Home,
    words: Vec<String>,
    mode: Mode,
) -> Result<u8, Failure> {
    let refused = |error: SocketError| Failure::of(Exit::Refused, &error);
    let hq = Hq::new(places.parts(settings, home.db.clone(), &places.env_key()).await?);
    let program = std::env::current_exe().unwrap_or_default();
    hq.inhabit(Arc::new(House::new(places.etc.clone(), None, program)));
    let door = HqDoor::open(hq).await?;
    let listener = socket::listen(&places.socket()).map_err(refused)?;
    let user: UserName = "root".parse().expect("`root` is a user name");
    let stop = CancellationToken::new();
    tokio::spawn(socket::serve(listener, door, Arc::default(), user, stop.clone()));
    let code = call(&places.socket(), words, mode).await;
    stop.cancel();
    home.close().await;
    code.map_err(refused)
}

/// Makes a file this process's standard input: HQ has no eyes for files of the machine a command is typed on.
///
/// # Errors
/// When it cannot be opened.
pub fn send(file: &Path) -> Result<(), Failure> {
    if file.as_os_str() == "-" {
        return Ok(());
    }
    let wrong = |error: std::io::Error| Failure::new(Exit::Mistake, format!("cannot read {}: {error}", file.display()));
    let file = File::open(file).map_err(wrong)?;
    rustix::stdio::dup2_stdin(&file).map_err(|error| wrong(error.into()))
}

/// A file that takes this process's standard output, and has its name only once it is whole.
pub struct Receipt {
    file: File,
    part: PathBuf,
    path: PathBuf,
}

impl Receipt {
    /// From now on what is printed goes into the file, which nobody else may read.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let wrong = |error: std::io::Error| cannot_write(path, &error);
        // One that others may read already would stay so.
        match fs::remove_file(&part) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(wrong(error)),
            Ok(()) | Err(_) => {}
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(&part).map_err(wrong)?;
        rustix::stdio::dup2_stdout(&file).map_err(|error| wrong(error.into()))?;
        Ok(Self { file, part: part.into(), path: path.to_owned() })
    }

    /// The file is whole if the command says so; else it goes.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn end(self, done: Result<u8, Failure>) -> Result<u8, Failure> {
        if !matches!(done, Ok(0)) {
            // A part that stays is named as one.
            let _ = fs::remove_file(&self.part);
            return done;
        }
        let kept = self.file.sync_all().and_then(|()| fs::rename(&self.part, &self.path));
        kept.map(|()| 0).map_err(|error| cannot_write(&self.path, &error))
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Mistake, format!("cannot write {}: {error}", path.display()))
}

/// Whether the words start something that a password may be typed into.
fn reads_a_secret(words: &[String]) -> bool {
    is_servers_add(words) && std::io::stdin().is_terminal()
}

fn is_servers_add(words: &[String]) -> bool {
    let mut words = words.iter().map(String::as_str).skip_while(|word| !["servers", "servers:add"].contains(word));
    words.next().is_some_and(|word| word == "servers:add" || words.any(|word| word == "add"))
}

/// Whether the words start something that is typed at.
fn is_interactive(words: &[String]) -> bool {
    words.iter().any(|word| word == "run") && std::io::stdin().is_terminal()
}

/// Speaks to an HQ elsewhere with the machine's own SSH client: its keys, agent and known hosts apply.
///
/// # Errors
/// Only when there is no SSH client; else this process becomes it.
pub fn by_ssh(address: &str, words: &[String]) -> Failure {
    match ssh(address, words) {
        Ok(mut command) => no_client(&command.exec()),
        Err(failure) => failure,
    }
}

/// The same, and comes back when it has ended.
///
/// # Errors
/// When there is no SSH client.
pub fn by_ssh_and_back(address: &str, words: &[String]) -> Result<u8, Failure> {
    let status = ssh(address, words)?.status().map_err(|error| no_client(&error))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}

fn no_client(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Refused, format!("cannot run the ssh client: {error}; install it (apt install openssh-client)"))
}

fn ssh(address: &str, words: &[String]) -> Result<Command, Failure> {
    let (user, rest) = address.split_once('@').unwrap_or((SSH_USER, address));
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => (host, Some(port)),
        Some(_) | None => (rest, None),
    };
    if host.is_empty() || host.starts_with('-') {
        return Err(Failure::new(Exit::Usage, format!("`{address}` is not [USER@]HOST[:PORT]")));
    }
    let mut command = Command::new("ssh");
    // HQ shows nothing of what is typed into a terminal that it has.
    if (is_interactive(words) || reads_a_secret(words)) && std::io::stdout().is_terminal() {
        command.arg("-t");
    }
    if let Some(port) = port {
        command.args(["-p", port]);
    }
    command.arg("-l").arg(user).arg("--").arg(host);
    command.args(words.iter().map(|word| quoted(word)));
    Ok(command)
}

/// The words without the options that only chose the door.
pub fn plain(words: Vec<String>) -> Vec<String> {
    let mut plain = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--hq" | "--root" | "--etc" => drop(words.next()),
            // What follows belongs to the command that is run.
            "--" | "run" => {
                plain.push(word);
                plain.extend(words);
                break;
            }
            _ if ["--hq=", "--root=", "--etc="].iter().any(|option| word.starts_with(option)) => {}
            _ => plain.push(word),
        }
    }
    plain
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The HQ and stack of the repository this is, from its remote `quarry`.
pub fn remote() -> Option<(String, String)> {
    let output = Command::new("git").args(["config", "--get", "remote.quarry.url"]).output().ok()?;
    parse_remote(String::from_utf8(output.stdout).ok()?.trim())
}

/// `ssh://quarry@host:2222/blog` or `quarry@host:blog` as address and stack.
fn parse_remote(url: &str) -> Option<(String, String)> {
    let (address, path) = match url.strip_prefix("ssh://") {
        Some(rest) => rest.split_once('/')?,
        None => url.split_once(':').filter(|(host, _)| !host.contains('/'))?,
    };
    let stack = path.trim_matches('/').trim_start_matches("~/").trim_end_matches(".git");
    (!stack.is_empty() && !stack.contains('/')).then(|| (address.to_owned(), stack.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_names_hq_and_stack() {
        let check = |url: &str, expected: Option<(&str, &str)>| {
            let found = parse_remote(url);
            assert_eq!(found.as_ref().map(|(a, b)| (a.as_str(), b.as_str())), expected, "{url}");
        };
        check("ssh://quarry@hq.example:2222/blog", Some(("quarry@hq.example:2222", "blog")));
        check("quarry@hq.example:blog.git", Some(("quarry@hq.example", "blog")));
        check("https://example.com/a/b", None);
        check("/tmp/repo", None);
    }

    #[test]
    fn a_password_is_typed_unseen_where_one_may_be_asked_for() {
        let check = |text: &str, expected: bool| {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            assert_eq!(is_servers_add(&words), expected, "{text}");
        };
        check("servers add root@10.0.0.7", true);
        check("--json servers --stack x add root@10.0.0.7 --tags db", true);
        check("servers:add root@10.0.0.7", true);
        check("keys add ada", false);
        check("servers", false);
    }

    #[test]
    fn words_reach_the_other_shell_unchanged() {
        assert_eq!(quoted("a b'c"), "'a b'\\''c'");
        assert_eq!(quoted("A=b"), "A=b");
        assert_eq!(quoted(""), "''");
    }
}
