//! Addresses that a machine has for itself alone, through `ip`.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// Where distributions put it.
const PROGRAMS: [&str; 4] = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"];

/// The loopback device. What is on it, the machine answers for on every other device, too.
const DEVICE: &str = "lo";

/// By which an address is known as quarry's own.
pub const LABEL: &str = "lo:quarry";

const PATIENCE: Duration = Duration::from_secs(10);

/// Why an address was not given or taken.
#[derive(Debug, thiserror::Error)]
pub enum IpError {
    /// The program is not there.
    #[error("ip is not installed: apt-get install iproute2")]
    Missing,
    /// It cannot be run, or does not come to an end.
    #[error("cannot run ip")]
    Run(#[source] io::Error),
    /// It says no.
    #[error("ip refuses: {0}")]
    Refused(String),
}

/// The machine has this address from now on, for itself and its containers; having it already is success.
///
/// # Errors
/// Then it has not.
pub async fn give(address: IpAddr) -> Result<(), IpError> {
    let whole = whole(address);
    let plain = ["address", "replace", &whole, "dev", DEVICE];
    // Only those of IPv4 have labels.
    match address.is_ipv4() {
        true => run(&[&plain[..], &["label", LABEL]].concat()).await,
        false => run(&plain).await,
    }
}

/// The machine has it no more; not having it is success.
///
/// # Errors
/// Then it may have it.
pub async fn take(address: IpAddr) -> Result<(), IpError> {
    match run(&["address", "del", &whole(address), "dev", DEVICE]).await {
        Err(IpError::Refused(why)) if why.contains("Cannot assign") => Ok(()),
        other => other,
    }
}

fn whole(address: IpAddr) -> String {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    format!("{address}/{bits}")
}

async fn run(words: &[&str]) -> Result<(), IpError> {
    let program = PROGRAMS.into_iter().find(|path| Path::new(path).exists()).ok_or(IpError::Missing)?;
    let mut command = Command::new(program);
    command.args(words).current_dir("/").kill_on_drop(true).stdin(Stdio::null());
    let output = timeout(PATIENCE, command.output()).await;
    let output = output.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(IpError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    Err(IpError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
