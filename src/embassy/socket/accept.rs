//! Clients that come in, and the way to an endpoint that accepts them.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use rustix::event::epoll;
use rustix::io::Errno;

use super::super::slots::Token;
use super::super::state::{Backend, Entry, Moment, NEVER};
use super::relay::{CLIENT, ENDPOINT, Link, Phase, Side, Step};
use super::shared::{Handed, Seat};
use super::worker::{PAUSE, Worker, listener};
use super::{FLAGS, is_short, stream, will_reset};

/// Clients that are accepted before others have their turn.
const BURST: usize = 32;
/// Most endpoints tried for one client.
const TRIES: usize = 5;
/// How long an endpoint that refused a connection comes after others, in milliseconds.
const REST: u64 = 1000;
/// The same for one that did not answer at all: its server may be lost, and each try costs a client the connect time.
const LONG_REST: u64 = 10_000;
/// How often it is said that there are no files left, in milliseconds.
const TELL: u64 = 10_000;

/// Everything that happens to a connection's socket, as it happens.
const ALL: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::OUT)
    .union(epoll::EventFlags::RDHUP)
    .union(epoll::EventFlags::PRI)
    .union(epoll::EventFlags::ET);

/// A thread waits for a port's clients; of those that wait, the kernel wakes one.
pub fn wait_for_clients(seat: &Seat, socket: &OwnedFd, id: u32) -> Result<(), Errno> {
    let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
    epoll::add(&seat.epoll, socket, epoll::EventData::new_u64(listener(id)), flags)
}

/// How an endpoint answered for now.
enum Attempt {
    Begun(OwnedFd),
    Failed(Errno),
}

impl Worker {
    /// Accepts clients of a port.
    pub(super) fn accept(&mut self, seat: &Seat, id: u32) {
        let entries = seat.entries();
        let Some(entry) = entries.get(&id) else { return };
        for _ in 0..BURST {
            // Who cannot be served waits in the kernel, and may be accepted by another thread.
            if let Err(error) = self.make_ready(entry) {
                return self.pause(seat, entry, id, error);
            }
            let (client, from) = match rustix::net::acceptfrom_with(&*entry.socket, FLAGS) {
                Ok(accepted) => accepted,
                Err(Errno::AGAIN) => return,
                Err(error) if is_short(error) => return self.pause(seat, entry, id, error),
                // That one was gone already.
                Err(_) => continue,
            };
            let from = from.and_then(|from| SocketAddr::try_from(from).ok());
            if !from.is_some_and(|from| entry.allows(from.ip())) {
                entry.tally.refused.fetch_add(1, Relaxed);
                will_reset(&client);
                continue;
            }
            // Its two files count from now on, whichever thread it is for.
            self.shared.files.fetch_add(2, Relaxed);
            if let Some(other) = self.shared.lighter(self.own) {
                let ready = self.ready[usize::from(entry.is_ipv6())].take();
                self.shared.seats[other].hand(Handed::Client { id, client, ready });
            } else {
                seat.open.fetch_add(1, Relaxed);
                self.begin(seat, entry, id, client);
            }
        }
    }

    /// Serves clients and connections that others had.
    pub(super) fn take_handed(&mut self, seat: &Seat) {
        for handed in seat.handed() {
            match handed {
                Handed::Client { id, client, ready } => self.take_client(seat, id, client, ready),
                Handed::Link(link) => {
                    // Its endpoint may have left meanwhile.
                    seat.ends_at.fetch_min(link.backend.ends_at.load(SeqCst), SeqCst);
                    let token = self.enter(seat, *link);
                    // It may have been too young for that until now.
                    self.watch_later(token);
                }
            }
        }
    }

    fn take_client(&mut self, seat: &Seat, id: u32, client: OwnedFd, ready: Option<OwnedFd>) {
        let entries = seat.entries();
        match entries.get(&id) {
            Some(entry) => {
                self.ready[usize::from(entry.is_ipv6())] = ready;
                self.begin(seat, entry, id, client);
            }
            None => {
                will_reset(&client);
                self.nobody(seat);
            }
        }
    }

    /// Has a socket ready for the next client's endpoint.
    fn make_ready(&mut self, entry: &Entry) -> Result<(), Errno> {
        let ready = &mut self.ready[usize::from(entry.is_ipv6())];
        if !self.shared.has_room(2) {
            return Err(Errno::MFILE);
        }
        if ready.is_none() {
            *ready = Some(stream(entry.is_ipv6())?);
        }
        Ok(())
    }

    /// Leads a client to an endpoint.
    fn begin(&mut self, seat: &Seat, entry: &Entry, id: u32, client: OwnedFd) {
        let mut tried = Vec::new();
        let Some((socket, backend)) = self.attempt(entry, &mut tried) else {
            entry.tally.unserved.fetch_add(1, Relaxed);
            will_reset(&client);
            self.nobody(seat);
            return;
        };
        let until = self.now + entry.connect;
        let mut link = Link::new(id, client, socket, backend, until);
        link.tried = tried;
        let token = self.enter(seat, link);
        self.timers.insert((until, token));
    }

