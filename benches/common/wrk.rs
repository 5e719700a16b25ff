//! wrk: requests over connections that are kept, as fast as they are answered.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::program::{self, done};

/// What a run of wrk found.
#[derive(Default)]
pub struct Found {
    pub requests: usize,
    pub per_second: f64,
    /// Answers that were no success, and connections that broke.
    pub failures: usize,
    pub said: String,
}

fn command(connections: usize, seconds: u64, port: u16, host: &str) -> Command {
    let mut command = to(connections, seconds);
    command.args(["-H", &format!("Host: {host}"), &format!("http://127.0.0.1:{port}/")]);
    command
}

fn to(connections: usize, seconds: u64) -> Command {
    let mut command = Command::new("wrk");
    command.args(["-t1", "--timeout", "20s", "-c", &connections.to_string(), "-d", &seconds.to_string()]);
    command
}

/// A run of this length by HTTPS to `localhost`, with this header besides.
pub fn run_secure(connections: usize, length: Duration, port: u16, header: Option<&str>) -> Found {
    let mut command = to(connections, length.as_secs().max(1));
    if let Some(header) = header {
        command.args(["-H", header]);
    }
    read(done(command.arg(format!("https://localhost:{port}/"))))
}

/// A run of this length.
pub fn run(connections: usize, length: Duration, port: u16, host: &str) -> Found {
    read(done(&mut command(connections, length.as_secs().max(1), port, host)))
}

/// Runs until it is told to end.
pub struct Wrk(Child);

impl Wrk {
    pub fn start(connections: usize, port: u16, host: &str) -> Self {
        Self(program::start(command(connections, 86_400, port, host).stdout(Stdio::piped())))
    }

    pub fn end(self) -> Found {
        kill_process(Pid::from_child(&self.0), Signal::INT).unwrap();
        let output = self.0.wait_with_output().unwrap();
        read(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn read(said: String) -> Found {
    let number = |text: &str| text.trim().parse().unwrap_or(0);
    let mut found = Found::default();
    for line in said.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("Non-2xx or 3xx responses:") {
            found.failures += number(rest);
        } else if let Some(rest) = line.strip_prefix("Socket errors:") {
            found.failures +=
                rest.split(',').filter_map(|part| part.split_whitespace().last()).map(number).sum::<usize>();
        } else if let Some(rest) = line.strip_prefix("Requests/sec:") {
            found.per_second = rest.trim().parse().unwrap_or(0.0);
        } else if let Some((count, _)) = line.split_once(" requests in ") {
            found.requests = number(count);
        }
    }
    assert!(found.requests > 0, "wrk has asked nothing: {said}");
    found.said = said;
    found
}
