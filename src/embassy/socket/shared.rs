//! What the threads of an embassy share, and how they are woken.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::super::state::{Entries, Moment, NEVER};
use super::relay::Link;

/// Files of this process that are left to everything else in it.
const FOR_OTHERS: u64 = 1024;

/// All threads.
#[derive(Debug)]
pub struct Shared {
    began: Instant,
    /// By thread.
    pub seats: Vec<Seat>,
    /// It is over.
    pub stop: AtomicBool,
    /// Files of connections and flows.
    pub files: AtomicUsize,
    /// How many of them there may be.
    pub most_files: usize,
    /// Bytes that slow peers have not taken yet.
    pub kept: AtomicUsize,
    /// When it was last said that there are no files left.
    pub told_at: AtomicU64,
}

/// How a thread is reached.
#[derive(Debug)]
pub struct Seat {
    /// What it waits with.
    pub epoll: OwnedFd,
    wake: OwnedFd,
    entries: Mutex<Arc<Entries>>,
    inbox: Mutex<Vec<Handed>>,
    /// Its connections.
    pub open: AtomicUsize,
    /// When connections are next to end, because their endpoint was taken out.
    pub ends_at: AtomicU64,
}

/// What a thread is given.
#[derive(Debug)]
pub enum Handed {
    /// A client that another thread, or a predecessor, has accepted.
    Client {
        /// At which port.
        id: u32,
        /// Its connection.
        client: OwnedFd,
        /// A socket for its endpoint.
        ready: Option<OwnedFd>,
    },
    /// A connection of a predecessor.
    Link(Box<Link>),
}

/// What a thread's eventfd is known by.
pub const WAKE: u64 = u64::MAX;

impl Shared {
    /// For so many threads and files.
    pub fn new(threads: usize, files: Option<usize>) -> Result<Self, Errno> {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        // Where files are few, most are still for connections.
        let most = limit.saturating_sub(FOR_OTHERS.min(limit / 8));
        Ok(Self {
            began: Instant::now(),
            seats: (0..threads).map(|_| Seat::new()).collect::<Result<_, Errno>>()?,
            stop: AtomicBool::new(false),
            files: AtomicUsize::new(0),
            most_files: files.unwrap_or(usize::try_from(most).unwrap_or(usize::MAX)),
            kept: AtomicUsize::new(0),
            told_at: AtomicU64::new(NEVER),
        })
    }

    /// This moment.
    pub fn now(&self) -> Moment {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    /// The thread with the fewest connections, when it has so many fewer that handing over is worth it.
    pub fn lighter(&self, own: usize) -> Option<usize> {
        let open = self.seats[own].open.load(Relaxed);
        let (place, least) = self.lightest();
        (open > least + 1 + least / 4).then_some(place)
    }

    /// The thread with the fewest connections, and how many it has.
    pub fn lightest(&self) -> (usize, usize) {
        let open = self.seats.iter().map(|seat| seat.open.load(Relaxed));
        open.enumerate().min_by_key(|(_, open)| *open).expect("there is a thread at least")
    }

    /// Whether there is room for so many files more.
    pub fn has_room(&self, files: usize) -> bool {
        self.files.load(Relaxed) + files <= self.most_files
    }
}

impl Seat {
    fn new() -> Result<Self, Errno> {
        let (epoll, wake) =
            (epoll::create(epoll::CreateFlags::CLOEXEC)?, eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        Ok(Self {
            epoll,
            wake,
            entries: Mutex::default(),
            inbox: Mutex::default(),
            open: AtomicUsize::new(0),
            ends_at: AtomicU64::new(NEVER),
        })
    }

    /// The ports as the thread knows them. While this is held, they do not change: an endpoint is chosen and connected
    /// to by the same table.
    pub fn entries(&self) -> MutexGuard<'_, Arc<Entries>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread look around.
    pub fn wake(&self) {
        // The one way in which this fails is that it was woken 2⁶⁴ times and has not looked yet.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Gives the thread a client or connection.
    pub fn hand(&self, handed: Handed) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        self.open.fetch_add(1, Relaxed);
        inbox.push(handed);
        let is_first = inbox.len() == 1;
        drop(inbox);
        if is_first {
            self.wake();
        }
    }

    /// What was given to it.
    pub fn handed(&self) -> Vec<Handed> {
        std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has connections end at this moment, or before.
    pub fn end_at(&self, moment: Moment) {
        self.ends_at.fetch_min(moment, SeqCst);
        self.wake();
    }
}
