//! The embassy itself: its threads, and what they are told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::change::{Change, Whom, change};
use super::legacy::{Left, Legacy};
use super::socket::accept::wait_for_clients;
use super::socket::relay::Link;
use super::socket::shared::{Handed, Seat, Shared};
use super::socket::udp::wait_for_datagrams;
use super::socket::worker::Worker;
use super::state::{Backend, Entries, Entry, NEVER, PortCounts, PortTally, id, port};
use super::table::{Exposed, Ports, Table};
use super::{EmbassyError, NotOpen};
use crate::units::Millis;
use crate::units::port::{Port, Transport};

/// Most threads; more processors than that have other work to do.
const MOST_THREADS: usize = 8;

/// What may be different from one embassy to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How many threads it has.
    pub threads: usize,
    /// How many files its connections and flows may use, two and one each; the process's limit but for some when it is
    /// not said.
    pub files: Option<usize>,
    /// How long a flow of datagrams is remembered after the last one.
    pub idle: Millis,
}

impl Default for Settings {
    /// A thread for each processor, at most eight; a minute.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads: processors.min(MOST_THREADS), files: None, idle: Millis::seconds(60) }
    }
}

/// An embassy that serves until it is dropped.
#[derive(Debug)]
pub struct Embassy {
    address: IpAddr,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<Vec<Link>>>>,
    state: Mutex<State>,
}

/// What it was told last, and what has come of it.
#[derive(Debug, Default)]
struct State {
    /// Those that are listened on.
    ports: Ports,
    open: BTreeMap<Port, Open>,
    /// Endpoints in the table, and those that were taken out and are not empty yet.
    known: BTreeMap<Whom, Arc<Backend>>,
    /// What a predecessor has left; the first table takes it over.
    legacy: Option<Legacy>,
}

#[derive(Debug, Clone)]
struct Open {
    socket: Arc<OwnedFd>,
    tally: Arc<PortTally>,
}

impl Embassy {
    /// Begins at an address of this machine, with no port.
    ///
    /// # Errors
    /// The address is nobody's or not this machine's; there are no threads or files left.
    pub fn start(address: IpAddr) -> Result<Self, EmbassyError> {
        Self::start_with(address, Settings::default())
    }

    /// The same with other settings.
    ///
    /// # Errors
    /// As those of [`Embassy::start`].
    pub fn start_with(address: IpAddr, settings: Settings) -> Result<Self, EmbassyError> {
        if address.is_unspecified() || address.is_multicast() {
            return Err(EmbassyError::Address(address, "it needs an address of its own, such as 10.255.0.1"));
        }
        let trial = Port::tcp(0);
        if let Err(source) = super::socket::open(address, trial) {
            return Err(EmbassyError::Ports(vec![NotOpen { address, port: trial, source }]));
        }
        let threads = settings.threads.max(1);
        let failed = |what| move |source| EmbassyError::Start { address, what, source };
        let shared = Shared::new(threads, settings.files).map_err(|error| failed("its waiting")(error.into()))?;
        let (threads_of, state) = Default::default();
        let embassy = Self { address, shared: Arc::new(shared), threads: threads_of, state };
        for own in 0..threads {
            let worker = Worker::new(own, embassy.shared.clone(), settings.idle.0);
            let thread = std::thread::Builder::new().name(format!("embassy-{own}")).spawn(move || worker.run());
            embassy.threads().push(thread.map_err(failed("a thread"))?);
        }
        Ok(embassy)
    }

    /// Begins where a predecessor has ended. Its connections go on with the first table, those to endpoints that this
    /// lacks for the time they had; ports that it lacks close.
    ///
    /// # Errors
    /// As those of [`Embassy::start`]; then what was left is lost.
    pub fn go_on(legacy: Legacy, settings: Settings) -> Result<Self, EmbassyError> {
        let embassy = Self::start_with(legacy.address, settings)?;
        embassy.state().legacy = Some(legacy);
        Ok(embassy)
    }

