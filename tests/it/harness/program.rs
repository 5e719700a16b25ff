//! Programs a test runs: to their end, or beside it.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::wait::PATIENCE;

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: Vec<u8>,
    /// With the `remote: ` that git puts before HQ's lines taken away.
    pub stderr: String,
}

impl Done {
    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self}"))
    }

    /// Says everything when it is not what was expected.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    #[track_caller]
    pub fn succeeded(self) -> Self {
        self.ended(0)
    }

    #[track_caller]
    pub fn failed(self) -> Self {
        assert_ne!(self.code, 0, "{self}");
        self
    }

    /// Every one of these stands in what it said beside its data, in this order.
    #[track_caller]
    pub fn said(self, expected: &[&str]) -> Self {
        let mut rest = self.stderr.as_str();
        for line in expected {
            match rest.split_once(line) {
                Some((_, after)) => rest = after,
                None => panic!("`{line}` is not said (at its place) in {self}"),
            }
        }
        self
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stdout = String::from_utf8_lossy(&self.stdout);
        write!(f, "exit code {}\n--- stdout\n{stdout}\n--- stderr\n{}", self.code, self.stderr)
    }
}

/// A program beside the test, in a process group of its own as a terminal gives it; killed when it is forgotten.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Gathering,
    stderr: Gathering,
}

struct Gathering {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Gathering {
    fn of(mut source: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let into = bytes.clone();
        let thread = std::thread::spawn(move || {
            let mut chunk = [0; 8192];
            while let Ok(count @ 1..) = source.read(&mut chunk) {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..count]);
            }
        });
        Self { bytes, thread: Some(thread) }
    }

    fn so_far(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn whole(&mut self) -> Vec<u8> {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        self.so_far()
    }
}

impl Running {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{error}: {}", hint(command)));
        let stdin = child.stdin.take();
        let stdout = Gathering::of(child.stdout.take().unwrap());
        let stderr = Gathering::of(child.stderr.take().unwrap());
        Self { child, stdin, stdout, stderr }
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.so_far()).into_owned()
    }

    pub fn stderr(&self) -> String {
        plain(&self.stderr.so_far())
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Nothing more is written.
    pub fn end_of_input(&mut self) {
        self.stdin = None;
    }

    /// What Ctrl-C does: SIGINT for all of its processes.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process_group(self.pid(), signal).unwrap();
    }

    /// A signal for the process itself and not for its children.
    pub fn signal_alone(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it has said this on one of its outputs.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let heard = |running: &Self| running.stdout().contains(text) || running.stderr().contains(text);
        while !heard(self) {
            let ended = self.has_ended();
            let late = Instant::now() > deadline;
            assert!(!(ended || late) || heard(self), "`{text}` was not said:\n{}{}", self.stdout(), self.stderr());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn wait(self) -> Done {
        self.wait_within(PATIENCE)
    }

    /// For what takes longer than anything else in a test.
    pub fn wait_within(mut self, limit: Duration) -> Done {
        self.stdin = None;
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end; it said:\n{}{}", self.stdout(), self.stderr());
            std::thread::sleep(Duration::from_millis(5));
        };
        let stdout = self.stdout.whole();
        let stderr = plain(&self.stderr.whole());
        Done { code: code(status), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            // Its group may have ended in between.
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Runs it to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Done {
    run_with(command, b"")
}

/// Runs it to its end with this on its standard input.
#[track_caller]
pub fn run_with(command: &mut Command, input: &[u8]) -> Done {
    let mut running = Running::start(command);
    let mut stdin = running.stdin.take().unwrap();
    let input = input.to_vec();
    let writing = std::thread::spawn(move || {
        // One that does not read its input has its reasons.
        let _ = stdin.write_all(&input);
    });
    let done = running.wait();
    writing.join().unwrap();
    done
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Git's progress lines overwrite each other, and blanks erase the rest of the line.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace('\r', "\n");
    let lines = text.lines().map(|line| line.strip_prefix("remote: ").unwrap_or(line).trim_end());
    lines.map(|line| format!("{line}\n")).collect()
}

fn hint(command: &Command) -> String {
    format!("cannot run {:?}; run bin/test, which installs what the tests need", command.get_program())
}
