//! HQ that begins anew as the same process: what it hands to itself, and how commands know that they should wait.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::failure::{Exit, Failure};
use crate::hq::upgrade::Traffic;
use crate::hq::upgrade::act::Next;
use crate::hq::upgrade::files::Trial;

/// In the root folder: the number of the process that is about to serve again.
const MARK: &str = "hq.again";

/// With what a message from the process before begins.
const GREETING: &[u8] = b"quarry hands over\n";

/// How long a program on trial may take to serve. Whoever waits for it waits longer, and hears what became of it.
const TRIAL: Duration = Duration::from_secs(45);

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

/// What a process hands to the one that it becomes.
#[derive(Debug, Default)]
pub struct Handed {
    /// Where people knock by SSH; whoever does meanwhile is let in then.
    pub ssh: Option<OwnedFd>,
    /// The same for the socket of HQ's machine.
    pub socket: Option<OwnedFd>,
}

/// Doors that outlive the program behind them.
#[derive(Default)]
pub struct Doors {
    /// Where people knock by SSH.
    pub ssh: OnceLock<OwnedFd>,
    /// The socket of HQ's machine.
    pub socket: OnceLock<OwnedFd>,
    /// What the process before has handed over.
    pub handed: Handed,
    /// The program is on trial: until it serves, the one of before can take its place again.
    pub trial: Option<Trial>,
    /// It serves.
    pub serves: AtomicBool,
    /// Those who are inside, once there can be any.
    pub traffic: OnceLock<Arc<Traffic>>,
}

impl Doors {
    /// What is handed over from behind them.
    pub fn into_handed(self) -> Handed {
        let Handed { ssh, socket } = self.handed;
        Handed { ssh: self.ssh.into_inner().or(ssh), socket: self.socket.into_inner().or(socket) }
    }

    /// It serves: a program that was on trial is HQ from now on.
    pub fn open(&self) {
        self.serves.store(true, Ordering::Relaxed);
        self.trial.iter().for_each(Trial::passed);
    }

    /// The trial, while it lasts.
    pub fn on_trial(&self) -> Option<&Trial> {
        self.trial.as_ref().filter(|_| !self.serves.load(Ordering::Relaxed))
    }

    /// Ends when a program on trial has had its time and does not serve.
    pub async fn late(&self) -> Failure {
        if self.trial.is_some() {
            tokio::time::sleep(TRIAL).await;
            if self.on_trial().is_some() {
                return Failure::new(Exit::Refused, format!("it does not serve after {} s", TRIAL.as_secs()));
            }
        }
        std::future::pending().await
    }
}

/// Where the program that runs lies, or lay until another one came there.
///
/// # Errors
/// The system does not know.
pub fn own_program() -> Result<PathBuf, Failure> {
    let path = std::env::current_exe()
        .map_err(|source| Failure::new(Exit::Refused, format!("cannot find the program that runs: {source}")))?;
    let text = path.to_string_lossy().into_owned();
    Ok(text.strip_suffix(" (deleted)").map_or(path, PathBuf::from))
}

/// This process becomes a program with the same words, from its beginning. Only a failure comes back.
pub fn begin(handed: &Handed, next: &Next) -> Failure {
    let failed =
        |error: io::Error| Failure::new(Exit::Bug, format!("HQ cannot begin anew: {error}; start it: quarry serve"));
    let _sender = match hand(handed) {
        Ok(sender) => sender,
        Err(error) => return failed(error),
    };
    let mut program = match next {
        // Not by its path, where a newer program may lie that nobody has decided to run yet.
        Next::Same => Command::new("/proc/self/exe"),
        Next::At(path) => Command::new(path),
    };
    let mut words = std::env::args_os();
    if let Some(name) = words.next() {
        program.arg0(name);
    }
    failed(program.args(words).exec())
}

