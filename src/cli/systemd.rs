//! What a service of systemd's tells, and where it listens.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};

/// Tells systemd, where that has started this and waits for it.
///
/// # Errors
/// It does not listen.
pub fn notify(state: &str) -> io::Result<()> {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    let name = place.as_encoded_bytes();
    match name.strip_prefix(b"@") {
        Some(name) => socket.send_to_addr(state.as_bytes(), &UnixAddress::from_abstract_name(name)?)?,
        None => socket.send_to(state.as_bytes(), &place)?,
    };
    Ok(())
}

/// The router is asked at both kinds of addresses one by one: of a socket for both, nginx would see visitors by IPv4
/// under names such as `::ffff:192.0.2.1`.
pub fn both(address: SocketAddr) -> Vec<SocketAddr> {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => vec![(Ipv4Addr::UNSPECIFIED, v6.port()).into(), address],
        SocketAddr::V4(_) | SocketAddr::V6(_) => vec![address],
    }
}
