//! Programs beside the benchmark.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::end;

/// How long anything may take before the benchmark gives up.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a command to its end, which must be a good one, and gives what it said.
#[track_caller]
pub fn done(command: &mut Command) -> String {
    end::checkpoint();
    command.stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command to its end and gives the milliseconds it took.
#[track_caller]
pub fn timed(command: &mut Command) -> f64 {
    let began = Instant::now();
    done(command);
    milliseconds(began)
}

pub fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Starts what runs until the end. Ctrl-C in the terminal is for the benchmark alone.
#[track_caller]
pub fn start(command: &mut Command) -> Child {
    end::checkpoint();
    let child = command.process_group(0).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let pid = child.id();
    end::later(move || stop(pid));
    child
}

/// Ends a child and waits until it is gone; a number that has become somebody else's is left alone.
pub fn stop(pid: u32) {
    let Some(child) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut signal = Signal::TERM;
    while is_running_child(pid) {
        let _ = kill_process(child, signal);
        std::thread::sleep(Duration::from_millis(20));
        if Instant::now() > deadline {
            signal = Signal::KILL;
        }
    }
}

/// Whether it is ours and still runs; one that has ended and was not waited for does not.
fn is_running_child(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // pid (name) state parent …
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let mut words = rest.split(' ');
    let state = words.next();
    state != Some("Z") && words.next() == Some(&std::process::id().to_string())
}

/// Waits until it holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        end::checkpoint();
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Seconds that this thread has been on a processor: what it waits for others on a busy machine does not count.
pub fn on_processor() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// The most memory this program has held at once, in MiB.
pub fn most_resident() -> f64 {
    memory("self", "VmHWM:")
}

/// Resident memory of a process itself, without its children, in MiB.
pub fn resident(pid: u32) -> f64 {
    memory(&pid.to_string(), "VmRSS:")
}

fn memory(process: &str, what: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
