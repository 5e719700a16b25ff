//! HQ that begins anew as the same process: what it hands to itself, and how commands know that they should wait.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::failure::{Exit, Failure};

/// In the root folder: the number of the process that is about to serve again.
const MARK: &str = "hq.again";

/// From now on commands wait for this process to serve again.
///
/// # Errors
/// When the mark cannot be written; then a command that comes in between finds no HQ.
pub fn mark(root: &Path) -> io::Result<()> {
    fs::write(root.join(MARK), std::process::id().to_string())
}

/// It serves again, or somebody else does.
pub fn unmark(root: &Path) {
    // Where there is none, nobody has marked.
    let _ = fs::remove_file(root.join(MARK));
}

/// Whether a process is about to serve again.
pub fn is_due(root: &Path) -> bool {
    let pid = fs::read_to_string(root.join(MARK)).ok().and_then(|text| text.parse::<u32>().ok());
    pid.is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists())
}

/// This process becomes the same program with the same words, from its beginning; whoever knocks at `listener`
/// meanwhile is let in then. Only a failure comes back.
pub fn begin(listener: Option<OwnedFd>) -> Failure {
    let failed =
        |error: io::Error| Failure::new(Exit::Bug, format!("HQ cannot begin anew: {error}; start it: quarry serve"));
    // It survives the change as standard input, which nobody reads.
    if let Some(listener) = listener
        && let Err(error) = rustix::stdio::dup2_stdin(&listener)
    {
        return failed(error.into());
    }
    // Not by its path, where a newer program may lie that nobody has decided to run yet.
    let mut program = Command::new("/proc/self/exe");
    let mut words = std::env::args_os();
    if let Some(name) = words.next() {
        program.arg0(name);
    }
    failed(program.args(words).exec())
}

/// What [`begin`] was given, when this process has begun anew.
pub fn listener() -> Option<TcpListener> {
    let stdin = rustix::stdio::stdin();
    if !rustix::net::sockopt::socket_acceptconn(stdin).unwrap_or(false) {
        return None;
    }
    let listener = TcpListener::from(stdin.try_clone_to_owned().ok()?);
    // Programs that HQ starts must not keep it open.
    let nothing = fs::File::open("/dev/null").ok()?;
    rustix::stdio::dup2_stdin(&nothing).ok()?;
    listener.set_nonblocking(true).ok()?;
    Some(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_wait_for_a_process_that_lives_and_for_no_other() {
        let root = tempfile::tempdir().unwrap();
        assert!(!is_due(root.path()));
        mark(root.path()).unwrap();
        assert!(is_due(root.path()));
        fs::write(root.path().join(MARK), u32::MAX.to_string()).unwrap();
        assert!(!is_due(root.path()));
        mark(root.path()).unwrap();
        unmark(root.path());
        assert!(!is_due(root.path()));
    }
}
