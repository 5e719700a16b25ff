//! Where the registry that a repository names leads.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use tokio::net::lookup_host;

use crate::names::reach::Reach;

/// The port of HTTPS; where a name leads does not depend on it.
const PORT: u16 = 443;

/// Refuses a host that leads inside by any of its addresses: docker takes whichever it likes.
///
/// # Errors
/// `PermissionDenied` with the address, or what the system says of the name.
pub(super) async fn check(reach: &Reach, host: &str) -> io::Result<()> {
    if reach.is_named(host) {
        return Ok(());
    }
    for address in lookup_host((host, PORT)).await?.map(|address| address.ip()) {
        let named = reach.is_named(&address.to_string());
        if !reach.allows(host, address) || !named && is_own(address) {
            let text = format!("it leads to {address}");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    Ok(())
}

/// Whether an address is this machine's: then it is spoken to from there. Nothing is sent.
fn is_own(address: IpAddr) -> bool {
    let any: SocketAddr = match address {
        IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        IpAddr::V6(_) => ([0; 16], 0).into(),
    };
    let from = UdpSocket::bind(any).and_then(|socket| {
        socket.connect((address, PORT))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_registry_inside_is_refused_unless_its_owner_has_named_it() {
        let reach = Reach { named: ["127.0.0.9".to_owned()].into(), ..Reach::default() };
        for host in ["127.0.0.1", "localhost", "::1", "10.0.0.5", "169.254.169.254"] {
            let refused = check(&reach, host).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{host}: {refused}");
        }
        check(&reach, "127.0.0.9").await.unwrap();
        check(&reach, "1.1.1.1").await.unwrap();
        assert!(is_own([127, 0, 0, 1].into()) && !is_own([1, 1, 1, 1].into()));
    }
}
