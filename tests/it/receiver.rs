//! The way in: real `ssh`, `git` and libgit2 clients against the SSH server and the unix socket, with a double of HQ
//! behind the door.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use quarry::hq::call::{Streams, converse};
use quarry::hq::door::{Caller, Door, Frame, Io, IoEvent, Say, Service, Terminal, Update};
use quarry::hq::git::{self, Repository, Settings};
use quarry::hq::keys::PublicKey;
use quarry::hq::push::{Paths, Pushes};
use quarry::hq::ssh::{Limits, Server};
use quarry::hq::{guard, socket};
use quarry::names::{StackName, UserName};
use quarry::servers::ssh::KeyPair;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A double of HQ: knows some keys, runs some commands, takes all updates but those of branches named `refused…`.
struct Double {
    root: PathBuf,
    keys: Mutex<BTreeMap<PublicKey, UserName>>,
    changes: watch::Sender<u64>,
    updates: Mutex<Vec<Update>>,
    ended: Mutex<Vec<String>>,
}

impl Double {
    fn settings(&self) -> Settings {
        Settings { hooks: self.root.join("hooks"), push_limit: 100 << 20 }
    }

    fn repository_path(&self, stack: &StackName) -> PathBuf {
        self.root.join("stacks").join(stack.as_str()).join("repo.git")
    }
}

#[async_trait]
impl Door for Double {
    async fn who(&self, key: &PublicKey) -> Option<UserName> {
        self.keys.lock().unwrap().get(key).cloned()
    }

    async fn bearer(&self, _: &str) -> Option<UserName> {
        None
    }

    fn keys(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn repository(&self, _: &Caller, stack: &StackName, service: Service) -> Result<PathBuf, String> {
        let (path, settings) = (self.repository_path(stack), self.settings());
        if service == Service::Upload && !path.exists() {
            return Err(format!("there is no stack `{stack}`"));
        }
        let made = path.clone();
        let work = move || Repository::open_or_create(&made, &settings).map(drop).map_err(|error| error.to_string());
        tokio::task::spawn_blocking(work).await.unwrap()?;
        Ok(path)
    }

    async fn command(&self, caller: Caller, words: Vec<String>, mut io: Io) -> u8 {
        let out = |text: String| io.output.send(Frame::Stdout(text.into()));
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["help"] => out(format!("hello {}\n", caller.user)).await.map_or(1, |()| 0),
            ["exit", code] => code.parse().unwrap(),
            ["words", ..] => out(format!("{words:?}\n")).await.map_or(1, |()| 0),
            ["both"] => {
                for number in 0..100 {
                    let _ = io.output.send(Frame::Stdout(format!("out {number}\n").into())).await;
                    let _ = io.output.send(Frame::Stderr(format!("err {number}\n").into())).await;
                }
                3
            }
            ["cat"] => {
                while let Some(chunk) = io.stdin.chunk().await {
                    if io.output.send(Frame::Stdout(chunk)).await.is_err() {
                        self.ended.lock().unwrap().push("cat".into());
                        return 1;
                    }
                }
                0
            }
            ["deaf"] => {
                io.hung_up.cancelled().await;
                self.ended.lock().unwrap().push("deaf".into());
                0
            }
            ["events"] => {
                out(format!("{:?}\n", io.terminal)).await.unwrap();
                while let Some(event) = io.events.recv().await {
                    let last = matches!(event, IoEvent::Signal(_) | IoEvent::Interrupt);
                    let _ = io.output.send(Frame::Stdout(format!("{event:?}\n").into())).await;
                    if last {
                        return 130;
                    }
                }
                self.ended.lock().unwrap().push("events".into());
                1
            }
            ["interrupted"] => {
                io.hung_up.cancel();
                for _ in 0..1000 {
                    if out("shown before the end\n".to_owned()).await.is_err() {
                        return 1;
                    }
                }
                130
            }
            ["flood"] => {
                for _ in 0..1024 {
                    if io.output.send(Frame::Stdout(vec![7; 1 << 15].into())).await.is_err() {
                        return 1;
                    }
                }
                0
            }
            ["panic"] => panic!("the double was asked to"),
            _ => {
                let _ = io.output.send(Frame::Stderr("no such command\n".into())).await;
                2
            }
        }
    }

    async fn update(&self, update: Update, say: Say) -> Result<(), String> {
        self.updates.lock().unwrap().push(update.clone());
        say.line("-----> the double takes it");
        let branch = update.reference.strip_prefix("refs/heads/").unwrap().to_owned();
        if branch.starts_with("refused") {
            return Err("the double does not like it".into());
        }
        if branch == "slow" {
            tokio::time::sleep(SILENCE * 5).await;
        }
        if branch == "patient" {
            update.hung_up.cancelled().await;
            self.ended.lock().unwrap().push("patient".into());
        }
        let path = self.repository_path(&update.stack);
        let work = move || {
            let repository = Repository::open(&path).unwrap();
            match (&update.old, &update.new) {
                (old, Some(new)) => repository.move_branch(&branch, old.as_ref(), new),
                (Some(old), None) => repository.delete_branch(&branch, old),
                (None, None) => Ok(()),
            }
        };
        tokio::task::spawn_blocking(work).await.unwrap().map_err(|error| error.to_string())
    }
}

