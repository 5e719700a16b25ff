//! One connection: a client's side, an endpoint's side, and the two ways between them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::super::legacy::{self, Left, Reached};
use super::super::state::{Backend, Moment, port};
use crate::units::Millis;

/// The client's side of a connection.
pub const CLIENT: usize = 0;
/// The endpoint's.
pub const ENDPOINT: usize = 1;

/// How much is read at once: large enough that bulk costs few calls, small enough to stay in a processor's cache.
const BUFFER: usize = 256 << 10;
/// The same while slow peers have left more than `MOST_KEPT` behind.
const SMALL: usize = 4 << 10;
/// Bytes kept for slow peers in all threads before less is read at once.
const MOST_KEPT: usize = 32 << 20;
/// How often one way is carried on before others have their turn.
const ROUNDS: usize = 4;

/// A connection.
#[derive(Debug)]
pub struct Link {
    /// The number of its port.
    pub id: u32,
    /// Both sockets.
    pub sides: [Side; 2],
    /// From the client and from the endpoint.
    ways: [Way; 2],
    /// How far it is.
    pub phase: Phase,
    /// Whom it leads to.
    pub backend: Arc<Backend>,
    /// Those that did not accept.
    pub tried: Vec<Arc<Backend>>,
    /// It waits for its turn.
    pub is_queued: bool,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The endpoint has until then to accept.
    Connecting {
        /// That moment.
        until: Moment,
    },
    /// Both sides are there.
    Open,
    /// Both were told that it is over; what they still say is thrown away until they have closed too, or until then.
    Ending {
        /// That moment.
        until: Moment,
    },
}

/// One side's socket, and what is known of it.
#[derive(Debug)]
pub struct Side {
    /// The socket.
    pub socket: OwnedFd,
    /// There may be something to read.
    is_readable: bool,
    /// There may be room to write.
    is_writable: bool,
    /// A read that finds less than it could take does not mean that there is no more: an end or an urgent byte follows.
    is_special: bool,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    /// What the other side has not taken yet, from `start` on.
    rest: Vec<u8>,
    start: usize,
    /// The end was read and passed on.
    is_over: bool,
}

/// What a thread carries with.
#[derive(Debug)]
pub struct Desk {
    buffer: Vec<u8>,
    /// Empty ones that slow peers have left: the next slow one's rest needs no new memory.
    spare: Vec<Vec<u8>>,
}

/// What has become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It goes on when something happens.
    Waits,
    /// There is more to carry.
    More,
    /// Both sides have ended.
    Over,
    /// One side was reset, or is gone.
    Broken,
}

impl Default for Desk {
    fn default() -> Self {
        Self { buffer: vec![0; BUFFER], spare: Vec::new() }
    }
}

/// Rests of this size are kept for the next.
const SPARE: usize = 16;

impl Side {
    /// A socket nothing is known of.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, is_readable: false, is_writable: true, is_special: false }
    }

    fn note(&mut self, flags: EventFlags) {
        const READ: EventFlags = EventFlags::IN.union(SPECIAL);
        const SPECIAL: EventFlags =
            EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR).union(EventFlags::PRI);
        const WRITE: EventFlags = EventFlags::OUT.union(EventFlags::HUP).union(EventFlags::ERR);
        self.is_readable |= flags.intersects(READ);
        self.is_special |= flags.intersects(SPECIAL);
        self.is_writable |= flags.intersects(WRITE);
    }
}

impl Link {
    /// A connection to an endpoint that has not accepted yet.
    pub fn new(id: u32, client: OwnedFd, endpoint: OwnedFd, backend: Arc<Backend>, until: Moment) -> Self {
        Self {
            id,
            sides: [Side::new(client), Side::new(endpoint)],
            ways: Default::default(),
            phase: Phase::Connecting { until },
            backend,
            tried: Vec::new(),
            is_queued: false,
        }
    }

    /// A connection that a predecessor has left, to the endpoint that it reached.
    pub fn again(id: u32, client: OwnedFd, reached: Reached, backend: Arc<Backend>) -> Self {
        let way = |way: legacy::Way| Way { rest: way.rest, start: 0, is_over: way.is_over };
        Self {
            id,
            sides: [Side::new(client), Side::new(reached.socket)],
            ways: reached.ways.map(way),
            phase: Phase::Open,
            backend,
            tried: Vec::new(),
            is_queued: false,
        }
    }

    /// What a successor needs to carry it on, for so long where its endpoint has left by then; `None` for one that ends.
    pub fn leave(self, stays: Millis) -> Option<Left> {
        let (port, [client, endpoint]) = (port(self.id), self.sides);
        let way = |way: Way| legacy::Way { rest: way.rest[way.start..].to_vec(), is_over: way.is_over };
        let reached = match self.phase {
            Phase::Connecting { .. } => None,
            Phase::Open => Some(Reached {
                socket: endpoint.socket,
                address: self.backend.address,
                container: self.backend.container.clone(),
                stays,
                ways: self.ways.map(way),
            }),
            Phase::Ending { .. } => return None,
        };
        Some(Left { port, client: client.socket, reached })
    }

    /// Something has happened at a side.
    pub fn note(&mut self, side: usize, flags: EventFlags) {
        self.sides[side].note(flags);
    }

