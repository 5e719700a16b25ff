//! What stands behind the proxies: one that sends back what it gets, one that sends without end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

/// What is sent at once by the one that sends without end.
const CHUNK: usize = 256 << 10;

/// Serves until its input ends. Says where: the address that echoes, and the one that sends.
pub fn serve() {
    let sends = TcpListener::bind("127.0.0.1:0").unwrap();
    let (echoes, address) = listening();
    println!("{address} {}", sends.local_addr().unwrap());
    std::thread::spawn(move || send(&sends));
    std::thread::spawn(move || echo(&echoes));
    wait_for_end();
}

/// Until whoever started this program is gone.
pub fn wait_for_end() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Its backlog is longer than what std asks for.
fn listening() -> (OwnedFd, SocketAddr) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    sockopt::set_tcp_nodelay(&socket, true).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&socket, 4096).unwrap();
    let address = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
    (socket, address)
}

/// A thread for each connection, which ends when nobody reads any more.
fn send(listener: &TcpListener) {
    for stream in listener.incoming().map(Result::unwrap) {
        std::thread::spawn(move || send_to(stream));
    }
}

fn send_to(mut stream: TcpStream) {
    let chunk = vec![b'x'; CHUNK];
    while stream.write_all(&chunk).is_ok() {}
}

/// One thread for all connections.
fn echo(listener: &OwnedFd) {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    epoll::add(&poll, listener, epoll::EventData::new_u64(u64::MAX), epoll::EventFlags::IN).unwrap();
    let mut clients: Vec<Option<OwnedFd>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let (mut events, mut buffer) = (Vec::with_capacity(256), vec![0; 64 << 10]);
    loop {
        epoll::wait(&poll, spare_capacity(&mut events), None).unwrap();
        for event in events.drain(..) {
            let place = event.data.u64();
            if place == u64::MAX {
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                while let Ok(client) = rustix::net::accept_with(listener, flags) {
                    let place = free.pop().unwrap_or_else(|| {
                        clients.push(None);
                        clients.len() - 1
                    });
                    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
                    epoll::add(&poll, &client, epoll::EventData::new_u64(place as u64), flags).unwrap();
                    clients[place] = Some(client);
                }
                continue;
            }
            let place = usize::try_from(place).unwrap();
            let Some(client) = &clients[place] else { continue };
            if !answer(client, &mut buffer) {
                clients[place] = None;
                free.push(place);
            }
        }
    }
}

/// Whether the client is still there.
fn answer(client: impl AsFd, buffer: &mut [u8]) -> bool {
    match rustix::net::recv(&client, &mut *buffer, RecvFlags::empty()) {
        Ok((0, _)) => false,
        Ok((count, _)) => rustix::net::send(&client, &buffer[..count], SendFlags::NOSIGNAL).is_ok(),
        Err(error) => error == rustix::io::Errno::AGAIN,
    }
}