/// A running server with one known key, and a folder for everything.
struct Place {
    folder: tempfile::TempDir,
    port: u16,
    double: Arc<Double>,
    stop: CancellationToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// For how long a pusher may send nothing, where a test wants to see the end of it.
const SILENCE: Duration = Duration::from_millis(200);

const PATIENCE: Duration = Duration::from_secs(60);

async fn place() -> Place {
    place_with(Limits::default()).await
}

async fn place_with(limits: Limits) -> Place {
    place_of(limits, Pushes::default()).await
}

async fn place_of(limits: Limits, pushes: Pushes) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    git::install_hooks(&root.join("hooks")).unwrap();
    let double = Arc::new(Double {
        root: root.clone(),
        keys: Mutex::default(),
        changes: watch::Sender::default(),
        updates: Mutex::default(),
        ended: Mutex::default(),
    });
    let paths = Paths { socket: root.join("git.sock"), program: env!("CARGO_BIN_EXE_quarry").into() };
    let (pushes, stop) = (Arc::new(pushes), CancellationToken::new());
    let (unix, user) = (socket::listen(&root.join("hq.sock")).unwrap(), "root".parse().unwrap());
    tokio::spawn(socket::serve(unix, double.clone(), pushes.traffic.clone(), user, stop.clone()));
    let hooks = socket::listen(&paths.socket).unwrap();
    tokio::spawn(socket::serve_hooks(hooks, double.clone(), pushes.clone(), stop.clone()));
    let host_key = KeyPair::open_or_create(&root.join("host_key")).unwrap();
    let server = Arc::new(Server::new(host_key, limits, paths, double.clone(), pushes));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(server.serve(listener, stop.clone()));
    let place = Place { folder, port, double, stop };
    place.add_key("id", &["-t", "ed25519"]).await;
    place
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a key that HQ does not know.
    async fn make_key(&self, name: &str, kind: &[&str]) -> PublicKey {
        let path = self.path(name);
        let made = Command::new("ssh-keygen").args(["-q", "-N", "", "-f"]).arg(&path).args(kind).status().await;
        assert!(made.expect("ssh-keygen: apt-get install openssh-client").success());
        fs::read_to_string(path.with_extension("pub")).unwrap().parse().unwrap()
    }

    async fn add_key(&self, name: &str, kind: &[&str]) {
        let key = self.make_key(name, kind).await;
        self.double.keys.lock().unwrap().insert(key, format!("user-{name}").parse().unwrap());
    }

    fn ssh_words(&self, key: &str) -> Vec<String> {
        let key = self.path(key).display().to_string();
        let options =
            ["IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"];
        let mut words: Vec<String> = ["-F", "/dev/null", "-i", &key].map(String::from).to_vec();
        for option in options {
            words.extend(["-o".to_owned(), option.to_owned()]);
        }
        words
    }

