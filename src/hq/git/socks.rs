//! A way out for git's HTTP (SOCKS 5, RFC 1928), on this machine alone: whatever git is told to connect to, by an address,
//! by a name or by another server's redirect, is looked at when it is about to be connected to.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::names::reach::Reach;

/// How long one address may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long git may take to say where to.
const GREETING: Duration = Duration::from_secs(10);

/// Connects to the first address of `host` that answers.
///
/// # Errors
/// `PermissionDenied`, with a text for the pusher, when it leads inside; else what the system says.
pub(super) fn connect(reach: &Reach, host: &str, port: u16) -> io::Result<TcpStream> {
    let mut addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    // An HQ without IPv6 finds out at once; what remains is who answers at all.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("`{host}` has no address"));
    for address in addresses {
        if !reach.allows(host, address.ip()) {
            last = inside(host, address.ip());
            continue;
        }
        match TcpStream::connect_timeout(&address, PATIENCE) {
            // Whoever is reached from an address at that very address is this machine.
            Ok(stream) if stream.local_addr()?.ip() == address.ip() && !named(reach, host, address.ip()) => {
                last = inside(host, address.ip());
            }
            Ok(stream) => return Ok(stream),
            Err(error) if last.kind() != io::ErrorKind::PermissionDenied => last = error,
            Err(_) => {}
        }
    }
    Err(last)
}

fn named(reach: &Reach, host: &str, address: IpAddr) -> bool {
    reach.is_named(host) || reach.is_named(&address.to_string())
}

fn inside(host: &str, address: IpAddr) -> io::Error {
    let at = if host == address.to_string() { String::new() } else { format!(" ({address})") };
    let text = format!(
        "`{host}`{at} leads inside the network of this HQ, or to one of its servers; who runs it can permit that: \
         /etc/quarry/submodule-hosts"
    );
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

/// The way out, as long as it lives.
pub(super) struct Socks {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    reach: Reach,
    over: AtomicBool,
    /// Why something was refused.
    refused: Mutex<Option<String>>,
}

impl Socks {
    /// Opens it at a port of its own.
    ///
    /// # Errors
    /// No port is free.
    pub(super) fn open(reach: Reach) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { reach, over: AtomicBool::new(false), refused: Mutex::default() });
        let own = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if own.over.load(Ordering::Acquire) {
                    return;
                }
                let Ok(client) = client else { continue };
                let own = own.clone();
                std::thread::spawn(move || own.serve(client));
            }
        });
        Ok(Self { address, shared })
    }

    /// What git takes as `http.proxy`. Names are resolved here.
    pub(super) fn url(&self) -> String {
        format!("socks5h://{}", self.address)
    }

    /// Why something was refused, if anything was.
    pub(super) fn refused(&self) -> Option<String> {
        self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Socks {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        // The listener is waiting for somebody.
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers to a request.
const DONE: u8 = 0;
const REFUSED: u8 = 2;
const UNREACHABLE: u8 = 4;

impl Shared {
    fn serve(&self, mut client: TcpStream) {
        let Ok((host, port)) = greeted(&mut client) else { return };
        let answer = |code| [5, code, 0, 1, 0, 0, 0, 0, 0, 0];
        // A client that has gone meanwhile needs no answer.
        let _ = match connect(&self.reach, &host, port) {
            Ok(server) => client.write_all(&answer(DONE)).and_then(|()| carry(client, server)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                client.write_all(&answer(REFUSED))
            }
            Err(_) => client.write_all(&answer(UNREACHABLE)),
        };
    }
}

/// Where a client wants to go.
fn greeted(client: &mut TcpStream) -> io::Result<(String, u16)> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    client.set_read_timeout(Some(GREETING))?;
    let [5, methods] = bytes::<2>(client)? else { return Err(wrong()) };
    client.read_exact(&mut vec![0; methods.into()])?;
    client.write_all(&[5, 0])?;
    let [5, 1, _, kind] = bytes::<4>(client)? else { return Err(wrong()) };
    let host = match kind {
        1 => Ipv4Addr::from(bytes::<4>(client)?).to_string(),
        4 => Ipv6Addr::from(bytes::<16>(client)?).to_string(),
        3 => {
            let [length] = bytes::<1>(client)?;
            let mut name = vec![0; length.into()];
            client.read_exact(&mut name)?;
            String::from_utf8(name).map_err(|_| wrong())?
        }
        _ => return Err(wrong()),
    };
    let port = u16::from_be_bytes(bytes::<2>(client)?);
    client.set_read_timeout(None)?;
    Ok((host, port))
}

fn bytes<const N: usize>(client: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Carries both directions to their ends.
fn carry(client: TcpStream, server: TcpStream) -> io::Result<()> {
    let (mut up, mut down) = ((client.try_clone()?, server.try_clone()?), (server, client));
    let sending = std::thread::spawn(move || copy(&mut up.0, &mut up.1));
    copy(&mut down.0, &mut down.1);
    // Without its server the client has nothing more to say.
    let _ = down.1.shutdown(Shutdown::Both);
    let _ = sending.join();
    Ok(())
}

fn copy(from: &mut TcpStream, to: &mut TcpStream) {
    // How it ended, both ends learn from their own connection.
    let _ = io::copy(from, to);
    let _ = to.shutdown(Shutdown::Write);
}
