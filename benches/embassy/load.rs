//! Clients: connections, requests and bulk, as fast as they are served, and requests at a pace.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

/// A request, which is its own answer.
const REQUEST: [u8; 64] = [b'q'; 64];

/// Gbit per second over so many streams. What arrives is counted and not copied, so that the client costs little.
pub fn bulk(to: SocketAddr, streams: usize, length: Duration) -> f64 {
    let (total, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..streams {
            scope.spawn(|| {
                let (stream, mut buffer) = (TcpStream::connect(to).unwrap(), vec![0; 1 << 20]);
                while !is_over.load(Relaxed) {
                    let (_, count) = rustix::net::recv(&stream, &mut buffer[..], RecvFlags::TRUNC).unwrap();
                    assert!(count > 0, "{to} has ended the stream");
                    total.fetch_add(count as u64, Relaxed);
                }
            });
        }
        // The streams take a moment to reach their pace.
        std::thread::sleep(length / 4);
        let (began, before) = (Instant::now(), total.load(Relaxed));
        std::thread::sleep(length);
        let bits = (total.load(Relaxed) - before) as f64 * 8.0;
        let speed = bits / began.elapsed().as_secs_f64() / 1e9;
        is_over.store(true, Relaxed);
        speed
    })
}

/// What becomes of a connection when its answer is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The next request goes over it.
    Ask,
    /// It is closed, and the next request has one of its own.
    Close,
}

/// A connection of the load.
struct Client {
    socket: OwnedFd,
    has_asked: bool,
    answered: usize,
}

impl Client {
    fn connect(poll: &OwnedFd, place: usize, to: SocketAddr) -> Self {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        sockopt::set_tcp_nodelay(&socket, true).unwrap();
        match rustix::net::connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => panic!("{to}: {error}"),
        }
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(poll, &socket, epoll::EventData::new_u64(place as u64), flags).unwrap();
        Self { socket, has_asked: false, answered: 0 }
    }

    fn ask(&mut self) {
        match rustix::net::send(&self.socket, &REQUEST, SendFlags::NOSIGNAL) {
            Ok(count) => assert_eq!(count, REQUEST.len()),
            Err(error) => panic!("cannot ask: {error}"),
        }
        (self.has_asked, self.answered) = (true, 0);
    }

    /// Whether the answer is whole.
    fn hear(&mut self) -> bool {
        let mut buffer = [0; REQUEST.len()];
        match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((0, _)) => panic!("closed before the answer"),
            Ok((count, _)) => self.answered += count,
            Err(Errno::AGAIN) => {}
            Err(error) => panic!("no answer: {error}"),
        }
        self.answered == REQUEST.len()
    }
}

/// Requests per second over so many connections at once, from one thread.
pub fn requests(to: SocketAddr, connections: usize, after: After, length: Duration) -> f64 {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let mut clients: Vec<Client> = (0..connections).map(|place| Client::connect(&poll, place, to)).collect();
    let mut events = Vec::with_capacity(256);
    let (warm, mut done) = (Instant::now() + length / 4, 0_u64);
    let mut began = None;
    loop {
        let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
        epoll::wait(&poll, spare_capacity(&mut events), Some(&patience)).unwrap();
        assert!(!events.is_empty(), "{to} answers nobody");
        for event in events.drain(..) {
            let place = usize::try_from(event.data.u64()).unwrap();
            let client = &mut clients[place];
            let flags = event.flags;
            if !client.has_asked && flags.contains(epoll::EventFlags::OUT) {
                client.ask();
            } else if client.has_asked && flags.contains(epoll::EventFlags::IN) && client.hear() {
                done += 1;
                match after {
                    After::Ask => client.ask(),
                    After::Close => *client = Client::connect(&poll, place, to),
                }
            }
        }
        let now = Instant::now();
        match began {
            None if now >= warm => (began, done) = (Some(now), 0),
            Some(began) if now >= began + length => return done as f64 / (now - began).as_secs_f64(),
            _ => {}
        }
    }
}

/// The 99th percentile in microseconds of requests at this pace from eight threads.
pub fn p99(to: SocketAddr, after: After, per_second: f64, length: Duration) -> f64 {
    const THREADS: usize = 8;
    let step = Duration::from_secs_f64(THREADS as f64 / per_second);
    let began = Instant::now() + Duration::from_millis(50);
    let threads: Vec<_> = (0..THREADS)
        .map(|own| {
            let first = began + step * u32::try_from(own).unwrap() / u32::try_from(THREADS).unwrap();
            std::thread::spawn(move || at_pace(to, after, first, step, length))
        })
        .collect();
    let mut all: Vec<f64> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() * 99 / 100]
}

fn at_pace(to: SocketAddr, after: After, first: Instant, step: Duration, length: Duration) -> Vec<f64> {
    let (mut times, mut kept, mut due) = (Vec::new(), None, first);
    while due < first + length {
        let early = due.saturating_duration_since(Instant::now());
        std::thread::sleep(early);
        // Who was ready in time did not wait before it slept; who was late has waited since.
        let began = if early.is_zero() { due } else { Instant::now() };
        let mut stream = kept.take().unwrap_or_else(|| connect(to));
        stream.write_all(&REQUEST).unwrap();
        stream.read_exact(&mut [0; REQUEST.len()]).unwrap();
        times.push(began.elapsed().as_secs_f64() * 1e6);
        if after == After::Ask {
            kept = Some(stream);
        }
        due += step;
    }
    times
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// So many connections, each of which has been used once.
pub fn idle(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let one = |_| {
        let mut stream = connect(to);
        stream.write_all(b"?").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream
    };
    (0..count).map(one).collect()
}