/// A program on trial does not serve: the one of before takes its place again. Only a failure comes back.
pub fn back(handed: &Handed, trial: &Trial, why: Failure) -> Failure {
    eprintln!("quarry: {}; HQ becomes the program of before again", why.message);
    match trial.failed() {
        Ok(()) => begin(handed, &Next::At(trial.program.clone())),
        Err(_) => why,
    }
}

/// Puts a message to the next program where that finds it: it survives the change as standard input, which nobody
/// reads. The answer has to live until then.
fn hand(handed: &Handed) -> io::Result<OwnedFd> {
    let (sender, receiver) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let fds: Vec<BorrowedFd<'_>> = [&handed.ssh, &handed.socket].into_iter().flatten().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    sendmsg(&sender, &[IoSlice::new(GREETING)], &mut ancillary, SendFlags::empty())?;
    rustix::stdio::dup2_stdin(&receiver)?;
    Ok(sender)
}

/// What [`begin`] was given, when this process has begun anew.
pub fn handed() -> Handed {
    let stdin = rustix::stdio::stdin();
    // Whatever else somebody gives HQ to read stays unread.
    if socket_domain(stdin).ok() != Some(AddressFamily::UNIX) || socket_type(stdin).ok() != Some(SocketType::SEQPACKET)
    {
        return Handed::default();
    }
    let mut text = [0; GREETING.len()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let Ok(message) = recvmsg(stdin, &mut [IoSliceMut::new(&mut text)], &mut ancillary, flags) else {
        return Handed::default();
    };
    let mut handed = Handed::default();
    if message.bytes < text.len() || text != GREETING {
        return handed;
    }
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            for fd in fds {
                match socket_domain(&fd) {
                    Ok(AddressFamily::UNIX) => handed.socket = Some(fd),
                    Ok(_) => handed.ssh = Some(fd),
                    Err(_) => {}
                }
            }
        }
    }
    // Programs that HQ starts need not see where this came from.
    if let Ok(nothing) = fs::File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&nothing);
    }
    handed
}

/// The SSH listener of before.
pub fn ssh(handed: &Handed) -> Option<TcpListener> {
    let listener = TcpListener::from(handed.ssh.as_ref()?.try_clone().ok()?);
    listener.set_nonblocking(true).ok()?;
    Some(listener)
}

/// The socket of before.
pub fn socket(handed: &Handed) -> Option<UnixListener> {
    let listener = UnixListener::from(handed.socket.as_ref()?.try_clone().ok()?);
    listener.set_nonblocking(true).ok()?;
    Some(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hq::upgrade::files::{Found, begin as begin_trial, find};
    use crate::hq::upgrade::process::before;

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

    #[tokio::test(start_paused = true)]
    async fn a_program_on_trial_has_its_time_and_one_that_serves_has_any() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("quarry");
        fs::write(&program, "new").unwrap();
        fs::write(before(&program), "old").unwrap();
        begin_trial(root.path(), &program, &program).unwrap();
        let Found::Begins(trial) = find(root.path()) else { panic!("nothing is on trial") };
        let is_late = async |doors: &Doors| tokio::time::timeout(2 * TRIAL, doors.late()).await.is_ok();
        assert!(!is_late(&Doors::default()).await);
        let doors = Doors { trial: Some(trial), ..Doors::default() };
        assert!(is_late(&doors).await);
        doors.open();
        assert!(!is_late(&doors).await);
        assert_eq!(find(root.path()), Found::Nothing);
    }

    #[test]
    fn listeners_are_handed_over() {
        let dir = tempfile::tempdir().unwrap();
        let (tcp, unix) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), UnixListener::bind(dir.path().join("s")).unwrap());
        let address = tcp.local_addr().unwrap();
        let given = Handed { ssh: Some(tcp.into()), socket: Some(unix.into()) };
        let _sender = hand(&given).unwrap();
        let taken = handed();
        assert_eq!(ssh(&taken).unwrap().local_addr().unwrap(), address);
        assert!(!socket(&taken).unwrap().local_addr().unwrap().is_unnamed());
        // It is there once.
        assert!(handed().ssh.is_none());
    }
}