    /// Carries what there is to carry, in both directions.
    pub fn carry(&mut self, desk: &mut Desk, kept: &AtomicUsize) -> Step {
        let mut steps = [Step::Waits; 2];
        for from in [CLIENT, ENDPOINT] {
            steps[from] = match self.carry_from(from, desk, kept) {
                Ok(step) => step,
                Err(_) => return Step::Broken,
            };
        }
        if self.ways.iter().all(|way| way.is_over) {
            Step::Over
        } else if steps.contains(&Step::More) {
            Step::More
        } else {
            Step::Waits
        }
    }

    fn carry_from(&mut self, from: usize, desk: &mut Desk, kept: &AtomicUsize) -> Result<Step, Errno> {
        for _ in 0..ROUNDS {
            if !self.ways[from].rest.is_empty() {
                if !self.sides[1 - from].is_writable || !self.send_rest(from, desk, kept)? {
                    return Ok(Step::Waits);
                }
                continue;
            }
            if !self.sides[from].is_readable || self.ways[from].is_over {
                return Ok(Step::Waits);
            }
            self.read(from, desk, kept)?;
        }
        Ok(Step::More)
    }

    /// Reads once and writes what came.
    fn read(&mut self, from: usize, desk: &mut Desk, kept: &AtomicUsize) -> Result<(), Errno> {
        let size = if kept.load(Relaxed) < MOST_KEPT { BUFFER } else { SMALL };
        let side = &mut self.sides[from];
        match rustix::net::recv(&side.socket, &mut desk.buffer[..size], RecvFlags::empty()) {
            Ok((0, _)) => {
                self.ways[from].is_over = true;
                // Where the other way is over too, both sockets are closed, which says the same.
                if !self.ways[1 - from].is_over {
                    match rustix::net::shutdown(&self.sides[1 - from].socket, Shutdown::Write) {
                        Ok(()) | Err(Errno::NOTCONN) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
            Ok((count, _)) => {
                side.is_readable = count == size || side.is_special;
                self.backend.bytes[from].fetch_add(count as u64, Relaxed);
                self.write(from, count, desk, kept)
            }
            Err(Errno::AGAIN) => {
                (side.is_readable, side.is_special) = (false, false);
                Ok(())
            }
            Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes so much of the desk's buffer to the other side, and keeps what that does not take.
    fn write(&mut self, from: usize, count: usize, desk: &mut Desk, kept: &AtomicUsize) -> Result<(), Errno> {
        let to = &mut self.sides[1 - from];
        let sent = send(&to.socket, &desk.buffer[..count])?;
        if sent < count {
            // Writing less than there was marks the socket, too: the kernel tells when there is room again.
            to.is_writable = false;
            let way = &mut self.ways[from];
            way.rest = desk.spare.pop().unwrap_or_default();
            way.rest.extend_from_slice(&desk.buffer[sent..count]);
            way.start = 0;
            kept.fetch_add(way.rest.len(), Relaxed);
        }
        Ok(())
    }

    /// Writes what was kept; whether all of it went.
    fn send_rest(&mut self, from: usize, desk: &mut Desk, kept: &AtomicUsize) -> Result<bool, Errno> {
        let (to, way) = (&mut self.sides[1 - from], &mut self.ways[from]);
        way.start += send(&to.socket, &way.rest[way.start..])?;
        if way.start < way.rest.len() {
            to.is_writable = false;
            return Ok(false);
        }
        kept.fetch_sub(way.rest.len(), Relaxed);
        desk.give_back(std::mem::take(&mut way.rest));
        Ok(true)
    }

    /// Tells both sides that it is over.
    pub fn end(&mut self, until: Moment) {
        for (side, way) in self.sides.iter().zip([1, 0]) {
            if !self.ways[way].is_over {
                // One that is gone already need not be told.
                let _ = rustix::net::shutdown(&side.socket, Shutdown::Write);
            }
        }
        self.phase = Phase::Ending { until };
    }

    /// Throws away what comes after the end.
    pub fn discard(&mut self, desk: &mut Desk) -> Step {
        for (side, way) in self.sides.iter_mut().zip(&mut self.ways) {
            for _ in 0..ROUNDS {
                if way.is_over || !side.is_readable {
                    break;
                }
                match rustix::net::recv(&side.socket, &mut desk.buffer[..], RecvFlags::empty()) {
                    Ok((0, _)) => way.is_over = true,
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => side.is_readable = false,
                    Err(_) => return Step::Broken,
                }
            }
        }
        if self.ways.iter().all(|way| way.is_over) {
            Step::Over
        } else if self.sides.iter().zip(&self.ways).any(|(side, way)| side.is_readable && !way.is_over) {
            Step::More
        } else {
            Step::Waits
        }
    }

    /// Bytes that it keeps for slow peers, which go with it.
    pub fn kept(&self) -> usize {
        self.ways.iter().map(|way| way.rest.len()).sum()
    }
}

/// Writes what a socket takes.
fn send(socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    match rustix::io::retry_on_intr(|| rustix::net::send(socket, bytes, SendFlags::NOSIGNAL)) {
        Err(Errno::AGAIN) => Ok(0),
        sent => sent,
    }
}

impl Desk {
    fn give_back(&mut self, mut rest: Vec<u8>) {
        if self.spare.len() < SPARE {
            rest.clear();
            self.spare.push(rest);
        }
    }
}
