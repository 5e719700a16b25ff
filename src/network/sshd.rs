//! The machine's own sshd, as its program tells: where people log in.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// Where Debian puts it; an ordinary `PATH` may lack the folder.
const PROGRAM: &str = "/usr/sbin/sshd";

/// How long its test mode may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The ports its settings name; none where there is no sshd, or it does not accept its settings.
pub async fn ports() -> BTreeSet<u16> {
    let mut command = Command::new(PROGRAM);
    command.arg("-T").stdin(Stdio::null()).kill_on_drop(true);
    match timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => read(&String::from_utf8_lossy(&output.stdout)),
        Ok(Err(_)) | Err(_) => BTreeSet::new(),
    }
}

/// Reads them from what `sshd -T` prints. An address with a port of its own has its `listenaddress` line.
fn read(text: &str) -> BTreeSet<u16> {
    let port = |line: &str| match line.split_once(' ')? {
        ("port", port) => port.parse().ok(),
        ("listenaddress", address) => address.rsplit_once(':')?.1.parse().ok(),
        _ => None,
    };
    text.lines().filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_read_and_nothing_else() {
        let text =
            "port 22\nport 2200\naddressfamily any\nlistenaddress [::]:22\nlistenaddress 10.0.0.1:2022\nusepam yes\n";
        assert_eq!(read(text), BTreeSet::from([22, 2022, 2200]));
        assert_eq!(read("listenaddress nowhere\nport\nport x\n"), BTreeSet::new());
    }
}
