//! The embassy of a server: containers find what they are linked to at one address that is the same on every server,
//! wherever it runs.
//!
//! It listens on that address at the ports of a [`Table`] and carries each connection to an endpoint that is healthy.
//! Threads of its own do that, as many as there are processors: each has an epoll and everything about its connections,
//! and whoever accepts one that another thread has more room for hands it over. Listeners are shared, so that whoever is
//! free accepts. A connection that rests costs its two sockets and some two hundred bytes: what is read goes through a
//! buffer of the thread, and only what a slow peer does not take is kept, while nothing more is read for it.
//!
//! [`Embassy::set`] gives each thread the ports as a whole, while the thread chooses for nobody: so once it has returned,
//! nobody is led by the table before.

pub mod act;
pub mod change;
pub mod choose;
pub mod flows;
pub mod legacy;
mod patience;
pub mod slots;
mod socket;
pub mod state;
pub mod table;

use std::io;
use std::net::IpAddr;

use crate::units::port::{Port, Transport};

pub use act::Embassy;
pub use legacy::Legacy;
pub use state::{EndpointCounts, PortCounts};
pub use table::{BadTable, Endpoint, Exposed, Health, Sources, Table};

/// Why an embassy does not do what it is told.
#[derive(Debug, thiserror::Error)]
pub enum EmbassyError {
    /// Nothing has changed.
    #[error(transparent)]
    Table(#[from] BadTable),
    /// It does not begin.
    #[error("there can be no embassy at {0}: {1}")]
    Address(IpAddr, &'static str),
    /// The kernel does not give it what it needs.
    #[error("cannot start the embassy at {address}: {what}")]
    Start {
        /// Its address.
        address: IpAddr,
        /// What it was about.
        what: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// All other ports are as the table has them. The next table tries these again.
    #[error("{}", .0.iter().map(NotOpen::to_string).collect::<Vec<_>>().join("; "))]
    Ports(Vec<NotOpen>),
}

/// A port nobody can connect to.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address} on port {port}: {}", remedy(.source, *.address, *.port))]
pub struct NotOpen {
    /// The embassy's.
    pub address: IpAddr,
    /// Which.
    pub port: Port,
    /// What the kernel says.
    pub source: io::Error,
}

/// What to do about a port that cannot be listened on.
fn remedy(error: &io::Error, address: IpAddr, port: Port) -> String {
    let kind = match port.transport {
        Transport::Tcp => "t",
        Transport::Udp => "u",
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let number = port.number;
            format!(
                "another program has it; `ss -{kind}lnp 'sport = :{number}'` shows which, end that or give it another"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            format!("this server does not have the address; `ip address add {address}/{bits} dev lo` gives it")
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 are for root".to_owned(),
        _ => format!("{error}; where files are short, raise LimitNOFILE of the agent's unit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_address_the_port_and_the_remedy() {
        let told = |kind: io::ErrorKind, port| {
            let source = io::Error::from(kind);
            NotOpen { address: "10.1.1.1".parse().unwrap(), port, source }.to_string()
        };
        let taken = told(io::ErrorKind::AddrInUse, Port::tcp(7));
        assert!(
            taken.starts_with("cannot listen at 10.1.1.1 on port 7: another program has it; `ss -tlnp 'sport = :7'`")
        );
        let missing = told(io::ErrorKind::AddrNotAvailable, Port::udp(7));
        assert!(missing.starts_with("cannot listen at 10.1.1.1 on port 7/udp: "), "{missing}");
        assert!(missing.ends_with("`ip address add 10.1.1.1/32 dev lo` gives it"), "{missing}");
    }
}
