//! What rules have to know of the machine's interfaces.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::network::rules::{BadInterface, InterfaceName, Machine};

const INTERFACES: &str = "/sys/class/net";

/// Why the machine cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The kernel's lists cannot be read.
    #[error("cannot read the network interfaces in {INTERFACES}")]
    Read(#[from] io::Error),
    /// A bridge to the outside whose name no rule can hold.
    #[error(transparent)]
    Name(#[from] BadInterface),
}

/// Finds the bridges that lead outside: those with the default route, or with a card, a bond or a VLAN among their
/// ports. Docker's have nothing but the ends of its containers.
///
/// # Errors
/// The interfaces cannot be read, or a bridge that leads outside cannot be named.
pub fn machine() -> Result<Machine, MachineError> {
    let mut machine = Machine::default();
    let ways_out = ways_out();
    for entry in fs::read_dir(INTERFACES)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.join("bridge").is_dir() && (ways_out.contains(&name) || has_outer_port(&path)?) {
            machine.uplinks.insert(name.parse::<InterfaceName>()?);
        }
    }
    Ok(machine)
}

/// Whether the kernel speaks IPv6 at all: without, nobody can listen there.
pub fn speaks_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// Lets the ports of connections that have ended be used again at once, where the other side can tell them apart. Who
/// carries connections for others has no more than some thirty thousand to each place otherwise, for a minute each.
///
/// # Errors
/// The kernel does not let it be set.
pub fn spare_ports() -> io::Result<()> {
    fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1\n")
}

/// Lets this process open as many files as its owner may have at most: each connection that is carried is two, and a
/// login's usual limit of 1,024 is soon reached.
///
/// # Errors
/// The kernel does not let it be set.
pub fn spare_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

fn has_outer_port(bridge: &Path) -> io::Result<bool> {
    for port in fs::read_dir(bridge.join("brif"))? {
        let interface = Path::new(INTERFACES).join(port?.file_name());
        let uevent = fs::read_to_string(interface.join("uevent")).unwrap_or_default();
        let is_trunk = uevent.lines().any(|line| matches!(line, "DEVTYPE=bond" | "DEVTYPE=vlan" | "DEVTYPE=wlan"));
        if is_trunk || interface.join("device").exists() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Interfaces with a default route. A kernel without one of the families has no such table.
fn ways_out() -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (four, six) = (read("/proc/thread-self/net/route"), read("/proc/thread-self/net/ipv6_route"));
    default_routes(&four, &six)
}

/// IPv4: interface, destination in the second column, mask in the eighth. IPv6: destination and length first, interface
/// last; the kernel's own route into nowhere is lo's.
fn default_routes(four: &str, six: &str) -> Vec<String> {
    let four = four.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000")).then(|| words[0].to_owned())
    });
    let six = six.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let everywhere = words.first().is_some_and(|to| to.bytes().all(|b| b == b'0')) && words.get(1) == Some(&"00");
        words.last().filter(|name| everywhere && **name != "lo").map(|name| (*name).to_owned())
    });
    four.chain(six).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_told_from_others() {
        let four = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            br0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\neth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let zero = "0".repeat(32);
        let six = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 1 0 3 br1\n\
             20010db8{} 40 {zero} 00 {zero} 00000100 1 0 1 eth1\n{zero} 00 {zero} 00 {zero} ffffffff 1 0 200200 lo\n",
            "0".repeat(24)
        );
        assert_eq!(default_routes(four, &six), ["br0", "br1"]);
    }
}
