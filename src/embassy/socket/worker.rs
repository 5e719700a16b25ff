//! A thread of the embassy: everything that happens to its connections, one event after the other.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::super::choose::Candidate;
use super::super::slots::{Slots, Token};
use super::super::state::{Backend, Moment, NEVER};
use super::relay::{CLIENT, Desk, ENDPOINT, Link, Phase, Step};
use super::shared::{Seat, Shared, WAKE};
use super::turns::Turns;
use super::udp::Datagrams;
use super::{keep_watch, will_reset};

/// Events that are taken at once.
const EVENTS: usize = 256;
/// How long both sides of a connection that is ended may take to close, in milliseconds.
const GOODBYE: u64 = 2000;
/// How long a connection lives until its peers are watched, in milliseconds,
const YOUNG: Moment = 3000;
/// and up to so much longer: a thread that has nothing else to do does not wake for each of them.
const TOGETHER: Moment = 100;
/// How long a thread that can accept nobody waits until it tries again, in milliseconds.
pub const PAUSE: u64 = 100;

/// What the first two bits of an event's number mean.
const LISTENER: u64 = 0;
const SIDE_OF_CLIENT: u64 = 1;
/// Two is the endpoint's side.
const FLOW: u64 = 3;
const KIND: u32 = 62;

/// The number of a port's events.
pub fn listener(id: u32) -> u64 {
    LISTENER << KIND | u64::from(id)
}

/// The number of a flow's events; none is [`WAKE`], whose place is that of more flows than there can be.
pub fn flow(token: Token) -> u64 {
    FLOW << KIND | token.number()
}

/// When the peers of a connection that begins now are watched.
fn watched_at(now: Moment) -> Moment {
    (now + YOUNG).next_multiple_of(TOGETHER)
}

/// A thread.
pub struct Worker {
    pub(super) own: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) links: Slots<Link>,
    /// When something is due for a connection.
    pub(super) timers: BTreeSet<(Moment, Token)>,
    pub(super) candidates: Vec<Candidate>,
    /// Ports where nobody is accepted for the moment.
    pub(super) paused: Vec<u32>,
    pub(super) resume_at: Moment,
    /// Sockets for the next connection by family: who is accepted has one.
    pub(super) ready: [Option<OwnedFd>; 2],
    pub(super) datagrams: Datagrams,
    pub(super) now: Moment,
    desk: Desk,
    /// Connections whose peers are not watched yet, and when they are to be.
    young: VecDeque<(Moment, Token)>,
    /// Connections that have more to carry.
    queue: Vec<Token>,
}

impl Worker {
    /// The thread that has this seat; its flows end when they have been idle for so many milliseconds.
    pub fn new(own: usize, shared: Arc<Shared>, idle: Moment) -> Self {
        let datagrams = Datagrams::new(shared.most_files / 4 / shared.seats.len(), idle);
        Self {
            own,
            shared,
            links: Slots::default(),
            timers: BTreeSet::new(),
            candidates: Vec::new(),
            paused: Vec::new(),
            resume_at: NEVER,
            ready: [None, None],
            datagrams,
            now: 0,
            desk: Desk::default(),
            young: VecDeque::new(),
            queue: Vec::new(),
        }
    }