    /// Ends it, and leaves its ports and connections to a successor.
    pub fn leave(&self) -> Legacy {
        let open = self.end_threads();
        let mut state = self.state();
        // Without a table since it began, what its predecessor left goes on to its successor.
        let inherited = state.legacy.take().map(|legacy| (legacy.ports, legacy.connections));
        let (mut ports, mut connections) = inherited.unwrap_or_default();
        let now = self.shared.now();
        let leave = |link: Link| {
            let stays = match link.backend.ends_at.load(SeqCst) {
                NEVER => state.ports.get(&port(link.id)).map_or(Millis(0), |exposed| exposed.drain),
                ends_at => Millis(ends_at.saturating_sub(now)),
            };
            link.leave(stays)
        };
        connections.extend(open.into_iter().filter_map(leave));
        connections.extend(self.shared.seats.iter().flat_map(Seat::handed).filter_map(|handed| match handed {
            Handed::Client { id, client, .. } => Some(Left { port: port(id), client, reached: None }),
            Handed::Link(link) => leave(*link),
        }));
        ports.extend(state.open.iter().filter_map(|(port, open)| Some((*port, open.socket.try_clone().ok()?))));
        Legacy { address: self.address, ports, connections }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<Vec<Link>>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the threads end; what they had open.
    fn end_threads(&self) -> Vec<Link> {
        self.shared.stop.store(true, SeqCst);
        self.shared.seats.iter().for_each(Seat::wake);
        let mut open = Vec::new();
        for thread in self.threads().drain(..) {
            match thread.join() {
                Ok(links) => open.extend(links),
                Err(_) => tracing::error!("a thread of the embassy has ended by a mistake of its own"),
            }
        }
        open
    }

    /// Has the ports be as in this table. Once it returns, nobody is led to an endpoint that is not in it; connections
    /// with endpoints that stay are not touched, and those with others stay for the time their port gives them.
    ///
    /// # Errors
    /// [`EmbassyError::Table`]: nothing has changed. [`EmbassyError::Ports`]: all but these ports are as the table says.
    pub fn set(&self, table: &Table) -> Result<(), EmbassyError> {
        let mut ports = table.check(self.address)?;
        let mut state = self.state();
        let mut legacy = state.legacy.take();
        let change = change(&state.ports, &ports);
        let mut failed = Vec::new();
        for port in &change.open {
            let inherited = legacy.as_mut().and_then(|legacy| legacy.ports.remove(port));
            match self.open(*port, inherited) {
                Ok(open) => drop(state.open.insert(*port, open)),
                Err(source) => {
                    ports.remove(port);
                    failed.push(NotOpen { address: self.address, port: *port, source });
                }
            }
        }
        change.close.iter().for_each(|port| drop(state.open.remove(port)));
        let entries = Arc::new(ports.values().filter_map(|exposed| state.entry(exposed)).collect::<Entries>());
        for seat in &self.shared.seats {
            let former = std::mem::replace(&mut *seat.entries(), entries.clone());
            // The last of them closes the listeners that are in it alone: not while a thread waits for the lock.
            drop(former);
        }
        state.ports = ports;
        legacy.into_iter().flat_map(|legacy| legacy.connections).for_each(|left| self.take_over(&mut state, left));
        self.drain(&mut state, &change);
        if failed.is_empty() { Ok(()) } else { Err(EmbassyError::Ports(failed)) }
    }

    fn open(&self, port: Port, inherited: Option<OwnedFd>) -> std::io::Result<Open> {
        let socket = Arc::new(inherited.map_or_else(|| super::socket::open(self.address, port), Ok)?);
        let seats = &self.shared.seats;
        // Their port is not among the threads' entries yet: who comes in now waits until it is.
        match port.transport {
            Transport::Tcp => seats.iter().try_for_each(|seat| wait_for_clients(seat, &socket, id(port))),
            Transport::Udp => {
                let seat: &Seat = &seats[usize::from(port.number) % seats.len()];
                wait_for_datagrams(seat, &socket, id(port))
            }
        }?;
        Ok(Open { socket, tally: Arc::default() })
    }

    /// Has a connection of the predecessor's go on.
    fn take_over(&self, state: &mut State, left: Left) {
        let id = id(left.port);
        let handed = match left.reached {
            None => Handed::Client { id, client: left.client, ready: None },
            Some(reached) => {
                let whom = Whom { port: left.port, address: reached.address, container: reached.container.clone() };
                let backend = state.known.entry(whom).or_insert_with(|| {
                    let gone = Backend::new(reached.address, reached.container.clone());
                    gone.ends_at.store(self.shared.now() + reached.stays.0, SeqCst);
                    Arc::new(gone)
                });
                backend.open.fetch_add(1, Relaxed);
                self.shared.kept.fetch_add(reached.ways.iter().map(|way| way.rest.len()).sum(), Relaxed);
                Handed::Link(Box::new(Link::again(id, left.client, reached, backend.clone())))
            }
        };
        self.shared.files.fetch_add(2, Relaxed);
        let (place, _) = self.shared.lightest();
        self.shared.seats[place].hand(handed);
    }

    /// Has the connections of endpoints that were taken out end in time, and forgets the empty ones.
    fn drain(&self, state: &mut State, change: &Change) {
        let now = self.shared.now();
        for (whom, time) in &change.drain {
            if let Some(backend) = state.known.get(whom) {
                backend.ends_at.store(now + time.0, SeqCst);
            }
        }
        state.known.retain(|_, backend| !backend.is_leaving() || backend.open.load(Relaxed) > 0);
        if let Some(first) = change.drain.iter().map(|(_, time)| now + time.0).min() {
            self.shared.seats.iter().for_each(|seat| seat.end_at(first));
        }
    }

    /// What was counted, by port: those of the table, and those whose connections still drain.
    pub fn counts(&self) -> Vec<PortCounts> {
        let state = self.state();
        let nothing = |port: Port| PortCounts { port, refused: 0, unserved: 0, endpoints: Vec::new() };
        let mut counts: BTreeMap<Port, PortCounts> = BTreeMap::new();
        for (port, open) in &state.open {
            let refused = open.tally.refused.load(Relaxed);
            let unserved = open.tally.unserved.load(Relaxed);
            counts.insert(*port, PortCounts { refused, unserved, ..nothing(*port) });
        }
        for (whom, backend) in &state.known {
            if !backend.is_leaving() || backend.open.load(Relaxed) > 0 {
                counts.entry(whom.port).or_insert_with(|| nothing(whom.port)).endpoints.push(backend.counts());
            }
        }
        counts.into_values().collect()
    }

    /// Ends it, with all its connections.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Embassy {
    fn drop(&mut self) {
        drop(self.end_threads());
    }
}

impl State {
    /// A port as the threads know it; `None` for one that is not open. Its endpoints stay, or come back.
    fn entry(&mut self, exposed: &Exposed) -> Option<(u32, Arc<Entry>)> {
        let Open { socket, tally } = self.open.get(&exposed.port)?.clone();
        let known = |endpoint| {
            let whom = Whom::of(exposed.port, endpoint);
            let made = || Arc::new(Backend::new(endpoint.address, endpoint.container.clone()));
            let backend = self.known.entry(whom).or_insert_with(made);
            backend.ends_at.store(NEVER, SeqCst);
            backend.clone()
        };
        let backends = exposed.endpoints.iter().map(known).collect();
        Some((id(exposed.port), Arc::new(Entry::new(exposed, tally, socket, backends))))
    }
}