    fn ssh(&self, key: &str, words: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.env_remove("SSH_AUTH_SOCK").args(self.ssh_words(key)).args(["-p", &self.port.to_string()]);
        command.arg("quarry@127.0.0.1").args(words).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn run(&self, words: &[&str]) -> Output {
        finish(self.ssh("id", words)).await
    }

    fn git(&self, folder: &str, words: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(self.path(folder))
            .env("GIT_SSH_COMMAND", format!("ssh {}", self.ssh_words("id").join(" ")));
        command.env("HOME", self.folder.path()).env("GIT_CONFIG_NOSYSTEM", "1").env_remove("SSH_AUTH_SOCK");
        for (name, value) in [("NAME", "A B"), ("EMAIL", "a@b.example")] {
            command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
        }
        command.args(words).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn git_done(&self, folder: &str, words: &[&str]) -> String {
        let output = finish(self.git(folder, words)).await;
        assert!(output.status.success(), "git {words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn url(&self, stack: &str) -> String {
        format!("ssh://quarry@127.0.0.1:{}/{stack}", self.port)
    }

    /// A repository with one commit on `master`.
    async fn sample(&self, folder: &str) {
        fs::create_dir_all(self.path(folder)).unwrap();
        fs::write(self.path(folder).join("index.html"), "<h1>hello</h1>\n").unwrap();
        self.git_done(folder, &["init", "-q", "-b", "master", "."]).await;
        self.commit(folder).await;
    }

    async fn commit(&self, folder: &str) {
        self.git_done(folder, &["add", "."]).await;
        self.git_done(folder, &["commit", "-q", "--allow-empty", "-m", "one more"]).await;
    }

    async fn push(&self, folder: &str, stack: &str, what: &[&str]) -> Output {
        let url = self.url(stack);
        finish(self.git(folder, &[&["push", &url][..], what].concat())).await
    }
}

async fn finish(mut command: Command) -> Output {
    let running = command.output();
    let output = tokio::time::timeout(PATIENCE, running).await.expect("the client did not end in time");
    output.expect("a client is missing: apt-get install git openssh-client python3")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_branch_reaches_hq_and_can_be_cloned_back() {
    let place = place().await;
    place.sample("work").await;
    let output = place.push("work", "blog", &["master"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("remote: -----> the double takes it"), "{}", text(&output.stderr));
    {
        let updates = place.double.updates.lock().unwrap();
        let [update] = &updates[..] else { panic!("{updates:?}") };
        assert_eq!(update.reference, "refs/heads/master");
        assert_eq!(update.caller.user.as_str(), "user-id");
        assert!(update.old.is_none() && update.new.is_some());
    }
    place.git_done(".", &["clone", "-q", &place.url("blog.git"), "back"]).await;
    assert_eq!(fs::read_to_string(place.path("back/index.html")).unwrap(), "<h1>hello</h1>\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_are_changed_rewritten_and_deleted_by_hq() {
    let place = place().await;
    place.sample("work").await;
    place.push("work", "blog", &["master"]).await;
    place.commit("work").await;
    assert!(place.push("work", "blog", &["master", "master:side"]).await.status.success());
    let repository = Repository::open(&place.double.repository_path(&"blog".parse().unwrap())).unwrap();
    let (tip, side) = (repository.tip("master").unwrap().unwrap(), repository.tip("side").unwrap().unwrap());
    assert_eq!(tip, side);
    let old = place.double.updates.lock().unwrap()[0].new.clone().unwrap();
    assert!(repository.is_ancestor(&old, &tip).unwrap());
    place.git_done("work", &["commit", "-q", "--amend", "--allow-empty", "-m", "rewritten"]).await;
    assert!(!place.push("work", "blog", &["master"]).await.status.success(), "git itself refuses without --force");
    assert!(place.push("work", "blog", &["--force", "master"]).await.status.success());
    let rewritten = repository.tip("master").unwrap().unwrap();
    assert!(!repository.is_ancestor(&tip, &rewritten).unwrap());
    assert!(place.push("work", "blog", &[":side"]).await.status.success());
    assert_eq!(repository.tip("side").unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_update_shows_its_reason_and_moves_nothing() {
    let place = place().await;
    place.sample("work").await;
    let output = place.push("work", "blog", &["master:refused", "master:fine"]).await;
    assert!(!output.status.success());
    let shown = text(&output.stderr);
    assert!(shown.contains("(the double does not like it)"), "{shown}");
    let repository = Repository::open(&place.double.repository_path(&"blog".parse().unwrap())).unwrap();
    assert_eq!(repository.tip("refused").unwrap(), None);
    assert!(repository.tip("fine").unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shallow_clone_can_push() {
    let place = place().await;
    place.sample("work").await;
    for _ in 0..3 {
        place.commit("work").await;
    }
    let from = format!("file://{}", place.path("work").display());
    place.git_done(".", &["clone", "-q", "--depth", "1", &from, "shallow"]).await;
    let output = place.push("shallow", "blog", &["master"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    place.commit("shallow").await;
    assert!(place.push("shallow", "blog", &["master"]).await.status.success());
    let repository = Repository::open(&place.double.repository_path(&"blog".parse().unwrap())).unwrap();
    let ids: Vec<_> = place.double.updates.lock().unwrap().iter().map(|update| update.new.clone().unwrap()).collect();
    assert!(repository.is_ancestor(&ids[0], &ids[1]).unwrap());
    assert!(!repository.is_ancestor(&ids[1], &ids[0]).unwrap());
    repository.checkout(&ids[1], &place.path("out"), &git::Fetching::default()).unwrap();
    assert!(place.path("out/index.html").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_refused_with_a_line_that_says_what_to_do() {
    let place = place().await;
    place.make_key("stranger", &["-t", "ed25519"]).await;
    // The line is news, not an error: ssh shows it unless it was told to be quiet.
    let words = place.ssh_words("stranger").into_iter().map(|word| word.replace("LogLevel=ERROR", "LogLevel=INFO"));
    let mut command = Command::new("ssh");
    command.args(words).args(["-p", &place.port.to_string(), "quarry@127.0.0.1", "help"]).stdin(Stdio::null());
    let output = finish(command).await;
    assert_eq!(output.status.code(), Some(255));
    let shown = text(&output.stderr);
    assert!(shown.contains("quarry: this key is unknown here; ask the admin to run: quarry keys add"), "{shown}");
    let words = place.ssh_words("id").into_iter().map(|word| word.replace("LogLevel=ERROR", "LogLevel=INFO"));
    let mut command = Command::new("ssh");
    command.args(words).args(["-p", &place.port.to_string(), "root@127.0.0.1", "help"]).stdin(Stdio::null());
    let shown = text(&finish(command).await.stderr);
    assert!(shown.contains("quarry: the user name is always `quarry`"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_key_logs_in() {
    let place = place().await;
    for (name, kind) in [
        ("p256", &["-t", "ecdsa", "-b", "256"][..]),
        ("p384", &["-t", "ecdsa", "-b", "384"]),
        ("p521", &["-t", "ecdsa", "-b", "521"]),
        ("rsa", &["-t", "rsa", "-b", "2048"]),
    ] {
        place.add_key(name, kind).await;
        for algorithm in if name == "rsa" { &["rsa-sha2-256", "rsa-sha2-512"][..] } else { &["+ssh-ed25519"] } {
            let mut command = place.ssh(name, &["-o", &format!("PubkeyAcceptedAlgorithms={algorithm}"), "help"]);
            if name != "rsa" {
                command = place.ssh(name, &["help"]);
            }
            let output = finish(command).await;
            assert_eq!(text(&output.stdout), format!("hello user-{name}\n"), "{}", text(&output.stderr));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_stacks_get_one_clear_line() {
    let place = place().await;
    for (exec, line) in [
        ("git-receive-pack '../blog'", "quarry: there can be no such repository: `../blog` is not a stack name"),
        ("git-receive-pack '--upload-pack=id'", "quarry: git asks for one repository"),
        ("git-upload-pack 'nothing'", "quarry: there is no stack `nothing`"),
        ("git-upload-archive 'blog'", "quarry: `git upload-archive` is not offered here"),
        ("ps 'open", "quarry: a quote in the command never closes"),
    ] {
        let output = place.run(&[exec]).await;
        let shown = text(&output.stderr);
        assert!(shown.starts_with(line) && shown.lines().count() == 1, "{exec}: {shown}");
        assert!(matches!(output.status.code(), Some(1 | 2)), "{exec}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_words_and_streams_pass() {
    let place = place().await;
    for code in [0, 3, 70, 254] {
        assert_eq!(place.run(&["exit", &code.to_string()]).await.status.code(), Some(code));
    }
    let output = place.run(&["words", "'a b'", "\"c\\\"d\""]).await;
    assert_eq!(text(&output.stdout), "[\"words\", \"a b\", \"c\\\"d\"]\n");
    let output = place.run(&["both"]).await;
    assert_eq!(output.status.code(), Some(3));
    let lines = |kind: &str| (0..100).map(|number| format!("{kind} {number}\n")).collect::<String>();
    assert_eq!((text(&output.stdout), text(&output.stderr)), (lines("out"), lines("err")));
    assert_eq!(text(&place.run(&[]).await.stdout), "hello user-id\n", "a shell is answered by help");
    assert_eq!(place.run(&["panic"]).await.status.code(), Some(70));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_binary_streams_pass_unchanged_in_both_directions_at_once() {
    let place = place().await;
    let sent: Vec<u8> = (0..50_u32 << 18).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(place.path("sent"), &sent).unwrap();
    let mut command = place.ssh("id", &["cat"]);
    command.stdin(fs::File::open(place.path("sent")).unwrap());
    let output = finish(command).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stdout == sent, "the bytes differ: {} of {}", output.stdout.len(), sent.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_everything_and_input_nobody_reads_stops_nothing() {
    let place = place().await;
    let mut slow = place.ssh("id", &["flood"]);
    let mut slow = slow.stdout(Stdio::piped()).spawn().unwrap();
    // While nobody reads the flood, the same server answers others.
    assert_eq!(place.run(&["exit", "4"]).await.status.code(), Some(4));
    let mut received = Vec::new();
    slow.stdout.take().unwrap().read_to_end(&mut received).await.unwrap();
    assert!(received.len() == 32 << 20 && received.iter().all(|byte| *byte == 7), "{} bytes", received.len());
    // Far more input than may wait: the client is held back, and its going away is still noticed.
    let mut deaf = place.ssh("id", &["deaf"]);
    let mut deaf = deaf.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = deaf.stdin.take().unwrap();
    let filling = tokio::time::timeout(Duration::from_secs(2), async {
        loop {
            stdin.write_all(&[0; 1 << 16]).await.unwrap();
        }
    });
    assert!(filling.await.is_err(), "somebody swallowed input without end");
    deaf.kill().await.unwrap();
    until("the hang-up", || place.double.ended.lock().unwrap().contains(&"deaf".to_owned())).await;
}

/// The ciphers a client of OpenSSH names as agreed on, to the server and from there.
async fn ciphers(place: &Place, options: &[&str]) -> [String; 2] {
    let done = place.run(&[&["-v"], options, &["help"]].concat()).await;
    let said = text(&done.stderr);
    assert!(done.status.success(), "{said}");
    ["client->server", "server->client"].map(|way| {
        let (_, cipher) = said.split_once(&format!("kex: {way} cipher: ")).unwrap();
        cipher.split(' ').next().unwrap().to_owned()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_fastest_cipher_uses_it_and_all_others_what_they_have() {
    let place = place_with(Limits { offer: PATIENCE, ..Limits::default() }).await;
    let gcm = "aes128-gcm@openssh.com";
    assert_eq!(ciphers(&place, &[]).await, [gcm, gcm], "on a processor with instructions for AES");
    for own in ["aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr", "aes128-ctr"] {
        assert_eq!(ciphers(&place, &["-c", own]).await, [own, own]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_names_its_ciphers_too_late_gets_in_all_the_same() {
    let place = place_with(Limits { offer: Duration::ZERO, ..Limits::default() }).await;
    for own in ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"] {
        assert_eq!(ciphers(&place, &["-c", own]).await, [own, own]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_names_its_ciphers_after_hq_is_not_waited_for() {
    let place = place().await;
    let mut stream = TcpStream::connect(("127.0.0.1", place.port)).await.unwrap();
    stream.write_all(b"SSH-2.0-waits\r\n").await.unwrap();
    let mut said = Vec::new();
    // Its greeting, once, and then all its ciphers.
    while !said.windows(10).any(|name| name == b"aes128-ctr") {
        assert_ne!(stream.read_buf(&mut said).await.unwrap(), 0, "{}", text(&said));
    }
    assert!(said.starts_with(b"SSH-2.0-quarry_"));
    assert_eq!(said.windows(8).filter(|word| *word == b"SSH-2.0-").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_its_size_ctrl_c_and_hanging_up_reach_the_command() {
    let place = place().await;
    // `script` gives ssh a terminal of its own.
    let ssh = place.ssh("id", &["-tt", "events"]);
    let words: Vec<String> = ssh.as_std().get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let line = format!("stty columns 91 rows 17; exec ssh {}", words.join(" "));
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-c", &line, "/dev/null"]).env("TERM", "xterm-test").kill_on_drop(true);
    script.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().expect("script: apt-get install bsdutils");
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = String::new();
    let mut buffer = [0; 1024];
    while !shown.contains('\n') {
        let length = stdout.read(&mut buffer).await.unwrap();
        assert!(length > 0, "ended early: {shown}");
        shown.push_str(&text(&buffer[..length]));
    }
    assert!(shown.contains("term: \"xterm-test\", columns: 91, rows: 17"), "{shown}");
    stdin.write_all(&[3]).await.unwrap();
    stdout.read_to_string(&mut shown).await.unwrap();
    assert!(shown.contains("Interrupt"), "{shown}");
    assert_eq!(child.wait().await.unwrap().code(), Some(130));

    let mut gone = place.ssh("id", &["events"]);
    let mut gone = gone.stdout(Stdio::piped()).spawn().unwrap();
    let length = gone.stdout.take().unwrap().read(&mut buffer).await.unwrap();
    assert_eq!(text(&buffer[..length]), "None\n");
    gone.kill().await.unwrap();
    until("the hang-up", || place.double.ended.lock().unwrap().contains(&"events".to_owned())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_gives_up_by_itself_still_answers_in_full() {
    let place = place().await;
    let done = tokio::time::timeout(PATIENCE, place.ssh("id", &["interrupted"]).output()).await;
    let done = done.expect("the client waits for the end").unwrap();
    assert_eq!((done.status.code(), text(&done.stdout).lines().count()), (Some(130), 1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pusher_who_stops_in_the_middle_of_a_pack_is_sent_away() {
    let place = place_of(Limits::default(), Pushes::with_silence(SILENCE)).await;
    let mut child =
        place.ssh("id", &["git-receive-pack", "stalled"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let update = format!("{} {} refs/heads/master\0report-status", "0".repeat(40), "1".repeat(40));
    let mut stdin = child.stdin.take().unwrap();
    let start = format!("{:04x}{update}0000PACK\0\0\0\x02\0\0\0\x03", update.len() + 4);
    stdin.write_all(start.as_bytes()).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let answer = text(&ended.expect("a pusher who stalls was kept").unwrap().stdout);
    assert!(answer.contains("unpack index-pack abnormal exit"), "{answer}");
    assert!(place.double.updates.lock().unwrap().is_empty());
    drop(stdin);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_may_take_longer_than_a_pusher_may_be_silent() {
    let place = place_of(Limits::default(), Pushes::with_silence(SILENCE)).await;
    place.sample("work").await;
    let output = place.push("work", "blog", &["HEAD:refs/heads/slow"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pusher_who_hangs_up_is_noticed_and_the_update_ends_by_itself() {
    let place = place().await;
    place.sample("work").await;
    let url = place.url("blog");
    let mut push = place.git("work", &["push", &url, "master:patient"]).process_group(0).spawn().unwrap();
    until("the update", || !place.double.updates.lock().unwrap().is_empty()).await;
    // Ctrl-C goes to git and its ssh.
    let group = rustix::process::Pid::from_raw(push.id().unwrap() as i32).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::INT).unwrap();
    push.wait().await.unwrap();
    until("the hang-up", || place.double.ended.lock().unwrap().contains(&"patient".to_owned())).await;
    let repository = Repository::open(&place.double.repository_path(&"blog".parse().unwrap())).unwrap();
    until("the branch", || repository.tip("patient").unwrap().is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_commands_share_one_connection_one_after_another_and_at_once() {
    let place = place().await;
    let control = place.path("mux").display().to_string();
    let mux = ["-o", "ControlMaster=auto", "-o", "ControlPersist=30", "-S", &control];
    for round in 0..25 {
        let output = place.run(&[&mux[..], &["exit", "5"]].concat()).await;
        assert_eq!(output.status.code(), Some(5), "round {round}: {}", text(&output.stderr));
    }
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..8 {
        all.spawn(finish(place.ssh("id", &[&mux[..], &["both"]].concat())));
    }
    while let Some(output) = all.join_next().await {
        assert_eq!(output.unwrap().stdout.len(), 690);
    }
    place.run(&["-S", &control, "-O", "exit"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_offered_is_refused() {
    let place = place().await;
    let output = place.run(&["-s", "sftp"]).await;
    assert!(!output.status.success() && text(&output.stderr).contains("subsystem request failed"));
    let output = place.run(&["-W", "127.0.0.1:22"]).await;
    assert!(!output.status.success(), "TCP forwarding was let through");
    assert_eq!(text(&place.run(&["-A", "-X", "help"]).await.stdout), "hello user-id\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_nothing_are_dropped() {
    let short = Duration::from_millis(300);
    let place = place_with(Limits { login: short, idle: short, ..Limits::default() }).await;
    for greeting in [&b""[..], b"SSH-2.0-half\r\n"] {
        let mut stream = TcpStream::connect(("127.0.0.1", place.port)).await.unwrap();
        stream.write_all(greeting).await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "a half-open client was kept");
    }
    // Logged in and idle: the master has a connection and no channel.
    let control = place.path("mux").display().to_string();
    let mut master = place.ssh("id", &["-M", "-N", "-S", &control]).spawn().unwrap();
    let ended = tokio::time::timeout(PATIENCE, master.wait()).await;
    assert!(ended.is_ok(), "an idle client was kept");
    // A running command is not idleness.
    let mut busy = place.ssh("id", &["cat"]);
    let mut busy = busy.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    tokio::time::sleep(short * 4).await;
    let mut stdin = busy.stdin.take().unwrap();
    stdin.write_all(b"still here").await.unwrap();
    drop(stdin);
    assert_eq!(busy.wait_with_output().await.unwrap().stdout, b"still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_known_gets_in_beside_a_crowd_that_says_nothing() {
    let place = place().await;
    let mut crowd = Vec::new();
    for number in 0..1000 {
        let mut stream = TcpStream::connect(("127.0.0.1", place.port)).await.unwrap();
        if number % 2 == 0 {
            // One that has been sent away already is one of the crowd all the same.
            let _ = stream.write_all(b"SSH-2.0-half\r\n").await;
        }
        crowd.push(stream);
    }
    assert_eq!(text(&place.run(&["help"]).await.stdout), "hello user-id\n");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let open = crowd.iter().filter(|stream| still_open(stream)).count();
        if open <= guard::Limits::default().strangers {
            break;
        }
        assert!(Instant::now() < deadline, "{open} of them are still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether the server has not closed it; what it has said so far is passed over.
fn still_open(stream: &TcpStream) -> bool {
    loop {
        match stream.try_read(&mut [0; 1024]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_tries_only_so_many_keys() {
    let place = place().await;
    let mut words = Vec::new();
    for number in 0..15 {
        let name = format!("guess{number}");
        place.make_key(&name, &["-t", "ed25519"]).await;
        words.extend(["-i".to_owned(), place.path(&name).display().to_string()]);
    }
    words.extend(["-i".to_owned(), place.path("id").display().to_string()]);
    let mut command = Command::new("ssh");
    command.env_remove("SSH_AUTH_SOCK").args(["-F", "/dev/null", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]);
    command.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]).args(words);
    command.args(["-p", &place.port.to_string(), "quarry@127.0.0.1", "help"]).stdin(Stdio::null()).kill_on_drop(true);
    let output = finish(command).await;
    assert!(!output.status.success(), "the sixteenth key was still taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_on_which_nothing_is_started_keeps_no_connection() {
    let short = Duration::from_millis(300);
    let place = place_with(Limits { idle: short, ..Limits::default() }).await;
    let session = place.client().await;
    let mut channel = session.channel_open_session().await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, async { while channel.wait().await.is_some() {} }).await;
    assert!(ended.is_ok(), "an open channel without a command was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_idle_connections_of_a_user_the_oldest_end() {
    let limits = guard::Limits { idle: 3, ..guard::Limits::default() };
    let place = place_with(Limits { guard: limits, ..Limits::default() }).await;
    let mut sessions = Vec::new();
    for _ in 0..5 {
        sessions.push(place.client().await);
    }
    let deadline = Instant::now() + PATIENCE;
    let closed =
        |sessions: &[russh::client::Handle<Anyone>]| sessions.iter().map(|session| session.is_closed()).collect();
    loop {
        let closed: Vec<bool> = closed(&sessions);
        if closed == [true, true, false, false, false] {
            break;
        }
        assert!(Instant::now() < deadline, "{closed:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(place.run(&["help"]).await.status.success());
}

/// A client that trusts every server.
struct Anyone;

impl russh::client::Handler for Anyone {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &russh::keys::PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

impl Place {
    /// Logged in, without a channel.
    async fn client(&self) -> russh::client::Handle<Anyone> {
        let config = Arc::new(russh::client::Config::default());
        let mut session = russh::client::connect(config, ("127.0.0.1", self.port), Anyone).await.unwrap();
        let key = Arc::new(russh::keys::load_secret_key(self.path("id"), None).unwrap());
        let key = russh::keys::PrivateKeyWithHashAlg::new(key, None);
        assert!(session.authenticate_publickey("quarry", key).await.unwrap().success());
        session
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_keeps_failing_has_to_queue_and_people_behind_it_still_get_in() {
    let pace = Duration::from_secs(1);
    let limits = guard::Limits { failures: 2, forgive: Duration::from_secs(60), pace, ..guard::Limits::default() };
    let place = Arc::new(place_with(Limits { guard: limits, ..Limits::default() }).await);
    place.make_key("stranger", &["-t", "ed25519"]).await;
    for _ in 0..2 {
        assert!(text(&finish(place.ssh("stranger", &["help"])).await.stderr).contains("Permission denied"));
    }
    // Somebody goes on to try keys as fast as they can, several at a time.
    let stop = CancellationToken::new();
    let tries: Vec<_> = (0..4)
        .map(|_| {
            let (place, stop) = (place.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    finish(place.ssh("stranger", &["help"])).await;
                }
            })
        })
        .collect();
    for _ in 0..3 {
        assert!(place.run(&["help"]).await.status.success(), "somebody who is known was kept out");
    }
    let began = Instant::now();
    assert!(place.run(&["help"]).await.status.success());
    assert!(began.elapsed() > pace, "an address that fails again and again is not slowed");
    stop.cancel();
    for tries in tries {
        tries.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_pushes_at_once_all_arrive() {
    let place = Arc::new(place().await);
    place.sample("work").await;
    let mut all = tokio::task::JoinSet::new();
    for number in 0..20 {
        let place = place.clone();
        all.spawn(async move { place.push("work", &format!("stack-{number}"), &["master"]).await });
    }
    while let Some(output) = all.join_next().await {
        let output = output.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert_eq!(place.double.updates.lock().unwrap().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_hands_over_updates_without_a_push() {
    let place = place().await;
    let mut hook = Command::new(env!("CARGO_BIN_EXE_quarry"));
    hook.args(["hook", "proc-receive"]).env("QUARRY_SOCKET", place.path("git.sock")).env("QUARRY_PUSH", "guessed");
    let mut hook = hook.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let command = format!("{} {} refs/heads/master", "0".repeat(40), "1".repeat(40));
    let packets = format!("000eversion=1\00000{:04x}{command}0000", command.len() + 4);
    hook.stdin.take().unwrap().write_all(packets.as_bytes()).await.unwrap();
    let answer = text(&hook.wait_with_output().await.unwrap().stdout);
    assert!(answer.contains("ng refs/heads/master this push is not under way"), "{answer}");
    assert!(place.double.updates.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unix_socket_carries_commands_with_all_their_streams() {
    let place = place().await;
    let call = async |words: &[&str], stdin: &[u8], events: Vec<IoEvent>| {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let terminal = Terminal { term: "xterm".into(), columns: 80, rows: 24 };
        let terminal = Some(terminal).filter(|_| words[0] == "events");
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        for event in events {
            sender.send(event).await.unwrap();
        }
        let streams = Streams { stdin, stdout: &mut stdout, stderr: &mut stderr };
        let words = words.iter().map(ToString::to_string).collect();
        let code = converse(&place.path("hq.sock"), words, terminal, streams, receiver).await.unwrap();
        drop(sender);
        (code, stdout, stderr)
    };
    assert_eq!(call(&["help"], b"", vec![]).await, (0, b"hello root\n".to_vec(), vec![]));
    let (code, stdout, stderr) = call(&["both"], b"", vec![]).await;
    assert_eq!((code, stdout.len(), stderr.len()), (3, 690, 690));
    let sent: Vec<u8> = (0..20_u32 << 18).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let (code, stdout, _) = call(&["cat"], &sent, vec![]).await;
    assert!(code == 0 && stdout == sent, "{} of {} bytes", stdout.len(), sent.len());
    // Input that nobody reads does not keep a signal from arriving.
    let resize = IoEvent::Resize { columns: 120, rows: 40 };
    let (code, stdout, _) = call(&["events"], &vec![0; 20 << 20], vec![resize, IoEvent::Signal("TERM".into())]).await;
    assert_eq!(code, 130);
    let shown = text(&stdout);
    assert!(shown.contains("columns: 80") && shown.contains("columns: 120") && shown.contains("TERM"), "{shown}");
    let mode = fs::metadata(place.path("hq.sock")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
}

/// What a libgit2 client does: make a commit, push it, clone it back.
const PYGIT2: &str = r#"
import os, pygit2, sys
folder, key, url = sys.argv[1:]
class Callbacks(pygit2.RemoteCallbacks):
    def credentials(self, url, username, allowed):
        return pygit2.Keypair("quarry", key + ".pub", key, "")
    def certificate_check(self, certificate, valid, host):
        return True
    def push_update_reference(self, reference, message):
        if message: print("refused", reference, message)
repository = pygit2.init_repository(folder + "/py", initial_head="master")
open(folder + "/py/file", "wb").write(os.urandom(5_000_000))
repository.index.add("file")
author = pygit2.Signature("A", "a@b.example")
repository.create_commit("HEAD", author, author, "one", repository.index.write_tree(), [])
remote = repository.remotes.create("quarry", url)
remote.push(["refs/heads/master", "refs/heads/master:refs/heads/refused"], callbacks=Callbacks())
back = pygit2.clone_repository(url, folder + "/back", callbacks=Callbacks())
same = open(folder + "/py/file", "rb").read() == open(folder + "/back/file", "rb").read()
print("same" if same else "different")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_libgit2_client_pushes_and_clones() {
    let place = place().await;
    let packages = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pygit2");
    if !packages.join("pygit2").exists() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "-q", "--target"]).arg(&packages).arg("pygit2");
        let output = finish(pip).await;
        assert!(output.status.success(), "apt-get install python3-pip: {}", text(&output.stderr));
    }
    let folder = place.folder.path().display().to_string();
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", &packages).env("HOME", place.folder.path()).env_remove("SSH_AUTH_SOCK");
    python.args(["-c", PYGIT2, &folder, &place.path("id").display().to_string(), &place.url("blog")]);
    let output = finish(python).await;
    let shown = text(&output.stdout);
    assert_eq!(shown, "refused refs/heads/refused the double does not like it\nsame\n", "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_while_it_sends_fast_gets_all_of_its_echo() {
    let place = place().await;
    let mut echo = place.ssh("id", &["cat"]);
    let mut echo = echo.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (echo.stdin.take().unwrap(), echo.stdout.take().unwrap());
    const TOTAL: usize = 100 << 20;
    let sending = tokio::spawn(async move {
        for number in 0..TOTAL >> 16 {
            stdin.write_all(&[number as u8; 1 << 16]).await.unwrap();
        }
    });
    let mut received = 0;
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = stdout.read(&mut buffer).await {
        for (index, byte) in buffer[..length].iter().enumerate() {
            assert_eq!(*byte, ((received + index) >> 16) as u8);
        }
        received += length;
        if received.is_multiple_of(1 << 18) {
            // Slowness is what is tested: 50 MB a second.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    sending.await.unwrap();
    assert_eq!(received, TOTAL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_beyond_the_limit_is_refused_and_leaves_no_branch() {
    let place = place().await;
    place.sample("work").await;
    let noise: Vec<u8> =
        (0..26_u32 << 20).flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    fs::write(place.path("work/noise"), noise).unwrap();
    place.commit("work").await;
    place.git_done("work", &["config", "core.compression", "0"]).await;
    let output = place.push("work", "blog", &["master"]).await;
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("maximum allowed size"), "{}", text(&output.stderr));
    assert!(place.double.updates.lock().unwrap().is_empty());
}
