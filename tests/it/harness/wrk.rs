//! wrk: requests over connections that are kept, as fast as they are answered, until it is told to end.

use std::net::SocketAddr;
use std::process::Command;

use rustix::process::Signal;

use super::program::Running;

/// Load on one site.
pub struct Load(Running);

impl Load {
    pub fn on(http: SocketAddr, host: &str) -> Self {
        let mut command = Command::new("wrk");
        command.args(["-t1", "-c8", "-d", "10m", "--timeout", "20s", "-H", &format!("Host: {host}")]);
        Self(Running::start(command.arg(format!("http://{http}/"))))
    }

    /// Ends it; every request of all that time was answered, and well.
    #[track_caller]
    pub fn all_answered(self) {
        self.0.signal(Signal::INT);
        let said = self.0.wait().succeeded().text();
        let count = said.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse::<u64>().ok());
        assert!(count.is_some_and(|count| count > 100), "wrk asked too little:\n{said}");
        assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "requests failed:\n{said}");
        eprintln!("{said}");
    }
}
