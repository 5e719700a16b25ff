//! Datagrams: a flow for each client of a port, and the answers on the way back.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::super::flows::{Client, Flows};
use super::super::slots::Token;
use super::super::state::{Backend, Entry, Moment, NEVER, id};
use super::accept::hold_against;
use super::datagrams;
use super::shared::Seat;
use super::worker::{Worker, flow, listener};

/// Datagrams that are taken from one socket before others have their turn.
const BURST: usize = 64;
/// The largest there is.
const LARGEST: usize = 64 << 10;
/// Most endpoints tried for one datagram.
const TRIES: usize = 5;

/// The flows of a thread.
pub struct Datagrams {
    flows: Flows<Flow>,
    idle: Moment,
    buffer: Vec<u8>,
}

/// From one client to one endpoint.
struct Flow {
    id: u32,
    /// Hears the endpoint alone.
    socket: OwnedFd,
    backend: Arc<Backend>,
}

/// A thread waits for datagrams to a port.
pub fn wait_for_datagrams(seat: &Seat, socket: &OwnedFd, id: u32) -> Result<(), Errno> {
    epoll::add(&seat.epoll, socket, epoll::EventData::new_u64(listener(id)), epoll::EventFlags::IN)
}

impl Datagrams {
    /// With room for so many flows, each of which ends when it has been idle for so many milliseconds.
    pub fn new(most: usize, idle: Moment) -> Self {
        Self { flows: Flows::new(most), idle, buffer: Vec::new() }
    }

    /// When a flow has next been idle for too long.
    pub fn due(&self) -> Moment {
        self.flows.oldest().map_or(NEVER, |used| used + self.idle + 1)
    }

    /// Flows to these endpoints.
    pub fn those(&self, mut is_one: impl FnMut(&Backend) -> bool) -> Vec<Token> {
        self.flows.iter().filter(|(_, _, flow)| is_one(&flow.backend)).map(|(token, _, _)| token).collect()
    }
}

impl Worker {
    /// Takes datagrams to a port.
    pub(super) fn receive(&mut self, seat: &Seat, number: u32) {
        let entries = seat.entries();
        let Some(entry) = entries.get(&number) else { return };
        let mut buffer = std::mem::take(&mut self.datagrams.buffer);
        buffer.resize(LARGEST, 0);
        for _ in 0..BURST {
            match rustix::net::recvfrom(&*entry.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((count, _, Some(from))) => {
                    if let Ok(from) = SocketAddr::try_from(from) {
                        self.pass(seat, entry, (entry.port.number, from), &buffer[..count]);
                    }
                }
                Ok(_) => {}
                Err(Errno::AGAIN) => break,
                // A client that has gone; the others go on.
                Err(_) => {}
            }
        }
        self.datagrams.buffer = buffer;
    }

    /// Passes a datagram to the endpoint of its flow, which begins with it where there is none.
    fn pass(&mut self, seat: &Seat, entry: &Entry, client: Client, bytes: &[u8]) {
        let mut tried = Vec::new();
        if let Some((token, flow)) = self.datagrams.flows.of(&client, self.now) {
            match rustix::net::send(&flow.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => {
                    flow.backend.bytes[0].fetch_add(count as u64, Relaxed);
                    return;
                }
                // It is lost, as datagrams may be.
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::MSGSIZE) => return,
                Err(error) => {
                    hold_against(&flow.backend, error, self.now);
                    tried.push(flow.backend.clone());
                    self.end_flow(token);
                }
            }
        } else if !entry.allows(client.1.ip()) {
            entry.tally.refused.fetch_add(1, Relaxed);
            return;
        }
        if !self.begin_flow(seat, entry, client, bytes, tried) {
            entry.tally.unserved.fetch_add(1, Relaxed);
        }
    }

    /// Begins a flow with its first datagram; whether an endpoint was found for it.
    fn begin_flow(
        &mut self,
        seat: &Seat,
        entry: &Entry,
        client: Client,
        bytes: &[u8],
        mut tried: Vec<Arc<Backend>>,
    ) -> bool {
        while tried.len() < TRIES && self.shared.has_room(1) {
            let Some(backend) = entry.take(&tried, self.now, &mut self.candidates) else { return false };
            let sent = datagrams(backend.address)
                .and_then(|socket| Ok((rustix::net::send(&socket, bytes, SendFlags::NOSIGNAL)?, socket)));
            let (count, socket) = match sent {
                Ok(sent) => sent,
                Err(error) => {
                    hold_against(&backend, error, self.now);
                    backend.open.fetch_sub(1, Relaxed);
                    tried.push(backend);
                    continue;
                }
            };
            backend.bytes[0].fetch_add(count as u64, Relaxed);
            backend.total.fetch_add(1, Relaxed);
            self.shared.files.fetch_add(1, Relaxed);
            let (token, former) =
                self.datagrams.flows.insert(client, Flow { id: id(entry.port), socket, backend }, self.now);
            if let Some(former) = former {
                self.gone(&former);
            }
            let is_watched = self.datagrams.flows.of_token(token, self.now).is_some_and(|(_, begun)| {
                let data = epoll::EventData::new_u64(flow(token));
                epoll::add(&seat.epoll, &begun.socket, data, epoll::EventFlags::IN).is_ok()
            });
            if !is_watched {
                self.end_flow(token);
            }
            return is_watched;
        }
        false
    }

    /// Passes answers to the client of a flow, from the port it has sent to.
    pub(super) fn answer(&mut self, seat: &Seat, token: Token) {
        let entries = seat.entries();
        let mut buffer = std::mem::take(&mut self.datagrams.buffer);
        buffer.resize(LARGEST, 0);
        let is_over = self.answer_with(&mut buffer, token, |id| entries.get(&id).map(|entry| &**entry));
        self.datagrams.buffer = buffer;
        if is_over {
            self.end_flow(token);
        }
    }

    /// Whether the flow is over.
    fn answer_with<'a>(&mut self, buffer: &mut [u8], token: Token, of: impl Fn(u32) -> Option<&'a Entry>) -> bool {
        let now = self.now;
        let Some((client, flow)) = self.datagrams.flows.of_token(token, now) else { return false };
        let Some(entry) = of(flow.id) else { return true };
        for _ in 0..BURST {
            match rustix::net::recv(&flow.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((count, _)) => {
                    flow.backend.bytes[1].fetch_add(count as u64, Relaxed);
                    // One the client's side does not take is lost, as datagrams may be.
                    let _ = rustix::net::sendto(&*entry.socket, &buffer[..count], SendFlags::NOSIGNAL, &client.1);
                }
                Err(Errno::AGAIN) => return false,
                Err(error) => {
                    hold_against(&flow.backend, error, now);
                    return true;
                }
            }
        }
        false
    }

    /// Ends flows that have been idle for too long.
    pub(super) fn expire(&mut self) {
        let Some(before) = self.now.checked_sub(self.datagrams.idle) else { return };
        while let Some(flow) = self.datagrams.flows.expire(before) {
            self.gone(&flow);
        }
    }

    pub(super) fn end_flow(&mut self, token: Token) {
        if let Some(flow) = self.datagrams.flows.remove(token) {
            self.gone(&flow);
        }
    }

    fn gone(&mut self, flow: &Flow) {
        flow.backend.open.fetch_sub(1, Relaxed);
        self.left(1);
    }
}
