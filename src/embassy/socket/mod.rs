//! Sockets: opening them with the options that are right for what passes through.

pub mod accept;
pub mod bequest;
pub mod relay;
pub mod shared;
pub mod turns;
pub mod udp;
pub mod worker;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::units::port::{Port, Transport};

/// Connections that wait to be accepted; the kernel's own bound, net.core.somaxconn, may be lower.
const BACKLOG: i32 = 4096;

/// A peer that has said nothing for so long is asked whether it is still there,
const QUIET: Duration = Duration::from_secs(60);
/// again after this,
const AGAIN: Duration = Duration::from_secs(15);
/// and is lost when it does not answer so often.
const TIMES: u32 = 4;

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

fn family(is_ipv6: bool) -> AddressFamily {
    if is_ipv6 { AddressFamily::INET6 } else { AddressFamily::INET }
}

/// Opens a port at an address.
///
/// # Errors
/// The port is taken, the address is not this machine's, there is no file left.
pub fn open(address: IpAddr, port: Port) -> io::Result<OwnedFd> {
    let at = SocketAddr::new(address, port.number);
    let socket = match port.transport {
        Transport::Tcp => {
            let socket = rustix::net::socket_with(family(at.is_ipv6()), SocketType::STREAM, FLAGS, None)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            // Connections that are accepted inherit it.
            sockopt::set_tcp_nodelay(&socket, true)?;
            socket
        }
        Transport::Udp => rustix::net::socket_with(family(at.is_ipv6()), SocketType::DGRAM, FLAGS, None)?,
    };
    rustix::net::bind(&socket, &at)?;
    if port.transport == Transport::Tcp {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

/// A socket for a connection to an endpoint.
fn stream(is_ipv6: bool) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(family(is_ipv6), SocketType::STREAM, FLAGS, None)?;
    // Small writes go at once.
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

/// A socket that sends to an endpoint and hears it alone.
fn datagrams(to: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(family(to.is_ipv6()), SocketType::DGRAM, FLAGS, None)?;
    rustix::net::connect(&socket, &to)?;
    Ok(socket)
}

/// Has a peer whose machine is gone be noticed. It is four calls: those who stay for a moment only are spared them.
fn keep_watch(socket: &OwnedFd) -> Result<(), Errno> {
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, QUIET)?;
    sockopt::set_tcp_keepintvl(socket, AGAIN)?;
    sockopt::set_tcp_keepcnt(socket, TIMES)
}

/// Has the socket's end be a reset.
fn will_reset(socket: &OwnedFd) {
    // It fails for one that is reset already.
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// Whether the machine, or this process, has no more of what a socket needs.
fn is_short(error: Errno) -> bool {
    matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
}
