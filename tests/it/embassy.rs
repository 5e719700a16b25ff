//! The embassy on real sockets: what clients and endpoints see of each other through it.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use quarry::embassy::act::Settings;
use quarry::embassy::{Embassy, Endpoint, EndpointCounts, Exposed, Health, PortCounts, Sources, Table};
use quarry::units::port::Port;
use quarry::units::{Balance, Millis};
use rustix::net::sockopt;

use crate::harness::wait::{PATIENCE, until};

mod change;
mod choice;
mod legacy;
mod many;
mod relay;
mod turns;
mod udp;

/// The port of tests with one.
const PORT: u16 = 4000;

/// An address of the loopback device that no other test has.
fn address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(64);
    let [_, _, third, fourth] = std::process::id().to_be_bytes();
    let second = NEXT.fetch_add(1, Ordering::Relaxed) % 64 + 64;
    Ipv4Addr::new(127, second as u8, third, fourth).into()
}

/// An embassy and the table it has.
struct Stand {
    embassy: Embassy,
    address: IpAddr,
    table: Table,
}

impl Stand {
    fn new(ports: Vec<Exposed>) -> Self {
        Self::with(Settings::default(), ports)
    }

    fn with(settings: Settings, ports: Vec<Exposed>) -> Self {
        let address = address();
        let embassy = Embassy::start_with(address, settings).unwrap();
        let mut stand = Self { embassy, address, table: Table::default() };
        stand.set(ports);
        stand
    }

    fn set(&mut self, ports: Vec<Exposed>) {
        self.table = Table { ports };
        self.embassy.set(&self.table).unwrap();
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    fn connect(&self) -> TcpStream {
        connect(self.at(PORT))
    }

    /// What the first port has counted.
    fn counts(&self) -> PortCounts {
        self.embassy.counts().into_iter().find(|counts| counts.port.number == PORT).unwrap()
    }

    /// What was counted for an endpoint of the first port.
    fn counts_of(&self, endpoint: &Endpoint) -> Option<EndpointCounts> {
        self.counts().endpoints.into_iter().find(|counts| counts.container == endpoint.container)
    }

    /// Waits until the first port has so many open connections.
    fn until_open(&self, expected: usize) {
        until(&format!("{expected} open connections"), || {
            let open: usize = self.counts().endpoints.iter().map(|counts| counts.open).sum();
            (open == expected).then_some(())
        });
    }
}

/// The first port with these endpoints.
fn exposed(endpoints: &[&Endpoint]) -> Exposed {
    Exposed {
        port: Port::tcp(PORT),
        endpoints: endpoints.iter().copied().cloned().collect(),
        balance: Balance::RoundRobin,
        from: Sources::Anywhere,
        drain: Millis::seconds(30),
        connect: Millis::seconds(10),
    }
}

fn endpoint(name: &str, address: SocketAddr) -> Endpoint {
    Endpoint { address, container: format!("blog.{name}.1.1").parse().unwrap(), health: Health::Healthy }
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Serves each connection in a thread of its own.
fn serve(name: &str, serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = endpoint(name, listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map(Result::unwrap) {
            let serve = serve.clone();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            std::thread::spawn(move || serve(stream));
        }
    });
    endpoint
}

/// Gives the test each connection it gets.
fn handing(name: &str) -> (Endpoint, Receiver<TcpStream>) {
    let (sender, receiver): (Sender<TcpStream>, _) = channel();
    let endpoint = serve(name, move |stream| drop(sender.send(stream)));
    (endpoint, receiver)
}

/// A client's connection, and its other end, which such an endpoint hands over. An endpoint accepts before the embassy
/// hears of it, and until then that may choose another one: a byte has come through.
fn pair(stand: &Stand, handed: &Receiver<TcpStream>) -> (TcpStream, TcpStream) {
    let (mut client, mut served) = (stand.connect(), handed.recv_timeout(PATIENCE).unwrap());
    served.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();
    (client, served)
}

/// Says its name first, then sends back what it gets.
fn echoing(name: &'static str) -> Endpoint {
    serve(name, move |mut stream| {
        let mut buffer = [0; 4096];
        let _ = stream.write_all(&[name.as_bytes()[0]]);
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    })
}

/// An address where nobody listens, as long as what is beside it lives.
fn nobody(name: &str) -> (Endpoint, impl AsFd) {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
    (endpoint(name, address), socket)
}

/// Who has answered: the first letter of an echoing endpoint's name.
fn who(stream: &mut TcpStream) -> char {
    let mut first = [0];
    stream.read_exact(&mut first).unwrap();
    char::from(first[0])
}

#[track_caller]
fn echoes(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
    let mut heard = vec![0; text.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, text.as_bytes());
}

/// What comes until the end, which must be an orderly one.
fn rest(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Closes by a reset.
fn reset(stream: TcpStream) {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

#[track_caller]
fn assert_reset(stream: &mut TcpStream) {
    let error = stream.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}