    /// Has a connection among those of this thread.
    fn enter(&mut self, seat: &Seat, link: Link) -> Token {
        let token = self.links.insert(link);
        let Some(link) = self.links.get(token) else { return token };
        let both = watch(seat, link, ENDPOINT, token).and_then(|()| watch(seat, link, CLIENT, token));
        if let Err(error) = both {
            tracing::warn!(%error, "the embassy cannot watch a connection");
            self.close(token, Step::Broken);
        }
        token
    }

    /// A client was led nowhere.
    fn nobody(&mut self, seat: &Seat) {
        seat.open.fetch_sub(1, Relaxed);
        self.left(2);
    }

    /// Begins to connect to an endpoint that was not tried, to the next one where that fails at once; `None` when none
    /// is left.
    fn attempt(&mut self, entry: &Entry, tried: &mut Vec<Arc<Backend>>) -> Option<(OwnedFd, Arc<Backend>)> {
        while tried.len() < TRIES {
            let backend = entry.take(tried, self.now, &mut self.candidates)?;
            match self.connect(&backend) {
                Attempt::Begun(socket) => return Some((socket, backend)),
                Attempt::Failed(error) => {
                    hold_against(&backend, error, self.now);
                    backend.open.fetch_sub(1, Relaxed);
                    tried.push(backend);
                }
            }
        }
        None
    }

    fn connect(&mut self, backend: &Backend) -> Attempt {
        let is_ipv6 = backend.address.is_ipv6();
        let ready = self.ready[usize::from(is_ipv6)].take();
        let socket = match ready.map_or_else(|| stream(is_ipv6), Ok) {
            Ok(socket) => socket,
            Err(error) => return Attempt::Failed(error),
        };
        match rustix::net::connect(&socket, &backend.address) {
            Ok(()) | Err(Errno::INPROGRESS) => Attempt::Begun(socket),
            Err(error) => Attempt::Failed(error),
        }
    }

    /// The endpoint has not accepted: the next one may.
    pub(super) fn failed(&mut self, token: Token, error: Errno) {
        let shared = self.shared.clone();
        let seat = &shared.seats[self.own];
        let entries = seat.entries();
        let Some(link) = self.links.get_mut(token) else { return };
        hold_against(&link.backend, error, self.now);
        let (id, mut tried) = (link.id, std::mem::take(&mut link.tried));
        // One that was taken out is not to blame, and may be back.
        if error != Errno::CANCELED {
            tried.push(link.backend.clone());
        }
        let found = entries.get(&id).and_then(|entry| Some((entry, self.attempt(entry, &mut tried)?)));
        let Some(link) = self.links.get_mut(token) else { return };
        let Some((entry, (socket, backend))) = found else {
            if let Some(entry) = entries.get(&id) {
                entry.tally.unserved.fetch_add(1, Relaxed);
            }
            return self.close(token, Step::Broken);
        };
        let former = std::mem::replace(&mut link.backend, backend);
        former.open.fetch_sub(1, Relaxed);
        let until = self.now + entry.connect;
        link.sides[ENDPOINT] = Side::new(socket);
        (link.tried, link.phase) = (tried, Phase::Connecting { until });
        self.timers.insert((until, token));
        if let Err(error) = watch(seat, link, ENDPOINT, token) {
            tracing::warn!(%error, "the embassy cannot watch a connection");
            self.close(token, Step::Broken);
        }
    }

    /// Accepts nobody at this port for a moment: the kernel would else say again and again that somebody waits.
    fn pause(&mut self, seat: &Seat, entry: &Entry, id: u32, error: Errno) {
        let told_at = self.shared.told_at.load(Relaxed);
        if told_at == NEVER || told_at + TELL <= self.now {
            self.shared.told_at.store(self.now, Relaxed);
            let (port, most) = (entry.port, self.shared.most_files);
            tracing::warn!(%port, files = most, %error, "the embassy accepts nobody while there are no files left; raise LimitNOFILE of the agent's unit");
        }
        if epoll::delete(&seat.epoll, &*entry.socket).is_ok() {
            self.paused.push(id);
            self.resume_at = self.now + PAUSE;
        }
    }

    /// Accepts again.
    pub(super) fn resume(&mut self, seat: &Seat) {
        self.resume_at = NEVER;
        let entries = seat.entries();
        for id in std::mem::take(&mut self.paused) {
            let Some(entry) = entries.get(&id) else { continue };
            match wait_for_clients(seat, &entry.socket, id) {
                // One that went and came back is waited for already.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(_) => {
                    self.paused.push(id);
                    self.resume_at = self.now + PAUSE;
                }
            }
        }
    }
}

/// Has the thread told what happens at a side.
fn watch(seat: &Seat, link: &Link, side: usize, token: Token) -> Result<(), Errno> {
    let data = epoll::EventData::new_u64((side as u64 + 1) << 62 | token.number());
    epoll::add(&seat.epoll, &link.sides[side].socket, data, ALL)
}

/// What an endpoint that did not accept has to bear. What this machine lacks is not its fault.
pub fn hold_against(backend: &Backend, error: Errno, now: Moment) {
    let rest = match error {
        Errno::CANCELED => return,
        error if is_short(error) => return,
        Errno::ADDRNOTAVAIL | Errno::ACCESS | Errno::PERM => 0,
        Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN => LONG_REST,
        _ => REST,
    };
    backend.failed.fetch_add(1, Relaxed);
    if rest > 0 {
        backend.rests_until.store(now + rest, Relaxed);
    }
}