    /// Serves until it is told to stop. What is open then is the answer.
    pub fn run(mut self) -> Vec<Link> {
        let shared = self.shared.clone();
        let seat = &shared.seats[self.own];
        let (mut events, mut turns) = (Vec::with_capacity(EVENTS), Turns::default());
        self.now = shared.now();
        while !shared.stop.load(SeqCst) {
            turns.look(self.now);
            let timeout = self.timeout(seat);
            match epoll::wait(&seat.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "a thread of the embassy cannot wait for events");
                    break;
                }
            }
            self.now = shared.now();
            for event in events.drain(..) {
                self.handle(seat, event.data.u64(), event.flags);
            }
            self.carry_queued();
            self.look_around(seat);
        }
        self.links.into_values().collect()
    }

    /// What an event is about.
    fn handle(&mut self, seat: &Seat, number: u64, flags: epoll::EventFlags) {
        let token = Token::of(number);
        match number >> KIND {
            _ if number == WAKE => self.take_handed(seat),
            LISTENER if number & 1 << 16 == 0 => self.accept(seat, number as u32),
            LISTENER => self.receive(seat, number as u32),
            FLOW => self.answer(seat, token),
            SIDE_OF_CLIENT => self.happened(token, CLIENT, flags),
            _ => self.happened(token, ENDPOINT, flags),
        }
    }

    fn happened(&mut self, token: Token, side: usize, flags: epoll::EventFlags) {
        let Some(link) = self.links.get_mut(token) else { return };
        link.note(side, flags);
        match link.phase {
            Phase::Connecting { until } => {
                let is_bad = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
                if side == CLIENT && is_bad {
                    self.close(token, Step::Broken);
                } else if side == ENDPOINT && is_bad {
                    let error = sockopt::socket_error(&link.sides[ENDPOINT].socket).ok().and_then(Result::err);
                    self.timers.remove(&(until, token));
                    self.failed(token, error.unwrap_or(Errno::CONNREFUSED));
                } else if side == ENDPOINT && flags.contains(epoll::EventFlags::OUT) {
                    self.timers.remove(&(until, token));
                    self.connected(token);
                }
            }
            Phase::Open => self.carry(token),
            Phase::Ending { .. } => self.discard(token),
        }
    }

    /// The endpoint has accepted.
    fn connected(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        if link.backend.is_leaving() {
            // It was taken out meanwhile: nobody new reaches it.
            self.failed(token, Errno::CANCELED);
            return;
        }
        link.backend.total.fetch_add(1, Relaxed);
        link.tried = Vec::new();
        link.phase = Phase::Open;
        self.watch_later(token);
        self.carry(token);
    }

    fn carry(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        let step = link.carry(&mut self.desk, &self.shared.kept);
        self.then(token, step);
    }

    fn discard(&mut self, token: Token) {
        let Some(link) = self.links.get_mut(token) else { return };
        let step = link.discard(&mut self.desk);
        self.then(token, step);
    }

    fn then(&mut self, token: Token, step: Step) {
        match step {
            Step::Waits => {}
            Step::More => {
                if let Some(link) = self.links.get_mut(token).filter(|link| !link.is_queued) {
                    link.is_queued = true;
                    self.queue.push(token);
                }
            }
            Step::Over | Step::Broken => self.close(token, step),
        }
    }

    fn carry_queued(&mut self) {
        for token in std::mem::take(&mut self.queue) {
            let Some(link) = self.links.get_mut(token) else { continue };
            link.is_queued = false;
            match link.phase {
                Phase::Connecting { .. } => {}
                Phase::Open => self.carry(token),
                Phase::Ending { .. } => self.discard(token),
            }
        }
    }

    /// Closes both sockets, by resets when it is broken.
    pub(super) fn close(&mut self, token: Token, step: Step) {
        let Some(link) = self.links.remove(token) else { return };
        if step == Step::Broken {
            link.sides.iter().for_each(|side| will_reset(&side.socket));
        }
        if let Phase::Connecting { until } | Phase::Ending { until } = link.phase {
            self.timers.remove(&(until, token));
        }
        self.shared.kept.fetch_sub(link.kept(), Relaxed);
        link.backend.open.fetch_sub(1, Relaxed);
        self.left(2);
        self.shared.seats[self.own].open.fetch_sub(1, Relaxed);
    }

    /// Files were given back: whoever waits may come in.
    pub(super) fn left(&mut self, files: usize) {
        self.shared.files.fetch_sub(files, Relaxed);
        if !self.paused.is_empty() {
            self.resume_at = self.now;
        }
    }

    /// Until something is due; no time at all while connections have more to carry.
    fn timeout(&self, seat: &Seat) -> Option<Timespec> {
        let now = if self.queue.is_empty() { NEVER } else { self.now };
        let timer = self.timers.first().map_or(NEVER, |(due, _)| *due);
        let due = now
            .min(timer)
            .min(self.young.front().map_or(NEVER, |(due, _)| *due))
            .min(self.resume_at)
            .min(self.datagrams.due())
            .min(seat.ends_at.load(SeqCst));
        let left = due.saturating_sub(self.now);
        (due != NEVER).then(|| Timespec {
            tv_sec: i64::try_from(left / 1000).unwrap_or(i64::MAX),
            tv_nsec: (left % 1000 * 1_000_000) as _,
        })
    }

    /// Does what is due by now.
    fn look_around(&mut self, seat: &Seat) {
        while let Some((due, token)) = self.timers.first().copied().filter(|(due, _)| *due <= self.now) {
            self.timers.remove(&(due, token));
            match self.links.get(token).map(|link| link.phase) {
                Some(Phase::Connecting { .. }) => self.failed(token, Errno::TIMEDOUT),
                Some(Phase::Ending { .. }) => self.close(token, Step::Over),
                Some(Phase::Open) | None => {}
            }
        }
        self.watch_young();
        if seat.ends_at.load(SeqCst) <= self.now {
            self.end_leaving(seat);
        }
        if self.resume_at <= self.now {
            self.resume(seat);
        }
        if self.datagrams.due() <= self.now {
            self.expire();
        }
    }

    /// Has the peers of a connection be watched when it stays.
    pub(super) fn watch_later(&mut self, token: Token) {
        self.young.push_back((watched_at(self.now), token));
    }

    /// Has the peers of connections that stayed be watched; when they are many, others have their turn in between.
    fn watch_young(&mut self) {
        for _ in 0..EVENTS {
            let Some((_, token)) = self.young.pop_front_if(|(due, _)| *due <= self.now) else { return };
            for side in self.links.get(token).iter().flat_map(|link| &link.sides) {
                // A socket that is gone already needs no watch.
                let _ = keep_watch(&side.socket);
            }
        }
    }

    /// Ends the connections whose endpoint was taken out and has had its time.
    fn end_leaving(&mut self, seat: &Seat) {
        seat.ends_at.store(NEVER, SeqCst);
        let mut next = NEVER;
        let now = self.now;
        let mut is_due = |backend: &Backend| {
            let ends_at = backend.ends_at.load(SeqCst);
            if ends_at > now {
                next = next.min(ends_at);
            }
            ends_at <= now
        };
        let is_open = |link: &Link| matches!(link.phase, Phase::Open);
        let due: Vec<Token> = self
            .links
            .iter()
            .filter(|(_, link)| is_open(link) && is_due(&link.backend))
            .map(|(token, _)| token)
            .collect();
        let flows = self.datagrams.those(&mut is_due);
        for token in due {
            let until = now + GOODBYE;
            if let Some(link) = self.links.get_mut(token) {
                link.end(until);
                self.timers.insert((until, token));
                self.discard(token);
            }
        }
        flows.into_iter().for_each(|token| self.end_flow(token));
        if next != NEVER {
            seat.ends_at.fetch_min(next, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_at_about_the_same_time_is_watched_at_the_same_time() {
        let mut times: Vec<Moment> = (0..1000).map(watched_at).collect();
        for (now, at) in times.iter().enumerate() {
            assert!((YOUNG..YOUNG + TOGETHER).contains(&(at - now as Moment)), "{now} {at}");
        }
        times.dedup();
        assert!(times.len() <= 11, "{times:?}");
    }
}
